"""The tables of Postgres, the one source of truth. Shapes only: all SQL stands in db/."""

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID

from schema.tables.columns import EMBEDDING_WIDTH, metadata, moment, tenant_id

collaborations = Table(
    "collaborations",
    metadata,
    Column("id", UUID, primary_key=True, comment="Temporal's first run id of the chain."),
    tenant_id(),
    Column("workflow_id", UUID, ForeignKey("workflows.id"), nullable=False),
    Column("temporal_workflow_id", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("input", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("sub_state", Text, nullable=False, server_default=""),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("final_output", JSON),
    Column("quality_score", Float),
    Column("requested_by", Text),
    Column("engine", Integer, nullable=False, server_default="1", comment="Semantics of the interpreter."),
    Column("parent_id", UUID, comment="The collaboration that this one is a step of."),
    Column("parent_path", Text),
    Column("forked_from", UUID, comment="The collaboration that this one went on from."),
    Column("forked_at", ARRAY(Text), comment="The steps that it ran again."),
    Column("traceparent", Text, nullable=False, comment="W3C context of the run's own span."),
    Column("parent_span_id", Text, comment="The span of the request that started the run."),
    Column("linked_traceparent", Text, comment="The caller's W3C context: linked, never joined."),
    Column("request_digest", Text, comment="Of the request that started the run: tells it from another."),
    Column(
        "simulated",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Of ended runs: whether the simulator answered any call of them or of their children.",
    ),
    moment("started_at", default=True),
    moment("completed_at"),
    CheckConstraint("status IN ('running', 'completed', 'failed')", name="status"),
    Index("ix_collaborations_recent", "tenant_id", text("started_at DESC"), text("id DESC")),
    Index("ix_collaborations_temporal", "temporal_workflow_id", text("started_at DESC")),
    Index("ix_collaborations_workflow", "workflow_id", text("started_at DESC")),
    Index("ix_collaborations_parent", "parent_id"),
    Index("ix_collaborations_running", "started_at", "id", postgresql_where=text("status = 'running'")),
    Index("ix_collaborations_forked_from", "forked_from"),
    comment="One row per run of a version.",
)

run_trees = Table(
    "run_trees",
    metadata,
    Column("root_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("children", Integer, nullable=False),
    comment="How many sub-collaborations a start has led to; runs without any have no row.",
)

agent_executions = Table(
    "agent_executions",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False, comment="review, or per_file[17].improve[2].review"),
    Column("step_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("iteration", Integer, nullable=False, server_default="0", comment="Innermost index of the path."),
    Column("attempt", Integer, nullable=False),
    Column("agent_name", Text, nullable=False, comment="The agent, or the tool of a tool step."),
    Column("role", Text),
    Column("model_id", Text, nullable=False, comment="The model that answered; empty where none was asked."),
    Column("requested_model", Text),
    Column("provider", Text),
    Column("status", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("latency_ms", Integer),
    Column("first_token_ms", Integer),
    Column("cost_usd", Numeric(10, 6)),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    Column("finish_reason", Text, comment="Of an agent's answer: stop, length, content_filter, …"),
    Column("repaired", Boolean, nullable=False, server_default=text("false")),
    Column(
        "input",
        JSON,
        comment="Of a map its list; of a loop and its iterations the next carry; of a turn what it was told.",
    ),
    Column("output", JSON),
    Column("branch", Text, comment="Of a switch the branch taken; `!step` where that one took over."),
    Column("reused_from", UUID, comment="The execution whose output this is: a cache's or another run's."),
    Column("quality_score", Float),
    Column("found_issues", Boolean),
    Column("severity", Text),
    Column("prompt", Text, comment="The stored prompt that was used, as name@3."),
    Column("trial_id", UUID, comment="The A/B test that chose it."),
    moment("started_at", default=True),
    moment("completed_at"),
    moment("retry_at"),
    UniqueConstraint("collaboration_id", "path", "attempt"),
    CheckConstraint(
        "status IN ('running', 'completed', 'failed', 'abandoned', 'skipped', 'caught')", name="status"
    ),
    # The promise that a finished step never runs again, held by the database itself.
    Index(
        "uq_agent_executions_finished",
        "collaboration_id",
        "path",
        unique=True,
        postgresql_where=text("status IN ('completed', 'skipped', 'caught')"),
    ),
    # What is under way: all that a reader of a live run looks for.
    Index("ix_agent_executions_running", "collaboration_id", postgresql_where=text("status = 'running'")),
    # Of agents only: every quick step would pay for them too.
    Index(
        "ix_agent_executions_model",
        "tenant_id",
        "model_id",
        "started_at",
        postgresql_where=text("kind = 'agent'"),
    ),
    Index(
        "ix_agent_executions_agent",
        "tenant_id",
        "agent_name",
        "started_at",
        postgresql_where=text("kind = 'agent'"),
    ),
    Index("ix_agent_executions_trial", "trial_id", postgresql_where=text("trial_id IS NOT NULL")),
    comment="One row per attempt at a step: each attempt was paid.",
)

run_controls = Table(
    "run_controls",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("changes", JSONB, nullable=False, server_default="{}", comment="agent → how it is asked instead"),
    comment="What people changed about a run while it lives; most runs have no row.",
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("text", Text, nullable=False),
    Column("step", Text, comment="Only its prompts hold it; null: of any step."),
    Column("agent", Text, comment="Only its prompts hold it; null: of any agent."),
    Column("actor", Text, nullable=False),
    Column("at", DateTime(timezone=True), server_default=text("clock_timestamp()"), nullable=False),
    Index("ix_feedback_collaboration", "collaboration_id", "at"),
    comment="What people told a run while it lives; every later prompt holds it.",
)

recalls = Table(
    "recalls",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("step_id", Text, nullable=False),
    Column("iteration", Integer, nullable=False, server_default="0"),
    tenant_id(),
    Column("source", Text, nullable=False, comment="weaviate, pgvector or none"),
    Column("hits", JSONB, nullable=False),
    moment("created_at", default=True),
    comment="Similar past work that was shown to a step as a hint.",
)

task_vectors = Table(
    "task_vectors",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("encoder", Text, nullable=False),
    Column("embedding", Vector(EMBEDDING_WIDTH), nullable=False),
    Index(
        "ix_task_vectors_embedding",
        "embedding",
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "vector_cosine_ops"},
    ),
    comment="Embedded tasks of completed collaborations; Weaviate's copy is filled from here.",
)

flights = Table(
    "flights",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("key", Text, primary_key=True, comment="As in step_cache."),
    Column("execution_id", UUID, nullable=False, comment="Whose answer the others wait for."),
    moment("until", default=True),
    comment="Answers that are being made and that equal steps wait for.",
)

step_cache = Table(
    "step_cache",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("key", Text, primary_key=True, comment="sha256 of all that decides the output."),
    Column("execution_id", UUID, ForeignKey("agent_executions.id", ondelete="CASCADE"), nullable=False),
    moment("stored_at", default=True),
    Index("ix_step_cache_stored", "stored_at"),
    comment="Outputs that steps with `cache` may take again.",
)
