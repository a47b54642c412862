"""The tables of money and of limits: the ledger, budgets, prices and what providers allow."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from schema.tables.columns import metadata, moment, tenant_id

tenant_rates = Table(
    "tenant_rates",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("subject", Text, primary_key=True, comment="starts, or webhook/<id>"),
    Column("tokens", Double, nullable=False),
    Column("refilled_at", DateTime(timezone=True), nullable=False),
    comment="What may still happen this minute: token buckets.",
)

tenant_usage = Table(
    "tenant_usage",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("subject", Text, primary_key=True, comment="definition_bytes or schedules"),
    Column("used", BigInteger, nullable=False),
    moment("changed_at", default=True),
    comment="How much a tenant has of what is limited, where counting it anew would take long.",
)

spending = Table(
    "spending",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("scope", Text, primary_key=True),
    Column(
        "subject",
        Text,
        primary_key=True,
        comment="Of a run its UUID; of a step `<run>/<step id>`; else a user, a definition, or empty.",
    ),
    Column("period", Text, primary_key=True, server_default="", comment="2026-11-21, 2026-11, or for ever."),
    Column("limit_usd", Numeric(18, 6), comment="Of runs and steps; the others' stand in spending_limits."),
    Column("limit_tokens", BigInteger),
    Column("spent_usd", Numeric(18, 6), nullable=False, server_default="0"),
    Column("spent_tokens", BigInteger, nullable=False, server_default="0"),
    Column("reserved_usd", Numeric(18, 6), nullable=False, server_default="0"),
    Column("reserved_tokens", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("scope IN ('tenant', 'user', 'definition', 'run', 'step')", name="scope"),
    comment="What has a limit, and what it spent and has reserved; row locks serialise its reservations.",
)

spending_limits = Table(
    "spending_limits",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("scope", Text, primary_key=True),
    Column("subject", Text, primary_key=True, server_default="", comment="`*` is each user or definition."),
    Column("period", Text, primary_key=True),
    Column("limit_usd", Numeric(18, 6)),
    Column("limit_tokens", BigInteger),
    Column("set_by", Text),
    moment("set_at", default=True),
    CheckConstraint("scope IN ('tenant', 'user', 'definition')", name="scope"),
    CheckConstraint("period IN ('day', 'month', 'total')", name="period"),
    comment="What a tenant, its users and its definitions may spend, as people set it.",
)

model_calls = Table(
    "model_calls",
    metadata,
    Column("id", UUID, primary_key=True, comment="What the provider is told as the client's request id."),
    tenant_id(),
    Column("purpose", Text, nullable=False, server_default="step", comment="step, or what else asked."),
    # Without foreign keys: the books outlive the runs.
    Column("collaboration_id", UUID),
    Column("execution_id", UUID),
    Column("path", Text),
    Column("agent_name", Text),
    Column("definition", Text, comment="The name of the collaboration's definition."),
    Column("requested_by", Text),
    Column("account", Text, nullable=False, comment="Whose limits and bill: the address and the key's mark."),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False, comment="The platform id that was asked."),
    Column("answered_model", Text),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    Column("state", Text, nullable=False),
    Column("basis", Text, comment="What the cost rests on."),
    Column("price_source", Text, nullable=False, comment="Which table and version of it."),
    Column("input_price_usd", Numeric, nullable=False, comment="Dollars for a million tokens."),
    Column("output_price_usd", Numeric, nullable=False),
    Column("cached_input_price_usd", Numeric, comment="Null: as input_price_usd."),
    Column("most_input_tokens", BigInteger, nullable=False, comment="A bound that no provider exceeds."),
    moment("ends_by"),
    Column("reserved_usd", Numeric(18, 6), comment="Null: no limit held for the call."),
    Column("reserved_tokens", BigInteger),
    Column("input_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cached_input_tokens", BigInteger, nullable=False, server_default="0"),
    Column("output_tokens", BigInteger, nullable=False, server_default="0"),
    Column("usd", Numeric(18, 6), nullable=False, server_default="0"),
    Column("response_id", Text),
    Column("error_code", Text),
    Column("opened_at", DateTime(timezone=True), server_default=text("clock_timestamp()"), nullable=False),
    moment("closed_at"),
    CheckConstraint("state IN ('open', 'unknown', 'settled', 'refunded')", name="state"),
    CheckConstraint("basis IN ('usage', 'larger', 'asked', 'assumed')", name="basis"),
    Index("ix_model_calls_unsettled", "opened_at", postgresql_where=text("state IN ('open', 'unknown')")),
    Index("ix_model_calls_recent", "tenant_id", "opened_at"),
    Index("ix_model_calls_execution", "execution_id"),
    Index("ix_model_calls_collaboration", "collaboration_id"),
    Index("ix_model_calls_real", "tenant_id", postgresql_where=text("NOT simulated")),
    comment="The ledger: every call of a model, from before it is made.",
)

reservations = Table(
    "reservations",
    metadata,
    Column("call_id", UUID, primary_key=True),
    Column("tenant_id", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("usd", Numeric(18, 6), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    moment("at", default=True),
    Index("ix_reservations_subject", "tenant_id", "scope", "subject", "period"),
    comment="Worst cases of calls that are under way, one row per limit that holds for the call.",
)

prices = Table(
    "prices",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("input_usd", Numeric(18, 6), nullable=False, comment="Dollars for a million tokens."),
    Column("output_usd", Numeric(18, 6), nullable=False),
    Column("cached_input_usd", Numeric(18, 6), comment="Null: as input_usd."),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="A tenant's own prices, which go before ours and litellm's; the highest version holds.",
)

pauses = Table(
    "pauses",
    metadata,
    Column("account", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("paused_until", DateTime(timezone=True), nullable=False),
    Column("reason", Text, nullable=False, comment="The provider's own words."),
    comment="Models that their providers asked all workers to leave alone for a while.",
)

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("account", Text, primary_key=True),
    Column(
        "at", DateTime(timezone=True), primary_key=True, comment="The beginning of its fraction of a second."
    ),
    Column("requests", Integer, nullable=False, server_default="0"),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    comment="What an account was asked for within the last minute.",
)

circuits = Table(
    "circuits",
    metadata,
    Column("account", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("failures", Integer, nullable=False, server_default="0", comment="In a row."),
    moment("open_until"),
    moment("changed_at", default=True),
    comment="Models that failed so often that nobody asks them for a while.",
)
