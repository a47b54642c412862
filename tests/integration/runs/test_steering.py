"""A hand on a run, step by step: what is kept of it, and how it reaches the model."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from activities.runs.steering import SteerActivity
from db.engine import transaction
from db.runs import control, executions
from db.runs.control import Control
from gateway.client import Gateway
from gateway.request import Completion, ModelRequest
from schema.errors import StepError
from schema.temporal.runs import PAUSED, Steer, SteerOrder
from schema.temporal.steps import StepRequest
from tests.integration.agent.test_agent_step import TOTAL, answers, asking, calls
from tests.support.providers import only_simulated
from tests.support.runs import TRACEPARENT, attempts, begin, means_of, rows

SAID = "While this runs, people said"


class RecordingGateway(Gateway):
    """A gateway that remembers what it was asked, and lets a test do something while it is."""

    def __init__(self, simulator_url: str) -> None:
        super().__init__(only_simulated(simulator_url))
        self.asked: list[ModelRequest] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Completion, None]:
        self.asked.append(request)
        if meanwhile := self.meanwhile:
            self.meanwhile = None
            await meanwhile()
        async for item in super().stream(request):
            yield item

    def prompts(self) -> list[str]:
        return [request.messages[-1].content for request in self.asked]


@pytest.fixture
async def gateway(simulator_url: str, control: httpx.AsyncClient) -> AsyncIterator[RecordingGateway]:
    watched = RecordingGateway(simulator_url)
    yield watched
    await watched.close()


@pytest.fixture
async def watched(
    engine: AsyncEngine, simulator_url: str, gateway: RecordingGateway, tokens: TokenLog
) -> AsyncIterator[AgentActivity]:
    async with means_of(engine, simulator_url, tokens) as means:
        yield AgentActivity(replace(means, gateway=gateway))


async def steer(engine: AsyncEngine, request: StepRequest, action: str, id: str = "", **what: Any) -> None:
    """What an Update of the run does."""
    steered = SteerOrder(
        request.collaboration,
        request.tenant,
        TRACEPARENT,
        action,
        Steer("user:ada", **what),
        id or str(uuid4()),
    )
    await SteerActivity(engine).steer(steered)


async def state(engine: AsyncEngine, request: StepRequest) -> Control:
    async with transaction(engine) as connection:
        return await control.state(connection, UUID(request.collaboration))


async def told(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    """(action, actor, detail) of every event, in order."""
    return await rows(
        engine,
        "SELECT payload ->> 'action', payload ->> 'actor', payload -> 'detail' FROM outbox"
        " WHERE type = 'RunSteered' ORDER BY seq",
    )


async def sub_state(engine: AsyncEngine, request: StepRequest) -> Any:
    query = "SELECT sub_state FROM collaborations WHERE id = :run"
    [(found,)] = await rows(engine, query, run=request.collaboration)
    return found


# -- what is kept --------------------------------------------------------------------------------------------


async def test_a_run_that_nobody_steers_is_as_it_was(engine: AsyncEngine) -> None:
    assert await state(engine, await begin(engine, asking())) == Control()


async def test_a_pause_is_kept_told_and_audited_once(engine: AsyncEngine) -> None:
    request = await begin(engine, asking())
    for action in ("resume", "pause", "pause"):
        await steer(engine, request, action)
    assert (await state(engine, request)).paused
    assert await sub_state(engine, request) == "paused"
    await steer(engine, request, "resume")
    assert not (await state(engine, request)).paused
    assert await sub_state(engine, request) == ""
    assert await told(engine) == [("pause", "user:ada", {}), ("resume", "user:ada", {})]
    audited = "SELECT action, actor, subject FROM audit_log WHERE action LIKE 'run.%' ORDER BY id"
    run = f"wf-{request.collaboration}"
    assert await rows(engine, audited) == [("run.pause", "user:ada", run), ("run.resume", "user:ada", run)]


async def test_a_pause_holds_for_all_runs_within(engine: AsyncEngine) -> None:
    outer = await begin(engine, asking())
    middle = await begin(engine, asking(), parent=outer)
    inner = await begin(engine, asking(), parent=middle)
    await steer(engine, outer, "pause")
    assert (await state(engine, outer)) == Control(own=True)
    assert (await state(engine, inner)) == Control(above=True)
    await steer(engine, inner, "pause")
    await steer(engine, outer, "resume")
    assert (await state(engine, inner)) == Control(own=True)
    assert (await state(engine, middle)) == Control()


async def test_feedback_under_one_id_is_kept_once_and_in_order(engine: AsyncEngine) -> None:
    request = await begin(engine, asking())
    for id, said in (("1", "one\0"), ("2", "two"), ("1", "one\0")):
        await steer(engine, request, "inject_feedback", id, text=said, step="ask", agent="a")
    kept = (await state(engine, request)).feedback
    assert [(one.text, one.step, one.agent, one.actor) for one in kept] == [
        ("one", "ask", "a", "user:ada"),
        ("two", "ask", "a", "user:ada"),
    ]
    detail = {"step": "ask", "agent": "a"}
    assert [row[2] for row in await told(engine)] == [{"text": "one", **detail}, {"text": "two", **detail}]


async def test_changes_are_merged_and_taken_back(engine: AsyncEngine) -> None:
    request = await begin(engine, asking())
    for agent, changes in (
        ("a", {"temperature": 1, "system": "Be kind."}),
        ("", {"model": "openai/gpt-4o", "temperature": 0}),
        ("a", {"system": None}),
        ("a", {"system": None}),
    ):
        await steer(engine, request, "adjust", agent=agent, changes=changes)
    found = await state(engine, request)
    assert found.changes == {"": {"model": "openai/gpt-4o", "temperature": 0}, "a": {"temperature": 1}}
    assert found.changes_of("a") == {"model": "openai/gpt-4o", "temperature": 1}
    assert len(await told(engine)) == 3


@pytest.mark.parametrize(
    ("action", "what", "code"),
    [
        ("inject_feedback", {"text": " \n"}, "steer_invalid"),
        ("inject_feedback", {"text": "x" * 20_001}, "steer_invalid"),
        ("inject_feedback", {"text": "x", "agent": "b"}, "agent_unknown"),
        ("inject_feedback", {"text": "x", "step": "other"}, "step_unknown"),
        ("inject_feedback", {"text": "x", "step": "size"}, "steer_invalid"),
        ("adjust", {"agent": "b", "changes": {"temperature": 1}}, "agent_unknown"),
        ("adjust", {}, "steer_invalid"),
        ("adjust", {"changes": {"top_p": 1}}, "steer_invalid"),
        ("adjust", {"changes": {"temperature": 3}}, "steer_invalid"),
        ("adjust", {"changes": {"max_output_tokens": "many"}}, "steer_invalid"),
        ("adjust", {"changes": {"model": {"among": []}}}, "model_unknown"),
        ("adjust", {"changes": {"model": "gpt-4"}}, "model_unknown"),
        ("dance", {}, "steer_invalid"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    engine: AsyncEngine, action: str, what: dict[str, Any], code: str
) -> None:
    definition = asking()
    definition["steps"]["size"] = {"kind": "transform", "value": 1}
    request = await begin(engine, definition)
    with pytest.raises(StepError) as caught:
        await steer(engine, request, action, **what)
    assert caught.value.code == code
    assert (await state(engine, request), await told(engine)) == (Control(), [])


async def test_a_run_takes_so_many_feedbacks_and_none_when_it_has_ended(engine: AsyncEngine) -> None:
    request = await begin(engine, asking())
    for number in range(200):
        await steer(engine, request, "inject_feedback", str(number), text=f"{number}")
    await steer(engine, request, "inject_feedback", "199", text="199")
    with pytest.raises(StepError, match="found 200 feedbacks"):
        await steer(engine, request, "inject_feedback", text="one more")
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE collaborations SET status = 'completed'"))
    with pytest.raises(StepError) as caught:
        await steer(engine, request, "pause")
    assert caught.value.code == "collaboration_ended"


# -- how it reaches the model --------------------------------------------------------------------------------


async def test_a_paused_step_is_not_begun(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway
) -> None:
    outer = await begin(engine, asking())
    request = await begin(engine, asking(), parent=outer)
    for paused in (request, outer):
        await steer(engine, paused, "pause")
        assert (await watched.agent(request)).status == PAUSED
        await steer(engine, paused, "resume")
    assert (await attempts(engine, request), gateway.asked) == ([], [])
    assert (await watched.agent(request)).status == "completed"
    assert len(gateway.asked) == 1


async def test_feedback_stands_at_the_end_of_every_later_prompt_that_it_concerns(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway
) -> None:
    definition = asking()
    definition["agents"]["b"] = {"model": "openai/gpt-4o-mini"}
    definition["steps"]["other"] = definition["steps"]["ask"] | {"agent": "b"}
    request = await begin(engine, definition)
    for what in (
        {"text": "All of you: be brief."},
        {"text": "Only b.", "agent": "b"},
        {"text": "Only ask.", "step": "ask"},
    ):
        await steer(engine, request, "inject_feedback", **what)
    await watched.agent(request)
    [prompt] = gateway.prompts()
    assert prompt.startswith("Add 1 and 2.\n\n---\n" + SAID)
    assert prompt.endswith("\n\n1. All of you: be brief.\n\n2. Only ask.")


async def test_feedback_is_in_the_very_next_prompt_of_the_same_step(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking(output_schema=TOTAL, cache={"ttl": "1h"}))
    await steer(engine, request, "inject_feedback", text="First.")
    await answers(control, "no JSON", "still none", '{"total": 3}')

    async def while_it_answers() -> None:
        await steer(engine, request, "inject_feedback", text="Second.")
        await steer(engine, request, "adjust", changes={"system": "Be kind.", "model": "openai/gpt-4o"})

    gateway.meanwhile = while_it_answers
    await watched.agent(request)
    first, second, third = gateway.asked
    assert "Second." not in str(first.messages) and first.messages[-1].content.endswith("1. First.")
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "user"]
    assert second.messages[0].content == "Be kind."
    assert second.messages[1] == first.messages[-1]
    assert second.messages[-1].content.endswith("1. Second.")
    assert third.messages[: len(second.messages)] == second.messages
    assert SAID not in third.messages[-1].content
    assert [request.model for request in gateway.asked] == ["openai/gpt-4o-mini"] + ["openai/gpt-4o"] * 2
    models = "SELECT requested_model FROM agent_executions ORDER BY attempt"
    assert [row[0] for row in await rows(engine, models)] == [request.model for request in gateway.asked]
    # It is no answer to the first prompt alone, and is not kept as one.
    assert await rows(engine, "SELECT 1 FROM step_cache") == []


async def test_an_equal_step_that_was_told_something_is_not_answered_from_the_cache(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway
) -> None:
    first, second = [await begin(engine, asking(cache={"ttl": "1h"})) for _ in range(2)]
    await watched.agent(first)
    await steer(engine, second, "inject_feedback", text="Otherwise.")
    await watched.agent(second)
    assert len(gateway.asked) == 2


async def test_the_model_is_asked_as_people_want_it(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway
) -> None:
    request = await begin(engine, asking() | {"budget": {"usd": 1}})
    everyone = {"model": "openai/gpt-4o", "temperature": 0.5}
    await steer(engine, request, "adjust", changes=everyone)
    changes = {"temperature": 0, "max_output_tokens": 77, "system": "Be kind."}
    await steer(engine, request, "adjust", agent="a", changes=changes)
    await watched.agent(request)
    [asked] = gateway.asked
    assert (asked.model, asked.temperature, asked.max_output_tokens) == ("openai/gpt-4o", 0, 77)
    assert asked.messages[0].content == "Be kind."
    requested = "SELECT requested_model FROM agent_executions"
    assert await rows(engine, requested) == [("openai/gpt-4o",)]


async def test_a_pause_between_two_answers_is_waited_for_in_place(
    engine: AsyncEngine,
    watched: AgentActivity,
    gateway: RecordingGateway,
    control: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = await begin(engine, asking(output_schema=TOTAL))
    await answers(control, "no JSON", '{"total": 3}')
    gateway.meanwhile = lambda: steer(engine, request, "pause")
    looked = looks(monkeypatch)
    work = asyncio.create_task(watched.agent(request))
    await looked(3)
    assert await attempts(engine, request) == [(1, "failed", "output_invalid", True)]
    assert (await calls(control), work.done()) == (1, False)
    await steer(engine, request, "resume")
    assert (await work).status == "completed"
    assert await calls(control) == 2


async def test_a_long_pause_is_left_to_the_workflow(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking(output_schema=TOTAL, timeout="1s"))
    await answers(control, "no JSON", '{"total": 3}')
    gateway.meanwhile = lambda: steer(engine, request, "pause")
    assert (await watched.agent(request)).status == PAUSED
    assert (await watched.agent(request)).status == PAUSED
    await steer(engine, request, "resume")
    assert (await watched.agent(request)).status == "completed"
    assert [row[1] for row in await attempts(engine, request)] == ["failed", "completed"]


async def test_a_call_that_was_prepared_for_long_is_not_begun_in_a_pause(
    engine: AsyncEngine, watched: AgentActivity, gateway: RecordingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await begin(engine, asking() | {"budget": {"usd": 1}})
    monkeypatch.setattr("activities.agent.attempts.FRESH_SECONDS", 0.0)
    claim = executions.claim

    async def claim_and_pause(*args: Any) -> Any:
        monkeypatch.setattr(executions, "claim", claim)
        await steer(engine, request, "pause")
        return await claim(*args)

    monkeypatch.setattr(executions, "claim", claim_and_pause)
    looked = looks(monkeypatch)
    work = asyncio.create_task(watched.agent(request))
    await looked(4)
    assert await attempts(engine, request) == [(1, "failed", "steered", False)]
    assert gateway.asked == []
    await steer(engine, request, "inject_feedback", text="Now.")
    await steer(engine, request, "resume")
    assert (await work).status == "completed"
    assert [prompt.endswith("1. Now.") for prompt in gateway.prompts()] == [True]
    assert await rows(engine, "SELECT reserved_usd FROM spending") == [(0,)]


def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Awaitable[None]]:
    """Waits until a step has looked so many times whether its run is paused."""
    seen, once_more, state = 0, asyncio.Event(), control.state

    async def counted(*args: Any) -> Control:
        nonlocal seen
        found = await state(*args)
        seen += 1
        once_more.set()
        return found

    async def until(times: int) -> None:
        async with asyncio.timeout(20):
            while seen < times:
                await once_more.wait()
                once_more.clear()

    monkeypatch.setattr(control, "state", counted)
    return until
