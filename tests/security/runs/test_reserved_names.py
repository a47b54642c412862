"""Names that belong to the platform, and ids that are another run's: refused at every door."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus
from websockets.asyncio.client import connect

from api.app import create_app
from api.live import socket_messages
from bench.security.cases import names as hostile
from bench.security.cases.playing import play
from db.engine import transaction
from db.runs import collaborations
from schema.errors import Refused
from schema.names import check_id, is_reserved, is_uuid
from schema.settings import Settings
from tests.support.api_server import ApiServer, served
from tests.support.runs import begin, rows
from tests.support.stack import Stack


@pytest.fixture
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    """The API over the database that the platform's worker serves."""
    async with served(platform.settings) as found:
        yield found


async def test_every_door_refuses_what_is_not_the_callers_to_name(api: ApiServer, platform: Stack) -> None:
    found = hostile.cases(await hostile.prepare(api.http))
    assert len(found) >= 80
    wrong = {case.name: came for case in found if (came := await play(case, api.http, platform.client))}
    assert wrong == {}
    own = await platform.client.get_workflow_handle(hostile.OWN_WORKFLOW).describe()
    assert (own.workflow_type, own.status) == ("facilitair.projection", WorkflowExecutionStatus.RUNNING)


async def test_a_socket_refuses_them_too(api: ApiServer) -> None:
    victim = await hostile.prepare(api.http)
    said = {"type": "start", "definition": victim.definition}
    messages: list[tuple[dict[str, Any], str]] = [
        (said | {"id": hostile.OWN_WORKFLOW}, "id_reserved"),
        (said | {"id": victim.uuid}, "id_reserved"),
        (said | {"id": "x-2027-01-01T00:00:00Z"}, "id_reserved"),
        (said | {"definition": "facilitair-learn"}, "name_reserved"),
        (said | {"id": victim.completed}, "collaboration_exists"),
        ({"type": "watch", "id": hostile.OWN_WORKFLOW}, "collaboration_unknown"),
    ]
    async with connect(f"ws://127.0.0.1:{api.port}/ws/collaborate") as socket:
        for message, code in messages:
            await socket.send(json.dumps(message))
            told = json.loads(await socket.recv())
            assert (told["type"], told["code"]) == ("error", code), message


def _starting(settings: Settings) -> Iterator[tuple[str, str]]:
    """The operations to which a caller names the id of something new."""
    document = create_app(settings).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
            for body in operation.get("requestBody", {}).get("content", {}).values():
                schema = body["schema"]
                if "$ref" in schema:
                    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                named |= schema.get("properties", {}).keys()
            if "id" in named:
                yield method.upper(), path


def test_the_doors_that_take_an_id_are_those_that_are_played() -> None:
    played = {
        ("POST", "/v1/collaborations"),
        ("POST", "/v1/collaborations/{id}/fork"),
        ("POST", "/v1/collaborations/{id}/rerun"),
        ("GET", "/v1/stream/collaborate"),
    }
    # A chat's id is no run's: those are `chat-ID.1` and so on.
    played.add(("POST", "/v1/chat/{definition}"))
    assert set(_starting(Settings())) == played
    assert {one.__name__ for one in _with_id()} == {"Start", "Watch"}


def _with_id() -> Iterator[type[Any]]:
    for one in vars(socket_messages).values():
        if isinstance(one, type) and "id" in getattr(one, "model_fields", {}):
            yield one


async def test_a_temporal_client_may_call_a_run_by_a_new_uuid(platform: Stack) -> None:
    """Temporal's own page makes up UUIDs as ids."""
    name = f"names-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": name, "steps": {"a": {"kind": "transform", "value": 1}}})
    handle = await platform.start(name, {}, str(uuid.uuid4()))
    assert await handle.result() == 1


async def test_a_uuid_means_the_run_that_has_it(engine: AsyncEngine) -> None:
    """Also where an older release has let another run take it for its id."""
    definition = {"steps": {"a": {"kind": "transform", "value": 1}}}
    victim = (await begin(engine, definition, step="a")).collaboration
    squatter = (await begin(engine, definition, step="a")).collaboration
    async with transaction(engine) as connection:
        taken = text("UPDATE collaborations SET temporal_workflow_id = :victim WHERE id = :squatter")
        await connection.execute(taken, {"victim": victim, "squatter": squatter})
        assert str((await collaborations.find(connection, "default", victim)).uuid) == victim
        assert str(await collaborations.uuid_of(connection, "default", victim)) == victim
        assert str((await collaborations.find(connection, "default", squatter)).uuid) == squatter
        # Other spellings of a UUID are words like any other.
        assert await collaborations.uuid_of(connection, "default", victim.replace("-", "")) is None
        assert await collaborations.uuid_of(connection, "another", victim) is None
    assert len(await rows(engine, "SELECT 1 FROM collaborations")) == 2


async def test_what_runs_elsewhere_in_temporal_is_no_collaboration(
    api: ApiServer, temporal_client: Client
) -> None:
    id = f"elsewhere-{uuid.uuid4().hex[:8]}"
    handle = await temporal_client.start_workflow("billing", id=id, task_queue=f"{id}-queue")
    for method, part in (("GET", ""), ("POST", "/cancel"), ("POST", "/pause"), ("GET", "/stream")):
        answer = await api.http.request(method, f"/v1/collaborations/{id}{part}")
        assert answer.status_code in (404, 415), answer.text
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    await handle.terminate()


async def test_what_a_bare_client_starts_is_one_before_any_worker_has_begun_it(
    settings: Settings, temporal_client: Client, platform: Stack
) -> None:
    """The API has another database than the worker: all that it knows of the run is what Temporal tells."""
    name = f"unknown-{uuid.uuid4().hex[:8]}"
    await temporal_client.start_workflow(name, {}, id=name, task_queue="collaborations")
    async with served(settings) as other:
        found = (await other.http.get(f"/v1/collaborations/{name}")).json()
    assert (found["id"], found["name"]) == (name, name)


@pytest.mark.parametrize(
    "name",
    ["facilitair", "facilitair.learn", "facilitair-trials", "Facilitair_x", "facilitair:x", "facilitair~x"],
)
def test_such_names_are_the_platforms(name: str) -> None:
    assert is_reserved(name)
    with pytest.raises(Refused, match="begin with"):
        check_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "facilitairs",
        "my-facilitair",
        "facilitair2",
        "a1b2c3d4e5f60718293a4b5c6d7e8f90",
        "2027-01-01",
        "x-2027-01-01",
        "report-2027-01-01T09",
        "urn-1",
    ],
)
def test_such_names_are_anybodys(name: str) -> None:
    assert not is_reserved(name)
    assert not is_uuid(name)
    check_id(name)


async def test_problem_documents_say_how_else_to_name_it(api: ApiServer) -> None:
    victim = await hostile.prepare(api.http)
    start = {"definition": victim.definition, "id": victim.uuid}
    told = (await api.http.post("/v1/collaborations", json=start)).json()
    assert told["detail"] == (
        f"found the id {victim.uuid!r}; expected one that is not written as a UUID: by its UUID every run "
        "can be named, and this may be another one's. Put a word before it, or leave out its hyphens."
    )
