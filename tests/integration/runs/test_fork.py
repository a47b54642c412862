"""Going on from another run, through the HTTP door: what is kept costs nothing, the rest runs again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from api.app import create_app
from tests.integration.runs.test_children import rows, stored
from tests.integration.runs.test_collaboration import failure, status, unique
from tests.integration.runs.test_undo import found, undone
from tests.support.stack import Stack

CODER = {"coder": {"role": "coder"}}


def ask(prompt: str, **more: Any) -> dict[str, Any]:
    return {"kind": "agent", "agent": "coder", "prompt": prompt, **more}


WORK: dict[str, Any] = {
    "agents": CODER,
    "steps": {
        "plan": ask("plan ${input.task}"),
        "code": ask("code ${steps.plan.output}"),
        "notes": ask("notes on ${steps.plan.output}"),
        "review": ask("review ${steps.code.output}"),
        "sum": {"kind": "transform", "value": "${[steps.code.output, steps.review.output]}"},
    },
    "output": {"sum": "${steps.sum.output}", "notes": "${steps.notes.output}"},
}


@pytest.fixture
async def http(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(platform.settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1", timeout=30) as client,
    ):
        yield client


async def go_on(
    http: httpx.AsyncClient, source: str, body: dict[str, Any] | None = None, *, how: str = "fork"
) -> dict[str, Any]:
    answer = await http.post(f"/collaborations/{source}/{how}", json=body or {})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/collaborations/{answer.json()['id']}"
    return dict(answer.json())


async def result(on: Stack, accepted: dict[str, Any]) -> Any:
    return await on.client.get_workflow_handle(accepted["id"]).result()


async def refused(
    http: httpx.AsyncClient, source: str, body: dict[str, Any] | None = None, *, how: str = "fork"
) -> tuple[int, str, str]:
    answer = await http.post(f"/collaborations/{source}/{how}", json=body or {})
    return answer.status_code, answer.json()["code"], answer.json()["detail"]


async def calls(on: Stack, id: str) -> set[str]:
    """The paths of a run for which the provider was called, by the provider's own books."""
    [(uuid,)] = await rows(on, "SELECT id FROM collaborations WHERE temporal_workflow_id = :id", id=id)
    keys = (await on.provider_calls())["by_key"]
    return {key.split("/")[1] for key in keys if key.startswith(str(uuid))}


async def executions(on: Stack, id: str) -> dict[str, Any]:
    """path → its finished execution."""
    query = """SELECT e.* FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
        WHERE c.temporal_workflow_id = :id AND e.status IN ('completed', 'skipped', 'caught')"""
    async with on.engine.connect() as connection:
        return {row.path: row for row in await connection.execute(text(query), {"id": id})}


async def test_what_is_kept_costs_nothing(platform: Stack, http: httpx.AsyncClient) -> None:
    name = await stored(platform, WORK, "work")
    first = await (await platform.start(name, {"task": "x"}, name)).result()
    assert await calls(platform, name) == {"plan", "code", "notes", "review"}
    fork = await go_on(http, name, {"from": ["review"]})
    assert fork["definition"] == f"{name}@1"
    assert (fork["kept"], fork["resumed"], fork["again"]) == (
        ["plan", "code", "notes"],
        [],
        ["review", "sum"],
    )
    second = await result(platform, fork)
    assert await calls(platform, fork["id"]) == {"review"}
    assert (second["notes"], second["sum"][0]) == (first["notes"], first["sum"][0])
    before, after = await executions(platform, name), await executions(platform, fork["id"])
    assert before["plan"].cost_usd > 0
    for step in ("plan", "code", "notes"):
        kept = after[step]
        assert (kept.cost_usd, kept.input_tokens, kept.output_tokens, kept.latency_ms) == (0, 0, 0, 0)
        assert (kept.reused_from, kept.output, kept.model_id) == (
            before[step].id,
            before[step].output,
            before[step].model_id,
        )
    assert after["review"].reused_from is None and after["review"].cost_usd > 0
    summary = (await http.get(f"/collaborations/{fork['id']}")).json()
    assert summary["cost_usd"] == pytest.approx(float(after["review"].cost_usd))
    events = await rows(
        platform,
        """SELECT o.type, o.payload ->> 'step' FROM outbox o
        JOIN collaborations c ON c.id::text = o.aggregateid
        WHERE c.temporal_workflow_id = :id ORDER BY o.seq""",
        id=fork["id"],
    )
    assert events == [
        ("CollaborationStarted", None),
        ("StepFinished", "review"),
        ("StepFinished", "sum"),
        ("CollaborationFinished", None),
    ]


async def test_both_sides_tell_of_each_other(platform: Stack, http: httpx.AsyncClient) -> None:
    name = await stored(platform, {"steps": {"a": {"kind": "transform", "value": 1}}}, "lineage")
    await (await platform.start(name, {}, name)).result()
    fork = await go_on(http, name, {"from": ["a"], "id": f"{name}-again"})
    await result(platform, fork)
    again = await go_on(http, fork["id"], {"from": ["a"]})
    assert fork["id"] == f"{name}-again"
    await result(platform, again)

    async def lineage(id: str) -> dict[str, Any]:
        answer = await http.get(f"/collaborations/{id}", params={"include": "lineage"})
        return dict(answer.json()["lineage"])

    def id_of(relative: dict[str, Any] | None) -> str | None:
        return relative["id"] if relative else None

    source, middle = await lineage(name), await lineage(fork["id"])
    assert (source["forked_from"], source["forked_at"]) == (None, [])
    assert [one["id"] for one in source["forks"]] == [fork["id"]]
    assert (id_of(middle["forked_from"]), middle["forked_at"]) == (name, ["a"])
    assert [one["id"] for one in middle["forks"]] == [again["id"]]
    assert await rows(
        platform,
        """SELECT o.payload ->> 'forked_from' = s.id::text FROM outbox o
        JOIN collaborations c ON c.id::text = o.aggregateid
        JOIN collaborations s ON s.temporal_workflow_id = :source
        WHERE c.temporal_workflow_id = :id AND o.type = 'CollaborationStarted'""",
        id=fork["id"],
        source=name,
    ) == [(True,)]


async def test_a_written_output_stands_for_the_steps_own(platform: Stack, http: httpx.AsyncClient) -> None:
    name = await stored(platform, WORK, "work")
    await (await platform.start(name, {"task": "x"}, name)).result()
    written = "print(1)\n" * 20_000
    fork = await go_on(http, name, {"from": [], "outputs": {"code": written}})
    assert (fork["kept"], fork["again"]) == (["plan", "notes"], ["review", "sum"])
    output = (await result(platform, fork)).get("output_reference")
    assert output  # too large for Temporal
    assert await calls(platform, fork["id"]) == {"review"}
    code = (await executions(platform, fork["id"]))["code"]
    assert (code.output, code.kind, code.model_id, code.cost_usd) == (written, "agent", "", 0)


async def test_another_input_and_another_definition(platform: Stack, http: httpx.AsyncClient) -> None:
    name = await stored(platform, WORK, "work")
    await (await platform.start(name, {"task": "x"}, name)).result()
    steps = {**WORK["steps"], "sum": {"kind": "transform", "value": "${input.task}, newly"}}
    steps["extra"] = ask("more on ${steps.sum.output}")
    del steps["review"]
    await platform.store({"name": name, "agents": CODER, "steps": steps, "output": "${steps.sum.output}"})
    fork = await go_on(http, name, {"from": ["sum"], "input": {"task": "y"}, "definition": 2})
    assert (fork["definition"], fork["again"]) == (f"{name}@2", ["sum", "extra"])
    assert await result(platform, fork) == "y, newly"
    assert await calls(platform, fork["id"]) == {"extra"}
    assert await status(platform, fork["id"]) == ("completed", "", None)


async def test_what_cannot_go_on_is_refused_at_the_door(platform: Stack, http: httpx.AsyncClient) -> None:
    body = {"steps": {"inner": {"kind": "transform", "value": "${item}"}}}
    steps = {
        "which": {"kind": "switch", "cases": [{"when": "input.n > 1", "then": "big"}], "else": "small"},
        "each": {"kind": "map", "over": "[input.n]", "max_items": 5, "body": body},
    }
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    name = await stored(platform, {"input": schema, "steps": steps}, "refused")
    await (await platform.start(name, {"n": 1}, name)).result()
    status_, code, detail = await refused(http, name, {"from": ["wich"]})
    assert (status_, code) == (422, "fork_step_unknown")
    assert "which" in detail and "each" in detail
    status_, code, detail = await refused(http, name, {"from": ["inner"]})
    assert (status_, code) == (422, "fork_step_unknown") and "within 'each'" in detail
    for outputs in ({"which": "tiny"}, {"each": 5}):
        assert (await refused(http, name, {"from": [], "outputs": outputs}))[1] == "fork_output_invalid"
    twice = {"from": ["each"], "outputs": {"each": []}}
    assert (await refused(http, name, twice))[1] == "fork_output_invalid"
    assert (await refused(http, name, {"from": ["each"], "input": {"n": "x"}}))[1] == "input_invalid"
    assert (await refused(http, name, {"from": ["each"], "definition": 7}))[1] == "definition_unknown"
    assert (await refused(http, name, {"from": []}))[1] == "request_invalid"
    large = {"from": [], "outputs": {"each": ["x" * 300_000]}}
    assert (await refused(http, name, large))[:2] == (413, "fork_outputs_too_large")
    assert (await refused(http, name, how="rerun"))[:2] == (409, "collaboration_not_failed")
    assert (await refused(http, unique("none"), {"from": ["a"]}))[1] == "collaboration_unknown"
    assert await rows(
        platform,
        "SELECT count(*) FROM collaborations c JOIN workflows w ON w.id = workflow_id WHERE name = :name",
        name=name,
    ) == [(1,)]


@asynccontextmanager
async def checks(on: Stack) -> AsyncIterator[tuple[dict[str, Any], list[Any], set[Any]]]:
    """(a step that checks `what`, what it was asked, what it refuses): a user's own activity."""
    queue, seen, bad = unique("checks"), list[Any](), set[Any]()

    @activity.defn(name="check")
    async def check(args: dict[str, Any]) -> Any:
        seen.append(args["what"])
        if args["what"] in bad:
            raise ApplicationError("no good", type="no_good", non_retryable=True)
        return args["what"]

    async with Worker(on.client, task_queue=queue, activities=[check]):
        yield {"kind": "tool", "activity": "check", "task_queue": queue}, seen, bad


async def test_a_failed_run_goes_on_where_it_failed(platform: Stack, http: httpx.AsyncClient) -> None:
    async with checks(platform) as (check, seen, bad):
        bad.add("go")
        steps = {
            "plan": ask("plan"),
            "check": check | {"args": {"what": "${input.task}"}, "needs": ["plan"]},
            "code": ask("code ${steps.check.output}"),
        }
        name = await stored(platform, {"agents": CODER, "steps": steps}, "failed")
        assert (await failure(await platform.start(name, {"task": "go"}, name))).type == "no_good"
        bad.clear()
        again = await go_on(http, name, how="rerun")
        assert (again["kept"], again["again"]) == (["plan"], ["check", "code"])
        await result(platform, again)
    assert seen == ["go", "go"]
    assert await calls(platform, again["id"]) == {"code"}


async def test_a_map_goes_on_behind_the_items_it_had_done(platform: Stack, http: httpx.AsyncClient) -> None:
    async with checks(platform) as (check, seen, bad):
        bad.add(3)
        body = {
            "steps": {
                "write": ask("write ${item}"),
                "check": check | {"args": {"what": "${item}"}, "needs": ["write"]},
            },
            "output": "${steps.check.output}",
        }
        each = {"kind": "map", "over": "input.n", "max_items": 9, "concurrency": 1, "body": body}
        name = await stored(platform, {"agents": CODER, "steps": {"each": each}}, "map")
        await failure(await platform.start(name, {"n": [1, 2, 3, 4]}, name))
        assert await calls(platform, name) == {"each[0].write", "each[1].write", "each[2].write"}
        bad.clear()
        again = await go_on(http, name, how="rerun")
        assert (again["resumed"], again["again"]) == (["each"], [])
        assert await result(platform, again) == [1, 2, 3, 4]
        assert seen == [1, 2, 3, 3, 4]
        # The third item's agent had answered: only the fourth is paid for.
        assert await calls(platform, again["id"]) == {"each[3].write"}
        # Named, it runs again as a whole.
        whole = await go_on(http, name, {"from": ["each"]})
        assert await result(platform, whole) == [1, 2, 3, 4]
        assert len(await calls(platform, whole["id"])) == 4


async def test_a_chained_map_goes_on_as_well(platform: Stack, http: httpx.AsyncClient) -> None:
    async with checks(platform) as (check, _, bad):
        bad.add("go")
        body = {
            "steps": {
                "rest": {"kind": "tool", "tool": "pause", "args": {"seconds": 0.3}},
                "index": {"kind": "transform", "value": "${index}", "needs": ["rest"]},
            }
        }
        steps = {
            "each": {"kind": "map", "over": "input.n", "max_items": 9, "concurrency": 1, "body": body},
            "rest_first": {"kind": "wait", "for": "1s"},
            "check": check | {"args": {"what": "go"}, "needs": ["rest_first"]},
        }
        name = await stored(platform, {"steps": steps, "output": "${steps.each.output}"}, "chained")
        await failure(await platform.start(name, {"n": list(range(8))}, name))
        done = {path for path, row in (await executions(platform, name)).items() if row.kind == "item"}
        assert 0 < len(done) < 8
        bad.clear()
        again = await go_on(http, name, how="rerun")
        assert (again["kept"], again["resumed"], again["again"]) == (["rest_first"], ["each"], ["check"])
        assert await result(platform, again) == list(range(8))
    after = await executions(platform, again["id"])
    assert {path for path, row in after.items() if row.kind == "item" and row.reused_from} == done


async def test_a_loop_goes_on_with_what_it_carried(platform: Stack, http: httpx.AsyncClient) -> None:
    async with checks(platform) as (check, seen, bad):
        bad.add(3)
        body = {"steps": {"check": check | {"args": {"what": "${iter.carry}"}}}}
        loop = {"kind": "loop", "max_iterations": 5, "init": 1, "carry": "${iter.carry + 1}", "body": body}
        name = await stored(platform, {"steps": {"count": loop}}, "loop")
        await failure(await platform.start(name, {}, name))
        bad.clear()
        again = await go_on(http, name, how="rerun")
        assert again["resumed"] == ["count"]
        assert await result(platform, again) == 5
    assert seen == [1, 2, 3, 3, 4, 5]


async def test_a_sub_collaboration_goes_on_as_well(platform: Stack, http: httpx.AsyncClient) -> None:
    async with checks(platform) as (check, _, bad):
        bad.add("go")
        steps = {
            "plan": ask("plan"),
            "check": check | {"args": {"what": "go"}, "needs": ["plan"]},
            "code": ask("code ${steps.check.output}"),
        }
        child = await stored(platform, {"agents": CODER, "steps": steps, "output": "${steps.code.output}"})
        name = await stored(platform, {"steps": {"sub": {"kind": "collaboration", "ref": child}}}, "parent")
        assert (await failure(await platform.start(name, {}, name))).type == "no_good"
        bad.clear()
        again = await go_on(http, name, how="rerun")
        assert again["resumed"] == ["sub"]
        assert await result(platform, again)
        anew = await go_on(http, name, {"from": ["sub"]})
        await result(platform, anew)
    assert await calls(platform, f"{again['id']}~sub") == {"code"}
    assert await calls(platform, f"{anew['id']}~sub") == {"plan", "code"}
    lineage = (await http.get(f"/collaborations/{again['id']}~sub?include=lineage")).json()["lineage"]
    assert (lineage["forked_from"]["id"], lineage["parent"]["id"]) == (f"{name}~sub", again["id"])
    parent = (await http.get(f"/collaborations/{again['id']}?include=lineage")).json()["lineage"]
    assert [(one["id"], one["path"]) for one in parent["children"]] == [(f"{again['id']}~sub", "sub")]


async def test_a_fork_of_a_fork_names_who_did_it_first(platform: Stack, http: httpx.AsyncClient) -> None:
    name = await stored(platform, WORK, "work")
    await (await platform.start(name, {"task": "x"}, name)).result()
    once = await go_on(http, name, {"from": ["review"]})
    await result(platform, once)
    twice = await go_on(http, once["id"], {"from": ["sum"]})
    await result(platform, twice)
    assert await calls(platform, twice["id"]) == set()
    first, second, third = [await executions(platform, id) for id in (name, once["id"], twice["id"])]
    assert third["plan"].reused_from == first["plan"].id
    assert third["review"].reused_from == second["review"].id


async def test_a_running_run_can_be_forked(platform: Stack, http: httpx.AsyncClient) -> None:
    steps = {
        "plan": ask("plan"),
        "rest": {"kind": "wait", "for": "1h", "needs": ["plan"]},
        "end": {"kind": "transform", "value": "${steps.plan.output}", "needs": ["rest"]},
    }
    name = await stored(platform, {"agents": CODER, "steps": steps}, "running")
    handle = await platform.start(name, {}, name)
    async with asyncio.timeout(30):
        while "plan" not in await executions(platform, name):
            await asyncio.sleep(0.05)
    fork = await go_on(http, name, {"from": [], "outputs": {"rest": {}}})
    output = await result(platform, fork)
    assert output == (await executions(platform, name))["plan"].output
    assert await calls(platform, fork["id"]) == set()
    assert (await refused(http, name, how="rerun"))[1] == "collaboration_not_failed"
    await handle.cancel()


async def test_what_was_undone_is_done_again_and_what_is_kept_is_not_undone(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    async with checks(platform) as (check, seen, bad):
        bad.add("go")
        undo = {"tool": "pause", "args": {"seconds": 0}}
        steps = {
            "plan": ask("plan"),
            "buy": found("x", undo, needs=["plan"]),
            "pay": found("x", undo, needs=["buy"]),
            "check": check | {"args": {"what": "go"}, "needs": ["pay"]},
        }
        name = await stored(platform, {"agents": CODER, "steps": steps}, "undone")
        await failure(await platform.start(name, {}, name))
        assert [row[0] for row in await undone(platform, name)] == ["pay~undo", "buy~undo"]
        again = await go_on(http, name, how="rerun")
        assert (again["kept"], again["again"]) == (["plan"], ["buy", "pay", "check"])
        await failure(platform.client.get_workflow_handle(again["id"]))
        assert [row[0] for row in await undone(platform, again["id"])] == ["pay~undo", "buy~undo"]
        bad.clear()
        fine = await go_on(http, again["id"], how="rerun")
        await result(platform, fine)
        # What the completed run did is kept by this fork, and not its own to undo.
        bad.add("go")
        last = await go_on(http, fine["id"], {"from": ["check"]})
        await failure(platform.client.get_workflow_handle(last["id"]))
        assert await undone(platform, last["id"]) == []
    assert seen == ["go"] * 4


async def test_a_fork_of_a_plain_client_is_checked_as_well(platform: Stack) -> None:
    name = await stored(platform, {"steps": {"a": {"kind": "transform", "value": 1}}}, "plain")
    handle = await platform.start(name, {}, name)
    await handle.result()
    [(uuid,)] = await rows(
        platform, "SELECT id FROM collaborations WHERE temporal_workflow_id = :id", id=name
    )

    async def start(**fork: Any) -> str:
        memo = {"facilitair_fork": fork}
        handle = await platform.client.start_workflow(
            name, {}, id=unique("fork"), task_queue="collaborations", memo=memo
        )
        return (await failure(handle)).type or ""

    nowhere = "00000000-0000-0000-0000-000000000000"
    assert await start(collaboration=str(uuid), from_steps=["b"]) == "fork_step_unknown"
    assert await start(collaboration=nowhere, from_steps=["a"]) == "collaboration_unknown"
    stored_forks = "SELECT count(*) FROM collaborations WHERE forked_from = :id"
    assert await rows(platform, stored_forks, id=uuid) == [(0,)]
