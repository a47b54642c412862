"""The tables of Postgres, the one source of truth. Shapes only: all SQL stands in db/."""

from typing import Final

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID
from sqlalchemy.types import UserDefinedType

EMBEDDING_WIDTH: Final = 384

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class XID8(UserDefinedType[str]):
    """Postgres' 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def tenant_id() -> Column[str]:
    return Column("tenant_id", Text, nullable=False, server_default="default")


def moment(name: str, *, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), server_default=text("now()") if default else None)


workflows = Table(
    "workflows",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("definition", JSONB, nullable=False),
    # JSONB forgets the order in which a person wrote the keys; this is the document as they will read it.
    Column("source", Text, nullable=False),
    Column(
        "pins", JSONB, nullable=False, server_default="{}", comment="ref of a sub-collaboration → version"
    ),
    Column("planned_by", UUID, comment="The collaboration whose agent wrote this definition."),
    Column("deprecated", Text, comment="Why nobody should start it any more."),
    Column("created_by", Text),
    moment("created_at", default=True),
    UniqueConstraint("tenant_id", "name", "version"),
    UniqueConstraint("tenant_id", "name", "sha256"),
    comment="Definitions as immutable versions.",
)

aliases = Table(
    "aliases",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True, comment="`current` is what the bare name means."),
    Column("version", Integer, nullable=False),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="Names for versions that a person may move.",
)

platform_secrets = Table(
    "platform_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    moment("created_at", default=True),
    comment="Made once by the platform itself and shared by all its processes.",
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("name", Text, nullable=False, comment="What to start: name, name@3 or name@alias."),
    Column("token_sha256", Text, nullable=False, unique=True),
    Column("input", JSON, nullable=False, comment="Template over the request's body as `input`."),
    Column("created_by", Text),
    moment("created_at", default=True),
    moment("last_called_at"),
    comment="Addresses that start a collaboration when they are called.",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True, comment="Random; the audit log calls the key so."),
    tenant_id(),
    Column("salt", LargeBinary, nullable=False),
    Column("scrypt", LargeBinary, nullable=False),
    moment("created_at", default=True),
    comment="The names of keys that the API has been started with.",
)

console_sessions = Table(
    "console_sessions",
    metadata,
    Column(
        "id_hmac", Text, primary_key=True, comment="Of the cookie's value, by the key: another key has none."
    ),
    tenant_id(),
    moment("created_at", default=True),
    moment("last_used_at", default=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    comment="People who are signed in to the console.",
)

collaborations = Table(
    "collaborations",
    metadata,
    Column("id", UUID, primary_key=True, comment="Temporal's first run id of the chain."),
    tenant_id(),
    Column("workflow_id", UUID, ForeignKey("workflows.id"), nullable=False),
    Column("temporal_workflow_id", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("input", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("sub_state", Text, nullable=False, server_default=""),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("final_output", JSON),
    Column("quality_score", Float),
    Column("requested_by", Text),
    Column("engine", Integer, nullable=False, server_default="1", comment="Semantics of the interpreter."),
    Column("parent_id", UUID, comment="The collaboration that this one is a step of."),
    Column("parent_path", Text),
    Column("forked_from", UUID, comment="The collaboration that this one went on from."),
    Column("forked_at", ARRAY(Text), comment="The steps that it ran again."),
    Column("traceparent", Text, nullable=False, comment="W3C context of the run's own span."),
    Column("parent_span_id", Text, comment="The span of the request that started the run."),
    Column("linked_traceparent", Text, comment="The caller's W3C context: linked, never joined."),
    Column("request_digest", Text, comment="Of the request that started the run: tells it from another."),
    Column(
        "simulated", Boolean, nullable=False, server_default=text("false"),
        comment="Of ended runs: whether the simulator answered any call of them or of their children.",
    ),
    moment("started_at", default=True),
    moment("completed_at"),
    CheckConstraint("status IN ('running', 'completed', 'failed')", name="status"),
    Index("ix_collaborations_recent", "tenant_id", text("started_at DESC"), text("id DESC")),
    Index("ix_collaborations_temporal", "temporal_workflow_id", text("started_at DESC")),
    Index("ix_collaborations_workflow", "workflow_id", text("started_at DESC")),
    Index("ix_collaborations_parent", "parent_id"),
    Index("ix_collaborations_running", "started_at", "id", postgresql_where=text("status = 'running'")),
    Index("ix_collaborations_forked_from", "forked_from"),
    comment="One row per run of a version.",
)  # fmt: skip

run_trees = Table(
    "run_trees",
    metadata,
    Column("root_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("children", Integer, nullable=False),
    comment="How many sub-collaborations a start has led to; runs without any have no row.",
)

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

agent_executions = Table(
    "agent_executions",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False, comment="review, or per_file[17].improve[2].review"),
    Column("step_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("iteration", Integer, nullable=False, server_default="0", comment="Innermost index of the path."),
    Column("attempt", Integer, nullable=False),
    Column("agent_name", Text, nullable=False, comment="The agent, or the tool of a tool step."),
    Column("role", Text),
    Column("model_id", Text, nullable=False, comment="The model that answered; empty where none was asked."),
    Column("requested_model", Text),
    Column("provider", Text),
    Column("status", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("latency_ms", Integer),
    Column("first_token_ms", Integer),
    Column("cost_usd", Numeric(10, 6)),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    Column("finish_reason", Text, comment="Of an agent's answer: stop, length, content_filter, …"),
    Column("repaired", Boolean, nullable=False, server_default=text("false")),
    Column(
        "input", JSON,
        comment="Of a map its list; of a loop and its iterations the next carry; of a turn what it was told.",
    ),
    Column("output", JSON),
    Column("branch", Text, comment="Of a switch the branch taken; `!step` where that one took over."),
    Column("reused_from", UUID, comment="The execution whose output this is: a cache's or another run's."),
    Column("quality_score", Float),
    Column("found_issues", Boolean),
    Column("severity", Text),
    Column("prompt", Text, comment="The stored prompt that was used, as name@3."),
    Column("trial_id", UUID, comment="The A/B test that chose it."),
    moment("started_at", default=True),
    moment("completed_at"),
    moment("retry_at"),
    UniqueConstraint("collaboration_id", "path", "attempt"),
    CheckConstraint(
        "status IN ('running', 'completed', 'failed', 'abandoned', 'skipped', 'caught')", name="status"
    ),
    # The promise that a finished step never runs again, held by the database itself.
    Index(
        "uq_agent_executions_finished",
        "collaboration_id", "path",
        unique=True, postgresql_where=text("status IN ('completed', 'skipped', 'caught')"),
    ),
    # What is under way: all that a reader of a live run looks for.
    Index("ix_agent_executions_running", "collaboration_id", postgresql_where=text("status = 'running'")),
    # Of agents only: every quick step would pay for them too.
    Index(
        "ix_agent_executions_model", "tenant_id", "model_id", "started_at",
        postgresql_where=text("kind = 'agent'"),
    ),
    Index(
        "ix_agent_executions_agent", "tenant_id", "agent_name", "started_at",
        postgresql_where=text("kind = 'agent'"),
    ),
    Index("ix_agent_executions_trial", "trial_id", postgresql_where=text("trial_id IS NOT NULL")),
    comment="One row per attempt at a step: each attempt was paid.",
)  # fmt: skip

token_stream = Table(
    "token_stream",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    tenant_id(),
    Column("execution_id", UUID, ForeignKey("agent_executions.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("token", Text, nullable=False),
    # Set by the writer: now() is the start of the transaction, the same for every token of a batch.
    Column("timestamp", DateTime(timezone=True), nullable=False),
    Column("sent_to", ARRAY(Text)),
    UniqueConstraint("execution_id", "seq"),
    comment="Every token as it was made; an execution is one attempt, so a retry starts anew.",
)

token_archives = Table(
    "token_archives",
    metadata,
    Column("execution_id", UUID, ForeignKey("agent_executions.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("tokens", LargeBinary, nullable=False, comment="zlib of JSON: [[seconds since first, token], …]"),
    Column("count", Integer, nullable=False),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("archived_at", DateTime(timezone=True), nullable=False),
    Index("ix_token_archives_archived", "archived_at"),
    comment="Tokens of old executions, a tenth of their size: moved here from token_stream.",
)

run_controls = Table(
    "run_controls",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("changes", JSONB, nullable=False, server_default="{}", comment="agent → how it is asked instead"),
    comment="What people changed about a run while it lives; most runs have no row.",
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("text", Text, nullable=False),
    Column("step", Text, comment="Only its prompts hold it; null: of any step."),
    Column("agent", Text, comment="Only its prompts hold it; null: of any agent."),
    Column("actor", Text, nullable=False),
    Column("at", DateTime(timezone=True), server_default=text("clock_timestamp()"), nullable=False),
    Index("ix_feedback_collaboration", "collaboration_id", "at"),
    comment="What people told a run while it lives; every later prompt holds it.",
)

routing_decisions = Table(
    "routing_decisions",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("step_id", Text, nullable=False),
    Column("iteration", Integer, nullable=False, server_default="0"),
    Column("policy", Text, nullable=False),
    Column("features", JSONB, nullable=False),
    Column("candidates", JSONB, nullable=False, comment="model → propensity"),
    Column("chosen_model", Text, nullable=False),
    Column("propensity", Float, nullable=False),
    Column("fallback", Boolean, nullable=False),
    moment("created_at", default=True),
    UniqueConstraint("collaboration_id", "path"),
    CheckConstraint("propensity > 0 AND propensity <= 1", name="propensity"),
    Index("ix_routing_decisions_recent", "tenant_id", "created_at"),
    comment="Every choice of a model with the chance it had: what honest learning later needs.",
)

recalls = Table(
    "recalls",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("step_id", Text, nullable=False),
    Column("iteration", Integer, nullable=False, server_default="0"),
    tenant_id(),
    Column("source", Text, nullable=False, comment="weaviate, pgvector or none"),
    Column("hits", JSONB, nullable=False),
    moment("created_at", default=True),
    comment="Similar past work that was shown to a step as a hint.",
)

task_vectors = Table(
    "task_vectors",
    metadata,
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), primary_key=True),
    tenant_id(),
    Column("encoder", Text, nullable=False),
    Column("embedding", Vector(EMBEDDING_WIDTH), nullable=False),
    Index(
        "ix_task_vectors_embedding", "embedding",
        postgresql_using="hnsw", postgresql_ops={"embedding": "vector_cosine_ops"},
    ),
    comment="Embedded tasks of completed collaborations; Weaviate's copy is filled from here.",
)  # fmt: skip

outbox = Table(
    "outbox",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("aggregatetype", Text, nullable=False),
    Column("aggregateid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    tenant_id(),
    Column("seq", BigInteger, server_default=text("nextval('outbox_seq')"), nullable=False, unique=True),
    # Rows become visible out of seq order; (xid, seq) below the oldest running transaction never changes.
    Column("xid", XID8(), server_default=text("pg_current_xact_id()"), nullable=False),
    moment("created_at", default=True),
    Column("traceparent", Text),
    Index("ix_outbox_log", "xid", "seq"),
    Index("ix_outbox_aggregate", "aggregateid", "xid", "seq"),
    comment="The event log, written in the same transaction as the change it tells of.",
)

human_tasks = Table(
    "human_tasks",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("collaboration_id", UUID, ForeignKey("collaborations.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("show", JSON, nullable=False),
    Column("form", JSON),
    Column("actions", JSONB, nullable=False),
    Column("assignees", ARRAY(Text), nullable=False, server_default="{}"),
    Column("approvals", Integer, nullable=False, server_default="1"),
    Column("status", Text, nullable=False),
    Column("escalated", Boolean, nullable=False, server_default=text("false")),
    moment("opened_at", default=True),
    moment("due_at"),
    moment("reminded_at"),
    moment("closed_at"),
    Column(
        "last_call", Text, comment="The activity that last reminded or escalated: again, it does nothing."
    ),
    UniqueConstraint("collaboration_id", "path"),
    CheckConstraint("status IN ('open', 'decided', 'expired', 'cancelled')", name="status"),
    Index("ix_human_tasks_open", "tenant_id", "opened_at", postgresql_where=text("status = 'open'")),
    comment="What people are or were asked.",
)

human_decisions = Table(
    "human_decisions",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("task_id", UUID, ForeignKey("human_tasks.id", ondelete="CASCADE"), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("form", JSON, nullable=False, comment="What they filled in."),
    Column("original", JSON, comment="What they were shown, where they replaced it."),
    Column("edited", JSON),
    moment("at", default=True),
    UniqueConstraint("task_id", "actor"),
    comment="Who decided what; rows are only ever added.",
)

spending = Table(
    "spending",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("scope", Text, primary_key=True),
    Column(
        "subject", Text, primary_key=True,
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
)  # fmt: skip

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

providers = Table(
    "providers",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True, comment="The first part of a model's id."),
    Column("kind", Text, nullable=False),
    Column("base_url", Text, comment="Null: the provider's own."),
    Column("key_ref", Text, comment="The name under which workers find the key; never the key."),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("set_by", Text),
    moment("set_at", default=True),
    CheckConstraint(
        "kind IN ('openai', 'anthropic', 'deepseek', 'openrouter', 'ollama', 'openai_compatible')",
        name="kind",
    ),
    comment="A tenant's own providers, keys and limits.",
)

provider_accounts = Table(
    "provider_accounts",
    metadata,
    Column("account", Text, primary_key=True),
    comment="Who all workers share limits with a provider for; its row lock serialises admissions.",
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

flights = Table(
    "flights",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("key", Text, primary_key=True, comment="As in step_cache."),
    Column("execution_id", UUID, nullable=False, comment="Whose answer the others wait for."),
    moment("until", default=True),
    comment="Answers that are being made and that equal steps wait for.",
)

roles = Table(
    "roles",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("system", Text, nullable=False, server_default=""),
    Column("relationship", Text, nullable=False, server_default="CONTRIBUTED"),
    Column("description", Text, nullable=False, server_default=""),
    Column("skills", ARRAY(Text), nullable=False, server_default="{}"),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="A tenant's own roles, and its own idea of the built-in ones.",
)

skills = Table(
    "skills",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("instructions", Text, nullable=False),
    Column("tools", ARRAY(Text), nullable=False, server_default="{}"),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="What agents can be told to be able to do.",
)

prompts = Table(
    "prompts",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("current", Integer, nullable=False, comment="The version that the bare name means."),
    Column(
        "current_simulated", Integer,
        comment="The version that the bare name means in simulated runs; null: the same.",
    ),
    Column("description", Text, nullable=False, server_default=""),
    moment("created_at", default=True),
    comment="Names of prompts.",
)  # fmt: skip

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("content", JSONB, nullable=False, comment="As schema/language/prompts.py has it."),
    Column("sha256", Text, nullable=False),
    Column("origin", Text, nullable=False, server_default="person", comment="person or optimizer"),
    Column("note", Text, nullable=False, server_default=""),
    Column("created_by", Text),
    moment("created_at", default=True),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("tenant_id", "name", "sha256"),
    comment="Prompts as immutable versions.",
)

prompt_trials = Table(
    "prompt_trials",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("name", Text, nullable=False),
    Column("control", Integer, nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("share", Float, nullable=False, comment="Of units that get the candidate."),
    Column(
        "unit", Text, nullable=False, server_default="run", comment="What stays with one arm: run or user."
    ),
    Column("metric", Text, nullable=False, server_default="quality"),
    Column("alpha", Float, nullable=False, server_default="0.05"),
    Column(
        "min_units", Integer, nullable=False, server_default="30", comment="Of each arm, before any verdict."
    ),
    Column(
        "max_units",
        Integer,
        nullable=False,
        server_default="2000",
        comment="Of both; then it ends undecided.",
    ),
    Column(
        "promote",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether the bare name means the candidate when that has won.",
    ),
    Column("status", Text, nullable=False, server_default="running"),
    Column("winner", Integer),
    Column("verdict", JSONB, comment="The figures that it was stopped with."),
    Column("started_by", Text),
    moment("started_at", default=True),
    moment("stopped_at"),
    Column("simulated", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("status IN ('running', 'won', 'lost', 'undecided', 'stopped')", name="status"),
    CheckConstraint("share > 0 AND share < 1", name="share"),
    Index(
        "uq_prompt_trials_running",
        "tenant_id",
        "name",
        unique=True,
        postgresql_where=text("status = 'running'"),
    ),
    comment="A/B tests of two versions of a prompt.",
)

step_cache = Table(
    "step_cache",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("key", Text, primary_key=True, comment="sha256 of all that decides the output."),
    Column("execution_id", UUID, ForeignKey("agent_executions.id", ondelete="CASCADE"), nullable=False),
    moment("stored_at", default=True),
    Index("ix_step_cache_stored", "stored_at"),
    comment="Outputs that steps with `cache` may take again.",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    tenant_id(),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    Column("at", DateTime(timezone=True), server_default=text("clock_timestamp()"), nullable=False),
    Index("ix_audit_log_subject", "tenant_id", "subject", "at"),
    comment="Who did what; rows are only ever added.",
)

spans = Table(
    "spans",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("span_id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    Column("status", Text, nullable=False),
    Column("attributes", JSONB, nullable=False),
    tenant_id(),
    Column("collaboration_id", UUID, comment="The run that it belongs to; null of what belongs to none."),
    Index("ix_spans_started", "started_at"),
    comment="Traces kept here while no OTLP endpoint is set.",
)
