"""Tools that a model calls within its step: rounds that are paid for once, also when a worker is replaced."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.resources import Resources
from activities.agent.tokens import TokenLog
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.temporal.steps import StepRequest
from tests.support.runs import begin, means_of, rows

DIFF = {"name": "text_diff", "arguments": {"before": "pear", "after": "apple"}}
NO_MORE = "no more tools may be called"
STEPS = (
    "SELECT path, attempt, status, error_code, coalesce(cost_usd, 0) > 0 FROM agent_executions"
    " WHERE collaboration_id = :run ORDER BY started_at"
)


def asking(*tools: str, step: dict[str, Any] | None = None, **agent: Any) -> dict[str, Any]:
    asked = {"kind": "agent", "agent": "a", "prompt": "What has changed?"}
    return {
        "agents": {"a": {"model": "openai/gpt-4o-mini", "tools": [*(tools or ("text.diff",))], **agent}},
        "steps": {"ask": asked | (step or {})},
    }


async def models_say(control: httpx.AsyncClient, *rules: dict[str, Any]) -> None:
    (await control.post("/_simulator/faults", json=list(rules))).raise_for_status()


def call_of(*calls: dict[str, Any], **rule: Any) -> dict[str, Any]:
    return {"kind": "tool_call", "tool_calls": list(calls), **rule}


def answer(text: str, contains: str) -> dict[str, Any]:
    return {"kind": "answer", "text": text, "match": {"contains": contains}}


async def provider(control: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await control.get("/_simulator/calls")).json()["total"])


async def round_of(engine: AsyncEngine, request: StepRequest, number: int = 1) -> list[dict[str, Any]]:
    """The calls of a round, as its execution keeps them."""
    query = "SELECT output FROM agent_executions WHERE collaboration_id = :run AND path = :path"
    path = f"{request.path}~tools{number}"
    [(output,)] = await rows(engine, query, run=request.collaboration, path=path)
    return list(output["calls"])


async def said(engine: AsyncEngine, request: StepRequest) -> Any:
    query = (
        "SELECT output FROM agent_executions"
        " WHERE collaboration_id = :run AND path = 'ask' AND status = 'completed'"
    )
    [(output,)] = await rows(engine, query, run=request.collaboration)
    return output


class CountingTools:
    """The real tools, counted; held up where the test wants to look meanwhile."""

    def __init__(self, means: Resources) -> None:
        self._run = means.run_tool
        self.calls: list[str] = []
        self.held = asyncio.Event()
        self.hold = 0

    async def run(self, name: str, args: dict[str, Any]) -> Json:
        self.calls.append(name)
        if len(self.calls) <= self.hold:
            self.held.set()
            await asyncio.Event().wait()
        return await self._run(name, args)


@pytest.fixture
async def means(
    engine: AsyncEngine, simulator_url: str, control: httpx.AsyncClient, tokens: TokenLog
) -> AsyncIterator[Resources]:
    async with means_of(engine, simulator_url, tokens) as found:
        yield found


@pytest.fixture
def tools(means: Resources) -> CountingTools:
    return CountingTools(means)


@pytest.fixture
def worker(means: Resources, tools: CountingTools) -> AgentActivity:
    return AgentActivity(replace(means, run_tool=tools.run))


async def test_a_tool_is_run_and_the_model_answers_with_its_result(
    engine: AsyncEngine, worker: AgentActivity, control: httpx.AsyncClient, tools: CountingTools
) -> None:
    request = await begin(engine, asking())
    await models_say(control, answer("An apple came.", "+apple"), call_of(DIFF, text="Let me see."))
    assert (await worker.agent(request)).status == "completed"
    assert await said(engine, request) == "An apple came."
    assert tools.calls == ["text.diff"]
    [made] = await round_of(engine, request)
    assert (made["name"], made["result"]["added"], made["result"]["removed"]) == ("text_diff", 1, 1)
    # The round is an execution of its own, and the answer the first attempt at the step.
    assert await rows(engine, STEPS, run=request.collaboration) == [
        ("ask~tools1", 1, "completed", None, True),
        ("ask", 1, "completed", None, True),
    ]
    assert (await provider(control))["calls"] == 2


async def test_the_simulated_model_calls_a_tool_that_its_prompt_names(
    engine: AsyncEngine, worker: AgentActivity
) -> None:
    prompt = "Use text_diff with before: pear and after: apple, and say what has changed."
    request = await begin(engine, asking(step={"prompt": prompt}))
    await worker.agent(request)
    assert (await said(engine, request)).startswith("According to text_diff:")


async def test_a_tool_that_fails_is_told_to_the_model(
    engine: AsyncEngine, worker: AgentActivity, control: httpx.AsyncClient, tools: CountingTools
) -> None:
    request = await begin(engine, asking("text.diff", "json.parse", "http"))
    await models_say(
        control,
        answer("I give up.", "tool_not_allowed"),
        call_of(
            {"name": "json_parse", "arguments": {"text": "no JSON"}},
            {"name": "text_diff", "arguments": {"before": "pear"}},
            {"name": "text_diff", "arguments": "{broken"},
            {"name": "look_up", "arguments": {}},
            {"name": "http", "arguments": {"url": "http://10.0.0.1/"}},
        ),
    )
    await worker.agent(request)
    assert await said(engine, request) == "I give up."
    codes = [one["result"]["error"]["code"] for one in await round_of(engine, request)]
    assert codes == ["tool_failed", "tool_args_wrong", "tool_args_wrong", "tool_unknown", "tool_not_allowed"]
    # What has no arguments or no name was never run.
    assert tools.calls == ["json.parse", "text.diff", "http"]


async def test_a_model_that_goes_on_calling_is_told_to_answer_where_the_step_reflects(
    engine: AsyncEngine, worker: AgentActivity, control: httpx.AsyncClient, tools: CountingTools
) -> None:
    request = await begin(engine, asking(max_tool_rounds=2, step={"reflect": {"max": 1}}))
    await models_say(control, answer("Enough.", NO_MORE), call_of(DIFF, times=3))
    await worker.agent(request)
    assert (await said(engine, request), len(tools.calls)) == ("Enough.", 2)
    assert await rows(engine, STEPS, run=request.collaboration) == [
        ("ask~tools1", 1, "completed", None, True),
        ("ask~tools2", 1, "completed", None, True),
        ("ask", 1, "failed", "output_invalid", True),
        ("ask", 2, "completed", None, True),
    ]


async def test_a_model_that_only_calls_tools_fails_its_step(
    engine: AsyncEngine, worker: AgentActivity, control: httpx.AsyncClient, tools: CountingTools
) -> None:
    request = await begin(engine, asking(max_tool_rounds=1))
    await models_say(control, call_of(DIFF, times=None))
    with pytest.raises(StepError, match=NO_MORE) as caught:
        await worker.agent(request)
    assert (caught.value.code, caught.value.retryable) == ("output_invalid", False)
    assert (len(tools.calls), (await provider(control))["calls"]) == (1, 2)
    assert await rows(engine, STEPS, run=request.collaboration) == [
        ("ask~tools1", 1, "completed", None, True),
        ("ask", 1, "failed", "output_invalid", True),
    ]


async def test_another_worker_goes_on_after_a_tool_that_has_run(
    engine: AsyncEngine, worker: AgentActivity, control: httpx.AsyncClient, tools: CountingTools
) -> None:
    request = await begin(engine, asking())
    await models_say(control, {"kind": "timeout", "match": {"contains": "+apple"}}, call_of(DIFF))
    stuck = asyncio.create_task(worker.agent(request))
    while (found := await provider(control))["open"] != 1 or found["calls"] != 2:
        await asyncio.sleep(0.01)
    # Its worker is given up while it waits for the answer: nothing of the round is done or paid again.
    await models_say(control, answer("An apple came.", "+apple"))
    await worker.agent(request)
    assert (await said(engine, request), tools.calls) == ("An apple came.", ["text.diff"])
    assert (await provider(control))["calls"] == 3
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
    done = "SELECT path FROM agent_executions WHERE collaboration_id = :run AND status = 'completed'"
    assert sorted(await rows(engine, done, run=request.collaboration)) == [("ask",), ("ask~tools1",)]


async def test_a_worker_lost_within_a_tool_costs_no_second_call_of_the_model(
    engine: AsyncEngine, worker: AgentActivity, control: httpx.AsyncClient, tools: CountingTools
) -> None:
    request = await begin(engine, asking("text.diff", "json.parse"))
    parse = {"name": "json_parse", "arguments": {"text": "[1]"}}
    await models_say(control, answer("Done.", "+apple"), call_of(parse, DIFF))
    tools.hold = 1
    stuck = asyncio.create_task(worker.agent(request))
    await tools.held.wait()
    await worker.agent(request)
    # What it came to was not kept yet, so the tool runs again; the model had said what it wants.
    assert tools.calls == ["json.parse", "json.parse", "text.diff"]
    assert (await said(engine, request), (await provider(control))["calls"]) == ("Done.", 2)
    # Watchers are told of each call and of its result, once.
    told = "SELECT type, payload FROM outbox WHERE aggregateid = :run AND type LIKE 'Tools%' ORDER BY seq"
    (called, calls), (returned, results) = await rows(engine, told, run=request.collaboration)
    assert (called, returned) == ("ToolsCalled", "ToolsReturned")
    assert [call["name"] for call in calls["calls"]] == ["json_parse", "text_diff"]
    assert [one["id"] for one in results["results"]] == ["ask~tools1.0", "ask~tools1.1"]
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
