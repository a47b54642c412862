"""money, limits, prompts

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "circuits",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False, comment="In a row."),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("account", "model", name=op.f("pk_circuits")),
        comment="Models that failed so often that nobody asks them for a while.",
    )
    op.create_index("ix_step_cache_stored", "step_cache", ["stored_at"], unique=False)
    op.create_table(
        "flights",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="As in step_cache."),
        sa.Column("execution_id", sa.UUID(), nullable=False, comment="Whose answer the others wait for."),
        sa.Column("until", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_flights")),
        comment="Answers that are being made and that equal steps wait for.",
    )
    op.create_table(
        "model_calls",
        sa.Column(
            "id", sa.UUID(), nullable=False, comment="What the provider is told as the client's request id."
        ),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column(
            "purpose", sa.Text(), server_default="step", nullable=False, comment="step, or what else asked."
        ),
        sa.Column("collaboration_id", sa.UUID(), nullable=True),
        sa.Column("execution_id", sa.UUID(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("agent_name", sa.Text(), nullable=True),
        sa.Column(
            "definition", sa.Text(), nullable=True, comment="The name of the collaboration's definition."
        ),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="Whose limits and bill: the address and the key's mark.",
        ),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False, comment="The platform id that was asked."),
        sa.Column("answered_model", sa.Text(), nullable=True),
        sa.Column("simulated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=True, comment="What the cost rests on."),
        sa.Column("price_source", sa.Text(), nullable=False, comment="Which table and version of it."),
        sa.Column("input_price_usd", sa.Numeric(), nullable=False, comment="Dollars for a million tokens."),
        sa.Column("output_price_usd", sa.Numeric(), nullable=False),
        sa.Column("cached_input_price_usd", sa.Numeric(), nullable=True, comment="Null: as input_price_usd."),
        sa.Column(
            "most_input_tokens", sa.BigInteger(), nullable=False, comment="A bound that no provider exceeds."
        ),
        sa.Column("ends_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "reserved_usd",
            sa.Numeric(precision=18, scale=6),
            nullable=True,
            comment="Null: no limit held for the call.",
        ),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("usd", sa.Numeric(precision=18, scale=6), server_default="0", nullable=False),
        sa.Column("response_id", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column(
            "opened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("basis IN ('usage', 'asked', 'assumed')", name=op.f("ck_model_calls_basis")),
        sa.CheckConstraint(
            "state IN ('open', 'unknown', 'settled', 'refunded')", name=op.f("ck_model_calls_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_calls")),
        comment="The ledger: every call of a model, from before it is made.",
    )
    op.create_index("ix_model_calls_collaboration", "model_calls", ["collaboration_id"], unique=False)
    op.create_index("ix_model_calls_execution", "model_calls", ["execution_id"], unique=False)
    op.create_index("ix_model_calls_recent", "model_calls", ["tenant_id", "opened_at"], unique=False)
    op.create_index(
        "ix_model_calls_unsettled",
        "model_calls",
        ["opened_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('open', 'unknown')"),
    )
    op.create_table(
        "prices",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "input_usd",
            sa.Numeric(precision=18, scale=6),
            nullable=False,
            comment="Dollars for a million tokens.",
        ),
        sa.Column("output_usd", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column(
            "cached_input_usd",
            sa.Numeric(precision=18, scale=6),
            nullable=True,
            comment="Null: as input_usd.",
        ),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "model", "version", name=op.f("pk_prices")),
        comment="A tenant's own prices, which go before ours and litellm's; the highest version holds.",
    )
    op.create_table(
        "prompt_trials",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("control", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.Integer(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False, comment="Of units that get the candidate."),
        sa.Column(
            "unit",
            sa.Text(),
            server_default="run",
            nullable=False,
            comment="What stays with one arm: run or user.",
        ),
        sa.Column("metric", sa.Text(), server_default="quality", nullable=False),
        sa.Column("alpha", sa.Float(), server_default="0.05", nullable=False),
        sa.Column(
            "min_units",
            sa.Integer(),
            server_default="30",
            nullable=False,
            comment="Of each arm, before any verdict.",
        ),
        sa.Column(
            "max_units",
            sa.Integer(),
            server_default="2000",
            nullable=False,
            comment="Of both; then it ends undecided.",
        ),
        sa.Column(
            "promote",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether the bare name means the candidate when that has won.",
        ),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("winner", sa.Integer(), nullable=True),
        sa.Column(
            "verdict",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The figures that it was stopped with.",
        ),
        sa.Column("started_by", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'won', 'lost', 'undecided', 'stopped')",
            name=op.f("ck_prompt_trials_status"),
        ),
        sa.CheckConstraint("share > 0 AND share < 1", name=op.f("ck_prompt_trials_share")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_trials")),
        comment="A/B tests of two versions of a prompt.",
    )
    op.create_index(
        "uq_prompt_trials_running",
        "prompt_trials",
        ["tenant_id", "name"],
        unique=True,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "prompt_versions",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "content",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="As schema/language/prompts.py has it.",
        ),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column(
            "origin", sa.Text(), server_default="person", nullable=False, comment="person or optimizer"
        ),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name", "version", name=op.f("pk_prompt_versions")),
        sa.UniqueConstraint(
            "tenant_id", "name", "sha256", name=op.f("uq_prompt_versions_tenant_id_name_sha256")
        ),
        comment="Prompts as immutable versions.",
    )
    op.create_table(
        "prompts",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("current", sa.Integer(), nullable=False, comment="The version that the bare name means."),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_prompts")),
        comment="Names of prompts.",
    )
    op.create_table(
        "provider_accounts",
        sa.Column("account", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_provider_accounts")),
        comment="Who all workers share limits with a provider for; its row lock serialises admissions.",
    )
    op.create_table(
        "pauses",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="The provider's own words."),
        sa.PrimaryKeyConstraint("account", "model", name=op.f("pk_pauses")),
        comment="Models that their providers asked all workers to leave alone for a while.",
    )
    op.create_table(
        "providers",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="The first part of a model's id."),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True, comment="Null: the provider's own."),
        sa.Column(
            "key_ref",
            sa.Text(),
            nullable=True,
            comment="The name under which workers find the key; never the key.",
        ),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.Integer(), nullable=True),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint(
            "kind IN ('openai', 'anthropic', 'deepseek', 'openrouter', 'ollama', 'openai_compatible')",
            name=op.f("ck_providers_kind"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_providers")),
        comment="A tenant's own providers, keys and limits.",
    )
    op.create_table(
        "rate_buckets",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="The beginning of its fraction of a second.",
        ),
        sa.Column("requests", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("account", "at", name=op.f("pk_rate_buckets")),
        comment="What an account was asked for within the last minute.",
    )
    op.create_table(
        "roles",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("system", sa.Text(), server_default="", nullable=False),
        sa.Column("relationship", sa.Text(), server_default="CONTRIBUTED", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("skills", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_roles")),
        comment="A tenant's own roles, and its own idea of the built-in ones.",
    )
    op.create_table(
        "skills",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=False),
        sa.Column("tools", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_skills")),
        comment="What agents can be told to be able to do.",
    )
    op.create_table(
        "spending",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=False,
            comment="Of a run its UUID; of a step `<run>/<step id>`; else a user, a definition, or empty.",
        ),
        sa.Column(
            "period",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="2026-11-21, 2026-11, or for ever.",
        ),
        sa.Column(
            "limit_usd",
            sa.Numeric(precision=18, scale=6),
            nullable=True,
            comment="Of runs and steps; the others' stand in spending_limits.",
        ),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("spent_usd", sa.Numeric(precision=18, scale=6), server_default="0", nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_usd", sa.Numeric(precision=18, scale=6), server_default="0", nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "scope IN ('tenant', 'user', 'definition', 'run', 'step')", name=op.f("ck_spending_scope")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "scope", "subject", "period", name=op.f("pk_spending")),
        comment="What has a limit, and what it spent and has reserved; row locks serialise its reservations.",
    )
    op.create_table(
        "spending_limits",
        sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column(
            "subject", sa.Text(), server_default="", nullable=False, comment="`*` is each user or definition."
        ),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("limit_usd", sa.Numeric(precision=18, scale=6), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.CheckConstraint("period IN ('day', 'month', 'total')", name=op.f("ck_spending_limits_period")),
        sa.CheckConstraint(
            "scope IN ('tenant', 'user', 'definition')", name=op.f("ck_spending_limits_scope")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "scope", "subject", "period", name=op.f("pk_spending_limits")),
        comment="What a tenant, its users and its definitions may spend, as people set it.",
    )
    # What runs that still live have spent; their calls under way are taken for having cost nothing.
    op.execute(
        "INSERT INTO spending (tenant_id, scope, subject, limit_usd, limit_tokens, spent_usd, spent_tokens) "
        "SELECT tenant_id, 'run', collaboration_id::text, limit_usd, limit_tokens, spent_usd, spent_tokens "
        "FROM budgets"
    )
    op.drop_table("reservations")
    op.drop_table("budgets")
    op.create_table(
        "reservations",
        sa.Column("call_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("usd", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint(
            "call_id", "tenant_id", "scope", "subject", "period", name=op.f("pk_reservations")
        ),
        comment="Worst cases of calls that are under way, one row per limit that holds for the call.",
    )
    op.create_index(
        "ix_reservations_subject", "reservations", ["tenant_id", "scope", "subject", "period"], unique=False
    )
    op.add_column(
        "agent_executions",
        sa.Column("prompt", sa.Text(), nullable=True, comment="The stored prompt that was used, as name@3."),
    )
    op.add_column(
        "agent_executions",
        sa.Column("trial_id", sa.UUID(), nullable=True, comment="The A/B test that chose it."),
    )
    op.create_index(
        "ix_agent_executions_trial",
        "agent_executions",
        ["trial_id"],
        unique=False,
        postgresql_where=sa.text("trial_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("reservations")
    op.drop_index(
        "ix_agent_executions_trial",
        table_name="agent_executions",
        postgresql_where=sa.text("trial_id IS NOT NULL"),
    )
    op.drop_column("agent_executions", "trial_id")
    op.drop_column("agent_executions", "prompt")
    op.create_table(
        "budgets",
        sa.Column("collaboration_id", sa.UUID(), autoincrement=False, nullable=False),
        sa.Column(
            "tenant_id",
            sa.TEXT(),
            server_default=sa.text("'default'::text"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("limit_usd", sa.NUMERIC(precision=18, scale=6), autoincrement=False, nullable=True),
        sa.Column("limit_tokens", sa.BIGINT(), autoincrement=False, nullable=True),
        sa.Column(
            "spent_usd",
            sa.NUMERIC(precision=18, scale=6),
            server_default=sa.text("'0'::numeric"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column(
            "spent_tokens",
            sa.BIGINT(),
            server_default=sa.text("'0'::bigint"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column(
            "reserved_usd",
            sa.NUMERIC(precision=18, scale=6),
            server_default=sa.text("'0'::numeric"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column(
            "reserved_tokens",
            sa.BIGINT(),
            server_default=sa.text("'0'::bigint"),
            autoincrement=False,
            nullable=False,
        ),
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
    op.drop_table("spending_limits")
    op.drop_table("spending")
    op.drop_table("skills")
    op.drop_table("roles")
    op.drop_table("rate_buckets")
    op.drop_table("providers")
    op.drop_table("provider_accounts")
    op.drop_table("pauses")
    op.drop_table("prompts")
    op.drop_table("prompt_versions")
    op.drop_index(
        "uq_prompt_trials_running", table_name="prompt_trials", postgresql_where=sa.text("status = 'running'")
    )
    op.drop_table("prompt_trials")
    op.drop_table("prices")
    op.drop_index(
        "ix_model_calls_unsettled",
        table_name="model_calls",
        postgresql_where=sa.text("state IN ('open', 'unknown')"),
    )
    op.drop_index("ix_model_calls_recent", table_name="model_calls")
    op.drop_index("ix_model_calls_execution", table_name="model_calls")
    op.drop_index("ix_model_calls_collaboration", table_name="model_calls")
    op.drop_table("model_calls")
    op.drop_table("flights")
    op.drop_index("ix_step_cache_stored", table_name="step_cache")
    op.drop_table("circuits")
