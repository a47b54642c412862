"""The tables of people: questions, decisions, keys and console sessions."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID

from schema.tables.columns import metadata, moment, tenant_id

platform_secrets = Table(
    "platform_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    moment("created_at", default=True),
    comment="Made once by the platform itself and shared by all its processes.",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True, comment="Random; the audit log calls the key so."),
    tenant_id(),
    Column("salt", LargeBinary, nullable=False),
    Column("scrypt", LargeBinary, nullable=False),
    moment("created_at", default=True),
    comment="The names of keys that the API has been started with.",
)

console_sessions = Table(
    "console_sessions",
    metadata,
    Column(
        "id_hmac", Text, primary_key=True, comment="Of the cookie's value, by the key: another key has none."
    ),
    tenant_id(),
    moment("created_at", default=True),
    moment("last_used_at", default=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    comment="People who are signed in to the console.",
)

human_tasks = Table(
    "human_tasks",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("show", JSON, nullable=False),
    Column("form", JSON),
    Column("actions", JSONB, nullable=False),
    Column("assignees", ARRAY(Text), nullable=False, server_default="{}"),
    Column("approvals", Integer, nullable=False, server_default="1"),
    Column("status", Text, nullable=False),
    Column("escalated", Boolean, nullable=False, server_default=text("false")),
    moment("opened_at", default=True),
    moment("due_at"),
    moment("reminded_at"),
    moment("closed_at"),
    Column(
        "last_call", Text, comment="The activity that last reminded or escalated: again, it does nothing."
    ),
    UniqueConstraint("collaboration_id", "path"),
    CheckConstraint("status IN ('open', 'decided', 'expired', 'cancelled')", name="status"),
    Index("ix_human_tasks_open", "tenant_id", "opened_at", postgresql_where=text("status = 'open'")),
    comment="What people are or were asked.",
)

human_decisions = Table(
    "human_decisions",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("task_id", UUID, ForeignKey("human_tasks.id", ondelete="CASCADE"), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("form", JSON, nullable=False, comment="What they filled in."),
    Column("original", JSON, comment="What they were shown, where they replaced it."),
    Column("edited", JSON),
    moment("at", default=True),
    UniqueConstraint("task_id", "actor"),
    comment="Who decided what; rows are only ever added.",
)
