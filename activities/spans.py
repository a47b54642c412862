"""Spans of activities, hung into the collaboration's one trace whatever process they run in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, Protocol

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from db.telemetry import context_of
from schema import telemetry
from schema.errors import FacilitairError

Value = str | int | float | bool
_TRACER = trace.get_tracer("facilitair")


class TracedRequest(Protocol):
    """The run and trace that a span belongs to."""

    @property
    def tenant(self) -> str: ...
    @property
    def collaboration(self) -> str: ...
    @property
    def traceparent(self) -> str: ...


@contextmanager
def span(
    name: str,
    of: TracedRequest | None,
    attributes: Mapping[str, Value | None],
    kind: Literal["internal", "client"] = "internal",
) -> Iterator[Span]:
    """A span in the trace of a run, which is written down with it. Without one: below the current span, and
    of the same run. Values of None are left out."""
    given = dict(attributes) | ({telemetry.TENANT: of.tenant, telemetry.RUN: of.collaboration} if of else {})
    with _TRACER.start_as_current_span(
        name,
        context=context_of(of.traceparent) if of else None,
        kind=SpanKind.CLIENT if kind == "client" else SpanKind.INTERNAL,
        attributes={key: value for key, value in given.items() if value is not None},
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            code = error.code if isinstance(error, FacilitairError) else type(error).__name__
            current.set_attribute(telemetry.ERROR_TYPE, code)
            current.set_status(Status(StatusCode.ERROR, code))
            raise
