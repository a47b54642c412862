"""Answers as providers in the wild give them, through a whole agent step."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from db.engine import transaction
from db.runs import executions
from schema.cel.expressions import compile_expression, evaluate
from schema.errors import FacilitairError, ProviderError
from schema.temporal.steps import StepRequest
from tests.support.providers import Provider, answering, event_reply, json_reply, open_reply
from tests.support.runs import begin, means_of, rows

FIRST, SECOND = "openai/gpt-4o-mini", "openai/gpt-4o"
NUMBER = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
Asked = Callable[..., AbstractAsyncContextManager[tuple[AgentActivity, Provider]]]


@pytest.fixture
def asked(engine: AsyncEngine, simulator_url: str, tokens: TokenLog) -> Asked:
    """Agents whose models are answered with the given bytes, the last ones again and again."""

    @asynccontextmanager
    async def opened(
        *replies: bytes | Sequence[bytes | float],
    ) -> AsyncIterator[tuple[AgentActivity, Provider]]:
        async with (
            answering(*replies) as provider,
            means_of(
                engine, simulator_url, tokens, openai_api_key="sk-test", openai_base_url=f"{provider.url}/v1"
            ) as means,
        ):
            yield AgentActivity(means), provider

    return opened


def said(*contents: Any, finish: str | None = "stop", **more: Any) -> list[object]:
    """The events of an answer that is said in these pieces."""
    usage = more.pop("usage", {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
    deltas = [{"choices": [{"delta": {"content": content}}]} for content in contents]
    last = {"choices": [{"delta": more.pop("delta", {}), "finish_reason": finish, **more}]}
    return [{"id": "r1", "model": "gpt-4o-mini", "choices": []}, *deltas, last, {"usage": usage}, "[DONE]"]


def step(fallback: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    agent = {"model": FIRST, "fallback": list(fallback), **more.pop("agent", {})}
    asks = {"kind": "agent", "agent": "a", "prompt": "Go.", **more}
    return {"agents": {"a": agent}, "steps": {"ask": asks}}


async def attempts(engine: AsyncEngine, request: StepRequest) -> list[tuple[Any, ...]]:
    """(status, error code, why it ended, output) of the attempts at the step."""
    query = (
        "SELECT status, error_code, finish_reason, output FROM agent_executions"
        " WHERE collaboration_id = :run AND path = 'ask' ORDER BY attempt"
    )
    return await rows(engine, query, run=request.collaboration)


async def booked(engine: AsyncEngine, request: StepRequest) -> list[tuple[Any, ...]]:
    """(state, basis, input, output) of its calls in the ledger."""
    query = (
        "SELECT state, basis, input_tokens, output_tokens FROM model_calls"
        " WHERE collaboration_id = :run ORDER BY opened_at"
    )
    return await rows(engine, query, run=request.collaboration)


@pytest.mark.parametrize(
    ("events", "code", "reason"),
    [
        (said("", finish="content_filter"), "provider_content_policy", "content_filter"),
        (said("I wi", finish="SAFETY"), "provider_content_policy", "content_filter"),
        (said(delta={"refusal": "I will not."}), "provider_content_policy", "refusal"),
        (said(" "), "provider_answer_empty", "empty"),
    ],
)
async def test_what_is_refused_or_empty_goes_to_the_fallback_and_is_paid(
    engine: AsyncEngine, asked: Asked, events: list[object], code: str, reason: str
) -> None:
    async with asked(event_reply(events), event_reply(said("whole answer"))) as (agents, provider):
        request = await begin(engine, step([SECOND]))
        await agents.agent(request)
    assert [body["model"] for _, _, body in provider.asked] == ["gpt-4o-mini", "gpt-4o"]
    assert await attempts(engine, request) == [
        ("failed", code, reason, None),
        ("completed", None, "stop", "whole answer"),
    ]
    assert await booked(engine, request) == 2 * [("settled", "usage", 10, 5)]


@pytest.mark.parametrize(
    ("events", "reason", "output"),
    [
        (said("", finish="content_filter"), "content_filter", ""),
        (said("I wi", finish="sensitive"), "content_filter", "I wi"),
        (said(delta={"refusal": "I will not."}), "refusal", "I will not."),
        (said(""), "empty", ""),
        (said("Once upon", finish="length"), "length", "Once upon"),
    ],
)
async def test_without_a_fallback_the_step_completes_with_what_came(
    engine: AsyncEngine, asked: Asked, events: list[object], reason: str, output: str
) -> None:
    async with asked(event_reply(events)) as (agents, provider):
        request = await begin(engine, step())
        await agents.agent(request)
    assert await attempts(engine, request) == [("completed", None, reason, output)]
    assert len(provider.asked) == 1
    async with transaction(engine) as connection:
        known = await executions.known(connection, UUID(request.collaboration), ["ask"])
    facts = known["ask"].facts()
    cut_off = compile_expression("steps.ask.finish_reason in ['content_filter', 'refusal', 'empty']")
    assert evaluate(cut_off, {"steps": {"ask": facts}}) == (reason != "length")


async def test_half_an_answer_never_completes_a_step(engine: AsyncEngine, asked: Asked) -> None:
    broken = said("par", finish="error", error={"code": 502, "message": "upstream went away"})
    async with asked(event_reply(broken), event_reply(said("whole answer"))) as (agents, _):
        request = await begin(engine, step([SECOND]))
        await agents.agent(request)
    assert await attempts(engine, request) == [
        ("failed", "provider_stream_cut", None, None),
        ("completed", None, "stop", "whole answer"),
    ]
    # What it took was told at its end.
    assert await booked(engine, request) == 2 * [("settled", "usage", 10, 5)]


@pytest.mark.parametrize(
    ("usage", "row"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 500,
                "completion_tokens_details": {"reasoning_tokens": 390},
            },
            ("settled", "usage", 100, 400),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 500},
            ("settled", "larger", 100, 400),
        ),
        (None, ("settled", "assumed", 25, 2)),
    ],
)
async def test_what_is_booked_says_what_it_rests_on(
    engine: AsyncEngine, asked: Asked, usage: Any, row: tuple[Any, ...]
) -> None:
    async with asked(event_reply(said("hello", usage=usage))) as (agents, _):
        request = await begin(engine, step())
        result = await agents.agent(request)
    assert await booked(engine, request) == [row]
    cost = Decimal("0.15") * row[2] + Decimal("0.6") * row[3]
    assert Decimal(result.cost_usd) == round(cost / 1_000_000, 6)


@pytest.mark.parametrize(
    "answer",
    [
        '```json\r\n{"n": 2}\r\n```',
        '```json\n{"n": 2}```',
        '\ufeff{"n": 2}',
        '~~~\n{"n": 2}\n~~~',
        '<think>Is it {"n": 3}?</think>\n\n{"n": 2}',
        'Here it is: {"n": 2}. Anything else?',
        'As [1] says:\n```json\n{"n": 2}\n```\nand ```js\nx()\n```',
    ],
)
async def test_json_is_read_in_whatever_it_is_wrapped(engine: AsyncEngine, asked: Asked, answer: str) -> None:
    async with asked(event_reply(said(answer))) as (agents, provider):
        request = await begin(engine, step(output_schema=NUMBER))
        await agents.agent(request)
    assert await attempts(engine, request) == [("completed", None, "stop", {"n": 2})]
    assert len(provider.asked) == 1


async def test_what_is_nearly_json_is_mended_where_that_is_wanted_and_told(
    engine: AsyncEngine, asked: Asked
) -> None:
    answer = "{'n': 2,}"
    async with asked(event_reply(said(answer))) as (agents, _):
        with pytest.raises(FacilitairError, match="is not JSON"):
            await agents.agent(await begin(engine, step(output_schema=NUMBER, reflect={"max": 0})))
        request = await begin(engine, step(output_schema=NUMBER, reflect={"max": 0, "repair": True}))
        await agents.agent(request)
    assert await attempts(engine, request) == [("completed", None, "stop", {"n": 2})]
    told = "SELECT payload->>'repaired' FROM outbox WHERE type = 'StepFinished' AND aggregateid = :run"
    assert await rows(engine, told, run=request.collaboration) == [("true",)]
    assert await rows(engine, "SELECT repaired FROM agent_executions ORDER BY started_at") == [
        (False,),
        (True,),
    ]


@pytest.mark.parametrize("answer", ['{"n": 2, "more": [1, ', "{'n': 'two'}"])
async def test_half_json_and_json_that_does_not_fit_is_not_mended(
    engine: AsyncEngine, asked: Asked, answer: str
) -> None:
    finish = "length" if "more" in answer else "stop"
    async with asked(event_reply(said(answer, finish=finish))) as (agents, _):
        request = await begin(engine, step(output_schema=NUMBER, reflect={"max": 0, "repair": True}))
        with pytest.raises(FacilitairError) as caught:
            await agents.agent(request)
    assert caught.value.code == "output_invalid"


async def test_an_answer_that_is_too_deep_is_asked_for_again(engine: AsyncEngine, asked: Asked) -> None:
    async with asked(event_reply(said("[" * 300 + "]" * 300)), event_reply(said("[[1]]"))) as (agents, _):
        request = await begin(engine, step(output_schema={}))
        await agents.agent(request)
    assert [row[:2] for row in await attempts(engine, request)] == [
        ("failed", "output_invalid"),
        ("completed", None),
    ]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_the_halves_of_a_character_are_one_in_every_table(
    engine: AsyncEngine, asked: Asked, stream: bool
) -> None:
    pieces = ["hi \ud83d", "\ude00 there \0\ud83d", "!"]
    message = {"role": "assistant", "content": "".join(pieces)}
    whole = {"id": "r\ud83d", "model": "m\0", "choices": [{"message": message, "finish_reason": "stop"}]}
    reply = event_reply(said(*pieces)) if stream else json_reply(whole)
    async with asked(reply) as (agents, _):
        request = await begin(engine, step(agent={"stream": stream}))
        await agents.agent(request)
    assert await attempts(engine, request) == [("completed", None, "stop", "hi 😀 there �!")]
    kept = "SELECT string_agg(token, '' ORDER BY seq) FROM token_stream"
    assert await rows(engine, kept) == [("hi 😀 there �!",)]


async def test_a_reason_that_nobody_can_store_is_a_failure_like_others(
    engine: AsyncEngine, asked: Asked
) -> None:
    bad = json_reply({"error": {"message": "bad \0 and \ud83d", "type": "server_error"}}, "500 No")
    async with asked(bad, event_reply(said("ok"))) as (agents, _):
        request = await begin(engine, step())
        with pytest.raises(ProviderError, match="bad  and �") as caught:
            await agents.agent(request)
        assert (caught.value.code, caught.value.retryable) == ("provider_unavailable", True)
        await agents.agent(request)
    assert [row[:2] for row in await attempts(engine, request)] == [
        ("failed", "provider_unavailable"),
        ("completed", None),
    ]
    assert [row[0] for row in await booked(engine, request)] == ["refunded", "settled"]


@pytest.mark.parametrize("id", [None, "call_7"], ids=["none", "the same"])
async def test_every_call_of_a_conversation_has_an_id_of_its_own(
    engine: AsyncEngine, asked: Asked, id: str | None
) -> None:
    function = {"name": "json_parse", "arguments": json.dumps({"text": "[1]"})}
    call = {"index": 0, "function": function, **({"id": id} if id else {})}
    calls = event_reply(said(delta={"tool_calls": [call]}, finish="tool_calls"))
    async with asked(calls, calls, event_reply(said("done"))) as (agents, provider):
        request = await begin(engine, step(agent={"tools": ["json.parse"]}))
        await agents.agent(request)
    messages = provider.asked[-1][2]["messages"]
    ids = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert len(set(ids)) == len(ids) == 2
    assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == ids
    assert (await attempts(engine, request))[-1] == ("completed", None, "stop", "done")


async def test_a_complete_answer_does_not_wait_for_the_end_of_its_stream(
    engine: AsyncEngine, asked: Asked
) -> None:
    pieces = [open_reply(said("x")[:-1]), *([0.3, b": still here\n\n"] * 100)]
    async with asked(pieces) as (agents, _):
        request = await begin(engine, step(agent={"stall_timeout": "3s"}))
        await agents.agent(request)
    query = "SELECT latency_ms < 2500, output FROM agent_executions"
    assert await rows(engine, query) == [(True, "x")]


async def test_a_step_that_waits_says_until_when(engine: AsyncEngine, asked: Asked) -> None:
    limited = json_reply({"error": {"message": "slow down"}}, "429 No", retry_after="99999999")
    async with asked(limited) as (agents, _):
        request = await begin(engine, step())
        environment = agent_activity(maximum_attempts=3)
        with pytest.raises(ProviderError) as caught:
            await environment.run(agents.agent, request)
        assert caught.value.retry_after_seconds == 600
    waits = "SELECT extract(epoch FROM retry_at - completed_at)::float FROM agent_executions"
    [(seconds,)] = await rows(engine, waits)
    assert seconds == pytest.approx(600, abs=5)


async def test_the_last_attempt_waits_for_nothing(engine: AsyncEngine, asked: Asked) -> None:
    async with asked(json_reply({"error": "no"}, "500 No")) as (agents, _):
        request = await begin(engine, step())
        with pytest.raises(ProviderError):
            await agent_activity(maximum_attempts=1).run(agents.agent, request)
    assert await rows(engine, "SELECT status, retry_at FROM agent_executions") == [("failed", None)]


def agent_activity(*, maximum_attempts: int) -> ActivityEnvironment:
    """Temporal's surroundings of the first attempt."""
    environment = ActivityEnvironment()
    environment.info = replace(
        environment.info,
        activity_type="agent",
        attempt=1,
        retry_policy=RetryPolicy(maximum_attempts=maximum_attempts),
    )
    return environment
