"""names that cannot be guessed, and traces that belong to a run

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A trace that several runs share was joined from outside: whose its spans are nobody can tell any more.
_FILL = """
    UPDATE spans SET collaboration_id = run.id, tenant_id = run.tenant_id
    FROM (
        SELECT split_part(traceparent, '-', 2) AS trace_id, (array_agg(id))[1] AS id,
            (array_agg(tenant_id))[1] AS tenant_id
        FROM collaborations WHERE parent_id IS NULL GROUP BY 1 HAVING count(*) = 1
    ) AS run
    WHERE spans.trace_id = run.trace_id
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # First the spans, which no run waits for: their table stays locked while it is filled.
    op.add_column("spans", sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False))
    op.add_column(
        "spans",
        sa.Column(
            "collaboration_id",
            sa.UUID(),
            nullable=True,
            comment="The run that it belongs to; null of what belongs to none.",
        ),
    )
    op.execute(_FILL)
    op.create_table(
        "platform_secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_platform_secrets")),
        comment="Made once by the platform itself and shared by all its processes.",
    )
    op.add_column(
        "collaborations",
        sa.Column(
            "linked_traceparent",
            sa.Text(),
            nullable=True,
            comment="The caller's W3C context: linked, never joined.",
        ),
    )
    op.add_column(
        "collaborations",
        sa.Column(
            "request_digest",
            sa.Text(),
            nullable=True,
            comment="Of the request that started the run: tells it from another.",
        ),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("collaborations", "request_digest")
    op.drop_column("collaborations", "linked_traceparent")
    op.drop_table("platform_secrets")
    op.drop_column("spans", "collaboration_id")
    op.drop_column("spans", "tenant_id")
