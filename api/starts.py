"""How a collaboration is started, whoever asks: a caller, a webhook, or later a schedule."""

import base64
import hashlib
import secrets
from typing import Any

from opentelemetry import trace
from starlette.requests import HTTPConnection

from api.models import Accepted
from api.problems import BadRequest
from api.state import State
from db import definitions
from db.telemetry import context_of, current_traceparent
from schema import json_schemas
from schema.compile import compiled
from schema.errors import Problem
from schema.messages import Fork
from schema.steps import JsonSchema

_tracer = trace.get_tracer("facilitair.api")


def same_id(name: str, key: str) -> str:
    """The id of whatever is started under one key; `name` may carry a selector."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{definitions.split_type(name)[0]}-{digest[:20]}"


def new_id(name: str) -> str:
    """An id that nothing has yet, for what belongs to a definition; `name` may carry a selector."""
    plain = definitions.split_type(name)[0]
    return f"{plain}-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"


async def check(state: State, tenant: str, name: str, input: Any) -> list[str]:
    """What to warn the caller of; raises unless `name` (or name@3, name@alias) exists and the input fits."""
    # Before Postgres, which may be away for that very reason.
    state.disk.require_room()
    async with state.transaction() as connection:
        version = await definitions.find(connection, tenant, *definitions.split_type(name))
    schema = compiled(version.sha256, version.source).definition.input
    fix = f"See the `input` of `GET /v1/definitions/{version.name}?version={version.number}`."
    check_input(version.name, schema, input, fix)
    return warnings(version)


def check_input(name: str, schema: JsonSchema, input: Any, fix: str) -> None:
    """Raises BadRequest("input_invalid")."""
    wrong = json_schemas.violations(schema, json_schemas.with_defaults(schema, input))
    if not wrong:
        return
    problems = [
        Problem("input_invalid", f"/input{pointer}", message, "input that fits the schema", fix)
        for pointer, message in wrong
    ]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    raise BadRequest(
        "input_invalid", f"the input of {name!r} at {wrong[0][0] or '/'}: {wrong[0][1]}{more}", problems
    )


def warnings(version: definitions.Version) -> list[str]:
    """What who names this version should know."""
    if version.deprecated is None:
        return []
    return [f"{version.name}@{version.number} is deprecated: {version.deprecated}"]


async def start(
    request: HTTPConnection,
    state: State,
    name: str,
    input: Any,
    *,
    route: str,
    id: str,
    tenant: str,
    actor: str,
    once: bool = False,
    fork: Fork | None = None,
) -> str:
    """Start what `check` let through, within the trace that the request belongs to; the run's UUID.

    `route` is the request's address without what is secret or one of many. Raises
    Refused("collaboration_exists") while one with this id runs, with `once` also after it has ended.
    """
    method = request.scope.get("method", "GET")  # a WebSocket begins as one
    with _tracer.start_as_current_span(
        f"{method} {route}",
        context_of(request.headers.get("traceparent")),
        trace.SpanKind.SERVER,
        {"http.request.method": method, "http.route": route},
    ):
        return await state.temporal.start(
            name, input, id=id, tenant=tenant, actor=actor, traceparent=current_traceparent(), once=once,
            fork=fork,
        )  # fmt: skip


def accepted(id: str, status: str = "running") -> Accepted:
    own = f"/v1/collaborations/{id}"
    parts = ("cancel", "trace", "events")
    return Accepted(id=id, status=status, links={"self": own, **{part: f"{own}/{part}" for part in parts}})
