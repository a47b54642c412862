"""What others put into Temporal: inputs of their clients, results of their activities."""

from typing import Any

from temporalio import workflow
from temporalio.common import RawValue

with workflow.unsafe.imports_passed_through():
    from schema.foreign import UnusableValue, clean_value, too_deep


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
