"""the whole language

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "aliases",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False, comment="`current` is what the bare name means."),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name", "alias", name=op.f("pk_aliases")),
        comment="Names for versions that a person may move.",
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="What to start: name, name@3 or name@alias."),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column(
            "input",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="Template over the request's body as `input`.",
        ),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("last_called_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_webhooks_token_sha256")),
        comment="Addresses that start a collaboration when they are called.",
    )
    op.create_table(
        "budgets",
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("limit_usd", sa.Numeric(precision=18, scale=6), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("spent_usd", sa.Numeric(precision=18, scale=6), server_default="0", nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_usd", sa.Numeric(precision=18, scale=6), server_default="0", nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_budgets_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collaboration_id", name=op.f("pk_budgets")),
        comment="What a run may spend and has; one row lock serialises its reservations.",
    )
    op.create_table(
        "human_tasks",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("show", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("form", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("actions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("assignees", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("approvals", sa.Integer(), server_default="1", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("escalated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reminded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "last_call",
            sa.Text(),
            nullable=True,
            comment="The activity that last reminded or escalated: again, it does nothing.",
        ),
        sa.CheckConstraint(
            "status IN ('open', 'decided', 'expired', 'cancelled')", name=op.f("ck_human_tasks_status")
        ),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["collaborations.id"],
            name=op.f("fk_human_tasks_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_human_tasks")),
        sa.UniqueConstraint("collaboration_id", "path", name=op.f("uq_human_tasks_collaboration_id_path")),
        comment="What people are or were asked.",
    )
    op.create_index(
        "ix_human_tasks_open",
        "human_tasks",
        ["tenant_id", "opened_at"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "human_decisions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("task_id", sa.UUID(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "form", postgresql.JSON(astext_type=sa.Text()), nullable=False, comment="What they filled in."
        ),
        sa.Column(
            "original",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=True,
            comment="What they were shown, where they replaced it.",
        ),
        sa.Column("edited", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.ForeignKeyConstraint(
            ["task_id"], ["human_tasks.id"], name=op.f("fk_human_decisions_task_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_human_decisions")),
        sa.UniqueConstraint("task_id", "actor", name=op.f("uq_human_decisions_task_id_actor")),
        comment="Who decided what; rows are only ever added.",
    )
    op.create_table(
        "reservations",
        sa.Column("execution_id", sa.UUID(), nullable=False),
        sa.Column("collaboration_id", sa.UUID(), nullable=False),
        sa.Column("usd", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.ForeignKeyConstraint(
            ["collaboration_id"],
            ["budgets.collaboration_id"],
            name=op.f("fk_reservations_collaboration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("execution_id", "collaboration_id", name=op.f("pk_reservations")),
        comment="Worst cases of calls that are under way.",
    )
    op.create_table(
        "step_cache",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="sha256 of all that decides the output."),
        sa.Column("execution_id", sa.UUID(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["agent_executions.id"],
            name=op.f("fk_step_cache_execution_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_step_cache")),
        comment="Outputs that steps with `cache` may take again.",
    )
    op.add_column(
        "agent_executions",
        sa.Column("path", sa.Text(), nullable=True, comment="review, or per_file[17].improve[2].review"),
    )
    for table in ("agent_executions", "recalls", "routing_decisions"):
        if table != "agent_executions":
            op.add_column(table, sa.Column("path", sa.Text(), nullable=True))
        op.execute(f"UPDATE {table} SET path = step_id")
        op.alter_column(table, "path", nullable=False)
    op.drop_constraint(op.f("ck_agent_executions_status"), "agent_executions", type_="check")
    op.create_check_constraint(
        op.f("ck_agent_executions_status"),
        "agent_executions",
        "status IN ('running', 'completed', 'failed', 'abandoned', 'skipped', 'caught')",
    )
    op.drop_constraint(op.f("pk_recalls"), "recalls", type_="primary")
    op.create_primary_key("pk_recalls", "recalls", ["collaboration_id", "path"])
    op.add_column(
        "agent_executions",
        sa.Column(
            "input",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=True,
            comment="Of a map its list; of a loop, and of each iteration, the next carry.",
        ),
    )
    op.add_column(
        "agent_executions",
        sa.Column(
            "branch",
            sa.Text(),
            nullable=True,
            comment="Of a switch the branch taken; `!step` where that one took over.",
        ),
    )
    op.add_column(
        "agent_executions",
        sa.Column(
            "reused_from",
            sa.UUID(),
            nullable=True,
            comment="The execution whose output this is: a cache's or another run's.",
        ),
    )
    op.alter_column(
        "agent_executions",
        "iteration",
        existing_type=sa.INTEGER(),
        comment="Innermost index of the path.",
        existing_nullable=False,
        existing_server_default=sa.text("0"),
    )
    op.drop_constraint(
        op.f("uq_agent_executions_collaboration_id_step_id_iteration_attempt"),
        "agent_executions",
        type_="unique",
    )
    op.drop_index(
        op.f("uq_agent_executions_finished"),
        table_name="agent_executions",
        postgresql_where="(status = ANY (ARRAY['completed'::text, 'skipped'::text]))",
    )
    op.create_index(
        "uq_agent_executions_finished",
        "agent_executions",
        ["collaboration_id", "path"],
        unique=True,
        postgresql_where=sa.text("status IN ('completed', 'skipped', 'caught')"),
    )
    op.create_unique_constraint(
        op.f("uq_agent_executions_collaboration_id_path_attempt"),
        "agent_executions",
        ["collaboration_id", "path", "attempt"],
    )
    op.add_column(
        "collaborations",
        sa.Column(
            "engine",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="Semantics of the interpreter.",
        ),
    )
    op.add_column(
        "collaborations",
        sa.Column(
            "parent_id", sa.UUID(), nullable=True, comment="The collaboration that this one is a step of."
        ),
    )
    op.add_column("collaborations", sa.Column("parent_path", sa.Text(), nullable=True))
    op.add_column(
        "collaborations",
        sa.Column(
            "forked_from", sa.UUID(), nullable=True, comment="The collaboration that this one went on from."
        ),
    )
    op.add_column(
        "collaborations",
        sa.Column(
            "forked_at", postgresql.ARRAY(sa.Text()), nullable=True, comment="The steps that it ran again."
        ),
    )
    op.create_index("ix_collaborations_forked_from", "collaborations", ["forked_from"], unique=False)
    op.create_index("ix_collaborations_parent", "collaborations", ["parent_id"], unique=False)
    op.drop_constraint(
        op.f("uq_routing_decisions_collaboration_id_step_id_iteration"), "routing_decisions", type_="unique"
    )
    op.create_unique_constraint(
        op.f("uq_routing_decisions_collaboration_id_path"), "routing_decisions", ["collaboration_id", "path"]
    )
    op.add_column(
        "workflows",
        sa.Column(
            "pins",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="ref of a sub-collaboration → version",
        ),
    )
    op.add_column(
        "workflows",
        sa.Column(
            "planned_by",
            sa.UUID(),
            nullable=True,
            comment="The collaboration whose agent wrote this definition.",
        ),
    )
    op.add_column(
        "workflows",
        sa.Column("deprecated", sa.Text(), nullable=True, comment="Why nobody should start it any more."),
    )
    for index, column in (("model", "model_id"), ("agent", "agent_name")):
        op.drop_index(f"ix_agent_executions_{index}", table_name="agent_executions")
        op.create_index(
            f"ix_agent_executions_{index}",
            "agent_executions",
            ["tenant_id", column, "started_at"],
            postgresql_where=sa.text("kind = 'agent'"),
        )


def downgrade() -> None:
    """Only while no run has repeated a step or caught an error: the older tables have no place for those."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    for index, column in (("model", "model_id"), ("agent", "agent_name")):
        op.drop_index(f"ix_agent_executions_{index}", table_name="agent_executions")
        op.create_index(
            f"ix_agent_executions_{index}", "agent_executions", ["tenant_id", column, "started_at"]
        )
    op.drop_column("workflows", "deprecated")
    op.drop_column("workflows", "planned_by")
    op.drop_column("workflows", "pins")
    op.drop_constraint(
        op.f("uq_routing_decisions_collaboration_id_path"), "routing_decisions", type_="unique"
    )
    op.create_unique_constraint(
        op.f("uq_routing_decisions_collaboration_id_step_id_iteration"),
        "routing_decisions",
        ["collaboration_id", "step_id", "iteration"],
        postgresql_nulls_not_distinct=False,
    )
    op.drop_column("routing_decisions", "path")
    op.drop_constraint(op.f("pk_recalls"), "recalls", type_="primary")
    op.create_primary_key("pk_recalls", "recalls", ["collaboration_id", "step_id", "iteration"])
    op.drop_column("recalls", "path")
    op.drop_index("ix_collaborations_parent", table_name="collaborations")
    op.drop_index("ix_collaborations_forked_from", table_name="collaborations")
    op.drop_column("collaborations", "forked_at")
    op.drop_column("collaborations", "forked_from")
    op.drop_column("collaborations", "parent_path")
    op.drop_column("collaborations", "parent_id")
    op.drop_column("collaborations", "engine")
    op.drop_constraint(
        op.f("uq_agent_executions_collaboration_id_path_attempt"), "agent_executions", type_="unique"
    )
    op.drop_index(
        "uq_agent_executions_finished",
        table_name="agent_executions",
        postgresql_where=sa.text("status IN ('completed', 'skipped', 'caught')"),
    )
    op.create_index(
        op.f("uq_agent_executions_finished"),
        "agent_executions",
        ["collaboration_id", "step_id", "iteration"],
        unique=True,
        postgresql_where="(status = ANY (ARRAY['completed'::text, 'skipped'::text]))",
    )
    op.create_unique_constraint(
        op.f("uq_agent_executions_collaboration_id_step_id_iteration_attempt"),
        "agent_executions",
        ["collaboration_id", "step_id", "iteration", "attempt"],
        postgresql_nulls_not_distinct=False,
    )
    op.alter_column(
        "agent_executions",
        "iteration",
        existing_type=sa.INTEGER(),
        comment=None,
        existing_comment="Innermost index of the path.",
        existing_nullable=False,
        existing_server_default=sa.text("0"),
    )
    op.drop_column("agent_executions", "reused_from")
    op.drop_column("agent_executions", "branch")
    op.drop_column("agent_executions", "input")
    op.drop_column("agent_executions", "path")
    op.drop_constraint(op.f("ck_agent_executions_status"), "agent_executions", type_="check")
    op.create_check_constraint(
        op.f("ck_agent_executions_status"),
        "agent_executions",
        "status IN ('running', 'completed', 'failed', 'abandoned', 'skipped')",
    )
    op.drop_table("step_cache")
    op.drop_table("reservations")
    op.drop_table("human_decisions")
    op.drop_index(
        "ix_human_tasks_open", table_name="human_tasks", postgresql_where=sa.text("status = 'open'")
    )
    op.drop_table("human_tasks")
    op.drop_table("budgets")
    op.drop_table("webhooks")
    op.drop_table("aliases")
