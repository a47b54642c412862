"""Traces and logs of one process: to Postgres, and by OTLP where an endpoint is set; logs are JSON lines."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import Engine

from db import spans
from db.engine import sync_engine
from db.isolation import Isolation, befalls_all
from schema import telemetry
from schema.settings import Settings
from schema.values.foreign import clean_text

_log = logging.getLogger(__name__)
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_chosen_ids: ContextVar[tuple[int, int] | None] = ContextVar("chosen_ids", default=None)


class _Ids(IdGenerator):
    """Random ids, except for the span of a collaboration: its id follows from the run, so that a crash or
    another process changes neither it nor what hangs below it."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        chosen = _chosen_ids.get()
        return chosen[1] if chosen else self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        chosen = _chosen_ids.get()
        return chosen[0] if chosen else self._random.generate_trace_id()


@contextmanager
def chosen_ids(trace_id: str, span_id: str) -> Iterator[None]:
    """The span started inside gets these ids (hexadecimal)."""
    token = _chosen_ids.set((int(trace_id, 16), int(span_id, 16)))
    try:
        yield
    finally:
        _chosen_ids.reset(token)


class _PostgresExporter(SpanExporter):
    def __init__(self, engine: Engine, service: str) -> None:
        self._engine = engine
        self._service = service

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        spans.save(self._engine, [self._row(span) for span in batch])
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._engine.dispose()

    def _row(self, span: ReadableSpan) -> spans.OwnedSpan:
        context = span.get_span_context()
        assert context is not None
        attributes = dict(span.attributes or {})
        tenant, run = attributes.pop(telemetry.TENANT, "default"), attributes.pop(telemetry.RUN, None)
        if span.links:
            attributes[telemetry.LINKS] = [_traceparent(link.context) for link in span.links]
        return spans.OwnedSpan(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
            name=span.name,
            kind=span.kind.name.lower(),
            service=self._service,
            started_at=_time(span.start_time),
            ended_at=_time(span.end_time),
            status=span.status.status_code.name.lower(),
            attributes=attributes,
            tenant_id=str(tenant),
            collaboration_id=str(run) if run else None,
        )


class _IsolatedExporter(SpanExporter):
    """Exports spans of all runs together; one that cannot be exported is left out alone."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        isolation = Isolation(batch)
        results = set()
        for part in isolation:
            try:
                results.add(self._exporter.export(part))
            except Exception as error:
                if befalls_all(error):
                    return SpanExportResult.FAILURE
                isolation.refuse(error)
        for span, fault in isolation.refused:
            _log.error("Span could not be exported", extra={"span": span.name, "error": type(fault).__name__})
        failed = SpanExportResult.FAILURE
        return failed if failed in results else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _RunAttributes(SpanProcessor):
    """Lets a span belong to the run that the span above it belongs to."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        above = trace.get_current_span(parent_context)
        known = (above.attributes if isinstance(above, ReadableSpan) else None) or {}
        for key in (telemetry.TENANT, telemetry.RUN):
            if key in known and key not in (span.attributes or {}):
                span.set_attribute(key, known[key])


def _traceparent(context: trace.SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _time(nanoseconds: int | None) -> datetime:
    return datetime.fromtimestamp((nanoseconds or 0) / 1e9, UTC)


def exporters(service: str, settings: Settings) -> list[SpanExporter]:
    """Return where this process's spans go."""
    found: list[SpanExporter] = [_PostgresExporter(sync_engine(settings.database_url), service)]
    if settings.otel_exporter_otlp_endpoint or settings.otel_exporter_otlp_traces_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        found.append(OTLPSpanExporter())
    return found


def setup(service: str, settings: Settings) -> TracerProvider:
    """Start exporting this process's spans. Call once, at the entry point."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"facilitair-{service}"}), id_generator=_Ids()
    )
    provider.add_span_processor(_RunAttributes())
    for exporter in exporters(service, settings):
        provider.add_span_processor(
            BatchSpanProcessor(_IsolatedExporter(exporter), schedule_delay_millis=500)
        )
    trace.set_tracer_provider(provider)
    return provider


def random_span_id() -> str:
    """An id for a span that is written later, by `chosen_ids`."""
    return f"{RandomIdGenerator().generate_span_id():016x}"


def links_to(traceparent: str | None) -> list[trace.Link]:
    """Links to the span that a W3C traceparent names; none to none, or to one that is malformed."""
    context = context_of(traceparent)
    found = trace.get_current_span(context).get_span_context() if context else trace.INVALID_SPAN_CONTEXT
    return [trace.Link(found)] if found.is_valid else []


def context_of(traceparent: str | None) -> Context | None:
    """The context that a W3C traceparent names; None for none."""
    return _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None


class _JsonLines(logging.Formatter):
    _STANDARD: Final = frozenset(vars(logging.makeLogRecord({})))

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in self._STANDARD}
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = f"{context.trace_id:032x}"
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Half a character in somebody's text must not cost the line.
        return clean_text(json.dumps(line, default=str, ensure_ascii=False))


def log_as_json(level: int = logging.INFO) -> None:
    """One JSON object per line on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("LiteLLM", "httpx", "httpcore", "neo4j", "weaviate"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
