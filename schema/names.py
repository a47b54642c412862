"""Names that callers may give, and those that belong to the platform.

Workflow ids are one name space that the platform's own workflows share with everybody's runs, so every door
that takes an id or a definition's name asks here.
"""

import hashlib
import hmac
import json
import re
from typing import Any, Final

from schema.errors import Refused

OWN: Final = "facilitair"
OWN_TYPES: Final = f"{OWN}."
"""Begins the types of the platform's own workflows."""
_RESERVED: Final = re.compile(rf"{OWN}(?![a-z0-9])", re.IGNORECASE)
_UNNAMEABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|\A\.{1,2}\Z")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# What Temporal appends to the id that a schedule starts.
_SCHEDULED: Final = re.compile(r"-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", re.IGNORECASE)
_DIGEST_CHARS: Final = 24


def is_reserved(name: str) -> bool:
    """Tell whether an id, a workflow type or a definition's name belongs to the platform: `facilitair.learn`,
    `facilitair-trials`, also in other letters. `facilitairs` does not."""
    return _RESERVED.match(name) is not None


def is_uuid(name: str) -> bool:
    """Tell whether a name is written as UUIDs are. Other spellings of one are never taken for it."""
    return _UUID.fullmatch(name) is not None


def check_id(id: str) -> None:
    """Raise Refused("id_reserved") for an id of a run that no caller may choose."""
    if is_reserved(id):
        raise Refused(
            "id_reserved",
            f"found the id {id!r}; expected one that does not begin with {OWN!r}: those belong to the "
            "platform's own workflows. Choose another, or none to have one made.",
        )
    if is_uuid(id):
        raise Refused(
            "id_reserved",
            f"found the id {id!r}; expected one that is not written as a UUID: by its UUID every run can be "
            "named, and this may be another one's. Put a word before it, or leave out its hyphens.",
        )
    if _SCHEDULED.search(id):
        raise Refused(
            "id_reserved",
            f"found the id {id!r}; expected one that does not end in a hyphen and a time: a schedule's run "
            "may come to have it. Write the time in another way.",
        )


def check_nameable(id: str) -> None:
    """Raise Refused("id_invalid") for an id that no address, command or message could name."""
    if _UNNAMEABLE.search(id):
        raise Refused(
            "id_invalid",
            f"found the id {id!r}; expected one without line breaks and other control characters, and "
            "not `.` or `..`: no address could name the run. Start it under another id.",
        )


def without_time(id: str) -> str:
    """Return the id that a schedule was given for its runs, from the id of one of them."""
    return _SCHEDULED.sub("", id)


def check_definition(name: str) -> None:
    """Raise Refused("name_reserved") for a definition (name, name@3 or name@alias) whose name belongs to the
    platform: one that was stored before such names were refused."""
    if is_reserved(name):
        raise Refused(
            "name_reserved",
            f"found the definition {name!r}; expected a name that does not begin with {OWN!r}: those belong "
            "to the platform's own workflows. Upload it under another name.",
        )


def digest(secret: bytes, *parts: Any) -> str:
    """Return what nobody can compute without the secret and everybody who has it computes alike, as 24
    hexadecimal digits (96 bits). Lists of parts that differ anywhere have other digests."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:_DIGEST_CHARS]


# Words that CEL keeps for itself: `steps.in` would not parse.
RESERVED_IDS: Final = frozenset(
    (
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    )
)
