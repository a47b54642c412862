"""Values that others put into Temporal: inputs of their clients, results of their activities."""

from typing import Any

from temporalio import workflow
from temporalio.common import RawValue

with workflow.unsafe.imports_passed_through():
    from schema.values.foreign import UnusableValue, clean_text, clean_value, too_deep


def foreign_value(raw: RawValue | None) -> Any:
    """Return the JSON value of a payload that others wrote, null where there is none.

    Raises UnusableValue, and nothing else.
    """
    if raw is None:
        return None
    try:
        return clean_value(workflow.payload_converter().from_payload(raw.payload))
    except UnusableValue:
        raise
    except RecursionError:
        raise too_deep() from None
    except Exception:
        # Its text may quote what was sent.
        raise UnusableValue("found a payload that is no JSON; expected the encoding json/plain") from None


def memo_text(name: str) -> str | None:
    """Return a text of the run's memo; None where there is none, or a client wrote something else there."""
    found = _memo(name)
    return clean_text(found) if isinstance(found, str) else None


def memo_object(name: str) -> dict[str, Any] | None:
    """Return an object of the run's memo; None if it has none, or a client wrote something else there."""
    found = _memo(name)
    return found if isinstance(found, dict) else None


def _memo(name: str) -> Any:
    try:
        return clean_value(workflow.memo_value(name, None))
    except Exception:
        return None  # as if it were not there: its reader refuses the run
