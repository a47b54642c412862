"""Start a collaboration, for every door alike: API callers, webhooks, schedules."""

import base64
import secrets
import time
from contextlib import nullcontext
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from starlette.requests import HTTPConnection

from api.http.audited_acts import audited
from api.http.problems import BadRequest
from api.http.shared_models import Accepted
from api.state import ApiState
from db.definitions import definitions
from db.telemetry import chosen_ids, links_to, random_span_id
from plan.compile import compiled
from schema import names, telemetry
from schema.errors import FacilitairError, Problem
from schema.language import json_schemas
from schema.language.steps import JsonSchema
from schema.temporal.runs import Fork

_tracer = trace.get_tracer("facilitair.api")


def new_id(name: str) -> str:
    """An id that nothing has yet, for what belongs to a definition; `name` may carry a selector."""
    plain = definitions.split_type(name)[0]
    return f"{plain}-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"


async def check(state: ApiState, tenant: str, name: str, input: Any) -> list[str]:
    """Return warnings for the caller. Raises unless `name` (or name@3, name@alias) exists and the
    input fits."""
    names.check_definition(name)
    # Before Postgres, which may be away for that very reason.
    state.disk.require_room()
    async with state.transaction() as connection:
        version = await definitions.startable(connection, tenant, *definitions.split_type(name))
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
    """Return the warnings that come with this version."""
    if version.deprecated is None:
        return []
    return [f"{version.name}@{version.number} is deprecated: {version.deprecated}"]


async def start(
    request: HTTPConnection,
    state: ApiState,
    name: str,
    input: Any,
    *,
    route: str,
    id: str,
    tenant: str,
    actor: str,
    request_digest: str | None = None,
    fork: Fork | None = None,
) -> str:
    """Start what `check` let through; the run's UUID.

    `route` is the request's address without what is secret or one of many. Raises
    Refused("collaboration_exists") for an id that a run has, also one that has ended, and TryLater while the
    tenant starts or runs more than it may.
    """
    await state.admission.start(tenant)
    began, span_id = time.time_ns(), random_span_id()
    traceparent = request.headers.get("traceparent")
    span = partial(_tell, request, route, began, span_id, tenant)
    try:
        async with audited(state, tenant, actor, "run.fork" if fork else "run.start", id, definition=name):
            run = await state.temporal.start(
                name,
                input,
                id=id,
                tenant=tenant,
                actor=actor,
                span_id=span_id,
                fork=fork,
                traceparent=traceparent if links_to(traceparent) else None,
                request_digest=request_digest,
            )
    except Exception as error:
        span(error=error)
        raise
    span(run=run)
    return run


def _tell(
    request: HTTPConnection,
    route: str,
    began: int,
    span_id: str,
    tenant: str,
    *,
    run: str = "",
    error: Exception | None = None,
) -> None:
    """Write the span of a request that started a run, in the run's own trace, whose id nobody knows before;
    the caller's trace is linked."""
    method = request.scope.get("method", "GET")  # a WebSocket begins as one
    attributes = {"http.request.method": method, "http.route": route, telemetry.TENANT: tenant}
    with chosen_ids(UUID(run).hex, span_id) if run else nullcontext():
        span = _tracer.start_span(
            f"{method} {route}",
            Context(),
            trace.SpanKind.SERVER,
            attributes | ({telemetry.RUN: run} if run else {}),
            links=links_to(request.headers.get("traceparent")),
            start_time=began,
        )
    if error is not None:
        code = error.code if isinstance(error, FacilitairError) else type(error).__name__
        span.set_attribute(telemetry.ERROR_TYPE, code)
        span.set_status(trace.Status(trace.StatusCode.ERROR, code))
    span.end()


def accepted(id: str, status: str = "running") -> Accepted:
    own = f"/v1/collaborations/{quote(id, safe='')}"
    parts = ("cancel", "trace", "events")
    return Accepted(id=id, status=status, links={"self": own, **{part: f"{own}/{part}" for part in parts}})
