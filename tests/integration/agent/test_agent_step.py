"""What happens inside one agent step: answers that are judged and asked for again, plans, the exact cache."""

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from activities.tools.activity import ToolActivity
from activities.tools.http import HttpTool
from db.engine import transaction
from db.runs import executions
from db.runs.executions import Assignment
from schema.errors import FacilitairError, StepError
from schema.rules.validate import validate
from schema.temporal.steps import StepRequest
from tests.support.runs import attempts, begin, means_of, rows

TOTAL = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}
REFUSED = "Your answer cannot be used"


def asking(**step: Any) -> dict[str, Any]:
    """A definition with one agent step, `ask`."""
    asked = {"kind": "agent", "agent": "a", "prompt": "Add ${input.?numbers.orValue('1 and 2')}."}
    return {"agents": {"a": {"model": "openai/gpt-4o-mini"}}, "steps": {"ask": asked | step}}


async def answers(control: httpx.AsyncClient, *texts: str, contains: str | None = None) -> None:
    match = {"contains": contains} if contains else {}
    rules = [{"kind": "answer", "text": text, "match": match} for text in texts]
    (await control.post("/_simulator/faults", json=rules)).raise_for_status()


async def calls(control: httpx.AsyncClient) -> int:
    total: int = (await control.get("/_simulator/calls")).json()["total"]["calls"]
    return total


async def output(engine: AsyncEngine, request: StepRequest) -> Any:
    async with transaction(engine) as connection:
        return (await executions.known(connection, UUID(request.collaboration), [request.path]))[
            request.path
        ].output


async def test_a_wrong_answer_is_shown_to_the_agent_and_answered_again(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking(output_schema=TOTAL))
    # The second rule is only for a question that holds the first answer and what is wrong with it.
    await answers(control, '{"total": 3}', contains=f"{REFUSED} as it is:\n- /total:")
    await answers(control, '{"total": "three"}')
    result = await agents.agent(request)
    assert (result.status, await output(engine, request)) == ("completed", {"total": 3})
    assert await attempts(engine, request) == [
        (1, "failed", "output_invalid", True),
        (2, "completed", None, True),
    ]
    tokens = "SELECT string_agg(token, '' ORDER BY seq) FROM token_stream GROUP BY execution_id"
    assert ('{"total": 3}',) in await rows(engine, tokens)


async def test_when_all_answers_are_wrong_the_step_ends_at_once(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking(output_schema=TOTAL))
    await answers(control, "no JSON", "[", '{"total": null}', '{"total": 3}')
    with pytest.raises(StepError, match="/total: null is not of type") as caught:
        await agents.agent(request)
    assert (caught.value.code, caught.value.retryable) == ("output_invalid", False)
    assert await attempts(engine, request) == [(n, "failed", "output_invalid", True) for n in (1, 2, 3)]


async def test_reflection_can_be_turned_off(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking(output_schema=TOTAL, reflect={"max": 0}))
    await answers(control, "no JSON", '{"total": 3}')
    with pytest.raises(StepError, match="is not JSON") as caught:
        await agents.agent(request)
    assert not caught.value.retryable
    assert await calls(control) == 1


async def test_expectations_see_the_output_and_what_the_prompt_may_use(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    expect = [
        {"that": "output.contains(input.word)", "message": "Name the word that was given."},
        {"that": "size(output) < 40", "message": "Be brief."},
    ]
    request = await begin(engine, asking(reflect={"max": 1, "expect": expect}), input={"word": "apple"})
    await answers(control, "An apple.", contains="- Name the word that was given.\n- Be brief.")
    await answers(control, "pear " * 20)
    await agents.agent(request)
    assert await output(engine, request) == "An apple."


async def test_a_plan_is_checked_like_an_upload_and_its_problems_are_shown(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    plan = {"name": "p", "steps": {"a": {"kind": "transform", "value": 1}}}
    broken = {"name": "p", "steps": {"a": {"kind": "transform", "value": "${steps.b.output}"}}}
    request = await begin(engine, asking(emits="definition"))
    await answers(control, f"```json\n{json.dumps(plan)}\n```", contains="/steps/a")
    await answers(control, json.dumps(broken))
    await agents.agent(request)
    assert await output(engine, request) == plan
    assert [row[1:3] for row in await attempts(engine, request)] == [
        ("failed", "output_invalid"),
        ("completed", None),
    ]


async def test_a_planner_without_a_script_comes_to_something_that_runs(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    request = await begin(engine, asking(emits="definition"))
    await agents.agent(request)
    assert len(validate(await output(engine, request)).definition.steps) == 3
    assert len(await attempts(engine, request)) == 1


async def test_an_equal_question_is_answered_from_the_cache_of_the_tenant(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    definition = asking(cache={"ttl": "1h"})
    first, again = await begin(engine, definition), await begin(engine, definition)
    paid, kept = await agents.agent(first), await agents.agent(again)
    assert await calls(control) == 1
    assert (kept.model, kept.cost_usd, kept.input_tokens) == (paid.model, "0.000000", 0)
    assert await output(engine, again) == await output(engine, first)
    reused = "SELECT reused_from::text, simulated FROM agent_executions WHERE id = :id"
    assert await rows(engine, reused, id=kept.execution) == [(paid.execution, True)]

    await agents.agent(await begin(engine, definition, tenant="other"))
    await agents.agent(await begin(engine, definition, input={"numbers": "3 and 4"}))
    await agents.agent(await begin(engine, asking(cache={"ttl": "0s"})))
    await agents.agent(await begin(engine, asking()))
    assert await calls(control) == 5


async def test_a_simulated_answer_is_never_taken_for_a_providers(
    engine: AsyncEngine,
    agents: AgentActivity,
    control: httpx.AsyncClient,
    simulator_url: str,
    tokens: TokenLog,
) -> None:
    definition = asking(cache={"ttl": "1h"})
    await agents.agent(await begin(engine, definition))
    own, base = "sk-test", f"{simulator_url}/v1"
    async with means_of(engine, simulator_url, tokens, openai_api_key=own, openai_base_url=base) as means:
        await AgentActivity(means).agent(await begin(engine, definition))
    assert await calls(control) == 2
    query = "SELECT provider, reused_from FROM agent_executions ORDER BY started_at"
    assert await rows(engine, query) == [("simulator", None), ("openai", None)]


async def test_a_kept_answer_must_still_be_what_is_expected(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    expect = [{"that": "output != input.?not.orValue('')", "message": "Say something else."}]
    definition = asking(cache={}, reflect={"expect": expect})
    await answers(control, "three", "3")
    await agents.agent(await begin(engine, definition))
    request = await begin(engine, definition, input={"not": "three"})
    await agents.agent(request)
    assert await output(engine, request) == "3"


async def test_an_activity_that_was_given_up_leaves_the_later_attempt_alone(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    never = [{"that": "false", "message": "It is never right."}]
    request = await begin(engine, asking(reflect={"max": 2, "expect": never}))
    rule = {"kind": "slow", "delay_seconds": 1.0}
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    given_up = asyncio.create_task(agents.agent(request))
    while not await attempts(engine, request):
        await asyncio.sleep(0.01)
    async with transaction(engine) as connection:
        await executions.claim(connection, request, Assignment("agent", "a"))
    with pytest.raises(StepError) as caught:
        await given_up
    assert caught.value.code == "attempt_abandoned"
    assert [row[:2] for row in await attempts(engine, request)] == [(1, "abandoned"), (2, "running")]


async def test_within_an_activity_it_heartbeats(engine: AsyncEngine, agents: AgentActivity) -> None:
    environment, beats = ActivityEnvironment(), []
    environment.on_heartbeat = lambda *details: beats.append(details)
    result = await environment.run(agents.agent, await begin(engine, asking()))
    assert result.status == "completed"
    assert beats


async def test_an_equal_tool_call_is_taken_from_the_cache(engine: AsyncEngine) -> None:
    tools = ToolActivity(engine, HttpTool(""))
    step = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}, "cache": {"ttl": "1h"}}
    paid = await tools.tool(await begin(engine, {"steps": {"ask": step}}))
    again = await begin(engine, {"steps": {"ask": step}})
    kept = await tools.tool(again)
    assert await output(engine, again) == {"seconds": 0}
    other = await tools.tool(await begin(engine, {"steps": {"ask": {**step, "args": {"seconds": 0.01}}}}))
    reused = "SELECT id::text, reused_from::text FROM agent_executions"
    assert set(await rows(engine, reused)) == {
        (paid.execution, None),
        (kept.execution, paid.execution),
        (other.execution, None),
    }


async def test_a_tool_runs_without_a_record(engine: AsyncEngine) -> None:
    tools = ToolActivity(engine, HttpTool(""))
    assert await tools.run("pause", {"seconds": 0.01}) == {"seconds": 0.01}
    with pytest.raises(FacilitairError, match="greater than the maximum") as caught:
        await tools.run("pause", {"seconds": 2})
    assert caught.value.code == "tool_args_wrong"
