"""Values that strangers put into Temporal, make in their activities, or had stored by an older release."""

from typing import Any

import pytest
from sqlalchemy import text
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from schema.temporal import runs
from schema.temporal.queues import QUEUE_COLLABORATIONS
from tests.integration.api.test_api import _door
from tests.integration.runs.test_collaboration import attempts, failure, run, status, unique
from tests.support.stack import Stack

ECHO: dict[str, Any] = {
    "steps": {"t": {"kind": "transform", "value": "${input}"}},
    "output": "${steps.t.output}",
}


def payload(data: bytes, encoding: bytes = b"json/plain") -> RawValue:
    return RawValue(Payload(metadata={"encoding": encoding} if encoding else {}, data=data))


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


UNUSABLE = {
    "NaN": payload(b'{"a": NaN}'),
    "Infinity": payload(b'{"a": -Infinity}'),
    "1e999": payload(b'{"a": 1e999}'),
    "300 levels": payload(b'{"a": %s}' % deep(300)),
    "5,000 levels": payload(b'{"a": %s}' % deep(5_000)),
    "31 digits": payload(b'{"a": 1%s}' % (b"0" * 30)),
    "5,000 digits": payload(b'{"a": %s}' % (b"9" * 5_000)),
    "no JSON": payload(b"{"),
    "no UTF-8": payload(b'{"a": "\xff"}'),
    "bytes": payload(b"x", b"binary/plain"),
    "no encoding": payload(b"x", b""),
    "an unknown one": payload(b"x", b"binary/strange"),
}


async def test_an_input_that_nobody_can_hold_is_refused_before_anything_begins(platform: Stack) -> None:
    name = unique("echo")
    await platform.store({**ECHO, "name": name})
    told = {}
    for number, (what, input) in enumerate(UNUSABLE.items()):
        error = await failure(
            await platform.client.start_workflow(
                name, input, id=f"{name}-{number}", task_queue=QUEUE_COLLABORATIONS
            )
        )
        told[what] = error.type
        assert "Recursion" not in error.message and "SQL" not in error.message
    assert told == dict.fromkeys(UNUSABLE, "input_invalid")


async def test_the_texts_of_an_input_are_cleaned(platform: Stack) -> None:
    name = unique("echo")
    await platform.store({**ECHO, "name": name})
    input = payload(rb'{"a\u0000": ["\ud83d", "\ud83d\ude00", "b\u0000c"], "n": 18446744073709551616}')
    handle = await platform.client.start_workflow(name, input, id=name, task_queue=QUEUE_COLLABORATIONS)
    assert await handle.result() == {"a": ["\ufffd", "\U0001f600", "bc"], "n": 2**64}


async def test_what_an_activity_of_ones_own_returns_passes_the_same_door(platform: Stack) -> None:
    queue, results = unique("foreign"), dict(UNUSABLE)

    @activity.defn(name="foreign")
    async def foreign(args: dict[str, Any]) -> RawValue:
        return results[args["which"]]

    step = {
        "kind": "tool",
        "activity": "foreign",
        "task_queue": queue,
        "args": {"which": "${input.which}"},
        "catch": [{"errors": ["output_invalid"], "value": "caught"}],
    }
    async with Worker(platform.client, task_queue=queue, activities=[foreign]):
        caught = {
            which: await run(platform, {"steps": {"call": step}}, {"which": which}) for which in results
        }
    assert caught == dict.fromkeys(results, "caught")


async def test_an_activity_of_ones_own_may_call_its_errors_anything(platform: Stack) -> None:
    queue, name = unique("foreign"), unique("errors")

    @activity.defn(name="failing")
    async def failing(args: dict[str, Any]) -> None:
        raise ApplicationError("bad \0 text", type="a\0" + "b" * 5_000, non_retryable=True)

    step = {"kind": "tool", "activity": "failing", "task_queue": queue}
    await platform.store({"name": name, "steps": {"call": step}})
    async with Worker(platform.client, task_queue=queue, activities=[failing]):
        error = await failure(await platform.start(name, {}, name))
    code = "a" + "b" * 199
    assert (error.type, error.message) == (code, "step 'call': bad  text")
    assert await attempts(platform, name) == [("call", 1, "failed", code)]
    assert await status(platform, name) == ("failed", "", code)


async def test_a_value_cannot_grow_deeper_than_it_can_be_read(platform: Stack) -> None:
    grown = {
        "kind": "loop",
        "max_iterations": 150,
        "init": "x",
        "until": "iter.index >= 149",
        "body": {
            "steps": {"s": {"kind": "transform", "value": ["${iter.carry}"]}},
            "output": "${steps.s.output}",
        },
        "carry": "${steps.s.output}",
        "catch": [{"errors": ["output_invalid"], "value": "caught"}],
    }
    assert await run(platform, {"steps": {"l": grown}}) == "caught"


@pytest.mark.parametrize("levels", [300, 900])
async def test_what_an_older_release_stored_answers(platform: Stack, levels: int) -> None:
    name, value = unique("old"), "[" * levels + "]" * levels
    await platform.store({**ECHO, "name": name})
    await (await platform.start(name, {}, name)).result()
    query = """
        WITH run AS (
            UPDATE collaborations SET input = CAST(:value AS json), final_output = CAST(:value AS json)
            WHERE temporal_workflow_id = :id RETURNING id)
        UPDATE agent_executions SET output = CAST(:value AS json)
        FROM run WHERE collaboration_id = run.id
    """
    async with platform.engine.begin() as connection:
        await connection.execute(text(query), {"value": value, "id": name})
    async with _door(platform.settings) as http:
        for path in ("?include=input,output,lineage", "/steps/t", "/steps/t/details", "/trace"):
            answer = await http.get(f"/v1/collaborations/{name}{path}")
            assert answer.status_code == 200, (path, answer.text)


MEMO = [value for name, value in vars(runs).items() if name.startswith("MEMO_")]
STRANGE = {
    "a number": 5,
    "NUL": "a\0\u202e",
    "NaN": {"x": float("nan")},
    "an object": {"collaboration": 1},
    "a list": [1],
    "true": True,
    "no JSON": payload(b"{"),
    "bytes": payload(b"", b"x"),
}


@pytest.mark.parametrize("value", STRANGE)
async def test_a_memo_that_a_client_made_up_is_no_fault_of_the_platform(platform: Stack, value: str) -> None:
    name, codes = unique("memo"), set()
    await platform.store({**ECHO, "name": name})
    for number, key in enumerate(MEMO):
        handle = await platform.client.start_workflow(
            name, {}, id=f"{name}-{number}", task_queue=QUEUE_COLLABORATIONS, memo={key: STRANGE[value]}
        )
        try:
            await handle.result()
        except WorkflowFailureError as error:
            codes.add(getattr(error.cause, "type", type(error.cause).__name__))
    assert codes <= {"definition_unknown", "input_invalid"}
