"""The tables of prompts and of their trials."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from schema.tables.columns import metadata, moment, tenant_id

prompts = Table(
    "prompts",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("current", Integer, nullable=False, comment="The version that the bare name means."),
    Column(
        "current_simulated",
        Integer,
        comment="The version that the bare name means in simulated runs; null: the same.",
    ),
    Column("description", Text, nullable=False, server_default=""),
    moment("created_at", default=True),
    comment="Names of prompts.",
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("content", JSONB, nullable=False, comment="As schema/language/prompts.py has it."),
    Column("sha256", Text, nullable=False),
    Column("origin", Text, nullable=False, server_default="person", comment="person or optimizer"),
    Column("note", Text, nullable=False, server_default=""),
    Column("created_by", Text),
    moment("created_at", default=True),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("tenant_id", "name", "sha256"),
    comment="Prompts as immutable versions.",
)

prompt_trials = Table(
    "prompt_trials",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("name", Text, nullable=False),
    Column("control", Integer, nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("share", Float, nullable=False, comment="Of units that get the candidate."),
    Column(
        "unit", Text, nullable=False, server_default="run", comment="What stays with one arm: run or user."
    ),
    Column("metric", Text, nullable=False, server_default="quality"),
    Column("alpha", Float, nullable=False, server_default="0.05"),
    Column(
        "min_units", Integer, nullable=False, server_default="30", comment="Of each arm, before any verdict."
    ),
    Column(
        "max_units",
        Integer,
        nullable=False,
        server_default="2000",
        comment="Of both; then it ends undecided.",
    ),
    Column(
        "promote",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether the bare name means the candidate when that has won.",
    ),
    Column("status", Text, nullable=False, server_default="running"),
    Column("winner", Integer),
    Column("verdict", JSONB, comment="The figures that it was stopped with."),
    Column("started_by", Text),
    moment("started_at", default=True),
    moment("stopped_at"),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("status IN ('running', 'won', 'lost', 'undecided', 'stopped')", name="status"),
    CheckConstraint("share > 0 AND share < 1", name="share"),
    Index(
        "uq_prompt_trials_running",
        "tenant_id",
        "name",
        unique=True,
        postgresql_where=text("status = 'running'"),
    ),
    comment="A/B tests of two versions of a prompt.",
)
