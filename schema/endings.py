"""Runs that Temporal closed past the platform: terminated there, timed out, or failed on their own."""

from typing import Final

SUB_STATES: Final = {
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "TERMINATED": "terminated",
    "TIMED_OUT": "timed_out",
}
"""Temporal's status → how a run that it closed so ended."""


def error_of(status: str) -> tuple[str, str] | None:
    """(code, message) of an end that has no failure of its own to tell of it."""
    if status not in ("TERMINATED", "TIMED_OUT"):
        return None
    state = SUB_STATES[status]
    return f"run_{state}", f"the run was {state.replace('_', ' ')} in Temporal."
