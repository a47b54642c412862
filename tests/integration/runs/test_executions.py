"""A finished step stays finished, a given-up attempt cannot finish it, and every attempt is booked."""

import uuid
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from db import outbox
from db.definitions import definitions
from db.engine import transaction
from db.runs import executions
from db.runs.executions import Assignment, AttemptOutcome
from schema.rules.validate import validate
from schema.temporal.runs import Finish, PinRequest
from schema.temporal.steps import SegmentRequest, StepEnd, StepRequest
from tests.support.lifecycle import recording

CODER = Assignment("agent", "coder", "coder", "openai/gpt-4")
ANSWER = AttemptOutcome(
    {"quality": 0.95, "found_issues": False}, "openai/gpt-4", "openai", 10, 20, Decimal("0.0015"), 5, True
)
DEFINITION: dict[str, Any] = {
    "name": "two",
    "agents": {"coder": {"role": "coder"}},
    "steps": {
        "code": {
            "kind": "agent",
            "agent": "coder",
            "prompt": "${input.task}",
            "output_schema": {"type": "object"},
        },
        "double": {"kind": "transform", "value": "${steps.code.output.quality * 2.0}"},
    },
}


async def pinned(engine: AsyncEngine, run: str | None = None, input: Any = None) -> StepRequest:
    async with transaction(engine) as connection:
        await definitions.save(connection, "default", validate(DEFINITION).definition, "test")
    request = PinRequest("wf", run or str(uuid.uuid4()), "two", input or {"task": "t"}, "default", None, None)
    async with recording(engine) as record:
        found = await ActivityEnvironment().run(record.pin, request)
    assert [step.id for step in found.plan.steps] == ["code", "double"]
    return StepRequest(found.collaboration, "default", "code", found.traceparent)


async def rows(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    query = text("SELECT attempt, status, cost_usd, output_tokens FROM agent_executions ORDER BY attempt")
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def test_a_finished_step_is_not_begun_again(engine: AsyncEngine) -> None:
    request = await pinned(engine)
    async with transaction(engine) as connection:
        begun = await executions.claim(connection, request, CODER)
        result = await executions.complete(connection, request, CODER, begun, ANSWER)
        again = await executions.claim(connection, request, CODER)
    assert again.done == result
    assert again.execution == begun.execution
    assert await rows(engine) == [(1, "completed", Decimal("0.001500"), 20)]


async def test_an_attempt_that_was_given_up_books_its_cost_but_cannot_finish(engine: AsyncEngine) -> None:
    request = await pinned(engine)
    async with transaction(engine) as connection:
        zombie = await executions.claim(connection, request, CODER)
    async with transaction(engine) as connection:
        second = await executions.claim(connection, request, CODER)
    async with transaction(engine) as connection:
        assert await executions.complete(connection, request, CODER, zombie, ANSWER) is None
    async with transaction(engine) as connection:
        assert await executions.complete(connection, request, CODER, second, ANSWER) is not None
    assert await rows(engine) == [
        (1, "abandoned", Decimal("0.001500"), 20),
        (2, "completed", Decimal("0.001500"), 20),
    ]


async def test_the_database_itself_refuses_a_second_finish(engine: AsyncEngine) -> None:
    request = await pinned(engine)
    async with transaction(engine) as connection:
        begun = await executions.claim(connection, request, CODER)
        await executions.complete(connection, request, CODER, begun, ANSWER)
    copy = text("""
        INSERT INTO agent_executions
          (id, collaboration_id, path, step_id, kind, attempt, agent_name, model_id, status)
        SELECT gen_random_uuid(), collaboration_id, path, step_id, kind, attempt + 1, agent_name,
          model_id, status
        FROM agent_executions
    """)
    with pytest.raises(IntegrityError, match="uq_agent_executions_finished"):
        async with transaction(engine) as connection:
            await connection.execute(copy)


async def test_pin_segment_and_finish_may_run_twice(engine: AsyncEngine) -> None:
    run = str(uuid.uuid4())
    request = await pinned(engine, run)
    assert await pinned(engine, run) == request
    async with transaction(engine) as connection:
        begun = await executions.claim(connection, request, CODER)
        await executions.complete(connection, request, CODER, begun, ANSWER)
    environment = ActivityEnvironment()
    known = [StepEnd("code", "completed")]
    double = SegmentRequest(run, "default", request.traceparent, "", ["double"], [], known)
    close = Finish(run, "default", request.traceparent, "completed")
    async with recording(engine) as record:
        for _ in range(2):
            result = await environment.run(record.segments.segment, double)
            assert result.ended == [StepEnd("double", "completed")]
            assert await environment.run(record.finish, close) == 1.9
    async with transaction(engine) as connection:
        events = await outbox.read_after(connection, outbox.Position(), 100)
    assert [event.type for event in events] == [
        "DefinitionStored",
        "CollaborationStarted",
        "StepFinished",
        "StepFinished",
        "CollaborationFinished",
    ]
    assert events[-1].payload | {"latency_ms": 0} == {
        "collaboration_id": run,
        "status": "completed",
        "sub_state": "",
        "error_code": None,
        "cost_usd": "0.001500",
        "tokens": 30,
        "simulated": True,
        "quality": 0.95,
        "latency_ms": 0,
    }


async def test_what_postgres_cannot_hold_is_taken_out_of_an_input(engine: AsyncEngine) -> None:
    await pinned(engine, input={"task": "a\0b \ud800 c"})
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT task, input FROM collaborations"))
        assert tuple(found.one()) == ("ab \ufffd c", {"task": "ab \ufffd c"})
