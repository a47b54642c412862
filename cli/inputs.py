"""What a person types as input, as the JSON that a run gets."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema.errors import Refused
from schema.foreign_json import read_json


def read_text(path: str) -> str:
    """The text of a file, or of standard input for `-`."""
    return read_bytes(path).decode("utf-8", "replace")


def read_bytes(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Refused(
            "file_unreadable", f"found {path!r}: {error.strerror}; expected a file that can be read."
        ) from None


def parse(pairs: Sequence[str], json_path: str | None) -> Any:
    """`key=text`, `key=@file` and `key:=JSON`, over the JSON of `json_path` when there is one."""
    if json_path is None:
        return dict(_pair(pair) for pair in pairs)
    value = _json(read_text(json_path), json_path)
    if not pairs:
        return value
    if not isinstance(value, dict):
        raise Refused("input_invalid", f"found no object in {json_path}; expected one to add --input to.")
    return value | dict(_pair(pair) for pair in pairs)


def _pair(pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals or not key.rstrip(":"):
        raise Refused("input_invalid", f"found --input {pair!r}; expected key=value, key=@file or key:=JSON.")
    if key.endswith(":"):
        return key[:-1], _json(value, f"--input {key[:-1]}")
    return key, read_text(value[1:]) if value.startswith("@") else value


def _json(text: str, where: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise Refused("input_invalid", f"found no JSON in {where}: {error}.") from None
