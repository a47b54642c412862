"""Read a person's input as the JSON that a run gets."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema.errors import InvalidDefinition, Refused
from schema.values.foreign import MAX_DEPTH


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
    value = read_json(read_bytes(json_path), json_path)
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
        return key[:-1], read_json(value, f"--input {key[:-1]}")
    return key, read_text(value[1:]) if value.startswith("@") else value


def read_json(
    given: str | bytes, where: str, *, code: str = "input_invalid", hint: str = "", is_yaml: bool = False
) -> Any:
    """Return the JSON value that a person gave, read as the API reads it; raises Refused with the code."""
    from schema.language import document  # a fifth of a second, which `--help` does not wait for

    data = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    try:
        return document.load(data, is_yaml=is_yaml, max_bytes=len(data) or 1, max_depth=MAX_DEPTH)
    except InvalidDefinition as error:
        told = error.problems[0].message
        raise Refused(code, f"found no JSON that can be used in {where}: {told}{hint}") from None
