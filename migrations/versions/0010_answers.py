"""why an answer ended, whether it was mended, until when a failed attempt waits, and which count was booked

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "agent_executions",
        sa.Column(
            "finish_reason",
            sa.Text(),
            nullable=True,
            comment="Of an agent's answer: stop, length, content_filter, …",
        ),
    )
    op.add_column(
        "agent_executions",
        sa.Column("repaired", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("agent_executions", sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True))
    _expect("'usage', 'larger', 'asked', 'assumed'")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("UPDATE model_calls SET basis = 'usage' WHERE basis = 'larger'")
    _expect("'usage', 'asked', 'assumed'")
    op.drop_column("agent_executions", "retry_at")
    op.drop_column("agent_executions", "repaired")
    op.drop_column("agent_executions", "finish_reason")


def _expect(bases: str) -> None:
    op.drop_constraint(op.f("ck_model_calls_basis"), "model_calls", type_="check")
    op.create_check_constraint(op.f("ck_model_calls_basis"), "model_calls", f"basis IN ({bases})")
