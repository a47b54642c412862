"""Agents who read each other while they speak, against a simulator that takes the time a provider takes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent import live_conversation
from activities.agent.activity import AgentActivity
from activities.agent.notifications import News
from activities.agent.tokens import TokenLog
from activities.runs.context import run_of
from db.engine import transaction
from db.runs import control as steering
from db.runs import executions
from db.runs.control import FeedbackNote
from db.runs.executions import Assignment
from gateway.client import warm_up
from schema.errors import FacilitairError, StepError
from schema.temporal.steps import StepRequest
from tests.integration.runs.test_collaboration import unique
from tests.support.providers import running_simulator
from tests.support.runs import attempts, begin, means_of, rows
from tests.support.stack import Stack

SLOW, FAST = "openai/gpt-4", "openai/gpt-4o-mini"
FIRST = "Here is the first thing to say. "
TEXT = FIRST + " ".join(f"Then word {number} follows." for number in range(80)) + " And that is all."
MORE = "This has come since."
WHOLE = "It is complete now."


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    """At half the pace of a provider, for a machine that has others to serve."""
    with running_simulator("0.5") as url:
        yield url


@pytest.fixture
async def news(engine: AsyncEngine) -> AsyncIterator[News]:
    found = News(engine.url.render_as_string(hide_password=False))
    yield found
    await found.close()


@pytest.fixture
async def listeners(
    engine: AsyncEngine, simulator_url: str, control: httpx.AsyncClient, tokens: TokenLog, news: News
) -> AsyncIterator[AgentActivity]:
    # As a worker does: an import of seconds would stand between hearing and speaking.
    await asyncio.to_thread(warm_up)
    async with means_of(engine, simulator_url, tokens, news=news) as means:
        yield AgentActivity(means)


def live(prompt: str = "Review this:\n${steps.write.output}", **edge: Any) -> dict[str, Any]:
    """A writer who is read live by a reviewer."""
    return {
        "agents": {"slow": {"model": SLOW}, "fast": {"model": FAST}},
        "steps": {
            "write": {"kind": "agent", "agent": "slow", "prompt": "Write a story."},
            "check": {"kind": "agent", "agent": "fast", "prompt": prompt},
        },
        "stream": [{"from": "write", "to": "check", "start": "sentence", **edge}],
    }


async def script(control: httpx.AsyncClient, *rules: dict[str, Any]) -> None:
    (await control.post("/_simulator/faults", json=list(rules))).raise_for_status()


def says(text: str, *, model: str | None = None, contains: str | None = None) -> dict[str, Any]:
    return {"kind": "answer", "text": text, "match": {"model": model, "contains": contains}}


def of(request: StepRequest, step: str) -> StepRequest:
    return replace(request, step=step)


async def turns(engine: AsyncEngine, request: StepRequest) -> list[tuple[Any, ...]]:
    """(path, what it was asked, what it said) of the finished turns, in order."""
    query = (
        "SELECT path, input->>'message', output #>> '{}' FROM agent_executions"
        " WHERE collaboration_id = :run AND path LIKE '%~turn%' AND status = 'completed' ORDER BY started_at"
    )
    return await rows(engine, query, run=request.collaboration)


async def output(engine: AsyncEngine, request: StepRequest) -> str:
    query = (
        "SELECT output #>> '{}' FROM agent_executions"
        " WHERE collaboration_id = :run AND path = :path AND status = 'completed'"
    )
    found = await rows(engine, query, run=request.collaboration, path=request.path)
    return str(found[0][0]) if found else ""


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(30):
        while not (value := await found()):
            await asyncio.sleep(0.01)
        return value


async def open_calls(control: httpx.AsyncClient) -> list[str]:
    """The models that are answering at this moment, as the provider sees it."""
    recent = (await control.get("/_simulator/calls")).json()["recent"]
    return [call["model"] for call in recent if call["outcome"] is None]


async def prompts_of(control: httpx.AsyncClient, model: str) -> int:
    return int((await control.get("/_simulator/calls")).json()["by_model"].get(model, {"calls": 0})["calls"])


async def both(agents: AgentActivity, request: StepRequest, *steps: str) -> None:
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for step in steps:
            group.create_task(agents.agent(of(request, step)))


async def test_the_second_speaks_before_the_first_has_ended_and_hears_the_whole_in_the_end(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, live())
    # The rule for the answer is only met by a prompt that holds the writer's last words.
    await script(
        control,
        says(TEXT, model=SLOW),
        says("I read it all.", contains="And that is all."),
        *[says("Go on.", model=FAST)] * 2,
    )
    token = (
        "SELECT t.timestamp FROM token_stream t JOIN agent_executions e ON e.id = t.execution_id"
        " WHERE e.path = :path"
    )

    async def spoke() -> Any:
        return await rows(engine, token, path="check~turn1")

    async with asyncio.TaskGroup() as group:
        group.create_task(both(listeners, request, "write", "check"))
        await until(spoke)
        assert SLOW in await open_calls(control)
    first = min(row[0] for row in await rows(engine, token, path="check~turn1"))
    last = max(row[0] for row in await rows(engine, token, path="write"))
    assert first < last
    asked = await turns(engine, request)
    assert [path for path, _, _ in asked] == ["check~turn1", "check~turn2"]
    assert asked[0][1].startswith(f"Review this:\n{FIRST}")
    assert "And that is all." not in asked[0][1] and asked[1][1].startswith(MORE)
    assert await output(engine, of(request, "check")) == "I read it all."
    told = await rows(
        engine,
        "SELECT DISTINCT sent_to FROM token_stream t JOIN agent_executions e"
        " ON e.id = t.execution_id WHERE e.path = 'write'",
    )
    assert told == [(["fast"],)]


async def test_on_the_platform_each_item_of_a_map_has_its_own_reader(platform: Stack) -> None:
    body = live()
    name = unique("live")
    # Some four seconds each, so that the reader has time.
    pace = {
        "kind": "pace",
        "times": 2,
        "text": TEXT,
        "tokens_per_second": 80,
        "match": {"model": SLOW, "contains": name},
    }
    async with httpx.AsyncClient(base_url=platform.settings.simulator_url) as control:
        await script(control, pace)
    await platform.store(
        {
            "name": name,
            "agents": body["agents"],
            "steps": {
                "each": {
                    "kind": "map",
                    "over": "['cats', 'dogs']",
                    "max_items": 2,
                    "body": {
                        "steps": {
                            "write": body["steps"]["write"] | {"prompt": f"Write {name} about ${{item}}."},
                            "check": body["steps"]["check"],
                        },
                        "output": "${steps.check.output}",
                    },
                }
            },
            "stream": body["stream"],
        }
    )
    handle = await platform.start(name, {}, f"{name}-run")
    assert len(await handle.result()) == 2
    query = (
        "SELECT e.path, min(t.timestamp), max(t.timestamp) FROM token_stream t"
        " JOIN agent_executions e ON e.id = t.execution_id JOIN collaborations c ON c.id = e.collaboration_id"
        " WHERE c.temporal_workflow_id = :id GROUP BY e.path"
    )
    spoke = {path: times for path, *times in await rows(platform.engine, query, id=handle.id)}
    for item in ("each[0]", "each[1]"):
        assert spoke[f"{item}.check~turn1"][0] < spoke[f"{item}.write"][1]


async def test_who_comes_when_all_is_said_answers_once_like_any_step(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, live("Review this."))
    await script(control, says("All of it.", model=SLOW), says("Good.", contains="## write\nAll of it."))
    await listeners.agent(of(request, "write"))
    await listeners.agent(of(request, "check"))
    assert await turns(engine, request) == []
    assert await output(engine, of(request, "check")) == "Good."


@pytest.mark.parametrize(("on_retry", "conversations"), [("restart", 2), ("ignore", 1), ("wait", 1)])
async def test_a_writer_who_begins_again(
    engine: AsyncEngine,
    listeners: AgentActivity,
    control: httpx.AsyncClient,
    on_retry: str,
    conversations: int,
) -> None:
    request = await begin(engine, live(on_retry=on_retry))
    other = "It was otherwise. " + TEXT
    await script(
        control,
        {"kind": "drop_mid_stream", "after_tokens": 60, "match": {"model": SLOW}},
        says(other, model=SLOW),
        says("I read it all.", contains="And that is all."),
        *[says("Go on.", model=FAST)] * 4,
    )
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(listeners.agent(of(request, "check")))
        with pytest.raises(FacilitairError) as caught:
            await listeners.agent(of(request, "write"))
        assert caught.value.code == "provider_stream_cut"
        await until(lambda: turns(engine, request))
        await listeners.agent(of(request, "write"))
    asked = await turns(engine, request)
    begun = [message for _, message, _ in asked if message.startswith("Review this:")]
    assert len(begun) == conversations
    if on_retry == "restart":
        assert begun[1].startswith("Review this:\nIt was otherwise. ")
    else:
        # Nothing of the new attempt is shown before its end.
        assert not any("It was otherwise." in message for _, message, _ in asked)
    assert await output(engine, of(request, "check")) == "I read it all."


async def test_a_value_that_stands_in_for_what_failed_is_read_in_its_place(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, live(on_retry="ignore"))
    await script(
        control,
        says(TEXT, model=SLOW),
        says("So be it.", contains="all of it\nnothing to see"),
        *[says("Go on.", model=FAST)] * 2,
    )
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(listeners.agent(of(request, "check")))
        writing = group.create_task(listeners.agent(of(request, "write")))
        await until(lambda: turns(engine, request))
        writing.cancel()
        await asyncio.wait([writing])
        async with transaction(engine) as connection:
            await executions.catch(
                connection,
                of(request, "write"),
                Assignment("agent", "slow"),
                then="",
                output="nothing to see",
                code="timeout",
                message="too slow",
            )
    assert await output(engine, of(request, "check")) == "So be it."


async def test_what_was_answered_before_a_crash_is_not_asked_again(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, live(turns=1))
    await script(
        control,
        says(TEXT, model=SLOW),
        says("I read it all.", contains="And that is all."),
        says("Go on.", model=FAST),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(listeners.agent(of(request, "write")))
        reading = group.create_task(listeners.agent(of(request, "check")))
        await until(lambda: turns(engine, request))
        reading.cancel()
        await asyncio.wait([reading])
        assert await prompts_of(control, FAST) == 1
        await listeners.agent(of(request, "check"))
    assert await prompts_of(control, FAST) == 2
    assert await output(engine, of(request, "check")) == "I read it all."
    assert [row[1] for row in await attempts(engine, of(request, "check"))] == ["failed", "completed"]


async def test_while_the_run_is_paused_no_turn_begins(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, live(turns=5))
    await script(
        control,
        says(TEXT, model=SLOW),
        says("Briefly: yes.", contains="Be brief."),
        *[says("Go on.", model=FAST)] * 5,
    )
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(both(listeners, request, "write", "check"))
        await until(lambda: turns(engine, request))
        async with transaction(engine) as connection:
            run = await run_of(connection, request.collaboration)
            await steering.pause(connection, run, "user:ada")

        async def gave_way() -> bool:
            rows_of = await attempts(engine, of(request, "check"))
            return rows_of[0][1:3] == ("failed", "steered")

        await until(gave_way)
        asked = await prompts_of(control, FAST)
        await until(lambda: output(engine, of(request, "write")))
        assert await prompts_of(control, FAST) == asked
        async with transaction(engine) as connection:
            said = FeedbackNote("Be brief.", None, None, "user:ada")
            await steering.tell(connection, run, uuid4(), said)
            await steering.resume(connection, run, "user:ada")
    assert await prompts_of(control, FAST) == asked + 1
    assert await output(engine, of(request, "check")) == "Briefly: yes."


async def test_every_turn_is_paid_from_the_budget(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, {**live(), "budget": {"usd": 5.0}})
    await both(listeners, request, "write", "check")
    (paid,) = await rows(
        engine,
        "SELECT sum(cost_usd) FROM agent_executions WHERE collaboration_id = :run",
        run=request.collaboration,
    )
    columns = "SELECT spent_usd, reserved_usd FROM spending WHERE subject = CAST(:run AS text)"
    assert await rows(engine, columns, run=request.collaboration) == [(paid[0], 0)]


async def test_a_turn_that_cannot_be_paid_ends_the_step(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, {**live(), "budget": {"usd": 0.0001}})
    with pytest.raises(StepError) as caught:
        await listeners.agent(of(request, "write"))
    assert caught.value.code == "budget_exceeded"


def debate(**edge: Any) -> dict[str, Any]:
    """Two who read each other."""
    edge = {"start": "sentence", **edge}
    return {
        "agents": {
            "one": {"model": FAST, "system": "You are ONE."},
            "two": {"model": FAST, "system": "You are TWO."},
        },
        "steps": {
            "one": {"kind": "agent", "agent": "one", "prompt": "Tabs or spaces?"},
            "two": {"kind": "agent", "agent": "two", "prompt": "Tabs or spaces?"},
        },
        "stream": [{"from": "one", "to": "two", **edge}, {"from": "two", "to": "one", **edge}],
    }


async def test_peers_begin_at_once_and_hear_each_other(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, debate(turns=2))
    await script(
        control,
        says("Tabs, of course.", contains="You are ONE."),
        says("Spaces, of course.", contains="You are TWO."),
    )
    await both(listeners, request, "one", "two")
    asked = await turns(engine, request)
    assert sorted(path for path, _, _ in asked) == ["one~turn1", "one~turn2", "two~turn1", "two~turn2"]
    by_path = {path: message for path, message, _ in asked}
    assert "Spaces, of course." in by_path["one~turn2"] and "Tabs, of course." in by_path["two~turn2"]
    starts = await rows(
        engine, "SELECT path, started_at, completed_at FROM agent_executions WHERE path LIKE '%~turn1'"
    )
    assert max(row[1] for row in starts) < min(row[2] for row in starts)
    assert await output(engine, of(request, "one")) and await output(engine, of(request, "two"))


async def test_who_agrees_has_no_further_turn(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_conversation, "SILENCE_SECONDS", 1.0)
    request = await begin(engine, debate(turns=5))
    await script(
        control,
        says("Agreed!", contains="You are ONE."),
        says("I say so. And more.", contains="You are TWO."),
        says("Agreed.", contains="You are TWO."),
    )
    await both(listeners, request, "one", "two")
    said = {path: reaction for path, _, reaction in await turns(engine, request)}
    assert [path for path in sorted(said) if path.startswith("one")] == ["one~turn1"]
