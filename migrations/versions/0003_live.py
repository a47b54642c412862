"""live runs

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INPUT_BEFORE = "Of a map its list; of a loop, and of each iteration, the next carry."
_INPUT = "Of a map its list; of a loop and its iterations the next carry; of a turn what it was told."


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "token_archives",
        sa.Column("execution_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column(
            "tokens",
            sa.LargeBinary(),
            nullable=False,
            comment="zlib of JSON: [[seconds since first, token], …]",
        ),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["agent_executions.id"],
            name=op.f("fk_token_archives_execution_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_token_archives")),
        comment="Tokens of old executions, a tenth of their size: moved here from token_stream.",
    )
    op.create_index("ix_token_archives_archived", "token_archives", ["archived_at"])
    op.create_table(
        "run_controls",
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "changes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="agent → how it is asked instead",
        ),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_run_controls_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collaboration_id", name=op.f("pk_run_controls")),
        comment="What people changed about a run while it lives; most runs have no row.",
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=True, comment="Only its prompts hold it; null: of any step."),
        sa.Column("agent", sa.Text(), nullable=True, comment="Only its prompts hold it; null: of any agent."),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_feedback_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        comment="What people told a run while it lives; every later prompt holds it.",
    )
    op.create_index("ix_feedback_collaboration", "feedback", ["collaboration_id", "at"])
    op.create_index(
        "ix_agent_executions_running",
        "agent_executions",
        ["collaboration_id"],
        postgresql_where=sa.text("status = 'running'"),
    )
    op.drop_index("ix_outbox_aggregate", table_name="outbox")
    op.create_index("ix_outbox_aggregate", "outbox", ["aggregateid", "xid", "seq"])
    op.alter_column(
        "agent_executions",
        "input",
        existing_type=postgresql.JSON(astext_type=sa.Text()),
        existing_nullable=True,
        comment=_INPUT,
        existing_comment=_INPUT_BEFORE,
    )


def downgrade() -> None:
    op.alter_column(
        "agent_executions",
        "input",
        existing_type=postgresql.JSON(astext_type=sa.Text()),
        existing_nullable=True,
        comment=_INPUT_BEFORE,
        existing_comment=_INPUT,
    )
    op.drop_index("ix_outbox_aggregate", table_name="outbox")
    op.create_index("ix_outbox_aggregate", "outbox", ["aggregatetype", "aggregateid", "seq"])
    op.drop_index(
        "ix_agent_executions_running",
        table_name="agent_executions",
        postgresql_where=sa.text("status = 'running'"),
    )
    op.drop_table("feedback")
    op.drop_table("run_controls")
    op.drop_table("token_archives")
