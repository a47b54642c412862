"""What one start can lead to is counted through everything that its refs are bound to."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.definitions import definitions
from db.engine import transaction
from schema.errors import InvalidDefinition, Refused
from schema.rules.size import TreeSize, tree_size
from schema.rules.validate import validate
from schema.settings import Settings
from tests.support.api_client import door, problem

LEAF: dict[str, Any] = {"name": "leaf", "steps": {"rest": {"kind": "wait", "for": "30d"}}}


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


def fan(name: str, of: str, width: int = 10_000) -> dict[str, Any]:
    """A definition that runs another one for each item of a list."""
    body = {"steps": {"one": {"kind": "collaboration", "ref": of}}}
    each = {"kind": "map", "over": "input.list", "max_items": width, "body": body}
    return {"name": name, "steps": {"each": each}}


async def stored_before(engine: AsyncEngine, definition: dict[str, Any], pins: dict[str, int]) -> None:
    """Store a definition as a release did that knew no limit."""
    query = text(
        "INSERT INTO workflows (id, tenant_id, name, version, sha256, definition, source, pins)"
        " VALUES (:id, 'default', :name, 1, :sha256, cast(:source AS jsonb), cast(:source AS text),"
        " cast(:pins AS jsonb))"
    )
    source = validate(definition).definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    values = {
        "id": uuid.uuid4(),
        "name": definition["name"],
        "sha256": uuid.uuid4().hex,
        "source": json.dumps(source),
        "pins": json.dumps(pins),
    }
    async with transaction(engine) as connection:
        await connection.execute(query, values)


def test_sub_collaborations_multiply_in_maps_and_loops() -> None:
    one = {"kind": "collaboration", "ref": "leaf"}
    loop = {"kind": "loop", "max_iterations": 5, "body": {"steps": {"b": {**one, "ref": "wide"}}}}
    definition = validate(
        {
            "name": "x",
            "steps": {
                "a": one,
                "m": {"kind": "map", "over": "input.l", "max_items": 10, "body": {"steps": {"l": loop}}},
            },
        }
    ).definition
    within = {"leaf": TreeSize(3, 0), "wide": TreeSize(40, 7)}
    own = 1 + 1 + 10 * (1 + 5)
    assert tree_size(definition, {}) == TreeSize(own, 1 + 50)
    assert tree_size(definition, within) == TreeSize(own + 3 + 50 * 40, 1 + 50 + 50 * 7)


async def test_maps_of_maps_of_sub_collaborations_are_refused_at_upload(http: httpx.AsyncClient) -> None:
    for definition in (LEAF, fan("fan0", "leaf")):
        assert (await http.post("/v1/definitions", json=definition)).status_code == 201
    for address in ("/v1/definitions", "/v1/definitions/validate"):
        refused = problem(await http.post(address, json=fan("fan1", "fan0")), 422, "definition_invalid")
        assert [(one["code"], one["pointer"], one["found"]) for one in refused["problems"]] == [
            (
                "too_large_tree",
                "/steps/each",
                "up to 100,010,000 sub-collaborations and 200,020,001 executions of steps by one start, "
                "those within each other multiplied",
            )
        ]
    listed = (await http.get("/v1/definitions")).json()["items"]
    assert [one["name"] for one in listed] == ["fan0", "leaf"]


async def test_an_estimate_tells_what_a_start_leads_to(http: httpx.AsyncClient) -> None:
    for definition in (LEAF, fan("fan0", "leaf", 50)):
        await http.post("/v1/definitions", json=definition)
    wide = fan("fan1", "fan0", 1_000)
    asked = await http.post("/v1/definitions/estimate", json={"definition": wide})
    assert asked.json()["children"] == 1_000
    assert asked.json()["tree"] == {"children": 1_000 + 1_000 * 50, "executions": 1_001 + 1_000 * 101}
    shown = (await http.post("/v1/definitions/plan", json={"name": "fan0"})).json()["estimate"]
    assert shown["tree"] == {"children": 50, "executions": 101}


async def test_what_was_stored_before_the_limit_is_refused_at_every_start(
    engine: AsyncEngine, http: httpx.AsyncClient
) -> None:
    await stored_before(engine, LEAF, {})
    await stored_before(engine, fan("fan0", "leaf"), {"leaf": 1})
    await stored_before(engine, fan("fan1", "fan0"), {"fan0": 1})
    await stored_before(engine, fan("fan2", "fan1"), {"fan1": 1})
    answer = await http.post("/v1/collaborations", json={"definition": "fan2", "input": {"list": []}})
    told = problem(answer, 422, "too_large_tree")
    assert told["detail"].startswith("found fan2@1 with up to 10^12 sub-collaborations")
    async with transaction(engine) as connection:
        for name in ("fan1", "fan2"):
            with pytest.raises(Refused) as caught:
                await definitions.startable(connection, "default", name)
            assert caught.value.code == "too_large_tree"
        assert (await definitions.startable(connection, "default", "fan0")).number == 1
        with pytest.raises(InvalidDefinition) as invalid:
            await definitions.save(connection, "default", validate(fan("new", "fan1", 1)).definition, "test")
        assert [one.code for one in invalid.value.problems] == ["too_large_tree"]


async def test_too_many_different_versions_within_each_other_are_refused(
    engine: AsyncEngine, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.money.run_trees.MAX_VERSIONS", 2)
    await stored_before(engine, LEAF, {})
    await stored_before(engine, fan("fan0", "leaf", 1), {"leaf": 1})
    await stored_before(engine, fan("fan1", "fan0", 1), {"fan0": 1})
    answer = await http.post("/v1/definitions", json=fan("fan2", "fan1", 1))
    assert problem(answer, 422, "too_large_tree")["detail"].startswith("found more than 2 different versions")
