"""Request bodies: read as a stream, stopped at their limit, checked before they are parsed deep."""

import asyncio
import json
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from api.http.problems import BadRequest
from api.state import ApiState
from schema.errors import InvalidDefinition, Problem, Refused
from schema.language import document
from schema.language.templates import escape
from schema.values.foreign import MAX_DEPTH

M = TypeVar("M", bound=BaseModel)

_JSON: Final = ("application/json",)
_YAML: Final = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
_DRAIN_BYTES: Final = 64 * 1024 * 1024
MAX_JSON_BYTES: Final = 1024 * 1024
"""Bound on requests other than definitions: a run's input stays well below Temporal's limit."""


def _is_json(media_type: str) -> bool:
    """Tell whether a content type is JSON: by its name, or by its suffix `+json` (RFC 6839)."""
    kind, _, name = media_type.partition("/")
    return media_type in _JSON or (bool(kind) and name.endswith("+json"))


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read(request: Request, limit: int, code: str) -> bytes:
    """The body, never holding more than `limit` bytes of it."""
    declared = int(request.headers.get("content-length", "0") or 0)
    # A client that asks first sends nothing when refused. Another would see its connection reset instead
    # of the answer if the rest were not read: it is read and dropped.
    if declared > limit and "expect" in request.headers:
        raise _too_large(code, declared, limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
            if max(size, declared) > _DRAIN_BYTES:
                break
    if size > limit:
        raise _too_large(code, max(size, declared), limit)
    return b"".join(chunks)


def _too_large(code: str, size: int, limit: int) -> Refused:
    return Refused(
        code,
        f"found a body of {size:,} bytes; expected at most {limit:,}. Pass large texts by reference.",
    )


async def read_document(request: Request) -> tuple[bytes, bool]:
    """(an uploaded document, whether it is YAML)."""
    media_type = _media_type(request)
    if not _is_json(media_type) and media_type not in _YAML:
        raise _unsupported(media_type, f"{_JSON[0]} or {_YAML[0]}")
    return await read(request, document.MAX_BYTES, "document_too_large"), media_type in _YAML


async def read_json(request: Request, state: ApiState, model: type[M], *, optional: bool = False) -> M:
    """A JSON body as a typed request; where it is `optional`, none at all is an empty one."""
    media_type = _media_type(request)
    if not _is_json(media_type) and not (optional and not media_type):
        raise _unsupported(media_type, _JSON[0])
    data = await read(request, MAX_JSON_BYTES, "body_too_large")
    if optional and not data:
        return model()
    return await asyncio.get_running_loop().run_in_executor(state.checking, _parse, data, model)


async def read_value(request: Request, state: ApiState) -> Any:
    """A JSON body whatever its shape; nothing at all counts as an empty object."""
    media_type = _media_type(request)
    if media_type and not _is_json(media_type):
        raise _unsupported(media_type, _JSON[0])
    data = await read(request, MAX_JSON_BYTES, "body_too_large")
    return await asyncio.get_running_loop().run_in_executor(state.checking, _load, data) if data else {}


def _load(data: bytes) -> Any:
    try:
        return document.load(data, max_bytes=MAX_JSON_BYTES, max_depth=MAX_DEPTH)
    except InvalidDefinition as error:
        raise BadRequest("request_invalid", error.message, error.problems) from None


def _parse(data: bytes, model: type[M]) -> M:
    value = _load(data)
    try:
        return _typed(value, model)
    except ValidationError as error:
        if _make_whole(value, error):
            return _parse(json.dumps(value).encode(), model)
        problems = [_problem(item["loc"], item["input"], item["msg"]) for item in error.errors()[:20]]
        raise BadRequest("request_invalid", problems[0].message, problems) from None


def _typed(value: Any, model: type[M]) -> M:
    """Return the value as a request, read strictly as JSON: `true` is no number, a number no text and no
    date."""
    return model.model_validate_json(json.dumps(value), strict=True)


def _make_whole(value: Any, error: ValidationError) -> bool:
    """Write 3 for 3.0 where a whole number is wanted: JSON has one kind of number. Return whether any was."""
    changed = False
    for wrong in error.errors():
        if wrong["type"] == "int_type" and _is_whole(wrong["input"]):
            inner = value
            for part in wrong["loc"]:
                # What follows the place of the value names a kind that was tried there.
                if _is_whole(found := inner[part]):
                    inner[part], changed = int(found), True
                    break
                inner = found
    return changed


def _is_whole(found: Any) -> bool:
    return isinstance(found, float) and found.is_integer()


def _problem(location: tuple[int | str, ...], found: Any, expected: str) -> Problem:
    pointer = "".join(f"/{escape(str(part))}" for part in location)
    # Never quoted where it may be a secret that was sent in error.
    secret = bool(location) and "key" in str(location[-1]).lower()
    told = str(found) if isinstance(found, (Decimal, datetime)) else repr(found)
    shown = "a value that is not shown" if secret else told[:100]
    return Problem("request_invalid", pointer, shown, expected, "See /openapi.json.")


def _unsupported(found: str, expected: str) -> Refused:
    return Refused(
        "media_type_unsupported",
        f"found the content type {found or 'none'!r}; expected {expected}. Send it as `Content-Type`.",
    )


def body_of(model: type[BaseModel], *, optional: bool = False) -> dict[str, Any]:
    """The OpenAPI description of a body that is read by `read_json`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": not optional, "content": {_JSON[0]: {"schema": schema}}}}
