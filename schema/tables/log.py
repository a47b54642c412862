"""The tables of what happened: the outbox, the token stream, spans and the audit log."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from schema.tables.columns import XID8, metadata, moment, tenant_id

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
