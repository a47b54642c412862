"""Spans of activities, hung into the collaboration's one trace whatever process they run in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from db.telemetry import context_of
from schema import telemetry
from schema.errors import FacilitairError

Value = str | int | float | bool
_TRACER = trace.get_tracer("facilitair")


@contextmanager
def span(
    name: str,
    traceparent: str | None,
    attributes: Mapping[str, Value | None],
    kind: Literal["internal", "client"] = "internal",
) -> Iterator[Span]:
    """A span below `traceparent` (below the current span when that is None); None values are left out."""
    with _TRACER.start_as_current_span(
        name,
        context=context_of(traceparent),
        kind=SpanKind.CLIENT if kind == "client" else SpanKind.INTERNAL,
        attributes={key: value for key, value in attributes.items() if value is not None},
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
