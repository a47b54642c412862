"""The main job: a real file through five agents, and what it leaves in every server."""

import asyncio
import json
import os
import sys
import time
from typing import Any

from sqlalchemy import text

from bench.outage import differences
from tests.support.cli import ROOT, facilitair
from tests.support.stack import Stack

QUERY_A = (
    "MATCH (reviewer:Agent)-[r:REVIEWED {found_issues: true}]->(t:Task)<-[impl:IMPLEMENTED]-(coder:Agent) "
    "RETURN coder.model, reviewer.model, count(*) as issue_count ORDER BY issue_count DESC"
)
QUERY_B = "MATCH (a:Agent)-[r:REFINED]->(t:Task) RETURN avg(r.latency_ms) as avg_refinement_ms"


async def settled(on: Stack) -> list[str]:
    """The differences between projections and log, once the projections have caught up."""
    async with asyncio.timeout(120):
        while (found := await differences(on)) is None:
            await asyncio.sleep(0.2)
    return found


async def test_a_real_file_from_upload_to_every_server(platform: Stack, neo4j: None, weaviate: None) -> None:
    data = platform.supervisor.data
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", "projector", timeout_seconds=120)
    applied = await facilitair(data, "apply", "examples/code-review.json", "--json")
    assert applied.code == 0, applied.stderr
    ran = await facilitair(data, "run", "code-review", "--input", "file=@bench/crash.py", "--json")
    assert ran.code == 0, ran.stderr
    run = ran.json
    assert {step["id"] for step in run["steps"]} == {"analysis", "design", "code", "review", "refine", "test"}
    assert run["output"]["code"]
    assert run["output"]["tests"]

    async with platform.engine.connect() as connection:
        found = await connection.execute(
            text("SELECT id, status FROM collaborations WHERE temporal_workflow_id = :id"),
            {"id": run["collaboration_id"]},
        )
        collaboration, status = found.one()
    assert status == "completed"

    assert await settled(platform) == []
    edges = await facilitair(
        data, "graph", f"MATCH (a)-[r]->(t:Task {{key: '{collaboration}'}}) RETURN type(r) AS edge", "--json"
    )
    kinds = {row["edge"] if isinstance(row, dict) else row[0] for row in edges.json["rows"]}
    assert {"DESIGNED", "IMPLEMENTED", "REVIEWED", "TESTED"} <= kinds
    for query in (QUERY_A, QUERY_B):
        answered = await facilitair(data, "graph", query, "--json")
        assert answered.code == 0, answered.stderr
        assert answered.json["rows"]

    traced = await facilitair(data, "trace", run["collaboration_id"])
    assert traced.code == 0, traced.stderr
    for name in ("invoke_workflow code-review", "invoke_agent reviewer", "execute_tool python.check"):
        assert name in traced.stdout
    assert f"total: {len(run['steps'])} steps" in traced.stdout


async def test_one_trace_from_the_request_to_the_projections(
    platform: Stack, neo4j: None, weaviate: None
) -> None:
    data = platform.supervisor.data
    await facilitair(data, "apply", "examples/hello.json")
    ran = await facilitair(data, "run", "hello", "--input", "task=trace me", "--json")
    assert await settled(platform) == []
    names: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while not {"project graph", "project memory", "project vectors"} <= names.keys():
            await asyncio.sleep(0.2)
            async with platform.engine.connect() as connection:
                rows = await connection.execute(
                    text("SELECT name, span_id, parent_id FROM spans WHERE trace_id = :id"),
                    {"id": ran.json["trace_id"]},
                )
                names = {row.name: row for row in rows}
    ids = {row.span_id for row in names.values()}
    assert {row.name for row in names.values() if row.parent_id not in ids} == {"POST /v1/collaborations"}
    assert {"invoke_workflow hello", "invoke_agent coder", "chat deepseek/deepseek-chat"} <= names.keys()


async def test_similar_past_work_is_recalled_as_a_hint(platform: Stack, weaviate: None) -> None:
    data = platform.supervisor.data
    await facilitair(data, "apply", "examples/routed.json")
    task = "task=Write a Python function that merges two sorted lists of invoices"
    first = await facilitair(data, "run", "routed", "--input", task, "--json")
    assert first.code == 0, first.stderr
    await settled(platform)
    second = await facilitair(data, "run", "routed", "--input", task, "--json")
    query = text("""
        SELECT source, hits FROM recalls r JOIN collaborations c ON c.id = r.collaboration_id
        WHERE temporal_workflow_id = :id
    """)
    async with platform.engine.connect() as connection:
        source, hits = (await connection.execute(query, {"id": second.json["collaboration_id"]})).one()
        chosen = await connection.execute(
            text(
                "SELECT policy, propensity, candidates FROM routing_decisions "
                "ORDER BY created_at DESC LIMIT 1"
            )
        )
        policy, propensity, candidates = chosen.one()
    assert source in ("weaviate", "pgvector")
    assert hits[0]["cosine"] > 0.99
    assert policy == "rules-v1"
    assert min(candidates.values()) >= 0.02
    assert 0.02 <= propensity <= 1


async def test_a_bare_temporal_script_starts_it_by_name(platform: Stack) -> None:
    await facilitair(platform.supervisor.data, "apply", "examples/hello.json")
    script = ROOT / "examples" / "start_by_name.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(script),
        platform.settings.temporal_address,
        "hello",
        '{"task": "add two numbers"}',
        stdout=asyncio.subprocess.PIPE,
    )
    stdout, _ = await process.communicate()
    assert process.returncode == 0
    assert isinstance(json.loads(stdout), str)


async def test_the_script_says_what_was_wrong_and_guesses_no_address(platform: Stack) -> None:
    script = [sys.executable, "-I", str(ROOT / "examples" / "start_by_name.py")]
    alone = {key: value for key, value in os.environ.items() if key != "TEMPORAL_ADDRESS"}
    here = alone | {"TEMPORAL_ADDRESS": platform.settings.temporal_address}

    async def told(*arguments: str, environment: dict[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *script, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await process.communicate()
        assert process.returncode == 1
        return stderr.decode()

    assert "`facilitair status` prints it" in await told(environment=alone)
    lines = (await told("", "no-such-thing", "{}", environment=here)).splitlines()
    assert (len(lines), "no-such-thing" in lines[0]) == (1, True)


async def test_refused_input_and_failed_runs_have_their_exit_codes(platform: Stack) -> None:
    data = platform.supervisor.data
    began = time.monotonic()
    unknown = await facilitair(data, "run", "no-such-thing", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (2, "definition_unknown")
    await facilitair(data, "apply", "examples/lint-report.json")
    wrong = await facilitair(data, "run", "lint-report", "--input", "nope=1", "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (2, "input_invalid")
    assert time.monotonic() - began < 20
