"""Stored prompts: their versions through the HTTP door, what a model is told, and A/B tests of real rows."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.agent.activity import AgentActivity
from activities.improve.trials import TrialsActivity
from db.engine import transaction
from db.prompts import trials
from schema.settings import Settings
from schema.temporal.steps import StepRequest
from schema.temporal.upkeep import TrialsPass
from tests.support.api_client import door, problem
from tests.support.runs import begin, rows
from tests.support.stack import Stack

CAREFUL = {"system": "You are careful."}
BOLD = {"system": "You are bold.", "by_task": {"code": "Code must run."}}


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


async def store(http: httpx.AsyncClient, name: str, content: Any, **query: Any) -> dict[str, Any]:
    answer = await http.put(f"/v1/prompts/{name}", json=content, params=query)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


async def current(http: httpx.AsyncClient, name: str) -> int:
    return int((await http.get(f"/v1/prompts/{name}")).json()["current"])


async def audited(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    return await rows(engine, "SELECT action, subject FROM audit_log ORDER BY id")


# -- versions ---------------------------------------------------------------------------------------


async def test_versions_are_stored_once_and_promoted_by_hand(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    first = await store(http, "p", CAREFUL, note="the first", description="How to work.")
    assert (first["version"], first["created"], first["current"]) == (1, True, 1)
    second = await store(http, "p", BOLD)
    assert (second["version"], second["current"]) == (2, 1)
    again = await store(http, "p", CAREFUL | {"examples": []})
    assert (again["version"], again["created"], again["current"]) == (1, False, 1)

    bare = (await http.get("/v1/prompts/p")).json()
    assert (bare["version"], bare["newest"], bare["on_trial"]) == (1, 2, None)
    assert (bare["note"], bare["description"], bare["origin"]) == ("the first", "How to work.", "person")
    there = (await http.post("/v1/prompts/p/promote", json={"version": 2})).json()
    assert there == {"name": "p", "from": 1, "to": 2}
    assert (await http.get("/v1/prompts/p")).json()["content"]["by_task"] == {"code": "Code must run."}
    back = (await http.post("/v1/prompts/p/promote", json={"version": 1})).json()
    assert back == {"name": "p", "from": 2, "to": 1}
    assert (await http.get("/v1/prompts/p", params={"version": 2})).json()["version"] == 2

    third = await store(http, "p", {"system": "S3"}, promote=True)
    assert third["current"] == 3
    found = (await http.get("/v1/prompts/p/diff", params={"from": 1, "to": 2})).json()
    assert [(one["op"], one["path"]) for one in found["changes"]] == [
        ("replace", "/system"),
        ("add", "/by_task"),
    ]
    assert await audited(engine) == [
        ("prompt.store", "p@1"),
        ("prompt.store", "p@2"),
        ("prompt.promote", "p@2"),
        ("prompt.promote", "p@1"),
        ("prompt.store", "p@3"),
        ("prompt.promote", "p@3"),
    ]


async def test_lists_are_bounded(http: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await store(http, name, CAREFUL)
    for number in range(4):
        await store(http, "b", {"system": f"S{number}"})
    page = (await http.get("/v1/prompts", params={"limit": 2})).json()
    assert ([one["name"] for one in page["items"]], page["next"]) == (["a", "b"], "b")
    rest = (await http.get("/v1/prompts", params={"after": "b"})).json()
    assert ([one["name"] for one in rest["items"]], rest["next"]) == (["c"], None)
    page = (await http.get("/v1/prompts/b/versions", params={"limit": 3})).json()
    assert ([one["version"] for one in page["items"]], page["next"]) == ([5, 4, 3], "3")
    rest = (await http.get("/v1/prompts/b/versions", params={"after": 3})).json()
    assert [one["version"] for one in rest["items"]] == [2, 1]


async def test_what_is_not_there_or_not_meant(http: httpx.AsyncClient) -> None:
    none = problem(await http.get("/v1/prompts/p"), 404, "prompt_unknown")
    assert "there is none yet" in none["detail"]
    await store(http, "p", CAREFUL)
    other = problem(await http.get("/v1/prompts/p", params={"version": 7}), 404, "prompt_unknown")
    assert "from 1 to 1" in other["detail"]
    answer = await http.put("/v1/prompts/p", json={"system": "S", "by_task": {"poetry": "x"}, "more": 1})
    wrong = problem(answer, 422, "request_invalid")
    assert {one["pointer"] for one in wrong["problems"]} == {"/by_task/poetry/[key]", "/more"}
    problem(await http.put("/v1/prompts/P!", json=CAREFUL), 422, "request_invalid")


async def test_concurrent_uploads_have_numbers_without_gaps(http: httpx.AsyncClient) -> None:
    stored = await asyncio.gather(*(store(http, "p", {"system": f"S{n % 5}"}) for n in range(20)))
    assert {one["version"] for one in stored} == {1, 2, 3, 4, 5}
    assert sum(one["created"] for one in stored) == 5


async def test_a_prompt_goes_only_when_no_definition_that_is_meant_names_it(http: httpx.AsyncClient) -> None:
    for name in ("p", "p2"):
        await store(http, name, CAREFUL)
    definition = {"name": "d", **asking(prompt="p@1")}
    assert (await http.post("/v1/definitions", json=definition)).status_code == 201
    used = problem(await http.delete("/v1/prompts/p"), 409, "prompt_in_use")
    assert "d@1" in used["detail"]
    assert (await http.delete("/v1/prompts/p2")).status_code == 204
    assert (await http.post("/v1/definitions", json={"name": "d", **asking()})).status_code == 201
    assert (await http.delete("/v1/prompts/p")).status_code == 204
    problem(await http.get("/v1/prompts/p"), 404, "prompt_unknown")


# -- what a model is told ---------------------------------------------------------------------------


def asking(**agent: Any) -> dict[str, Any]:
    task = "${input.?task.orValue('Write a function that adds.')}"
    return {
        "agents": {"a": {"model": "openai/gpt-4o-mini", **agent}},
        "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": task}},
    }


async def told(
    engine: AsyncEngine, control: httpx.AsyncClient, agents: AgentActivity, request: StepRequest, words: str
) -> bool:
    """Whether the model's prompt holds the words."""
    await control.delete("/_simulator/faults")
    rule = {"kind": "answer", "text": "HEARD", "match": {"contains": words}}
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    await agents.agent(request)
    query = "SELECT output FROM agent_executions WHERE collaboration_id = :run AND status = 'completed'"
    [(output,)] = await rows(engine, query, run=request.collaboration)
    return bool(output == "HEARD")


async def test_a_step_is_asked_with_what_its_prompt_means(
    http: httpx.AsyncClient, engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    await store(http, "p", CAREFUL)
    await store(http, "p", BOLD | {"examples": [{"input": "Add 1.", "output": "ONE MORE"}]})
    definition = asking(prompt="p")
    assert await told(engine, control, agents, await begin(engine, definition), "You are careful.")
    await http.post("/v1/prompts/p/promote", json={"version": 2})
    assert await told(
        engine, control, agents, await begin(engine, definition), "You are bold.\n\nCode must run."
    )
    assert await told(engine, control, agents, await begin(engine, definition), "ONE MORE")
    haiku = await begin(engine, definition, input={"task": "Write a haiku."})
    assert not await told(engine, control, agents, haiku, "Code must run.")
    assert await told(engine, control, agents, await begin(engine, asking(prompt="p@1")), "You are careful.")
    used = "SELECT prompt, trial_id FROM agent_executions ORDER BY started_at"
    assert await rows(engine, used) == [
        ("p@1", None),
        ("p@2", None),
        ("p@2", None),
        ("p@2", None),
        ("p@1", None),
    ]


# -- trials -----------------------------------------------------------------------------------------


async def on_trial(http: httpx.AsyncClient, *, simulated: bool = True, **more: Any) -> dict[str, Any]:
    await store(http, "p", CAREFUL)
    await store(http, "p", BOLD)
    which = {"simulated": simulated}
    answer = await http.post("/v1/prompts/p/trial", params=which, json={"candidate": 2, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def ended(
    engine: AsyncEngine,
    trial: str,
    version: int,
    quality: float | None,
    *,
    status: str = "completed",
    user: str | None = None,
    cost: float = 0.01,
    sub_state: str = "",
    simulated: bool = True,
) -> str:
    """A run of that arm, as the platform's own rows tell of it when it is over."""
    request = await begin(engine, asking())
    async with transaction(engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO agent_executions (id, collaboration_id, path, step_id, kind, attempt,"
                " agent_name, model_id, status, prompt, trial_id, cost_usd)"
                " VALUES (:id, :run, 'ask', 'ask', 'agent', 1, 'a', 'm', 'completed', :prompt, :trial, :cost)"
            ),
            {
                "id": uuid.uuid4(),
                "run": request.collaboration,
                "prompt": f"p@{version}",
                "trial": trial,
                "cost": cost,
            },
        )
        await connection.execute(
            text(
                "UPDATE collaborations SET status = :status, quality_score = :quality, requested_by = :user,"
                " sub_state = :sub_state, completed_at = now(), simulated = :simulated WHERE id = :run"
            ),
            {
                "run": request.collaboration,
                "status": status,
                "quality": quality,
                "user": user,
                "sub_state": sub_state,
                "simulated": simulated,
            },
        )
    return request.collaboration


async def test_a_run_keeps_its_arm_and_its_executions_say_which(
    http: httpx.AsyncClient, engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    await store(http, "p", CAREFUL)
    before = await begin(engine, asking(prompt="p"))
    trial = await on_trial(http)
    definition = asking(prompt="p")
    definition["steps"]["then"] = definition["steps"]["ask"] | {"needs": ["ask"]}
    definition["steps"]["ask"] |= {"cache": {"ttl": "1h"}}
    runs = [await begin(engine, definition) for _ in range(12)]
    for request in runs:
        await agents.agent(request)
        await agents.agent(StepRequest(request.collaboration, request.tenant, "then", request.traceparent))
    arms = await rows(
        engine,
        "SELECT count(DISTINCT prompt), min(prompt), min(trial_id::text), count(*) FROM agent_executions"
        " GROUP BY collaboration_id",
    )
    assert {(one, trial_id, steps) for one, _, trial_id, steps in arms} == {(1, trial["id"], 2)}
    assert {prompt for _, prompt, _, _ in arms} == {"p@1", "p@2"}
    # Equal questions are answered from the cache, but never with the other arm's answer.
    taken = await rows(
        engine,
        "SELECT mine.prompt = theirs.prompt FROM agent_executions AS mine"
        " JOIN agent_executions AS theirs ON theirs.id = mine.reused_from",
    )
    assert set(taken) == {(True,)} and len(taken) == 10
    # Runs that began earlier, and steps that name a version, are nobody's.
    await agents.agent(before)
    await agents.agent(pinned := await begin(engine, asking(prompt="p@2")))
    outside = "SELECT prompt, trial_id FROM agent_executions WHERE collaboration_id = :run"
    assert await rows(engine, outside, run=before.collaboration) == [("p@1", None)]
    assert await rows(engine, outside, run=pinned.collaboration) == [("p@2", None)]


@pytest.mark.parametrize(("simulated", "meant"), [(False, (2, None)), (True, (1, 2))])
async def test_a_candidate_that_wins_is_promoted_where_that_was_wanted(
    http: httpx.AsyncClient, engine: AsyncEngine, simulated: bool, meant: tuple[int, int | None]
) -> None:
    trial = await on_trial(http, simulated=simulated, promote=True, min_units=20)
    for number in range(19):
        for version in (1, 2):
            score = 0.6 + version / 10 + number % 5 / 100
            await ended(engine, trial["id"], version, score, simulated=simulated)
    early = (await http.post("/v1/prompts/p/trial/look")).json()
    assert (early["status"], early["candidate"]["units"], early["low"]) == ("running", 19, None)
    for version in (1, 2):
        await ended(engine, trial["id"], version, 0.6 + version / 10, simulated=simulated)
    # What is still going, was cancelled, is another trial's or of the other kind counts for nothing.
    await ended(engine, trial["id"], 2, 0.0, simulated=not simulated)
    await ended(engine, trial["id"], 2, None, status="running")
    await ended(engine, trial["id"], 2, None, status="failed", sub_state="cancelled")
    await ended(engine, str(uuid.uuid4()), 2, 0.0)
    shown = (await http.get("/v1/prompts/p/trial")).json()
    assert (shown["status"], shown["candidate"]["units"]) == ("running", 20)  # a GET changes nothing
    done = (await http.post("/v1/prompts/p/trial/look")).json()
    found = (await http.get("/v1/prompts/p")).json()
    assert (done["status"], done["winner"], done["simulated"]) == ("won", 2, simulated)
    assert (found["current"], found["current_simulated"]) == meant
    assert done["difference"] == pytest.approx(0.1, abs=0.001) and done["low"] > 0 and done["p"] < 0.05
    assert (await http.get("/v1/prompts/p/trial")).json() == done
    assert ("trial.won", "p") in await audited(engine) and ("prompt.promote", "p@2") in await audited(engine)


async def test_a_candidate_that_loses_changes_nothing_and_failed_runs_have_no_quality(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    trial = await on_trial(http, promote=True, min_units=20)
    for number in range(40):
        await ended(engine, trial["id"], 1, 0.8 + number % 3 / 100)
        failed = number % 2 == 0
        await ended(engine, trial["id"], 2, 0.9, status="failed" if failed else "completed")
    done = (await http.post("/v1/prompts/p/trial/look")).json()
    assert (done["status"], done["winner"], await current(http, "p")) == ("lost", 1, 1)
    assert done["candidate"]["mean"] == pytest.approx(0.45)


async def test_a_winner_is_only_told_unless_it_is_to_be_promoted(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    trial = await on_trial(http, metric="cost", min_units=20)
    for number in range(20):
        await ended(engine, trial["id"], 1, None, cost=0.05 + number / 1000)
        await ended(engine, trial["id"], 2, None, cost=0.01 + number / 1000)
        await ended(engine, trial["id"], 2, None, cost=0.0, status="failed")
    done = (await http.post("/v1/prompts/p/trial/look")).json()
    assert (done["status"], done["winner"], await current(http, "p")) == ("won", 2, 1)
    assert (done["candidate"]["units"], done["candidate"]["unmeasured"]) == (20, 20)


async def test_a_user_is_one_observation_however_often_they_come(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    trial = await on_trial(http, unit="user", metric="success")
    for number in range(30):
        await ended(engine, trial["id"], 1, None, user=f"user:{number % 3}")
        await ended(
            engine, trial["id"], 2, None, user="user:9", status="failed" if number % 2 else "completed"
        )
    shown = (await http.get("/v1/prompts/p/trial")).json()
    assert (shown["control"]["units"], shown["candidate"]["units"]) == (3, 1)
    assert (shown["control"]["mean"], shown["candidate"]["mean"]) == (1.0, 0.5)


async def test_runs_without_a_score_end_a_trial_undecided(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    trial = await on_trial(http, max_units=40)
    for _ in range(20):
        for version in (1, 2):
            await ended(engine, trial["id"], version, None)
    done = (await http.post("/v1/prompts/p/trial/look")).json()
    assert (done["status"], done["winner"], done["control"]["unmeasured"]) == ("undecided", None, 20)
    assert await current(http, "p") == 1


async def test_while_a_trial_goes_on_the_name_keeps_its_meaning(http: httpx.AsyncClient) -> None:
    await on_trial(http)
    assert (await http.get("/v1/prompts")).json()["items"][0]["on_trial"] == 2
    problem(await http.post("/v1/prompts/p/promote", json={"version": 2}), 409, "trial_running")
    answer = await http.put("/v1/prompts/p", json={"system": "S3"}, params={"promote": True})
    problem(answer, 409, "trial_running")
    problem(await http.delete("/v1/prompts/p"), 409, "trial_running")
    assert (await store(http, "p", {"system": "S3"}))["version"] == 3
    problem(await http.post("/v1/prompts/p/trial", json={"candidate": 3}), 409, "trial_running")
    stopped = (await http.delete("/v1/prompts/p/trial")).json()
    assert (stopped["status"], stopped["winner"]) == ("stopped", None)
    assert (await http.delete("/v1/prompts/p/trial")).json() == stopped
    assert (await http.post("/v1/prompts/p/promote", json={"version": 2})).status_code == 200
    problem(await http.post("/v1/prompts/p/trial", json={"candidate": 2}), 409, "trial_pointless")
    problem(await http.post("/v1/prompts/p/trial", json={"candidate": 9}), 404, "prompt_unknown")
    problem(await http.post("/v1/prompts/p/trial", json={"candidate": 1, "share": 1}), 422, "request_invalid")
    problem(await http.get("/v1/prompts/q/trial"), 404, "prompt_unknown")


async def test_the_pass_of_every_minute_ends_what_is_decided(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    trial = await on_trial(http, min_units=20)
    await store(http, "q", CAREFUL)
    await store(http, "q", BOLD)
    await http.post("/v1/prompts/q/trial", json={"candidate": 2})
    for number in range(20):
        await ended(engine, trial["id"], 1, 0.9 + number % 3 / 100)
        await ended(engine, trial["id"], 2, 0.2 + number % 3 / 100)
    activity = TrialsActivity(engine).look_at_trials
    assert await ActivityEnvironment().run(activity) == TrialsPass(2, ["p: lost"])
    # Once more changes nothing.
    assert await ActivityEnvironment().run(activity) == TrialsPass(1, [])
    async with transaction(engine) as connection:
        [left] = await trials.running(connection)
    assert left.name == "q"


async def test_temporal_looks_every_minute(platform: Stack) -> None:
    handle = platform.client.get_schedule_handle("facilitair-trials")
    spec = (await handle.describe()).schedule.spec
    assert [one.every for one in spec.intervals] == [timedelta(minutes=1)]
    await handle.trigger()
    query = "WorkflowType = 'facilitair.trials' AND ExecutionStatus = 'Completed'"
    while not [one async for one in platform.client.list_workflows(query)]:
        await asyncio.sleep(0.1)
