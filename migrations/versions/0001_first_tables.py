"""first tables

Revision: 0001, after None
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector
from sqlalchemy.dialects import postgresql

from schema.tables.columns import XID8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute("CREATE SEQUENCE outbox_seq")
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        comment="Who did what; rows are only ever added.",
    )
    op.create_index("ix_audit_log_subject", "audit_log", ["tenant_id", "subject", "at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("aggregatetype", sa.Text(), nullable=False),
        sa.Column("aggregateid", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default=sa.text("nextval('outbox_seq')"), nullable=False),
        sa.Column("xid", XID8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("seq", name=op.f("uq_outbox_seq")),
        comment="The event log, written in the same transaction as the change it tells of.",
    )
    op.create_index("ix_outbox_aggregate", "outbox", ["aggregatetype", "aggregateid", "seq"], unique=False)
    op.create_index("ix_outbox_log", "outbox", ["xid", "seq"], unique=False)
    op.create_table(
        "spans",
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("span_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attributes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "span_id", name=op.f("pk_spans")),
        comment="Traces kept here while no OTLP endpoint is set.",
    )
    op.create_index("ix_spans_started", "spans", ["started_at"], unique=False)
    op.create_table(
        "workflows",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflows")),
        sa.UniqueConstraint("tenant_id", "name", "sha256", name=op.f("uq_workflows_tenant_id_name_sha256")),
        sa.UniqueConstraint("tenant_id", "name", "version", name=op.f("uq_workflows_tenant_id_name_version")),
        comment="Definitions as immutable versions.",
    )
    op.create_table(
        "collaborations",
        sa.Column("id", sa.UUID(), nullable=False, comment="Temporal's first run id of the chain."),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("workflow_id", sa.UUID(), nullable=False),
        sa.Column("temporal_workflow_id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("input", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("sub_state", sa.Text(), server_default="", nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("final_output", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=False, comment="W3C context of the run's own span."),
        sa.Column(
            "parent_span_id",
            sa.Text(),
            nullable=True,
            comment="The span of the request that started the run.",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed')", name=op.f("ck_collaborations_status")
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_collaborations_workflow_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collaborations")),
        comment="One row per run of a version.",
    )
    op.create_index(
        "ix_collaborations_recent",
        "collaborations",
        ["tenant_id", sa.literal_column("started_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_collaborations_temporal",
        "collaborations",
        ["temporal_workflow_id", sa.literal_column("started_at DESC")],
        unique=False,
    )
    op.create_index(
        "ix_collaborations_workflow",
        "collaborations",
        ["workflow_id", sa.literal_column("started_at DESC")],
        unique=False,
    )
    op.create_table(
        "agent_executions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("iteration", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("agent_name", sa.Text(), nullable=False, comment="The agent, or the tool of a tool step."),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column(
            "model_id",
            sa.Text(),
            nullable=False,
            comment="The model that answered; empty where none was asked.",
        ),
        sa.Column("requested_model", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("first_token_ms", sa.Integer(), nullable=True),
        sa.Column("cost_usd", sa.Numeric(precision=10, scale=6), nullable=True),
        sa.Column("simulated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("output", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column("found_issues", sa.Boolean(), nullable=True),
        sa.Column("severity", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'abandoned', 'skipped')",
            name=op.f("ck_agent_executions_status"),
        ),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_agent_executions_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_executions")),
        sa.UniqueConstraint(
            "collaboration_id",
            "step_id",
            "iteration",
            "attempt",
            name=op.f("uq_agent_executions_collaboration_id_step_id_iteration_attempt"),
        ),
        comment="One row per attempt at a step: each attempt was paid.",
    )
    op.create_index(
        "ix_agent_executions_agent",
        "agent_executions",
        ["tenant_id", "agent_name", "started_at"],
        unique=False,
    )
    op.create_index(
        "ix_agent_executions_model", "agent_executions", ["tenant_id", "model_id", "started_at"], unique=False
    )
    op.create_index(
        "uq_agent_executions_finished",
        "agent_executions",
        ["collaboration_id", "step_id", "iteration"],
        unique=True,
        postgresql_where=sa.text("status IN ('completed', 'skipped')"),
    )
    op.create_table(
        "recalls",
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("iteration", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="weaviate, pgvector or none"),
        sa.Column("hits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_recalls_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collaboration_id", "step_id", "iteration", name=op.f("pk_recalls")),
        comment="Similar past work that was shown to a step as a hint.",
    )
    op.create_table(
        "routing_decisions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("iteration", sa.Integer(), server_default="0", nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("features", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "candidates",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="model → propensity",
        ),
        sa.Column("chosen_model", sa.Text(), nullable=False),
        sa.Column("propensity", sa.Float(), nullable=False),
        sa.Column("fallback", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint(
            "propensity > 0 AND propensity <= 1", name=op.f("ck_routing_decisions_propensity")
        ),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_routing_decisions_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routing_decisions")),
        sa.UniqueConstraint(
            "collaboration_id",
            "step_id",
            "iteration",
            name=op.f("uq_routing_decisions_collaboration_id_step_id_iteration"),
        ),
        comment="Every choice of a model with the chance it had: what honest learning later needs.",
    )
    op.create_index(
        "ix_routing_decisions_recent", "routing_decisions", ["tenant_id", "created_at"], unique=False
    )
    op.create_table(
        "task_vectors",
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("encoder", sa.Text(), nullable=False),
        sa.Column("embedding", Vector(384), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_task_vectors_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collaboration_id", name=op.f("pk_task_vectors")),
        comment="Embedded tasks of completed collaborations; Weaviate's copy is filled from here.",
    )
    op.create_index(
        "ix_task_vectors_embedding",
        "task_vectors",
        ["embedding"],
        unique=False,
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "vector_cosine_ops"},
    )
    op.create_table(
        "token_stream",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("execution_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_to", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["agent_executions.id"],
            name=op.f("fk_token_stream_execution_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_stream")),
        sa.UniqueConstraint("execution_id", "seq", name=op.f("uq_token_stream_execution_id_seq")),
        comment="Every token as it was made; an execution is one attempt, so a retry starts anew.",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("token_stream")
    op.drop_index(
        "ix_task_vectors_embedding",
        table_name="task_vectors",
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "vector_cosine_ops"},
    )
    op.drop_table("task_vectors")
    op.drop_index("ix_routing_decisions_recent", table_name="routing_decisions")
    op.drop_table("routing_decisions")
    op.drop_table("recalls")
    op.drop_index(
        "uq_agent_executions_finished",
        table_name="agent_executions",
        postgresql_where=sa.text("status IN ('completed', 'skipped')"),
    )
    op.drop_index("ix_agent_executions_model", table_name="agent_executions")
    op.drop_index("ix_agent_executions_agent", table_name="agent_executions")
    op.drop_table("agent_executions")
    op.drop_index("ix_collaborations_workflow", table_name="collaborations")
    op.drop_index("ix_collaborations_temporal", table_name="collaborations")
    op.drop_index("ix_collaborations_recent", table_name="collaborations")
    op.drop_table("collaborations")
    op.drop_table("workflows")
    op.drop_index("ix_spans_started", table_name="spans")
    op.drop_table("spans")
    op.drop_index("ix_outbox_log", table_name="outbox")
    op.drop_index("ix_outbox_aggregate", table_name="outbox")
    op.drop_table("outbox")
    op.drop_index("ix_audit_log_subject", table_name="audit_log")
    op.drop_table("audit_log")
    op.execute("DROP SEQUENCE outbox_seq")
