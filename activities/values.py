"""Values on their way into Postgres: what it can hold, and how much of it."""

import json
from datetime import UTC, datetime
from typing import Final

from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language import json_schemas
from schema.language.json_numbers import as_declared
from schema.language.steps import ToolStep
from schema.language.templates import described
from schema.values.foreign import UnusableValue, clean_value
from schema.values.sizes import check_size

MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024


def checked_output(output: Json) -> Json:
    """The output, if Postgres and readers can hold it; raises StepError: output_too_large, output_invalid."""
    if output is None or isinstance(output, (bool, int)):
        return output
    check_size(output)
    try:
        size = len(json.dumps(output, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except (ValueError, TypeError):
        raise StepError("output_invalid", "found no JSON; expected finite numbers and texts.") from None
    if size > MAX_OUTPUT_BYTES:
        raise StepError(
            "output_too_large",
            f"found an output of {size:,} bytes; expected at most {MAX_OUTPUT_BYTES:,}. "
            "Let the step return a reference to where the data is.",
        )
    return output


def storable(value: Json) -> Json:
    """The value as Postgres and readers can hold it, see `schema.values.foreign`.

    Raises StepError("output_invalid").
    """
    try:
        return clean_value(value)
    except UnusableValue as error:
        raise StepError("output_invalid", f"{error}.") from None


def as_promised(step: ToolStep, output: Json) -> Json:
    """A tool's output with its numbers as the step declares them."""
    return output if step.output_schema is None else as_declared(step.output_schema, output)


def output_fault(step: ToolStep, output: Json) -> str | None:
    """Return why a tool's output breaks its schema; None if it fits."""
    if step.output_schema is None:
        return None
    fault = json_schemas.faults(step.output_schema, output, most=1)
    return f"the output does not fit its schema: {fault}" if fault else None


def moment_of(value: Json) -> datetime:
    """A point in time as a definition writes it; raises StepError."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise StepError(
            "wait_time_invalid", f"found {described(value)}; expected a time like 2026-01-31T09:00:00Z."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
