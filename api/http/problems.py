"""Errors as RFC 9457 problem documents, with our stable codes."""

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from db.isolation import is_away, is_refused
from schema.bugs import noted
from schema.errors import (
    FacilitairError,
    InvalidDefinition,
    NotFound,
    Problem,
    Refused,
    TryLater,
    Unavailable,
)
from schema.language.templates import escape

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2
_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_UNDEFINED_TABLE: Final = "42P01"

_log = logging.getLogger("facilitair.api")

_STATUS_BY_CODE: Final = {
    "document_too_large": 413,
    "body_too_large": 413,
    "input_too_large": 413,
    "media_type_unsupported": 415,
    "collaboration_exists": 409,
    "collaboration_ended": 409,
    "collaboration_not_failed": 409,
    "fork_outputs_too_large": 413,
    "prompt_in_use": 409,
    "trial_running": 409,
    "trial_pointless": 409,
    "too_few_examples": 409,
    "optimization_running": 409,
    "training_running": 409,
    "checkpoint_state": 409,
    "definition_deprecated": 404,
    "human_not_waiting": 409,
    "human_already_decided": 409,
    "api_key_wrong": 401,
    "origin_refused": 403,
    "too_many_wrong_keys": 429,
    "too_many_requests": 429,
    "api_busy": 503,
    "definitions_full": 409,
    "too_many_webhooks": 409,
    "too_many_schedules": 409,
}


class ProblemItem(BaseModel):
    """One thing that is wrong with what was sent."""

    code: str
    pointer: str = Field(description="RFC 6901 JSON pointer to the culprit; empty for the whole document.")
    found: str
    expected: str
    fix: str
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["docs/errors.md#definition_unknown"])
    title: str
    status: int
    detail: str
    instance: str
    code: str
    problems: list[ProblemItem] | None = Field(
        default=None, description="Everything that is wrong with the document that was sent."
    )


class BadRequest(Refused):
    """A request that cannot be carried out, with the places that are wrong."""

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(code, message)
        self.problems = list(problems)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for the OpenAPI document. The last seven can come from any route."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
        for status in (*statuses, 400, 401, 403, 422, 429, 500, 503)
    }
    # The server itself answers what it cannot take apart, before the API sees it.
    found[400]["content"]["text/plain"] = {"schema": {"type": "string"}}
    found[401]["headers"] = {"WWW-Authenticate": _header("How to give the key.")}
    for status in (429, 503):
        found[status]["headers"] = {"Retry-After": _header("Seconds to wait.")}
    return found


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": "string"}}


_SCHEMA: Final = {"$ref": "#/components/schemas/ProblemDocument"}


_DESCRIPTIONS: Final = {
    400: "It cannot be read as HTTP, for instance because its address is longer than 64 KiB.",
    401: "The API key is missing or wrong.",
    403: "A web page of another origin asked.",
    404: "There is no such thing, or it belongs to another tenant.",
    409: "It contradicts the present state.",
    413: "The body is too large.",
    415: "The content type is not one that this address reads.",
    422: "Refused; `problems` says where and what to do.",
    429: "Too much at once, from this address or by this tenant; `Retry-After` says when to try again.",
    500: "A fault of the platform.",
    503: "A server that the platform needs is away; try again.",
}


def status_of(error: FacilitairError) -> int:
    if isinstance(error, InvalidDefinition):
        return _STATUS_BY_CODE.get(error.problems[0].code, 422)
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, TryLater):
        return 429
    if isinstance(error, Refused):
        return 422
    return 503 if isinstance(error, Unavailable) else 500


def document(error: FacilitairError, instance: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": f"docs/errors.md#{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": status_of(error),
        "detail": error.message,
        "instance": instance,
        "code": error.code,
    }
    if isinstance(error, (InvalidDefinition, BadRequest)) and error.problems:
        result["problems"] = [problem.as_json() for problem in error.problems]
    return result


def response(error: FacilitairError, path: str) -> Response:
    body = document(error, path)
    headers = {}
    if body["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TryLater):
        headers["Retry-After"] = str(error.retry_after_seconds)
    elif body["status"] == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    # A surrogate in a found value cannot be written as UTF-8; escaped it can.
    return Response(json.dumps(body), body["status"], headers, MEDIA_TYPE)


async def refuse(error: FacilitairError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or a WebSocket that is not open yet, with an error."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    await response(error, scope["path"])(scope, receive, send)


def from_database(error: DBAPIError | PoolTimeout) -> FacilitairError | None:
    """The database's own errors in our words; None for a bug."""
    if isinstance(error, PoolTimeout) or is_away(error):
        return _postgres_away()
    if is_refused(error):
        return BadRequest(
            "request_invalid",
            "found a text or number in the request that Postgres cannot hold; expected Unicode without NUL "
            f"and numbers within bounds. The log has the details under {noted(error, _log)}.",
        )
    if getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE:
        return Unavailable(
            "database_not_migrated",
            "found a database without the platform's tables. Run `python -m db.migrate` first.",
        )
    return None


def _postgres_away() -> Unavailable:
    return Unavailable("postgres_unavailable", "Postgres does not answer at DATABASE_URL. Try again shortly.")


def _from_validation(error: RequestValidationError) -> BadRequest:
    problems = [
        Problem(
            code="request_invalid",
            pointer="".join(f"/{escape(str(part))}" for part in item["loc"]),
            found=repr(item.get("input"))[:100],
            expected=str(item["msg"]),
            fix="See /openapi.json for what this address takes.",
        )
        for item in error.errors()
    ]
    return BadRequest("request_invalid", f"{problems[0].pointer}: {problems[0].message}", problems)


def _from_http(error: HTTPException, request: Request) -> Response:
    code = {404: "address_unknown", 405: "method_not_allowed"}.get(error.status_code, "request_invalid")
    detail = (
        f"found {request.method} {request.url.path}; expected one of the addresses in /openapi.json."
        if error.status_code in (404, 405)
        else str(error.detail)
    )
    body = document(FacilitairError(code, detail), request.url.path) | {"status": error.status_code}
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return Response(json.dumps(body), error.status_code, headers, MEDIA_TYPE)


def _allowed(request: Request) -> list[str]:
    """Return the methods that the address takes: its routes are one by one, and each knows its own alone."""
    tried = ((method, dict(request.scope) | {"method": method}) for method in _METHODS)
    routes = request.app.routes
    return [method for method, scope in tried if any(one.matches(scope)[0] is Match.FULL for one in routes)]


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem document."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, FacilitairError)
        return response(error, request.url.path)

    async def database(request: Request, error: Exception) -> Response:
        assert isinstance(error, (DBAPIError, PoolTimeout))
        known = from_database(error)
        if known is None:
            raise error
        _log.warning(
            "Request failed, Postgres unavailable",
            extra={"error": type(error.__cause__ or error).__name__},
        )
        return response(known, request.url.path)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(_from_validation(error), request.url.path)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _from_http(error, request)

    app.add_exception_handler(FacilitairError, ours)
    app.add_exception_handler(DBAPIError, database)
    app.add_exception_handler(PoolTimeout, database)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
