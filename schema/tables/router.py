"""The tables that the router learns with: what came of steps, what was learned, and what serves."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from schema.tables.runs import metadata, moment, tenant_id

outcomes = Table(
    "outcomes",
    metadata,
    Column("execution_id", UUID, ForeignKey("agent_executions.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("ok", Float, nullable=False, comment="0 useless to 1 right."),
    Column("actor", Text, nullable=False, comment="Who told it: a person, or a check of theirs."),
    Column("note", Text, nullable=False, server_default=""),
    moment("at", default=True),
    CheckConstraint("ok >= 0 AND ok <= 1", name="ok"),
    comment="What people and their checks say of a step's answer; goes before what the run itself tells.",
)

trainings = Table(
    "trainings",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("status", Text, nullable=False, server_default="running"),
    Column("until", DateTime(timezone=True), nullable=False, comment="What ended later is not learned from."),
    Column("seed", BigInteger, nullable=False, server_default="0"),
    Column("arguments", JSONB, nullable=False, server_default="{}"),
    Column("data", JSONB, nullable=False, server_default="{}", comment="Rows taken, and refused by reason."),
    Column("curve", JSONB, nullable=False, server_default="[]", comment="One object per epoch."),
    Column("figures", JSONB, nullable=False, server_default="{}", comment="What judging came to."),
    Column("reason", Text, nullable=False, server_default="", comment="Why it ended as it did."),
    Column("started_by", Text),
    moment("started_at", default=True),
    moment("ended_at"),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("status IN ('running', 'registered', 'refused', 'failed')", name="status"),
    Index("ix_trainings_recent", "tenant_id", text("started_at DESC")),
    comment="Every time that the router learned, or tried to.",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("training_id", UUID, ForeignKey("trainings.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("number", Integer, comment="Of production ones: the tenant's next."),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("content", LargeBinary, nullable=False, comment="As router/data/packing.py makes it."),
    Column("sha256", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("manifest", JSONB, nullable=False, server_default="{}", comment="Code, seed, arguments, figures."),
    Column("state", Text, comment="Of production ones: where they stand in their rollout."),
    Column("outcomes", Integer, nullable=False, server_default="0", comment="Since it is in this state."),
    Column("state_reason", Text, nullable=False, server_default=""),
    Column(
        "followed", JSONB, nullable=False, server_default="{}",
        comment="How far its intervals have moved since it was learned, and up to which outcome.",
    ),
    moment("state_since"),
    moment("created_at", default=True),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("tenant_id", "number"),
    CheckConstraint("kind IN ('training', 'milestone', 'production')", name="kind"),
    CheckConstraint("state IN ('shadow', 'share', 'all', 'rolled_back', 'retired')", name="state"),
    CheckConstraint("(kind = 'production') = (state IS NOT NULL)", name="production"),
    # Who serves all, and who is on its way there: one of each for real runs, and for simulated ones.
    Index(
        "uq_checkpoints_serving", "tenant_id", "simulated", unique=True,
        postgresql_where=text("state = 'all'"),
    ),
    Index(
        "uq_checkpoints_challenger", "tenant_id", "simulated", unique=True,
        postgresql_where=text("state IN ('shadow', 'share')"),
    ),
    Index("ix_checkpoints_training", "training_id", "kind", "epoch"),
    comment="Weights of the router: the last of a training, its best, and what was put to work.",
)  # fmt: skip

quarantines = Table(
    "quarantines",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("model", Text, primary_key=True),
    Column("simulated", Boolean, primary_key=True, server_default=text("false")),
    Column("reason", Text, nullable=False),
    moment("since", default=True),
    Column("until", DateTime(timezone=True), nullable=False, comment="Then it is tried again."),
    comment="Models that suddenly fail more than they should: the router chooses them hardly at all.",
)

edge_trials = Table(
    "edge_trials",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True, comment="The step that would be told."),
    Column("source", Text, primary_key=True, comment="The step that tells."),
    tenant_id(),
    Column("definition", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("chance", Float, nullable=False, comment="That it was delivered."),
    moment("at", default=True),
    CheckConstraint("chance > 0 AND chance < 1", name="chance"),
    Index("ix_edge_trials_edge", "tenant_id", "definition", "source", "target", "at"),
    comment="Whether an adaptive edge was used in a run, by a known chance: what tells whether it helps.",
)

edges = Table(
    "edges",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("definition", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("simulated", Boolean, primary_key=True, server_default=text("false")),
    Column("state", Text, nullable=False, server_default="kept"),
    Column("effect", Float, comment="Quality with the edge minus quality without."),
    Column("low", Float),
    Column("high", Float, comment="Of its 90 % interval."),
    Column("runs", Integer, nullable=False, server_default="0"),
    Column("set_by", Text, comment="A person, or network; null: the evidence."),
    moment("since", default=True),
    CheckConstraint("state IN ('kept', 'pruned', 'pinned')", name="state"),
    comment="Adaptive edges of definitions: those that do not help are pruned, and come back.",
)

experiences = Table(
    "experiences",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    tenant_id(),
    Column("episode", UUID, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("policy", Text, nullable=False),
    Column("observation", ARRAY(Float), nullable=False),
    Column("action", Integer, nullable=False),
    Column("log_chance", Float, nullable=False),
    Column("value", Float, nullable=False),
    Column("reward", Float, nullable=False),
    Column("done", Boolean, nullable=False),
    moment("at", default=True),
    UniqueConstraint("episode", "turn"),
    Index("ix_experiences_recent", "tenant_id", "policy", "id"),
    comment="The replay buffer of policies that learn by trying.",
)
