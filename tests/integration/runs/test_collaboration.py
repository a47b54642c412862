"""What a run does, on the real Temporal, Postgres and worker."""

import asyncio
import time
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker

from schema.temporal.queues import QUEUE_COLLABORATIONS
from tests.support.stack import Stack

KIB = 1024


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


async def run(on: Stack, definition: dict[str, Any], input: Any = None) -> Any:
    """Store a definition under a name of its own and run it to its end."""
    definition = {**definition, "name": unique(definition.get("name", "test"))}
    await on.store(definition)
    return await (await on.start(definition["name"], input or {}, definition["name"])).result()


async def failure(handle: WorkflowHandle[Any, Any]) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause


async def attempts(on: Stack, workflow_id: str) -> list[tuple[str, int, str, str | None]]:
    query = text("""
        SELECT step_id, attempt, e.status, e.error_code FROM agent_executions e
        JOIN collaborations c ON c.id = e.collaboration_id
        WHERE c.temporal_workflow_id = :id ORDER BY e.started_at, e.attempt
    """)
    async with on.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query, {"id": workflow_id})]


async def status(on: Stack, workflow_id: str) -> tuple[str, str, str | None]:
    query = text("SELECT status, sub_state, error_code FROM collaborations WHERE temporal_workflow_id = :id")
    async with on.engine.connect() as connection:
        return tuple((await connection.execute(query, {"id": workflow_id})).one())


CONDITIONAL: dict[str, Any] = {
    "input": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}},
    "steps": {
        "first": {"kind": "transform", "value": "${input.n + 1}"},
        "big": {"kind": "transform", "when": "steps.first.output > 10", "value": "big"},
        "after_big": {"kind": "transform", "value": "after ${steps.big.output}"},
        "last": {"kind": "transform", "value": "${steps[?'big'].?output.orValue('small')}"},
    },
    "output": {"n": "${steps.first.output}", "size": "${steps.last.output}", "text": "n=${input.n}"},
}


async def test_a_false_condition_skips_the_step_and_what_needs_it(platform: Stack) -> None:
    assert await run(platform, CONDITIONAL) == {"n": 2, "size": "small", "text": "n=1"}
    assert await run(platform, CONDITIONAL, {"n": 10}) == {"n": 11, "size": "big", "text": "n=10"}


async def test_skipped_steps_are_recorded(platform: Stack) -> None:
    name = unique("skipped")
    await platform.store({**CONDITIONAL, "name": name})
    await (await platform.start(name, {}, name)).result()
    assert {(step, state) for step, _, state, _ in await attempts(platform, name)} == {
        ("first", "completed"),
        ("big", "skipped"),
        ("after_big", "skipped"),
        ("last", "completed"),
    }


async def test_an_unknown_name_fails_at_once_with_our_message(platform: Stack) -> None:
    began = time.monotonic()
    error = await failure(await platform.start("no-such-definition", {}, unique("unknown")))
    assert time.monotonic() - began < 1
    assert error.type == "definition_unknown"
    assert "found no definition 'no-such-definition'" in error.message


async def test_a_wrong_argument_fails_at_once_and_leaves_nothing(platform: Stack) -> None:
    name = unique("strict")
    await platform.store(
        {
            "name": name,
            "input": {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}},
            "steps": {"a": {"kind": "transform", "value": "${input.task}"}},
        }
    )
    for wrong in ({}, {"task": 5}, "text", None, [1]):
        began = time.monotonic()
        error = await failure(await platform.start(name, wrong, unique("wrong")))
        assert time.monotonic() - began < 1
        assert error.type == "input_invalid"
    handle = await platform.client.start_workflow(
        name, args=[{"task": "x"}, 2], id=unique("two"), task_queue=QUEUE_COLLABORATIONS
    )
    assert (await failure(handle)).type == "input_invalid"
    async with platform.engine.connect() as connection:
        stored = await connection.execute(
            text(
                "SELECT count(*) FROM collaborations c JOIN workflows w ON w.id = workflow_id WHERE name = :n"
            ),
            {"n": name},
        )
        assert stored.scalar_one() == 0


async def test_a_run_keeps_the_version_it_started_with(platform: Stack) -> None:
    name = unique("versions")
    for number in (1, 2):
        await platform.store({"name": name, "steps": {"a": {"kind": "transform", "value": number}}})
    assert await (await platform.start(name, {}, unique("newest"))).result() == 2
    assert await (await platform.start(f"{name}@1", {}, unique("first"))).result() == 1


async def test_a_failing_step_fails_the_run_and_stops_the_others(platform: Stack) -> None:
    name = unique("failing")
    await platform.store(
        {
            "name": name,
            "agents": {"slow": {"role": "architect"}},
            "steps": {
                "bad": {"kind": "tool", "tool": "json.parse", "args": {"text": "no json"}},
                "slow": {"kind": "agent", "agent": "slow", "prompt": "take your time"},
                "never": {"kind": "transform", "value": "${steps.bad.output} ${steps.slow.output}"},
            },
        }
    )
    error = await failure(await platform.start(name, {}, name))
    assert error.type == "tool_failed"
    assert await status(platform, name) == ("failed", "", "tool_failed")
    states = {step: state for step, _, state, _ in await attempts(platform, name)}
    assert states["bad"] == "failed"
    assert "never" not in states


async def test_a_cancelled_run_is_closed_as_cancelled(platform: Stack) -> None:
    name = unique("cancelled")
    await platform.store(
        {
            "name": name,
            "agents": {"a": {"role": "architect"}},
            "steps": {"long": {"kind": "agent", "agent": "a", "prompt": "design a city"}},
        }
    )
    handle = await platform.start(name, {}, name)
    while not await attempts(platform, name):
        await asyncio.sleep(0.05)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, CancelledError)
    assert await status(platform, name) == ("failed", "cancelled", "cancelled")


async def test_a_users_own_activity_on_the_users_own_queue(platform: Stack) -> None:
    queue = unique("billing")
    seen: list[Any] = []

    @activity.defn(name="send_invoice")
    async def send_invoice(args: dict[str, Any]) -> dict[str, Any]:
        seen.append(args)
        if args["amount"] < 0:
            raise ApplicationError("no negative invoices", type="negative", non_retryable=True)
        return {"number": 7}

    definition = {
        "steps": {
            "bill": {
                "kind": "tool",
                "activity": "send_invoice",
                "task_queue": queue,
                "args": {"amount": "${input.amount}", "text": "for ${input.who}"},
                "output_schema": {"type": "object", "properties": {"number": {"type": "integer"}}},
            }
        },
        "output": "invoice ${steps.bill.output.number}",
    }
    async with Worker(platform.client, task_queue=queue, activities=[send_invoice]):
        assert await run(platform, definition, {"amount": 5, "who": "Ada"}) == "invoice 7"
        assert seen == [{"amount": 5, "text": "for Ada"}]
        name = unique("negative")
        await platform.store({**definition, "name": name})
        error = await failure(await platform.start(name, {"amount": -1, "who": "x"}, name))
    assert (error.type, error.message) == ("negative", "step 'bill': no negative invoices")
    assert await attempts(platform, name) == [("bill", 1, "failed", "negative")]


async def test_a_queue_that_nobody_serves_fails_the_step(platform: Stack) -> None:
    name = unique("nobody")
    await platform.store(
        {
            "name": name,
            "steps": {
                "call": {"kind": "tool", "activity": "x", "task_queue": unique("none"), "timeout": "1s"}
            },
        }
    )
    with pytest.raises(WorkflowFailureError):
        await (await platform.start(name, {}, name)).result()
    assert (await status(platform, name))[0] == "failed"


async def test_history_holds_references_and_not_results(platform: Stack) -> None:
    name = unique("large")
    steps: dict[str, Any] = {"s0": {"kind": "transform", "value": ["${input.text}"] * 10}}
    for i in range(1, 6):
        steps[f"s{i}"] = {
            "kind": "tool",
            "tool": "text.code_blocks",
            "args": {"text": f"${{steps.s{i - 1}.output}} end"},
        }
        steps[f"t{i}"] = {"kind": "transform", "value": f"${{[steps.s0.output, steps.s{i}.output]}}"}
    await platform.store({"name": name, "steps": steps, "output": "${size(steps.s0.output)}"})
    text_of_100_kib = "word " * (20 * KIB)
    handle = await platform.start(name, {"text": text_of_100_kib}, name)
    assert await handle.result() == 10
    described = await handle.describe()
    size = described.raw_description.workflow_execution_info.history_size_bytes
    assert (size - len(text_of_100_kib)) / len(steps) < 6 * KIB


async def test_a_large_result_comes_back_as_a_reference(platform: Stack) -> None:
    definition = {"steps": {"a": {"kind": "transform", "value": ["${input.text}"] * 3}}}
    result = await run(platform, definition, {"text": "x" * 100 * KIB})
    assert set(result) == {"output_reference", "bytes"}


async def _faults(on: Stack, *rules: dict[str, Any]) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{on.settings.simulator_url}/_simulator/faults", json=list(rules))
        answer.raise_for_status()


async def test_a_provider_that_fails_for_a_while_costs_attempts_and_not_the_run(platform: Stack) -> None:
    name = unique("flaky")
    await platform.store(
        {
            "name": name,
            "agents": {"c": {"role": "coder"}},
            "defaults": {"retry": {"initial": "100ms", "max": "200ms"}},
            "steps": {"code": {"kind": "agent", "agent": "c", "prompt": f"marker {name}"}},
        }
    )
    await _faults(
        platform,
        {"match": {"contains": name}, "kind": "server_error", "times": 1},
        {"match": {"contains": name}, "kind": "drop_mid_stream", "times": 1, "after_tokens": 5},
    )
    assert isinstance(await (await platform.start(name, {}, name)).result(), str)
    assert await attempts(platform, name) == [
        ("code", 1, "failed", "provider_unavailable"),
        ("code", 2, "failed", "provider_stream_cut"),
        ("code", 3, "completed", None),
    ]


async def test_an_answer_that_breaks_its_schema_is_asked_for_again(platform: Stack) -> None:
    name = unique("schema")
    await platform.store(
        {
            "name": name,
            "agents": {"r": {"role": "reviewer"}},
            "defaults": {"retry": {"initial": "100ms", "max": "200ms"}},
            "steps": {
                "review": {
                    "kind": "agent",
                    "agent": "r",
                    "prompt": f"review {name}",
                    "output_schema": {
                        "type": "object",
                        "required": ["found_issues"],
                        "properties": {"found_issues": {"type": "boolean"}},
                    },
                }
            },
        }
    )
    await _faults(platform, {"match": {"contains": name}, "kind": "bad_json", "times": 1})
    result = await (await platform.start(name, {}, name)).result()
    assert isinstance(result["found_issues"], bool)
    assert await attempts(platform, name) == [
        ("review", 1, "failed", "output_invalid"),
        ("review", 2, "completed", None),
    ]
