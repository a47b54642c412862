"""The arguments of a run's Updates and signals, as any Temporal client may send them: plain JSON."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from schema.errors import Refused
from schema.temporal.people import Decision
from schema.temporal.runs import Steer
from schema.values.foreign import UnusableValue, clean_value

_DECISION_INVALID = "human_decision_invalid"
_STEER_INVALID = "steer_invalid"

Message = TypeVar("Message", Decision, Steer)


def fault_of_decision(given: Sequence[Any]) -> Refused | None:
    """Return why the arguments are no decision, or None."""
    return _fault(Decision, _addressed(given), _DECISION_INVALID)


def decision_of(given: Sequence[Any]) -> Decision:
    """Return the arguments as a decision, once `fault_of_decision` finds nothing."""
    return _read(Decision, _addressed(given))


def fault_of_steer(given: Sequence[Any]) -> Refused | None:
    """Return why the arguments steer nothing, or None. No argument stands for an empty object."""
    return _fault(Steer, _or_empty(given), _STEER_INVALID)


def steer_of(given: Sequence[Any]) -> Steer:
    """Return the arguments as what steers a run, once `fault_of_steer` finds nothing."""
    return _read(Steer, _or_empty(given))


def _addressed(given: Sequence[Any]) -> Sequence[Any]:
    """A question that is named by its id needs no path."""
    if len(given) == 1 and isinstance(given[0], dict) and given[0].get("task"):
        return [{"path": "", **given[0]}]
    return given


def _or_empty(given: Sequence[Any]) -> Sequence[Any]:
    return [{}] if not given or list(given) == [None] else given


def _read(message: type[Message], given: Sequence[Any]) -> Message:
    # Fields that are not known are refused before a run sees them; older releases accepted and ignored them.
    known = {field.name for field in fields(message)}
    return message(**{name: value for name, value in given[0].items() if name in known})


def _fault(message: type[Message], given: Sequence[Any], code: str) -> Refused | None:
    known = ", ".join(field.name for field in fields(message))
    try:
        clean_value(list(given))
    except UnusableValue as error:
        return Refused(code, f"{error}.")
    if len(given) != 1:
        return Refused(code, f"found {len(given)} arguments; expected one JSON object with any of {known}.")
    [value] = given
    if not isinstance(value, dict):
        return Refused(code, f"found {repr(value)[:100]}; expected a JSON object with any of {known}.")
    wrong = _wrong_field(message, value)
    return Refused(code, f"{wrong} Fields are {known}.") if wrong else None


def _wrong_field(message: type[Message], value: dict[Any, Any]) -> str | None:
    """Return what is wrong with the first field that is unknown, missing or of another type."""
    hints = get_type_hints(message)
    if unknown := [name for name in value if name not in hints]:
        return f"found the unknown field {str(unknown[0])[:60]!r}; leave it out."
    for field in fields(message):
        if field.name not in value:
            if field.default is MISSING and field.default_factory is MISSING:
                return f"found no {field.name!r}; expected it."
        elif expected := _mismatch(value[field.name], hints[field.name]):
            return f"found {repr(value[field.name])[:60]} for {field.name!r}; expected {expected}."
    return None


def _mismatch(value: Any, hint: Any) -> str | None:
    """Return what is expected instead of the value; None if it fits."""
    if hint is str:
        return None if isinstance(value, str) else "text"
    if hint == list[str]:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return None if fits else "a list of texts"
    if hint == dict[str, Any]:
        return None if isinstance(value, dict) else "an object"
    return None
