"""JSON Schemas for what fields demand together, or more strictly than their types say."""

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic.config import JsonDict

from schema.values.foreign import readable

# What counts as blank differs between engines of patterns: this has all that any of them does.
NOT_BLANK: Final[JsonDict] = {"pattern": r"[^\s\x00-\x20\x7f-\xa0\ufeff]"}
"""For fields that refuse a blank text in words of their own."""

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _dated(given: Any) -> Any:
    """Return the moment that a text names. Raise ValueError for a number: pydantic would count it as seconds
    since 1970."""
    if given is None or isinstance(given, datetime):
        return given
    try:
        if isinstance(given, str) and _DATE.match(given):
            return datetime.fromisoformat(given.upper())
    except ValueError:
        pass
    raise ValueError("expected a date and time such as 2026-01-31T12:00:00Z")


Moment = Annotated[
    datetime,
    BeforeValidator(_dated),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}),
]
"""A time in an address; UTC if it names no zone."""
StoredValue = Annotated[Any, PlainSerializer(readable)]
"""JSON that a run has left: it answers, whatever it is."""
AwareMoment = Annotated[AwareDatetime, BeforeValidator(_dated)]


def one_of_both(given: str, absent: str) -> JsonDict:
    """Return the schema of an object that has the one field and not the other; null is as good as absent."""
    fields: JsonDict = {given: {"not": {"type": "null"}}, absent: {"type": "null"}}
    return {"required": [given], "properties": fields}
