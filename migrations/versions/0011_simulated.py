"""what the simulator taught, kept apart from what providers did

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MARKED = ("trainings", "checkpoints", "quarantines", "edges", "prompt_trials", "prompt_versions")

# A run is simulated by its own calls and answers, and by those of its sub-collaborations.
_RUNS = """
WITH RECURSIVE made_up AS (
    SELECT id, parent_id FROM collaborations AS run
    WHERE EXISTS (SELECT 1 FROM agent_executions WHERE collaboration_id = run.id AND simulated)
        OR EXISTS (SELECT 1 FROM model_calls WHERE collaboration_id = run.id AND simulated)
    UNION
    SELECT parent.id, parent.parent_id FROM collaborations AS parent
    JOIN made_up AS child ON child.parent_id = parent.id
)
UPDATE collaborations SET simulated = true WHERE id IN (SELECT id FROM made_up)
"""
# What has learned from both was taught by the simulator, too.
_LEARNED = (
    """
    UPDATE trainings SET simulated = true WHERE EXISTS (
        SELECT 1 FROM collaborations AS run WHERE run.tenant_id = trainings.tenant_id AND run.simulated
            AND run.started_at <= trainings.until)
    """,
    """
    UPDATE checkpoints SET simulated = true FROM trainings
    WHERE trainings.id = checkpoints.training_id AND trainings.simulated
    """,
    """
    UPDATE quarantines SET simulated = true WHERE EXISTS (
        SELECT 1 FROM model_calls AS call WHERE call.tenant_id = quarantines.tenant_id
            AND call.model = quarantines.model AND call.simulated)
    """,
    """
    UPDATE edges SET simulated = true WHERE EXISTS (
        SELECT 1 FROM edge_trials AS trial JOIN collaborations AS run ON run.id = trial.collaboration_id
        WHERE trial.tenant_id = edges.tenant_id AND trial.definition = edges.definition
            AND trial.source = edges.source AND trial.target = edges.target AND run.simulated)
    """,
    """
    UPDATE prompt_trials SET simulated = true WHERE EXISTS (
        SELECT 1 FROM agent_executions AS done JOIN collaborations AS run ON run.id = done.collaboration_id
        WHERE done.trial_id = prompt_trials.id AND run.simulated)
    """,
    """
    UPDATE prompt_versions SET simulated = true WHERE origin = 'optimizer' AND EXISTS (
        SELECT 1 FROM prompt_trials AS trial WHERE trial.tenant_id = prompt_versions.tenant_id
            AND trial.name = prompt_versions.name AND trial.simulated)
    """,
    """
    UPDATE prompts SET current_simulated = current, current = trial.control FROM prompt_trials AS trial
    WHERE trial.tenant_id = prompts.tenant_id AND trial.name = prompts.name AND trial.simulated
        AND trial.status = 'won' AND trial.promote AND trial.candidate = prompts.current
    """,
)
# A run of the other kind may meet the same edge, and what people want of it holds there as well.
_OTHER_EDGES = """
INSERT INTO edges (tenant_id, definition, source, target, simulated, state, set_by, since)
SELECT tenant_id, definition, source, target, NOT simulated,
    CASE WHEN by_people THEN state ELSE 'kept' END, CASE WHEN by_people THEN set_by END, since
FROM (SELECT *, set_by IS NOT NULL AND set_by <> 'network' AS by_people FROM edges) AS known
"""
_SERVING = {
    "uq_checkpoints_serving": "state = 'all'",
    "uq_checkpoints_challenger": "state IN ('shadow', 'share')",
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "collaborations",
        sa.Column(
            "simulated",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Of ended runs: whether the simulator answered any call of them or of their children.",
        ),
    )
    for table in _MARKED:
        op.add_column(
            table, sa.Column("simulated", sa.Boolean(), server_default=sa.text("false"), nullable=False)
        )
    op.add_column(
        "prompts",
        sa.Column(
            "current_simulated",
            sa.Integer(),
            nullable=True,
            comment="The version that the bare name means in simulated runs; null: the same.",
        ),
    )
    op.execute(_RUNS)
    for statement in _LEARNED:
        op.execute(statement)
    _primary_key("quarantines", "tenant_id", "model", "simulated")
    _primary_key("edges", "tenant_id", "definition", "source", "target", "simulated")
    op.execute(_OTHER_EDGES)
    for name, where in _SERVING.items():
        op.drop_index(name, "checkpoints")
        op.create_index(
            name, "checkpoints", ["tenant_id", "simulated"], unique=True, postgresql_where=sa.text(where)
        )
    op.create_index(
        "ix_model_calls_real", "model_calls", ["tenant_id"], postgresql_where=sa.text("NOT simulated")
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_model_calls_real", "model_calls")
    for table in ("quarantines", "edges"):
        op.execute(f"DELETE FROM {table} WHERE simulated")
    op.execute("DELETE FROM trainings WHERE simulated")
    for name, where in _SERVING.items():
        op.drop_index(name, "checkpoints")
        op.create_index(name, "checkpoints", ["tenant_id"], unique=True, postgresql_where=sa.text(where))
    _primary_key("quarantines", "tenant_id", "model")
    _primary_key("edges", "tenant_id", "definition", "source", "target")
    op.drop_column("prompts", "current_simulated")
    for table in ("collaborations", *_MARKED):
        op.drop_column(table, "simulated")


def _primary_key(table: str, *columns: str) -> None:
    op.drop_constraint(f"pk_{table}", table, type_="primary")
    op.create_primary_key(f"pk_{table}", table, list(columns))
