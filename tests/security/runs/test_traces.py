"""A caller's trace is linked to a run's and never is it: nobody writes into another's trace, or reads it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from schema.temporal.memo import MEMO_PARENT, MEMO_REQUEST_SPAN, MEMO_TRACEPARENT
from tests.support.runs import rows
from tests.support.stack import Stack

_DEFINITION: dict[str, Any] = {
    "agents": {"coder": {"model": "openai/gpt-4o-mini"}},
    "steps": {"a": {"kind": "agent", "agent": "coder", "prompt": "Sort a list."}},
}
_STEP = {"invoke_agent coder", "chat openai/gpt-4o-mini"}


@pytest.fixture
async def http(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """The platform's own API process, which writes down its spans."""
    await platform.wait_ready("api")
    async with httpx.AsyncClient(base_url=platform.supervisor.addresses["api"], timeout=60) as client:
        yield client


@pytest.fixture
async def name(platform: Stack) -> str:
    name = f"traced-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": name, **_DEFINITION})
    return name


async def _run(http: httpx.AsyncClient, name: str, **headers: str) -> dict[str, Any]:
    started = await http.post("/v1/collaborations", json={"definition": name}, headers=headers)
    assert started.status_code == 202, started.text
    return await _ended(http, started.json()["id"])


async def _ended(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while (run := (await http.get(f"/v1/collaborations/{id}")).json())["status"] == "running":
            await asyncio.sleep(0.05)
    return dict(run)


async def _spans(http: httpx.AsyncClient, id: str, names: set[str]) -> dict[str, dict[str, Any]]:
    """The spans of a run by their names, once all of these are written; the copies come later."""
    async with asyncio.timeout(30):
        while True:
            told = (await http.get(f"/v1/collaborations/{id}/trace")).json()["spans"]
            found = {one["name"]: one for one in told if not one["name"].startswith("project ")}
            if names <= found.keys():
                return found
            await asyncio.sleep(0.1)


async def test_a_callers_trace_is_linked_and_never_joined(http: httpx.AsyncClient, name: str) -> None:
    request, own = "POST /v1/collaborations", f"invoke_workflow {name}"
    whole = {request, own, *_STEP}
    victim = await _run(http, name)
    before = await _spans(http, victim["id"], whole)
    given = f"00-{victim['trace_id']}-{before[own]['span_id']}-01"

    attacker = await _run(http, name, traceparent=given)
    assert attacker["trace_id"] == uuid.UUID(attacker["run_id"]).hex
    seen = await _spans(http, attacker["id"], whole)
    assert seen.keys() == whole
    assert {one["trace_id"] for one in seen.values()} == {attacker["trace_id"]}
    parents = {name: one["parent_id"] for name, one in seen.items()}
    assert (parents[request], parents[own]) == (None, seen[request]["span_id"])
    # What joins traces finds the caller's, on the request's span and on the run's.
    links = {name: one["attributes"]["facilitair.links"] for name, one in seen.items() if name not in _STEP}
    assert links == {request: [given], own: [given]}
    assert await _spans(http, victim["id"], whole) == before


async def test_a_temporal_client_joins_no_trace_and_no_parent(
    http: httpx.AsyncClient, name: str, platform: Stack
) -> None:
    """What it writes into the memo is its own word."""
    victim = await _run(http, name)
    given = f"00-{victim['trace_id']}-00f067aa0ba902b7-01"
    id = f"{name}.bare"
    memo = {
        MEMO_TRACEPARENT: given,
        MEMO_REQUEST_SPAN: "nothing",
        MEMO_PARENT: {"collaboration": victim["run_id"], "path": "a"},
    }
    await platform.client.execute_workflow(name, {}, id=id, task_queue="collaborations", memo=memo)
    query = "SELECT id, traceparent, linked_traceparent, parent_id, parent_span_id FROM collaborations"
    [(run, traceparent, linked, parent, above)] = await rows(
        platform.engine, f"{query} WHERE temporal_workflow_id = :id", id=id
    )
    assert (traceparent.split("-")[1], linked, parent, above) == (run.hex, given, None, None)
    lineage = (await http.get(f"/v1/collaborations/{victim['id']}?include=lineage")).json()["lineage"]
    assert lineage["children"] == []


async def test_a_sub_collaboration_is_part_of_its_parents_trace(http: httpx.AsyncClient, name: str) -> None:
    steps = {"inner": {"kind": "collaboration", "ref": name}}
    answer = await http.post("/v1/definitions", json={"name": f"{name}-around", "steps": steps})
    assert answer.status_code == 201, answer.text
    around = await _run(http, f"{name}-around")
    inner = {f"invoke_workflow {name}", *_STEP}
    outer = {"POST /v1/collaborations", f"invoke_workflow {name}-around"}
    spans = await _spans(http, around["id"], inner | outer)
    assert spans.keys() == inner | outer
    assert {one["trace_id"] for one in spans.values()} == {around["trace_id"]}
    assert (await _spans(http, f"{around['id']}~inner", inner)).keys() == inner


async def test_spans_that_somebody_else_wrote_under_a_runs_trace_are_not_shown(
    http: httpx.AsyncClient, name: str, platform: Stack
) -> None:
    run = await _run(http, name)
    whole = {"POST /v1/collaborations", f"invoke_workflow {name}", *_STEP}
    before = await _spans(http, run["id"], whole)
    insert = text("""
        INSERT INTO spans (trace_id, span_id, name, kind, service, started_at, ended_at, status, attributes,
            tenant_id, collaboration_id)
        VALUES (:trace, :span, 'foreign', 'internal', 'x', now(), now(), 'unset', '{}', :tenant, :run)
    """)
    async with platform.engine.begin() as connection:
        for span, tenant, owner in (("1", "default", uuid.uuid4()), ("2", "another", run["run_id"])):
            await connection.execute(
                insert, {"trace": run["trace_id"], "span": span, "tenant": tenant, "run": owner}
            )
    assert await _spans(http, run["id"], whole) == before
