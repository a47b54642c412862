"""Agent steps whose provider fails: a few faults of many. `python -m bench.gateway.faults` plays them all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.notifications import News
from activities.agent.resources import Resources
from activities.agent.tokens import TokenLog
from api.live.readers import Hub, Watcher
from gateway.client import warm_up
from schema.errors import ProviderError
from schema.live import PlacedEvent, StepBegan, StepEnded, TokensCame
from schema.temporal.steps import StepRequest
from tests.integration.runs.test_streams import TEXT, live, of, output, says, script, turns
from tests.support.event_log import end
from tests.support.faults import FAULTS
from tests.support.runs import begin, means_of, rows

FIRST, SECOND = "openai/gpt-4", "deepseek/deepseek-chat"
WHOLE = "It was otherwise. " + TEXT


@pytest.fixture
async def means(
    engine: AsyncEngine, simulator_url: str, control: httpx.AsyncClient, tokens: TokenLog
) -> AsyncIterator[Resources]:
    await asyncio.to_thread(warm_up)
    news = News(engine.url.render_as_string(hide_password=False))
    async with means_of(engine, simulator_url, tokens, news=news) as found:
        yield found
    await news.close()


def asking(*, stream: bool, fallback: bool) -> dict[str, Any]:
    agent: dict[str, Any] = {"model": FIRST, "stream": stream}
    if stream:
        agent |= {"first_token_timeout": "2s", "stall_timeout": "1s"}
    if fallback:
        agent["fallback"] = [SECOND]
    step = {"kind": "agent", "agent": "a", "prompt": "Build a rate limiter.", "timeout": "6s"}
    return {"agents": {"a": agent}, "steps": {"ask": step}}


async def play(control: httpx.AsyncClient, fault: str) -> None:
    rule = FAULTS[fault][0] | {"times": None, "match": {"model": FIRST}}
    await script(control, rule, says(WHOLE, model=SECOND))


async def asked(engine: AsyncEngine, request: StepRequest) -> list[tuple[Any, ...]]:
    """(attempt, the model that was asked, how it ended), in order."""
    query = (
        "SELECT e.attempt, c.model, coalesce(e.error_code, e.status) FROM agent_executions e"
        " LEFT JOIN model_calls c ON c.execution_id = e.id WHERE e.collaboration_id = :run ORDER BY e.attempt"
    )
    return await rows(engine, query, run=request.collaboration)


async def booked_as_billed(engine: AsyncEngine, means: Resources, control: httpx.AsyncClient) -> bool:
    """Whether the ledger has every call that the provider had, closed, with the provider's own figures."""
    while (calls := (await control.get("/_simulator/calls")).json())["total"]["open"]:
        await asyncio.sleep(0.01)
    billed = {(UUID(one["request_id"]), one["input_tokens"], one["output_tokens"]) for one in calls["recent"]}
    # Where it was still answering when it was asked what the call had come to.
    await means.reconciler.all_lost()
    booked = await rows(engine, "SELECT id, input_tokens, output_tokens, state, usd FROM model_calls")
    assert [one[4] > 0 for one in booked] == [one[1] > 0 for one in booked]
    assert all(one[3] in ("settled", "refunded") for one in booked), booked
    return {tuple(one[:3]) for one in booked} == billed


@pytest.mark.parametrize(
    ("fault", "stream", "fallback", "ends"),
    [
        ("rate_limit", True, True, ["provider_rate_limited", "completed"]),
        ("rate_limit", False, True, ["provider_rate_limited", "completed"]),
        ("rate_limit", True, False, ["provider_rate_limited"]),
        ("overloaded", False, True, ["provider_unavailable", "completed"]),
        ("silence", True, True, ["provider_timeout", "completed"]),
        ("drop", True, False, ["provider_stream_cut"]),
        ("cut_body", False, True, ["provider_stream_cut", "completed"]),
        ("wrong_key", False, False, ["provider_auth"]),
        # The request's own fault would be one anywhere.
        ("bad_request", True, True, ["provider_bad_request"]),
        ("split_events", True, True, ["completed"]),
    ],
)
async def test_a_step_asks_its_next_model_and_everything_is_booked(
    engine: AsyncEngine,
    means: Resources,
    control: httpx.AsyncClient,
    fault: str,
    stream: bool,
    fallback: bool,
    ends: list[str],
) -> None:
    request = await begin(engine, asking(stream=stream, fallback=fallback))
    await play(control, fault)
    if ends[-1] == "completed":
        assert (await AgentActivity(means).agent(request)).status == "completed"
    else:
        with pytest.raises(ProviderError) as caught:
            await AgentActivity(means).agent(request)
        _, streamed, whole = FAULTS[fault]
        expected = streamed if stream else whole
        assert expected is not None
        assert (caught.value.code, caught.value.retryable) == (expected.code, expected.retryable)
        assert caught.value.retry_after_seconds == expected.retry_after_seconds
    assert await asked(engine, request) == [
        (attempt, model, ended)
        for attempt, (model, ended) in enumerate(zip((FIRST, SECOND), ends, strict=False), 1)
    ]
    assert await booked_as_billed(engine, means, control)


@pytest.mark.parametrize("fault", ["drop", "stall_for_ever"])
async def test_who_watches_is_told_to_forget_what_a_model_had_said(
    engine: AsyncEngine, means: Resources, control: httpx.AsyncClient, fault: str
) -> None:
    request = await begin(engine, asking(stream=True, fallback=True))
    await play(control, fault)
    hub = Hub(engine.url.render_as_string(hide_password=False))
    async with hub.watch(UUID(request.collaboration)) as watcher:
        watching = asyncio.create_task(_all_of(watcher))
        await AgentActivity(means).agent(request)
        await end(engine, request)
        told = [one.event for one in await watching]
    await hub.close()
    attempts = [one for one in told if isinstance(one, StepBegan | StepEnded)]
    assert [(one.attempt, one.model, getattr(one, "status", "began")) for one in attempts] == [
        (1, FIRST, "began"),
        (1, FIRST, "failed"),
        (2, SECOND, "began"),
        (2, SECOND, "completed"),
    ]
    first, second = attempts[0].execution, attempts[2].execution
    assert _said(told, first) and _said(told, second) == WHOLE == await output(engine, request)
    assert await booked_as_billed(engine, means, control)


async def test_a_step_that_reads_it_live_drops_what_a_model_had_said(
    engine: AsyncEngine, means: Resources, control: httpx.AsyncClient
) -> None:
    definition = live(on_retry="restart")
    # Until it is given up the reader has the time to speak of what it has heard.
    definition["agents"]["slow"] |= {"fallback": [SECOND], "stall_timeout": "2s"}
    request = await begin(engine, definition)
    # Nor would it begin anew while the second speaks if that one spoke at once.
    slowly = {"kind": "pace", "text": WHOLE, "tokens_per_second": 100, "match": {"model": SECOND}}
    await script(
        control,
        {"kind": "timeout", "after_tokens": 60, "match": {"model": FIRST}},
        slowly,
        says("I read it all.", contains="And that is all."),
        *[says("Go on.")] * 9,
    )
    agents = AgentActivity(means)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(agents.agent(of(request, "check")))
        group.create_task(agents.agent(of(request, "write")))
    begun = [said for _, said, _ in await turns(engine, request) if said.startswith("Review this:\n")]
    assert begun[-1].startswith("Review this:\nIt was otherwise. ")
    assert await output(engine, of(request, "write")) == WHOLE
    assert await output(engine, of(request, "check")) == "I read it all."


async def _all_of(watcher: Watcher) -> list[PlacedEvent]:
    return [one async for lives in watcher for one in lives]


def _said(told: list[Any], execution: str) -> str:
    return "".join(one.text for one in told if isinstance(one, TokensCame) and one.execution == execution)
