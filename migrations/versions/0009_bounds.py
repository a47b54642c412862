"""counters of what a tenant may have, and of what one start has led to

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "run_trees",
        sa.Column("root_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("children", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["root_id"], ["collaborations.id"], name="fk_run_trees_root_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("root_id", name="pk_run_trees"),
        comment="How many sub-collaborations a start has led to; runs without any have no row.",
    )
    op.create_table(
        "tenant_rates",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="starts, or webhook/<id>"),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("refilled_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "subject", name="pk_tenant_rates"),
        comment="What may still happen this minute: token buckets.",
    )
    op.create_table(
        "tenant_usage",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="definition_bytes or schedules"),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "subject", name="pk_tenant_usage"),
        comment="How much a tenant has of what is limited, where counting it anew would take long.",
    )
    op.execute(
        "INSERT INTO tenant_usage (tenant_id, subject, used) "
        "SELECT tenant_id, 'definition_bytes', sum(octet_length(source)) FROM workflows GROUP BY tenant_id"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("tenant_usage", "tenant_rates", "run_trees"):
        op.drop_table(table)
