"""Start collaborations by calling an address: what other programs do when something has happened."""

import asyncio
import json
import secrets
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api.http.bodies import MAX_JSON_BYTES, body_of, read_json, read_value
from api.http.problems import BadRequest, errors
from api.http.public_address import base_url
from api.http.shared_models import Accepted, StoredWebhook, WebhookFact, WebhookPage, WebhookRequest
from api.runs import cloud_events, starts
from api.state import Actor, ApiState, Connection, StateOf, Tenant
from db.definitions import definitions
from db.runs import collaborations, webhooks
from plan.compile import compiled
from schema import names
from schema.cel.expressions import ExpressionInvalid, Json, compile_expression
from schema.errors import Problem, Refused, StepError
from schema.language import json_schemas
from schema.language.templates import count, escape, expressions, render

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
call_router = APIRouter(tags=["webhooks"])

_MAX_EXPRESSIONS: Final = 50
"""Each may repeat the whole body."""


@router.post("", status_code=201, openapi_extra=body_of(WebhookRequest), responses=errors(404, 409, 413, 415))
async def create(request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> StoredWebhook:
    """Make an address that starts a collaboration. It is secret, and shown this once."""
    wanted = await read_json(request, state, WebhookRequest)
    await asyncio.get_running_loop().run_in_executor(state.checking, _check_template, wanted.input)
    names.check_definition(wanted.name)
    token = secrets.token_urlsafe(32)
    async with state.transaction() as connection:
        version = await definitions.find(connection, tenant, *definitions.split_type(wanted.name))
        _check_fields(wanted.input, version)
        await webhooks.check_room(connection, tenant, state.settings.max_webhooks)
        made = await webhooks.create(connection, tenant, uuid4(), wanted.name, wanted.input, token, actor)
    return StoredWebhook(**_fact(made), url=f"{base_url(request, state.settings)}/hooks/{token}")


@router.get("", responses=errors())
async def list_webhooks(
    connection: Connection,
    tenant: Tenant,
    after: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> WebhookPage:
    """The webhooks, without their addresses."""
    found = await webhooks.page(connection, tenant, after=after, limit=limit + 1)
    page = found[:limit]
    more = str(page[-1].id) if len(found) > limit else None
    return WebhookPage(items=[WebhookFact(**_fact(one)) for one in page], next=more)


@router.delete("/{id}", status_code=204, responses=errors(404))
async def remove(id: UUID, connection: Connection, tenant: Tenant, actor: Actor) -> None:
    """Let the address start nothing any more."""
    await webhooks.remove(connection, tenant, id, actor)


@call_router.post("/hooks/{token}", status_code=202, responses=errors(404, 413, 415))
async def call(
    token: Annotated[str, Path(max_length=200)],
    request: Request,
    response: Response,
    state: StateOf,
    idempotency_key: Annotated[str | None, Header(description="Says which deliveries are the same.")] = None,
    x_github_delivery: Annotated[str | None, Header(description="As Idempotency-Key.")] = None,
) -> Accepted:
    """Start the collaboration with the input that the webhook makes of the JSON body or the CloudEvent. A
    delivery whose key came before starts nothing; `status` then is `repeated`. Knowing the address is all it
    takes."""
    async with state.transaction() as connection:
        hook = await webhooks.called(connection, token)
    await state.admission.webhook(hook.tenant, hook.id)
    key = idempotency_key or x_github_delivery
    id = await _delivery_id(state, hook, key) if key else starts.new_id(hook.name)
    response.headers["Location"] = f"/v1/collaborations/{id}"
    body = cloud_events.event_of(request.headers, await read_value(request, state))
    if key and await _has_begun(state, hook.tenant, id):
        return starts.accepted(id, "repeated")
    make = partial(_input, hook.input, body)
    input = await asyncio.get_running_loop().run_in_executor(state.checking, make)
    warnings = await starts.check(state, hook.tenant, hook.name, input)
    try:
        await starts.start(
            request,
            state,
            hook.name,
            input,
            route="/hooks/{token}",
            id=id,
            tenant=hook.tenant,
            actor=f"webhook:{hook.id}",
        )
    except Refused as error:
        if key and error.code == "collaboration_exists":
            return starts.accepted(id, "repeated")
        raise
    return starts.accepted(id).model_copy(update={"warnings": warnings})


@call_router.options("/hooks/{token}", include_in_schema=False)
async def permit(request: Request, token: str) -> Response:
    """Permit a sender of CloudEvents to deliver, as it asks to be before its first event. Who does not know
    the address learns nothing of it here."""
    return Response(headers=cloud_events.permission(request.headers))


async def _delivery_id(state: ApiState, hook: webhooks.Webhook, key: str) -> str:
    """The id of a delivery's run. Who knows the webhook and the key cannot compute it, and take it first."""
    delivery = names.digest(await state.naming(), "delivery", hook.tenant, str(hook.id), key)
    return f"{definitions.split_type(hook.name)[0]}-{delivery}"


async def _has_begun(state: ApiState, tenant: str, id: str) -> bool:
    """Temporal forgets what has ended, after a while; Postgres does not."""
    async with state.transaction() as connection:
        return await collaborations.started_as(connection, tenant, id) is not None


def _input(template: Json, body: Json) -> Json:
    try:
        input = render(template, {"input": body, "steps": {}, "run": {}})
    except StepError as error:
        raise BadRequest(
            "input_invalid", f"the webhook's input cannot be made of this body: {error.message}"
        ) from None
    if len(json.dumps(input, ensure_ascii=False).encode("utf-8", "replace")) > MAX_JSON_BYTES:
        raise Refused(
            "body_too_large",
            f"found a body from which the webhook makes an input of more than {MAX_JSON_BYTES:,} bytes; "
            "expected a smaller one. Let the webhook take less of it.",
        )
    return input


def _check_template(template: Json) -> None:
    """Raises BadRequest for a template that would fail whatever the body."""
    number, _ = count(template, _MAX_EXPRESSIONS)
    if number > _MAX_EXPRESSIONS:
        raise BadRequest(
            "request_invalid",
            f"found {number:,} expressions in the webhook's input; expected at most {_MAX_EXPRESSIONS}. "
            "Pass the body on and let the collaboration take it apart.",
        )
    problems: list[Problem] = []
    where = "/input"
    try:
        for where, source in expressions(template, "/input"):
            others = {one.path[0] for one in compile_expression(source).references} - {"input"}
            if others:
                problems.append(
                    Problem(
                        "reference_unknown",
                        where,
                        f"{source!r}, which reads {', '.join(sorted(others))}",
                        "`input`, which is the request's body",
                        "Begin the name with input.",
                    )
                )
    except ExpressionInvalid as error:
        problems.append(Problem(error.code, where, error.found, error.expected, error.fix))
    if problems:
        raise BadRequest("request_invalid", f"{problems[0].pointer}: {problems[0].message}", problems)


def _check_fields(template: Json, version: definitions.Version) -> None:
    """Raises BadRequest where every delivery would be refused for a field that the template does not name."""
    schema = compiled(version.sha256, version.source).definition.input
    required = schema.get("required", ())
    if not isinstance(template, dict) or not isinstance(required, list):
        return
    given = json_schemas.with_defaults(schema, template)
    problems = [
        Problem(
            "input_invalid",
            f"/input/{escape(field)}",
            "nothing",
            f"a value: {version.name}@{version.number} requires it",
            "Give it, as a text or as ${input.…} over the request's body.",
        )
        for field in required
        if field not in given
    ]
    if problems:
        raise BadRequest("input_invalid", f"{problems[0].pointer}: {problems[0].message}", problems)


def _fact(found: webhooks.Webhook) -> dict[str, Any]:
    return {
        "id": str(found.id),
        "name": found.name,
        "input": found.input,
        "created_at": found.created_at,
        "created_by": found.created_by,
        "last_called_at": found.last_called_at,
    }
