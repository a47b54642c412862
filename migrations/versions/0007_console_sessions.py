"""people signed in to the console, and names of keys

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False, comment="Random; the audit log calls the key so."),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("scrypt", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        comment="The names of keys that the API has been started with.",
    )
    op.create_table(
        "console_sessions",
        sa.Column(
            "id_hmac",
            sa.Text(),
            nullable=False,
            comment="Of the cookie's value, by the key: another key has none.",
        ),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id_hmac", name="pk_console_sessions"),
        comment="People who are signed in to the console.",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("console_sessions")
    op.drop_table("api_keys")
