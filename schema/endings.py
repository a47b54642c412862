"""Ends of runs that neither simply complete nor fail by one of their steps."""

from typing import Final

NO_OUTPUT: Final = "no_output"
"""`sub_state` of a completed run without a written `output` whose last steps were all skipped."""
SUB_STATES: Final = {
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "TERMINATED": "terminated",
    "TIMED_OUT": "timed_out",
}
"""Temporal's status → how a run ended that it closed past the platform: terminated, timed out, or failed on
its own."""


def error_of(status: str) -> tuple[str, str] | None:
    """(code, message) of an end that has no failure of its own to tell of it."""
    if status not in ("TERMINATED", "TIMED_OUT"):
        return None
    state = SUB_STATES[status]
    return f"run_{state}", f"the run was {state.replace('_', ' ')} in Temporal."
