"""Rules for steering a running collaboration, as far as they hold without knowing the run."""

from collections.abc import Collection
from typing import Any, Final

from pydantic import ValidationError

from schema.errors import Refused
from schema.language.catalogue import PROVIDERS
from schema.language.steps import Agent
from schema.temporal.runs import Steer

MAX_FEEDBACK_CHARS: Final = 20_000
MAX_FEEDBACKS: Final = 200
"""Most notes to one run: every later prompt holds them."""
ADJUSTABLE: Final = ("model", "temperature", "max_output_tokens", "system")


def fault_of(action: str, steer: Steer, providers: Collection[str] | None = PROVIDERS) -> Refused | None:
    """Return what is wrong with a steering request, whatever the run.

    `providers` are those that the tenant can name; None if the caller does not know them.
    """
    if action == "inject_feedback":
        return _fault_of_text(steer.text)
    return _fault_of_changes(steer.changes, providers) if action == "adjust" else None


def _fault_of_text(text: str) -> Refused | None:
    if not text.strip():
        return Refused("steer_invalid", "found a blank text; expected what the run is to be told.")
    if len(text) > MAX_FEEDBACK_CHARS:
        return Refused(
            "steer_invalid",
            f"found a text of {len(text):,} characters; expected at most {MAX_FEEDBACK_CHARS:,}, since every "
            "later prompt holds it.",
        )
    return None


def _fault_of_changes(changes: dict[str, Any], providers: Collection[str] | None) -> Refused | None:
    known = ", ".join(ADJUSTABLE)
    if not changes:
        return Refused("steer_invalid", f"found no change; expected any of {known}.")
    if unknown := [key for key in changes if key not in ADJUSTABLE]:
        return Refused("steer_invalid", f"found a change of {unknown[0][:60]!r}; expected any of {known}.")
    model = changes.get("model")
    if model is not None and not _is_model(model, providers):
        return Refused(
            "model_unknown",
            f"found the model {str(model)[:100]!r}; expected provider/model"
            + (f" with a provider of {', '.join([*providers][:40])}." if providers is not None else "."),
        )
    try:
        Agent.model_validate(changes)
    except ValidationError as error:
        wrong = error.errors()[0]
        return Refused(
            "steer_invalid", f"found {str(wrong['input'])[:60]!r} for {wrong['loc'][0]}: {wrong['msg']}."
        )
    return None


def _is_model(value: Any, providers: Collection[str] | None) -> bool:
    if not isinstance(value, str):
        return False
    provider, _, rest = value.partition("/")
    known = bool(provider) if providers is None else provider in providers
    return known and bool(rest) and len(value) <= 200
