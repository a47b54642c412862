"""A tenant's own roles, skills and providers: over HTTP, in uploads, and when steps run."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.agent.activity import AgentActivity
from activities.runs.children import ChildrenActivity
from api.app import create_app
from db.definitions import catalogue
from db.engine import transaction
from db.runs.admission import Admission
from schema.errors import StepError
from schema.language.catalogue import BUILT_IN, RoleDefault
from schema.language.skills import Skill
from schema.settings import Settings
from schema.temporal.steps import StepRequest
from tests.support.runs import attempts, begin, rows
from tests.support.stack import Stack

CRITIC = {
    "model": "openai/gpt-4o-mini",
    "system": "You are a critic.",
    "relationship": "REVIEWED",
    "skills": ["house-style"],
}
STYLE = {"description": "Our style.", "instructions": "Write as we do.", "tools": ["text.diff"]}
ACME = {
    "kind": "openai_compatible",
    "base_url": "https://models.acme.example/v1",
    "key_ref": "acme-models",
    "requests_per_minute": 60,
}


def definition(name: str = "audit", /, **agent: Any) -> dict[str, Any]:
    return {
        "name": name,
        "agents": {"a": agent},
        "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "Judge it."}},
    }


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API over this test's own database, whose operator allows one host."""
    door = create_app(settings.model_copy(update={"provider_hosts": "models.acme.example"}))
    transport = httpx.ASGITransport(door)
    async with (
        door.router.lifespan_context(door),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1", timeout=60) as client,
    ):
        yield client


async def put(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await http.put(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refused(answer: httpx.Response, status: int = 422) -> list[tuple[str, str]]:
    assert answer.status_code == status, answer.text
    return [(one["code"], one["pointer"]) for one in answer.json().get("problems", [])]


async def named(http: httpx.AsyncClient, section: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in (await http.get("/catalogue")).json()[section]}


# -- over HTTP --------------------------------------------------------------------------------------


async def test_a_tenant_adds_to_what_is_built_in(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    before = (await http.get("/catalogue")).json()
    assert {one["origin"] for one in (*before["roles"], *before["skills"], *before["providers"])} == {
        "built_in"
    }
    assert before["masters"][0]["name"] == "coordinator" and len(before["masters"]) == 5
    assert {one["name"] for one in before["tools"]} >= {"http", "python.check"}
    assert {"model": "openai/gpt-4", "routable": True, "input_usd": 30.0, "output_usd": 60.0} in before[
        "models"
    ]

    await put(http, "/skills/house-style", STYLE)
    role = await put(http, "/roles/critic", CRITIC)
    assert role.pop("set_at")
    assert role == {"name": "critic", "origin": "yours", "description": "", "set_by": "local", **CRITIC}
    coder = await put(http, "/roles/coder", {"model": "openai/gpt-4o-mini"})
    assert (coder["origin"], coder["relationship"]) == ("yours_instead", "IMPLEMENTED")
    assert coder["system"] == BUILT_IN.roles["coder"].system
    provider = await put(http, "/providers/acme", ACME)
    assert (provider["origin"], provider["key_ref"]) == ("yours", "acme-models")

    after = await named(http, "roles")
    assert list(after)[-1] == "critic" and after["coder"]["model"] == "openai/gpt-4o-mini"
    assert (await named(http, "skills"))["house-style"]["tools"] == ["text.diff"]
    assert (await named(http, "providers"))["acme"]["base_url"] == ACME["base_url"]
    assert await rows(engine, "SELECT action, subject, actor FROM audit_log ORDER BY id") == [
        ("skill.set", "house-style", "local"),
        ("role.set", "critic", "local"),
        ("role.set", "coder", "local"),
        ("provider.set", "acme", "local"),
    ]
    removed = (await http.delete("/roles/coder")).json()
    assert removed == {"name": "coder", "built_in": True, "used_by": [], "more": False, "roles": []}
    assert (await named(http, "roles"))["coder"]["origin"] == "built_in"


async def test_what_cannot_be_meant_is_refused_with_every_problem(http: httpx.AsyncClient) -> None:
    wrong = {"model": "acme/x", "relationship": "BROKE", "skills": ["house-style"]}
    answer = await http.put("/roles/critic", json=wrong)
    assert answer.json()["code"] == "catalogue_invalid"
    assert await refused(answer) == [
        ("model_unknown", "/model"),
        ("value_wrong", "/relationship"),
        ("skill_unknown", "/skills/0"),
    ]
    assert await refused(await http.put("/roles/critic", json={})) == [("field_missing", "/model")]
    assert await refused(await http.put("/roles/Critic", json=CRITIC)) == [("request_invalid", "/path/name")]
    skill = STYLE | {"instructions": " "}
    assert await refused(await http.put("/skills/x", json=skill)) == [("value_wrong", "/instructions")]
    elsewhere = ACME | {"base_url": "https://acme.example/v1"}
    assert await refused(await http.put("/providers/acme", json=elsewhere)) == [
        ("provider_host_refused", "/base_url")
    ]
    for path, code in (
        ("roles/coder", "role_unknown"),
        ("skills/x", "skill_unknown"),
        ("providers/x", "provider_unknown"),
    ):
        gone = await http.delete(f"/{path}")
        assert (gone.status_code, gone.json()["code"]) == (404, code)


async def test_a_key_is_neither_stored_nor_repeated(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for body in (
        ACME | {"key_ref": "sk-proj-secret"},
        ACME | {"api_key": "sk-proj-secret"},
        ACME | {"key_ref": ["sk-proj-secret"]},
        ACME | {"base_url": "https://me:sk-proj-secret@models.acme.example/v1"},
    ):
        answer = await http.put("/providers/acme", json=body)
        assert answer.status_code == 422
        assert "secret" not in answer.text
    assert await rows(engine, "SELECT * FROM providers") == []
    assert await rows(engine, "SELECT * FROM audit_log") == []


async def test_uploads_are_checked_against_the_tenants_catalogue(http: httpx.AsyncClient) -> None:
    mine = definition(role="critic", skills=["debugging"], fallback=["acme/llama-70b"])
    assert await refused(await http.post("/definitions", json=mine)) == [
        ("model_unknown", "/agents/a/fallback/0"),
        ("role_unknown", "/agents/a/role"),
    ]
    await put(http, "/skills/house-style", STYLE)
    await put(http, "/roles/critic", CRITIC)
    await put(http, "/providers/acme", ACME)
    for address in ("/definitions/validate", "/definitions"):
        assert (await http.post(address, json=mine)).is_success
    picture = (await http.post("/definitions/plan", json={"definition": mine})).json()
    assert picture["estimate"]["model_calls"] == 6, "the role's skill brings a tool"
    short = [{"agent": "critic", "stream_to": ["coder"]}, {"agent": "coder"}]
    assert (await http.post("/definitions", params={"name": "pair"}, json=short)).status_code == 201
    ran = await http.post("/definitions/dry-run", json={"definition": mine})
    assert (ran.json()["status"], ran.json()["model_calls"]) == ("completed", 1)


async def test_a_planned_definition_is_rehearsed_with_the_tenants_roles(http: httpx.AsyncClient) -> None:
    await put(http, "/roles/critic", {"model": "openai/gpt-4"})
    planning = {
        "name": "planning",
        "agents": {"a": {"role": "architect"}},
        "steps": {
            "plan": {"kind": "agent", "agent": "a", "prompt": "p", "emits": "definition"},
            "run": {"kind": "collaboration", "definition": "${steps.plan.output}"},
        },
    }
    mocks = {"plan": [{"output": definition(role="critic")}], "run": [{"output": 1}]}
    asked = {"definition": planning, "mocks": mocks}
    assert (await http.post("/definitions/dry-run", json=asked)).json()["status"] == "completed"
    await http.delete("/roles/critic")
    assert (await http.post("/definitions/dry-run", json=asked)).json()["error"]["code"] == "output_invalid"


async def test_a_removal_says_what_still_names_it(http: httpx.AsyncClient) -> None:
    await put(http, "/skills/house-style", STYLE)
    await put(http, "/providers/acme", ACME)
    await put(http, "/roles/critic", CRITIC | {"model": "acme/llama-70b"})
    inner = {"kind": "agent", "agent": "a", "prompt": "p", "role": "critic"}
    looping = definition("looping", model="openai/gpt-4") | {
        "steps": {"again": {"kind": "loop", "max_iterations": 2, "body": {"steps": {"ask": inner}}}}
    }
    # Data that looks like a role is none.
    other = definition("other", role="coder") | {
        "output": {"kind": "x", "role": "critic", "skills": ["house-style"]}
    }
    for one in (
        definition("by-role", role="critic"),
        definition("by-skill", role="coder", skills=["house-style"]),
        definition("routed", model={"among": ["acme/a", "openai/gpt-4"]}),
        definition("fallen", model="openai/gpt-4", fallback=["acme/b"]),
        looping,
        other,
        definition("before", role="critic"),
    ):
        assert (await http.post("/definitions", json=one)).status_code == 201
    # The newest version counts: this one names nothing of the tenant's any more.
    assert (await http.post("/definitions", json=definition("before", role="coder"))).status_code == 201

    async def removed(path: str) -> tuple[list[str], list[str]]:
        answer = (await http.delete(path)).json()
        assert not answer["built_in"] and not answer["more"]
        return answer["used_by"], answer["roles"]

    assert await removed("/providers/acme") == (["fallen@1", "routed@1"], ["critic"])
    assert await removed("/skills/house-style") == (["by-skill@1"], ["critic"])
    assert await removed("/roles/critic") == (["by-role@1", "looping@1"], [])


async def test_a_tenant_has_room_for_so_many(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        for number in range(200):
            await catalogue.set_skill(connection, "default", f"s{number}", Skill("d", "i"), "test")
    full = await http.put("/skills/one-more", json=STYLE)
    assert (full.status_code, full.json()["code"]) == (422, "catalogue_full")
    assert (await http.put("/skills/s7", json=STYLE)).status_code == 200, "changing one takes no room"


# -- the copy in each process -----------------------------------------------------------------------


async def test_a_catalogue_is_one_tenants_and_kept_for_a_while(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        assert await catalogue.of_tenant(connection, "a") is BUILT_IN
        await catalogue.set_role(connection, "a", "critic", RoleDefault("openai/x", "s", "REVIEWED"), "test")
    async with transaction(engine) as connection:
        assert "critic" not in (await catalogue.of_tenant(connection, "a")).roles
        assert "critic" in (await catalogue.of_tenant(connection, "a", fresh=True)).roles
        assert await catalogue.of_tenant(connection, "b") is BUILT_IN
        await catalogue.remove_role(connection, "a", "critic", "test")
    catalogue.forget("a")
    async with transaction(engine) as connection:
        assert await catalogue.of_tenant(connection, "a") is BUILT_IN


# -- when steps run ---------------------------------------------------------------------------------


async def set_role(engine: AsyncEngine, **fields: Any) -> None:
    async with transaction(engine) as connection:
        role = RoleDefault(
            **{"model": "openai/gpt-4o-mini", "system": "You are a critic.", "relationship": "REVIEWED"}
            | fields
        )
        await catalogue.set_role(connection, "default", "critic", role, "test")
    catalogue.forget("default")


async def remove(engine: AsyncEngine, what: Any, name: str) -> None:
    async with transaction(engine) as connection:
        await what(connection, "default", name, "test")
    catalogue.forget("default")


async def answers(control: httpx.AsyncClient, text: str, contains: str) -> None:
    rule = {"kind": "answer", "text": text, "match": {"contains": contains}}
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()


async def output(engine: AsyncEngine, request: StepRequest) -> Any:
    query = (
        "SELECT output FROM agent_executions WHERE collaboration_id = :id AND path = 'ask'"
        " AND status = 'completed'"
    )
    ((found,),) = await rows(engine, query, id=request.collaboration)
    return found


async def test_a_role_is_looked_up_when_a_step_begins(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    async with transaction(engine) as connection:
        await catalogue.set_skill(connection, "default", "house-style", Skill("d", "Write as we do."), "test")
    await set_role(engine, skills=("house-style",))
    first, second = (
        await begin(engine, definition(role="critic")),
        await begin(engine, definition(role="critic")),
    )
    await answers(control, "with the role", "You are a critic.")
    result = await agents.agent(first)
    assert (result.model, await output(engine, first)) == ("openai/gpt-4o-mini", "with the role")
    # The same version, begun before the change: the next step that begins asks otherwise.
    await set_role(
        engine,
        model="deepseek/deepseek-chat",
        system="You are kind.",
        skills=("house-style",),
        relationship="REFINED",
    )
    await answers(control, "with the skill", "Write as we do.")
    result = await agents.agent(second)
    assert (result.model, await output(engine, second)) == ("deepseek/deepseek-chat", "with the skill")
    edges = "SELECT payload->>'relationship' FROM outbox WHERE type = 'StepFinished' ORDER BY seq"
    assert await rows(engine, edges) == [("REVIEWED",), ("REFINED",)]


async def test_what_was_removed_fails_the_step_and_says_so(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    async with transaction(engine) as connection:
        await catalogue.set_skill(connection, "default", "house-style", Skill("d", "i"), "test")
    await set_role(engine)
    by_role = await begin(engine, definition(role="critic"))
    by_skill = await begin(engine, definition(role="coder", skills=["house-style"]))
    await remove(engine, catalogue.remove_role, "critic")
    await remove(engine, catalogue.remove_skill, "house-style")
    for request, code, name in (
        (by_role, "role_unknown", "critic"),
        (by_skill, "skill_unknown", "house-style"),
    ):
        with pytest.raises(StepError, match=f"facilitair {code[:4]}.* set {name}") as caught:
            await agents.agent(request)
        assert (caught.value.code, caught.value.retryable) == (code, False)
        assert not any(cost for *_, cost in await attempts(engine, request))
    assert (await control.get("/_simulator/calls")).json()["total"]["calls"] == 0


async def test_a_plan_may_name_the_tenants_roles(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    await set_role(engine)
    plan = definition("plan", role="critic")
    planner = definition(role="architect")
    planner["steps"]["ask"]["emits"] = "definition"
    planner["steps"]["run"] = {"kind": "collaboration", "definition": "${steps.ask.output}"}
    request = await begin(engine, planner)
    await answers(control, json.dumps(plan), "critic")  # the guide names the tenant's roles
    await agents.agent(request)
    assert await output(engine, request) == plan
    children = ChildrenActivity(engine, Admission(engine, Settings()))
    run = StepRequest(request.collaboration, request.tenant, "run", request.traceparent)
    begun = await ActivityEnvironment().run(children.begin_child, run)
    assert begun.workflow.startswith("audit-run@") or begun.workflow.startswith("one-run@")


async def test_looking_up_costs_a_step_nothing_measurable(engine: AsyncEngine) -> None:
    await set_role(engine)
    async with transaction(engine) as connection:
        await catalogue.of_tenant(connection, "default")
        began = time.perf_counter()
        for _ in range(1_000):
            await catalogue.of_tenant(connection, "default")
        assert time.perf_counter() - began < 0.1


async def test_a_run_from_upload_to_graph_and_after_a_removal(platform: Stack) -> None:
    """The platform's own worker, another process than the API of this test."""
    name = f"critic-{uuid.uuid4().hex[:8]}"
    door = create_app(platform.settings)
    transport = httpx.ASGITransport(door)
    async with (
        door.router.lifespan_context(door),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1", timeout=60) as http,
    ):
        await put(http, f"/roles/{name}", CRITIC | {"skills": ["debugging"]})
        stored = await http.post("/definitions", json=definition(name, role=name))
        assert stored.status_code == 201, stored.text

        async def run() -> dict[str, Any]:
            started = await http.post("/collaborations", json={"definition": name, "input": {}})
            async with asyncio.timeout(60):
                while True:
                    found: dict[str, Any] = (await http.get(f"/collaborations/{started.json()['id']}")).json()
                    if found["status"] != "running":
                        return found
                    await asyncio.sleep(0.1)

        # Within two seconds the worker may still hold the catalogue of before.
        async with asyncio.timeout(120):
            while (done := await run())["status"] != "completed":
                assert done["error"]["code"] == "role_unknown"
        assert [(step["agent"], step["model"]) for step in done["steps"]] == [("a", "openai/gpt-4o-mini")]
        assert (await http.delete(f"/roles/{name}")).json()["used_by"] == [f"{name}@1"]
        async with asyncio.timeout(120):
            while (done := await run())["status"] != "failed":
                pass
        assert done["error"]["code"] == "role_unknown"
        assert f"facilitair roles set {name}" in done["error"]["message"]
