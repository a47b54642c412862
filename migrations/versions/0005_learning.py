"""what the router learns with

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "edges",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="kept", nullable=False),
        sa.Column(
            "effect", sa.Float(), nullable=True, comment="Quality with the edge minus quality without."
        ),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True, comment="Of its 90 % interval."),
        sa.Column("runs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("set_by", sa.Text(), nullable=True, comment="A person, or network; null: the evidence."),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint("state IN ('kept', 'pruned', 'pinned')", name=op.f("ck_edges_state")),
        sa.PrimaryKeyConstraint("tenant_id", "definition", "source", "target", name=op.f("pk_edges")),
        comment="Adaptive edges of definitions: those that do not help are pruned, and come back.",
    )
    op.create_table(
        "experiences",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("episode", sa.UUID(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("observation", postgresql.ARRAY(sa.Float()), nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("log_chance", sa.Float(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("reward", sa.Float(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiences")),
        sa.UniqueConstraint("episode", "turn", name=op.f("uq_experiences_episode_turn")),
        comment="The replay buffer of policies that learn by trying.",
    )
    op.create_index("ix_experiences_recent", "experiences", ["tenant_id", "policy", "id"], unique=False)
    op.create_table(
        "quarantines",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False, comment="Then it is tried again."),
        sa.PrimaryKeyConstraint("tenant_id", "model", name=op.f("pk_quarantines")),
        comment="Models that suddenly fail more than they should: the router chooses them hardly at all.",
    )
    op.create_table(
        "trainings",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column(
            "until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="What ended later is not learned from.",
        ),
        sa.Column("seed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("arguments", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "data",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Rows taken, and refused by reason.",
        ),
        sa.Column(
            "curve",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="One object per epoch.",
        ),
        sa.Column(
            "figures",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What judging came to.",
        ),
        sa.Column("reason", sa.Text(), server_default="", nullable=False, comment="Why it ended as it did."),
        sa.Column("started_by", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'registered', 'refused', 'failed')", name=op.f("ck_trainings_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trainings")),
        comment="Every time that the router learned, or tried to.",
    )
    op.create_index(
        "ix_trainings_recent", "trainings", ["tenant_id", sa.literal_column("started_at DESC")], unique=False
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("training_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True, comment="Of production ones: the tenant's next."),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="As router/data/packing.py makes it."),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column(
            "manifest",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Code, seed, arguments, figures.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            nullable=True,
            comment="Of production ones: where they stand in their rollout.",
        ),
        sa.Column(
            "outcomes", sa.Integer(), server_default="0", nullable=False, comment="Since it is in this state."
        ),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "followed",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="How far its intervals have moved since it was learned, and up to which outcome.",
        ),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint(
            "(kind = 'production') = (state IS NOT NULL)", name=op.f("ck_checkpoints_production")
        ),
        sa.CheckConstraint(
            "kind IN ('training', 'milestone', 'production')", name=op.f("ck_checkpoints_kind")
        ),
        sa.CheckConstraint(
            "state IN ('shadow', 'share', 'all', 'rolled_back', 'retired')", name=op.f("ck_checkpoints_state")
        ),
        sa.ForeignKeyConstraint(
            ["training_id"], ["trainings.id"], name=op.f("fk_checkpoints_training_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("tenant_id", "number", name=op.f("uq_checkpoints_tenant_id_number")),
        comment="Weights of the router: the last of a training, its best, and what was put to work.",
    )
    op.create_index("ix_checkpoints_training", "checkpoints", ["training_id", "kind", "epoch"], unique=False)
    op.create_index(
        "uq_checkpoints_challenger",
        "checkpoints",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('shadow', 'share')"),
    )
    op.create_index(
        "uq_checkpoints_serving",
        "checkpoints",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("state = 'all'"),
    )
    op.create_table(
        "edge_trials",
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="The step that would be told."),
        sa.Column("source", sa.Text(), nullable=False, comment="The step that tells."),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("chance", sa.Float(), nullable=False, comment="That it was delivered."),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint("chance > 0 AND chance < 1", name=op.f("ck_edge_trials_chance")),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_edge_trials_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collaboration_id", "path", "source", name=op.f("pk_edge_trials")),
        comment="Whether an adaptive edge was used in a run, by a known chance: what tells whether it helps.",
    )
    op.create_index(
        "ix_edge_trials_edge",
        "edge_trials",
        ["tenant_id", "definition", "source", "target", "at"],
        unique=False,
    )
    op.create_table(
        "outcomes",
        sa.Column("execution_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("ok", sa.Float(), nullable=False, comment="0 useless to 1 right."),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who told it: a person, or a check of theirs."),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint("ok >= 0 AND ok <= 1", name=op.f("ck_outcomes_ok")),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["agent_executions.id"],
            name=op.f("fk_outcomes_execution_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_outcomes")),
        comment="What people and their checks say of a step's answer; goes before what the run itself tells.",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("outcomes")
    op.drop_index("ix_edge_trials_edge", table_name="edge_trials")
    op.drop_table("edge_trials")
    op.drop_index(
        "uq_checkpoints_serving", table_name="checkpoints", postgresql_where=sa.text("state = 'all'")
    )
    op.drop_index(
        "uq_checkpoints_challenger",
        table_name="checkpoints",
        postgresql_where=sa.text("state IN ('shadow', 'share')"),
    )
    op.drop_index("ix_checkpoints_training", table_name="checkpoints")
    op.drop_table("checkpoints")
    op.drop_index("ix_trainings_recent", table_name="trainings")
    op.drop_table("trainings")
    op.drop_table("quarantines")
    op.drop_index("ix_experiences_recent", table_name="experiences")
    op.drop_table("experiences")
    op.drop_table("edges")
