"""From bytes to a JSON value, safely: size, depth, duplicate keys, numbers and text are checked first."""

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import yaml

from schema.cel.expressions import Json, storable
from schema.errors import InvalidDefinition, Problem
from schema.values.foreign import MAX_DIGITS

MAX_BYTES: Final = 256 * 1024
MAX_YAML_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 40
MAX_VALUES: Final = 50_000
"""JSON values in one document: what checking costs grows with their number, not with bytes."""
MAX_YAML_EVENTS: Final = 10_000
"""Parsing YAML costs twenty times what parsing JSON does."""


class _BadDocument(ValueError):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.found)
        self.problem = problem


def _problem(code: str, found: str, expected: str, fix: str, pointer: str = "") -> _BadDocument:
    return _BadDocument(Problem(code, pointer, found, expected, fix))


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _problem(
                    "document_duplicate_key",
                    f"the key {key[:80]!r} twice in one object",
                    "each key once",
                    "Rename or remove one of them.",
                )
            seen.add(key)
    return result


def _bad_number(text: str) -> _BadDocument:
    return _problem(
        "document_bad_number",
        f"the number {text[:40]}",
        "a finite number of at most 30 digits",
        "JSON has no NaN or Infinity; write very large numbers as text.",
    )


def _constant(text: str) -> Json:
    raise _bad_number(text)


def _integer(text: str) -> int:
    if len(text.lstrip("+-")) > MAX_DIGITS:
        raise _bad_number(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if len(text) > MAX_DIGITS or not math.isfinite(value):
        raise _bad_number(text)
    return value


def _check_tree(value: Json, max_depth: int) -> None:
    """Depth, number and text, without recursion: the parser's own limit is far above ours."""
    if isinstance(value, str):
        _check_text(value)
    level = [value]
    count = 0
    for _ in range(max_depth):
        deeper: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                parts: Iterable[Json] = item.values()
                for key in item:
                    _check_text(key)
            elif isinstance(item, list):
                parts = item
            else:
                continue
            count += len(item)
            if count > MAX_VALUES:
                raise _too_many_values(MAX_VALUES)
            for part in parts:
                if isinstance(part, str):
                    _check_text(part)
                elif isinstance(part, (dict, list)):
                    deeper.append(part)
        level = deeper
    if level:
        raise _too_deep(max_depth)


def _check_text(text: str) -> None:
    if not storable(text):
        raise _problem(
            "document_bad_text",
            "a NUL character or half a surrogate pair in a string",
            "Unicode text",
            "Remove it: Postgres and UTF-8 cannot hold it.",
        )


def _too_deep(max_depth: int = MAX_DEPTH) -> _BadDocument:
    return _problem(
        "document_too_deep",
        f"more than {max_depth} levels of nesting",
        f"at most {max_depth}",
        "Flatten the document.",
    )


def _too_many_values(limit: int) -> _BadDocument:
    return _problem(
        "document_too_large",
        f"more than {limit:,} values",
        f"at most {limit:,}",
        "Pass large data as input at the start of a run, not in the definition.",
    )


def _too_large(size: int, limit: int) -> _BadDocument:
    return _problem(
        "document_too_large",
        f"{size:,} bytes",
        f"at most {limit:,}",
        "Pass large texts as input at the start of a run, not in the definition.",
    )


class _StrictLoader(yaml.CSafeLoader):
    """YAML as JSON: plain values are null, true, false, decimal numbers or text, and keys are text.

    YAML 1.1's own guesses (`no` is false, 1:30 is ninety, 0777 is octal, dates) and its tags are left out.
    """


_StrictLoader.yaml_implicit_resolvers = {}
_StrictLoader.yaml_constructors = {None: yaml.CSafeLoader.construct_undefined}


def _resolve(kind: str, pattern: str, first: str, construct: Callable[[_StrictLoader, Any], Json]) -> None:
    tag = f"tag:yaml.org,2002:{kind}"
    _StrictLoader.add_constructor(tag, construct)
    if pattern:
        _StrictLoader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), list(first))


def _yaml_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[str, Json]:
    pairs: list[tuple[str, Json]] = []
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _problem(
                "document_not_json",
                f"a list or a map as a key at line {key.start_mark.line + 1}",
                "text keys",
                "Write the key as text.",
            )
        pairs.append((key.value, loader.construct_object(item, deep=True)))
    return _object(pairs)


def _yaml_float(loader: _StrictLoader, node: yaml.ScalarNode) -> float:
    if node.value[-1] in "fFnN":
        raise _bad_number(node.value)
    return _float(node.value)


_resolve("null", r"~|null|Null|NULL|", "~nN", lambda loader, node: None)
_StrictLoader.yaml_implicit_resolvers.setdefault("", []).append(
    ("tag:yaml.org,2002:null", re.compile("^$"))
)  # an empty value has no first character
_resolve(
    "bool", "true|True|TRUE|false|False|FALSE", "tTfF", lambda loader, node: node.value.lower() == "true"
)
_resolve("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789", lambda loader, node: _integer(node.value))
_resolve(
    "float",
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
    "-+.0123456789",
    _yaml_float,
)
_resolve("str", "", "", lambda loader, node: loader.construct_scalar(node))
_resolve("seq", "", "", lambda loader, node: loader.construct_sequence(node, deep=True))
_resolve("map", "", "", _yaml_mapping)


def _load_yaml(text: str) -> Json:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if count > MAX_YAML_EVENTS:
            raise _too_many_values(MAX_YAML_EVENTS)
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            raise _problem(
                "document_not_json",
                f"the YAML anchor or alias {anchor[:40]!r}",
                "plain values",
                "Write the value out: aliases can make a small file unboundedly large.",
            )
        if tag is not None:
            raise _problem(
                "document_not_json",
                f"the YAML tag {tag[:40]!r}",
                "plain values",
                "Remove the tag: a definition holds JSON values only.",
            )
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep()
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
    return yaml.load(text, Loader=_StrictLoader)


def _load(data: bytes, is_yaml: bool, limit: int, max_depth: int) -> Json:
    if len(data) > limit:
        raise _too_large(len(data), limit)
    try:
        text = data.decode("utf-8-sig")
        if is_yaml:
            value = _load_yaml(text)
        else:
            value = json.loads(
                text,
                object_pairs_hook=_object,
                parse_constant=_constant,
                parse_int=_integer,
                parse_float=_float,
            )
    except RecursionError:
        raise _too_deep(max_depth) from None
    except UnicodeDecodeError as error:
        raise _problem(
            "document_bad_text",
            f"bytes that are not UTF-8 at offset {error.start}",
            "UTF-8",
            "Save the file as UTF-8.",
        ) from None
    except json.JSONDecodeError as error:
        raise _problem(
            "document_not_json",
            f"{error.msg} at line {error.lineno}, column {error.colno}",
            "one JSON document",
            "Correct the syntax there.",
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _problem(
            "document_not_json",
            f"{getattr(error, 'problem', None) or 'unreadable YAML'}{where}",
            "one YAML document",
            "Correct the syntax there.",
        ) from None
    _check_tree(value, max_depth)
    return value


def load(
    data: bytes, *, is_yaml: bool = False, max_bytes: int | None = None, max_depth: int = MAX_DEPTH
) -> Any:
    """The JSON value in `data`; raises InvalidDefinition with one problem."""
    try:
        return _load(data, is_yaml, max_bytes or (MAX_YAML_BYTES if is_yaml else MAX_BYTES), max_depth)
    except _BadDocument as error:
        raise InvalidDefinition([error.problem]) from None
