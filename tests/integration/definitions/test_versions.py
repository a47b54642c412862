"""Versions, aliases, roll back, deprecation and bound sub-collaborations through the HTTP door."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from db.definitions import aliases, definitions
from db.engine import transaction
from schema.errors import NotFound, Refused
from schema.language.definition import Definition
from schema.settings import Settings
from tests.support.api_client import door, problem


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


def _document(name: str, value: Any = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "steps": {"a": {"kind": "transform", "value": value}}, **more}


def _parent(name: str, *refs: str, **step: Any) -> dict[str, Any]:
    steps = {f"s{at}": {"kind": "collaboration", "ref": ref, **step} for at, ref in enumerate(refs)}
    return {"name": name, "steps": steps}


async def _store(http: httpx.AsyncClient, document: dict[str, Any]) -> dict[str, Any]:
    answer = await http.post("/v1/definitions", json=document)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


async def _meant(http: httpx.AsyncClient, name: str) -> int:
    return int((await http.get(f"/v1/definitions/{name}")).json()["version"])


async def test_an_unknown_name_is_told_what_people_stored_in_order(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        for number in reversed(range(definitions.MAX_NAMED + 1)):
            stored = Definition.model_validate(_document(f"d{number:02}"))
            await definitions.save(connection, "default", stored, "test")
        plan = Definition.model_validate(_document("a-plan"))
        await definitions.save(connection, "default", plan, "test", planned_by=uuid.uuid4())
        with pytest.raises(NotFound) as caught:
            await definitions.find(connection, "default", "nope")
    first = ", ".join(f"d{number:02}" for number in range(definitions.MAX_NAMED))
    assert f"expected one of: {first} and others, which `facilitair list` shows." in caught.value.message


async def _events(engine: AsyncEngine) -> list[tuple[str, Any]]:
    async with transaction(engine) as connection:
        rows = await connection.execute(
            text("SELECT type, payload FROM outbox WHERE type <> 'DefinitionStored' ORDER BY seq")
        )
        return [(row.type, row.payload) for row in rows]


async def _audit(engine: AsyncEngine) -> list[tuple[str, str, Any]]:
    async with transaction(engine) as connection:
        rows = await connection.execute(text("SELECT action, subject, detail FROM audit_log ORDER BY id"))
        others = ("definition.store", "run.start")
        return [(row.action, row.subject, row.detail) for row in rows if row.action not in others]


# -- which version is meant -------------------------------------------------------------------------


async def test_a_roll_back_holds_until_a_new_version_comes(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for value in (1, 2, 3):
        await _store(http, _document("x", value))
    back = await http.post("/v1/definitions/x/rollback", json={})
    assert back.json() == {"name": "x", "from": 3, "to": 2}
    assert await _meant(http, "x") == 2
    assert (await http.post("/v1/definitions/x/rollback", json={})).json() == {
        "name": "x",
        "from": 2,
        "to": 1,
    }
    none = problem(await http.post("/v1/definitions/x/rollback", json={}), 422, "version_none_before")
    assert "x@1" in none["detail"]

    # The same content again changes nothing, and says what the name means.
    again = await _store(http, _document("x", 3))
    assert (again["version"], again["created"]) == (3, False)
    assert "facilitair rollback x 3" in again["warnings"][0]
    assert await _meant(http, "x") == 1

    new = await _store(http, _document("x", 4))
    assert new["warnings"] == ["'x' meant x@1 since a roll back; from now on it means x@4"]
    assert await _meant(http, "x") == 4
    assert (await _store(http, _document("x", 4)))["warnings"] == []
    assert (await http.get("/v1/definitions/x/aliases")).json() == {"items": [], "meant": 4}

    moved = [
        (payload["version"], kind) for kind, payload in await _events(engine) if payload["alias"] == "current"
    ]
    assert moved == [(2, "AliasMoved"), (1, "AliasMoved"), (None, "AliasMoved")]
    assert await _audit(engine) == [
        ("alias.set", "x@current", {"version": 2}),
        ("alias.set", "x@current", {"version": 1}),
    ]


async def test_a_roll_back_to_a_named_version(http: httpx.AsyncClient) -> None:
    for value in (1, 2, 3):
        await _store(http, _document("x", value))
    answer = await http.post("/v1/definitions/x/rollback", json={"version": 1})
    assert answer.json() == {"name": "x", "from": 3, "to": 1}
    problem(await http.post("/v1/definitions/x/rollback", json={"version": 9}), 404, "definition_unknown")
    problem(await http.post("/v1/definitions/y/rollback", json={}), 404, "definition_unknown")
    assert await _meant(http, "x") == 1


async def test_aliases_are_moved_and_removed(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await _store(http, _document("x", 1))
    await _store(http, _document("x", 2))
    path = "/v1/definitions/x/aliases/stable"
    unknown = problem(await http.get("/v1/definitions/x?version=stable"), 404, "alias_unknown")
    assert "none is set yet" in unknown["detail"]
    for version in (1, 2, 2):
        answer = await http.put(path, json={"version": version})
        assert answer.json() == {"name": "x", "alias": "stable", "version": version, "warnings": []}
    found = (await http.get("/v1/definitions/x?version=stable")).json()
    assert (found["version"], found["definition"]) == (2, _document("x", 2))
    assert (await http.get("/v1/definitions/x/aliases")).json() == {
        "items": [{"name": "x", "alias": "stable", "version": 2, "warnings": []}],
        "meant": 2,
    }
    problem(await http.put(path, json={"version": 3}), 404, "definition_unknown")
    problem(await http.put("/v1/definitions/x/aliases/9x", json={"version": 1}), 422, "request_invalid")
    assert (await http.delete(path)).status_code == 204
    problem(await http.delete(path), 404, "alias_unknown")
    problem(await http.get("/v1/definitions/x?version=stable"), 404, "alias_unknown")
    assert [payload["version"] for _, payload in await _events(engine)] == [1, 2, None]


async def test_a_deprecated_version_is_meant_by_its_number_only(
    http: httpx.AsyncClient, temporal_client: Client, engine: AsyncEngine
) -> None:
    name = f"x-{uuid.uuid4().hex[:8]}"
    await _store(http, _document(name, 1))
    await _store(http, _document(name, 2))
    path = f"/v1/definitions/{name}/versions"
    answer = await http.post(f"{path}/2/deprecate", json={"reason": "It is slow."})
    assert (answer.json()["version"], answer.json()["deprecated"]) == (2, "It is slow.")
    assert await _meant(http, name) == 1
    listed = (await http.get(path)).json()["items"]
    assert [one["deprecated"] for one in listed] == ["It is slow.", None]

    started = await http.post("/v1/collaborations", json={"definition": f"{name}@2"})
    assert started.status_code == 202
    assert started.json()["warnings"] == [f"{name}@2 is deprecated: It is slow."]
    quiet = await http.post("/v1/collaborations", json={"definition": name})
    assert quiet.json()["warnings"] == []
    for one in (started, quiet):
        found = await temporal_client.get_workflow_handle(one.json()["id"]).describe()
        assert found.workflow_type == (f"{name}@2" if one is started else name)
    named = await http.put(f"/v1/definitions/{name}/aliases/fast", json={"version": 2})
    assert named.json()["warnings"] == [f"{name}@2 is deprecated: It is slow."]
    refused = await http.put(f"/v1/definitions/{name}/aliases/current", json={"version": 2})
    problem(refused, 404, "definition_deprecated")

    await http.post(f"{path}/1/deprecate", json={"reason": "Old"})
    told = problem(await http.get(f"/v1/definitions/{name}"), 404, "definition_deprecated")
    assert "every version" in told["detail"] and "It is slow." in told["detail"]
    start = await http.post("/v1/collaborations", json={"definition": name})
    problem(start, 404, "definition_deprecated")
    again = await http.delete(f"{path}/1/deprecate")
    assert again.json()["deprecated"] is None
    assert await _meant(http, name) == 1
    problem(await http.post(f"{path}/9/deprecate", json={"reason": "x"}), 404, "definition_unknown")
    problem(await http.post(f"{path}/1/deprecate", json={"reason": ""}), 422, "request_invalid")
    actions = [action for action, _, _ in await _audit(engine)]
    assert actions == ["definition.deprecate", "alias.set", "definition.deprecate", "definition.undeprecate"]


async def test_deprecating_what_was_rolled_back_to_lets_go_of_it(http: httpx.AsyncClient) -> None:
    for value in (1, 2, 3):
        await _store(http, _document("x", value))
    await http.post("/v1/definitions/x/rollback", json={})
    await http.post("/v1/definitions/x/versions/2/deprecate", json={"reason": "No."})
    assert (await http.get("/v1/definitions/x/aliases")).json() == {"items": [], "meant": 3}
    # The way back leads past it.
    assert (await http.post("/v1/definitions/x/rollback", json={})).json()["to"] == 1


async def test_the_pin_asks_postgres_once(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        for value in (1, 2):
            document = Definition.model_validate(_document("x", value))
            await definitions.save(connection, "default", document, "test")
        await aliases.move(connection, "default", "x", "stable", 1, "test")
        asked: list[str] = []
        record = lambda *call: asked.append(call[2])  # noqa: E731
        event.listen(engine.sync_engine, "before_cursor_execute", record)
        for type, number in (("x", 2), ("x@1", 1), ("x@stable", 1), ("x@current", 2)):
            found = await definitions.find(connection, "default", *definitions.split_type(type))
            assert (found.number, len(asked)) == (number, 1)
            asked.clear()
        event.remove(engine.sync_engine, "before_cursor_execute", record)


async def test_nobody_sees_another_tenants_versions(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        document = Definition.model_validate(_document("x"))
        await definitions.save(connection, "other", document, "test")
        await aliases.move(connection, "other", "x", "stable", 1, "test")
        for selector in (None, 1, "stable"):
            with pytest.raises(NotFound):
                await definitions.find(connection, "default", "x", selector)
        assert await definitions.aliases_of(connection, "default", "x") == {}
        with pytest.raises(NotFound):
            await aliases.roll_back(connection, "default", "x", 1, "test")
        with pytest.raises(NotFound):
            await aliases.deprecate(connection, "default", "x", 1, "no", "test")


async def test_what_an_agent_planned_never_takes_a_name_over(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:

        async def save(value: Any, planned_by: uuid.UUID | None = None) -> int:
            document = Definition.model_validate(_document("x", value))
            version, _ = await definitions.save(
                connection, "default", document, "test", planned_by=planned_by
            )
            return version.number

        async def meant() -> int:
            return (await definitions.find(connection, "default", "x")).number

        assert await save("planned", uuid.uuid4()) == 1
        with pytest.raises(NotFound, match="agents planned"):
            await meant()
        assert await definitions.newest_per_name(connection, "default") == []
        assert (await save("mine"), await meant()) == (2, 2)
        await save("mine too")
        await aliases.roll_back(connection, "default", "x", None, "test")
        assert (await save("planned again", uuid.uuid4()), await meant()) == (4, 2)
        assert (await definitions.find(connection, "default", "x", 4)).number == 4
        # A person uploads what an agent had thought of before: now it is theirs.
        await aliases.remove(connection, "default", "x", "current", "test")
        assert (await save("planned again"), await meant()) == (4, 4)


def test_a_workflow_type_names_a_version() -> None:
    assert definitions.split_type("code-review") == ("code-review", None)
    assert definitions.split_type("code-review@3") == ("code-review", 3)
    assert definitions.split_type("code-review@stable") == ("code-review", "stable")
    for odd in ("code-review@", "code-review@0", "code-review@03", "a@b@c", "x@1234567890", "@1"):
        assert definitions.split_type(odd) == (odd, None)


# -- differences ------------------------------------------------------------------------------------


async def test_the_difference_of_two_versions(http: httpx.AsyncClient) -> None:
    await _store(http, _document("x", 1, description="one"))
    after = _document("x", 2, input={"type": "object", "required": ["task"]})
    after["steps"]["b"] = {"kind": "transform", "value": "${steps.a.output}"}
    await _store(http, after)
    await http.put("/v1/definitions/x/aliases/old", json={"version": 1})
    found = (await http.get("/v1/definitions/x/diff?from=old")).json()
    assert (found["from"], found["to"]) == (1, 2)
    replaced = {"op": "replace", "path": "/steps/a/value", "from": 1, "to": 2}
    assert found["steps"] == [
        {"id": "a", "change": "changed", "kind": "transform", "fields": [replaced]},
        {"id": "b", "change": "added", "kind": "transform", "fields": []},
    ]
    assert found["rest"] == [{"op": "remove", "path": "/description", "from": "one", "to": None}]
    assert found["breaking"] == [{"path": "/input/required", "reason": "the field 'task' must be given"}]
    assert replaced in found["changes"]
    assert found["text"].startswith("--- x@1\n+++ x@2\n")
    assert (await http.get("/v1/definitions/x/diff?from=2&to=2")).json()["steps"] == []
    problem(await http.get("/v1/definitions/x/diff?from=1&to=9"), 404, "definition_unknown")


async def test_bound_versions_differ_too(http: httpx.AsyncClient) -> None:
    await _store(http, _document("child", 1))
    await _store(http, _parent("x", "child"))
    await _store(http, _document("child", 2))
    second = await _store(http, _parent("x", "child"))
    assert (second["version"], second["pins"]) == (2, {"child": 2})
    found = (await http.get("/v1/definitions/x/diff?from=1&to=2")).json()
    assert found["pins"] == [{"op": "replace", "path": "/child", "from": 1, "to": 2}]
    assert found["changes"] == []


# -- sub-collaborations -----------------------------------------------------------------------------


async def test_refs_are_bound_at_upload(http: httpx.AsyncClient) -> None:
    for value in (1, 2, 3):
        await _store(http, _document("child", value))
    await http.put("/v1/definitions/child/aliases/stable", json={"version": 1})
    parent = _parent("parent", "child", "child@stable", "child@2")
    first = await _store(http, parent)
    assert first["pins"] == {"child": 3, "child@stable": 1, "child@2": 2}
    # The same text means the same version as long as its refs do.
    assert (await _store(http, parent))["version"] == 1
    await http.put("/v1/definitions/child/aliases/stable", json={"version": 2})
    second = await _store(http, parent)
    assert (second["version"], second["pins"]["child@stable"]) == (2, 2)
    read = (await http.get("/v1/definitions/parent?version=1")).json()
    assert (read["pins"], read["definition"]) == (first["pins"], parent)


async def test_refs_within_bodies_are_bound(http: httpx.AsyncClient) -> None:
    await _store(http, _document("child"))
    inner = {"call": {"kind": "collaboration", "ref": "child"}}
    each = {"kind": "map", "over": "input.list", "max_items": 9, "body": {"steps": inner}}
    assert (await _store(http, {"name": "parent", "steps": {"each": each}}))["pins"] == {"child": 1}
    inner["call"]["ref"] = "nope"
    answer = await http.post("/v1/definitions", json={"name": "parent", "steps": {"each": each}})
    told = problem(answer, 422, "definition_invalid")
    assert [(one["code"], one["pointer"]) for one in told["problems"]] == [
        ("collaboration_unknown", "/steps/each/body/steps/call/ref")
    ]


@pytest.mark.parametrize("path", ["/v1/definitions", "/v1/definitions/validate"])
async def test_every_ref_that_cannot_be_bound_is_told(http: httpx.AsyncClient, path: str) -> None:
    await _store(http, _document("child", input={"type": "object", "required": ["task"]}))
    parent = _parent("parent", "nope", "child@7", "child@stable", "parent", "parent@current", "child")
    told = problem(await http.post(path, json=parent), 422, "definition_invalid")
    assert [(one["code"], one["pointer"]) for one in told["problems"]] == [
        ("collaboration_unknown", "/steps/s0/ref"),
        ("collaboration_unknown", "/steps/s1/ref"),
        ("collaboration_unknown", "/steps/s2/ref"),
        ("collaboration_recursive", "/steps/s3/ref"),
        ("collaboration_recursive", "/steps/s4/ref"),
        ("collaboration_input_wrong", "/steps/s5/input/task"),
    ]
    assert "expected one up to 1" in told["problems"][1]["fix"]
    assert [one["name"] for one in (await http.get("/v1/definitions")).json()["items"]] == ["child"]
    valid = await http.post("/v1/definitions/validate", json=_parent("p", "child", input={"task": "x"}))
    assert valid.json()["valid"] is True


async def test_inputs_that_only_the_run_knows_are_let_through(http: httpx.AsyncClient) -> None:
    schema = {"type": "object", "required": ["a", "b"], "properties": {"b": {"default": 1}}}
    await _store(http, _document("child", input=schema))
    assert (await _store(http, _parent("p1", "child", input="${input}")))["version"] == 1
    assert (await _store(http, _parent("p2", "child", input={"a": "${input.x}"})))["version"] == 1


async def test_an_earlier_version_of_itself_may_be_run(http: httpx.AsyncClient) -> None:
    await _store(http, _document("x"))
    assert (await _store(http, _parent("x", "x@1")))["pins"] == {"x@1": 1}
    answer = await http.post("/v1/definitions", json=_parent("x", "x@3"))
    assert problem(answer, 422, "definition_invalid")["problems"][0]["code"] == "collaboration_unknown"


async def test_collaborations_nest_eight_levels_and_no_more(http: httpx.AsyncClient) -> None:
    await _store(http, _document("l8"))
    for level in range(7, 0, -1):
        await _store(http, _parent(f"l{level}", f"l{level + 1}"))
    told = problem(await http.post("/v1/definitions", json=_parent("l0", "l1")), 422, "definition_invalid")
    assert [one["code"] for one in told["problems"]] == ["collaboration_too_deep"]


async def test_all_deprecated_says_why(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        document = Definition.model_validate(_document("x"))
        await definitions.save(connection, "default", document, "test")
        await aliases.deprecate(connection, "default", "x", 1, "Use y.", "test")
        with pytest.raises(Refused, match="Use y") as caught:
            await definitions.find(connection, "default", "x")
        assert caught.value.code == "definition_deprecated"
