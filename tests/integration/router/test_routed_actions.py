"""What a routing rule does besides choosing: a person is asked, answers are limited and verified."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.testing import ActivityEnvironment

from activities.agent.activity import AgentActivity
from activities.people.questions import HumanActivity
from activities.routing import cheap_first
from activities.routing.facts import RoutingRequest, known
from activities.runs.context import run_of
from db.engine import transaction
from db.money.spending import BudgetExceeded
from db.router import decisions
from db.router import rules as routed_rows
from db.router.decisions import RoutingDecision as Chosen
from db.router.rules import VerifierVerdicts
from db.runs import control as steering
from db.runs.control import FeedbackNote
from db.runs.executions import input_and_output
from router.serve.predictions import RoutingQuestion
from schema.language.steps import Verify
from schema.temporal.people import Decision, DecisionRecord
from schema.temporal.steps import StepRequest
from tests.integration.runs.test_collaboration import unique
from tests.support.runs import begin, rows
from tests.support.stack import Stack

CHEAP, STRONG, JUDGE = "openai/gpt-4o-mini", "openai/gpt-4", "anthropic/claude-3.5-sonnet"
JUDGES = "Judge how well the answer does"
LEDGER = (
    "SELECT path, purpose, model, state FROM model_calls WHERE collaboration_id = :run ORDER BY opened_at"
)
STEPS = (
    "SELECT path, attempt, status, error_code, model_id, reused_from IS NOT NULL FROM agent_executions"
    " WHERE collaboration_id = :run ORDER BY started_at"
)
PLAN = {"cheap": CHEAP, "strong": STRONG, "expected": None}


def routed(rule: dict[str, Any], step: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    asked = {"kind": "agent", "agent": "a", "prompt": "Say what a pear is."}
    model = {"among": [CHEAP, STRONG], **rule}
    return {"agents": {"a": {"model": model}}, "steps": {"ask": asked | (step or {})}, **fields}


async def chosen(engine: AsyncEngine, request: StepRequest, model: str = CHEAP, **features: Any) -> None:
    """The router's decision, as its activity keeps it."""
    decision = Chosen(model, 0.9, "checkpoint-1", features, {CHEAP: 0.9, STRONG: 0.1}, fallback=False)
    async with transaction(engine) as connection:
        await decisions.record(connection, request, decision)


async def verified(engine: AsyncEngine, **definition: Any) -> StepRequest:
    """A step whose router would have the cheap model answer first."""
    request = await begin(engine, routed({"verify": {}}, **definition))
    await chosen(engine, request, verify=PLAN)
    return replace(request, model=CHEAP)


async def models_say(control: httpx.AsyncClient, *rules: dict[str, Any]) -> None:
    (await control.post("/_simulator/faults", json=list(rules))).raise_for_status()


def judged(quality: float | str, contains: str = JUDGES) -> dict[str, Any]:
    return {"kind": "answer", "text": f'{{"quality": {quality}}}', "match": {"contains": contains}}


def says(text: str, model: str) -> dict[str, Any]:
    return {"kind": "answer", "text": text, "match": {"model": model}}


async def calls(control: httpx.AsyncClient) -> list[dict[str, Any]]:
    return list((await control.get("/_simulator/calls")).json()["recent"])


async def said(engine: AsyncEngine, request: StepRequest) -> Any:
    query = (
        "SELECT output FROM agent_executions"
        " WHERE collaboration_id = :run AND path = 'ask' AND status = 'completed'"
    )
    [(output,)] = await rows(engine, query, run=request.collaboration)
    return output


# -- cheap, then verify ------------------------------------------------------------------------------------


async def test_a_good_answer_of_the_cheap_model_counts(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await verified(engine)
    await models_say(control, judged(0.9, "## Answer\nA fruit."), says("A fruit.", CHEAP))
    result = await agents.agent(request)
    assert (result.model, await said(engine, request)) == (CHEAP, "A fruit.")
    assert await rows(engine, LEDGER, run=request.collaboration) == [
        ("ask", "step", CHEAP, "settled"),
        ("ask~verify", "verify", JUDGE, "settled"),
    ]
    assert await rows(engine, STEPS, run=request.collaboration) == [
        ("ask", 1, "completed", None, CHEAP, False),
        ("ask~verify", 1, "completed", None, JUDGE, False),
    ]
    async with transaction(engine) as connection:
        run = uuid.UUID(request.collaboration)
        draft, verdict = await input_and_output(connection, run, "ask~verify")
    assert (draft["answer"], draft["execution"]) == ("A fruit.", result.execution)
    assert verdict == {"score": 0.9, "accepted": True}
    spoken = "SELECT string_agg(token, '' ORDER BY seq) FROM token_stream WHERE execution_id = :id"
    assert await rows(engine, spoken, id=result.execution) == [("A fruit.",)]


async def test_a_rejected_answer_is_given_by_the_strong_model(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await verified(engine)
    await models_say(control, judged(0.3), says("A stone.", CHEAP), says("A fruit.", STRONG))
    result = await agents.agent(request)
    assert (result.model, await said(engine, request)) == (STRONG, "A fruit.")
    assert await rows(engine, LEDGER, run=request.collaboration) == [
        ("ask", "step", CHEAP, "settled"),
        ("ask~verify", "verify", JUDGE, "settled"),
        ("ask", "step", STRONG, "settled"),
    ]
    # Readers drop what a failed attempt had said.
    assert await rows(engine, STEPS, run=request.collaboration) == [
        ("ask", 1, "failed", "answer_rejected", CHEAP, False),
        ("ask~verify", 1, "completed", None, JUDGE, False),
        ("ask", 2, "completed", None, STRONG, False),
    ]
    told = "SELECT payload->>'error_code' FROM outbox WHERE aggregateid = :run AND type = 'AttemptFailed'"
    assert await rows(engine, told, run=request.collaboration) == [("answer_rejected",)]
    # Every attempt has what it cost, and together they have what the ledger has.
    sums = (
        "SELECT (SELECT sum(cost_usd) FROM agent_executions WHERE collaboration_id = :run),"
        " (SELECT sum(usd) FROM model_calls WHERE collaboration_id = :run)"
    )
    [(executions, ledger)] = await rows(engine, sums, run=request.collaboration)
    assert executions == ledger > 0


async def test_a_verifier_that_says_nothing_does_not_accept(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await verified(engine)
    down = {"kind": "server_error", "times": None, "match": {"model": JUDGE}}
    await models_say(control, down, says("A fruit.", STRONG))
    assert (await agents.agent(request)).model == STRONG
    [verifier] = [row for row in await rows(engine, STEPS, run=request.collaboration) if "~" in row[0]]
    assert verifier[:4] == ("ask~verify", 1, "failed", "provider_unavailable")
    unreadable = await verified(engine)
    await control.delete("/_simulator/faults")
    await models_say(control, judged('"good"'), says("A fruit.", STRONG))
    assert (await agents.agent(unreadable)).model == STRONG


async def test_the_simulated_verifier_reads_the_answer(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    bad = "```python\ndef f(x=[]):\n    try:\n        eval(x)\n    except:\n        pass\n```"
    accepted = []
    for answer in (bad, "```python\ndef double(value: int) -> int:\n    return 2 * value\n```"):
        request = await verified(engine)
        await models_say(control, says(answer, CHEAP))
        accepted.append((await agents.agent(request)).model == CHEAP)
    assert accepted == [False, True]


async def test_tools_second_answers_and_schemas_go_before_the_verdict(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    schema = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}
    definition = routed({"verify": {"by": STRONG, "accept": 0.5}}, {"output_schema": schema})
    definition["agents"]["a"]["tools"] = ["text.diff"]
    request = await begin(engine, definition)
    await chosen(engine, request, verify=PLAN)
    diff = {"name": "text_diff", "arguments": {"before": "pear", "after": "apple"}}
    await models_say(
        control,
        judged(0.5, '## Answer\n{"total": 3}'),
        {"kind": "answer", "text": '{"total": 3}', "match": {"contains": "cannot be used"}},
        {"kind": "answer", "text": '{"total": "3"}', "match": {"contains": "+apple"}},
        {"kind": "tool_call", "tool_calls": [diff]},
    )
    await agents.agent(replace(request, model=CHEAP))
    assert await said(engine, request) == {"total": 3}
    assert [row[:4] for row in await rows(engine, STEPS, run=request.collaboration)] == [
        ("ask~tools1", 1, "completed", None),
        ("ask", 1, "failed", "output_invalid"),
        ("ask", 2, "completed", None),
        ("ask~verify", 1, "completed", None),
    ]
    verifier = "SELECT agent_name, role, model_id FROM agent_executions WHERE path = 'ask~verify'"
    assert await rows(engine, verifier) == [("verifier", None, STRONG)]


async def test_a_worker_lost_while_the_verifier_thinks_costs_no_second_answer(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await verified(engine)
    await models_say(control, {"kind": "timeout", "match": {"contains": JUDGES}}, says("A fruit.", CHEAP))
    stuck = asyncio.create_task(agents.agent(request))
    while [call["model"] for call in await calls(control)] != [CHEAP, JUDGE]:
        await asyncio.sleep(0.01)
    await models_say(control, judged(0.8))
    result = await agents.agent(request)
    # The answer is the first attempt's, which has paid for it.
    assert (result.model, result.cost_usd, await said(engine, request)) == (CHEAP, "0.000000", "A fruit.")
    assert [call["model"] for call in await calls(control)] == [CHEAP, JUDGE, JUDGE]
    paid = (
        "SELECT attempt, status, cost_usd > 0, reused_from FROM agent_executions"
        " WHERE collaboration_id = :run AND path = 'ask' ORDER BY attempt"
    )
    first, second = await rows(engine, paid, run=request.collaboration)
    assert (first[1:3], second[1:3], second[3] is None) == (("abandoned", True), ("completed", False), False)
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck


async def test_a_worker_lost_after_the_verdict_asks_neither_again(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await verified(engine)
    await models_say(
        control, judged(0.1), says("A stone.", CHEAP), {"kind": "timeout", "match": {"model": STRONG}}
    )
    stuck = asyncio.create_task(agents.agent(request))
    while [call["model"] for call in await calls(control)] != [CHEAP, JUDGE, STRONG]:
        await asyncio.sleep(0.01)
    await models_say(control, says("A fruit.", STRONG))
    assert (await agents.agent(request)).model == STRONG
    assert [call["model"] for call in await calls(control)] == [CHEAP, JUDGE, STRONG, STRONG]
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck


async def test_the_budget_holds_for_the_verifier_and_the_answer_is_kept(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    # Enough for the cheap model at its worst, not for the verifier behind it.
    request = await verified(engine, budget={"usd": 0.01})
    await models_say(control, says("A fruit.", CHEAP))
    with pytest.raises(BudgetExceeded):
        await agents.agent(request)
    assert [call["model"] for call in await calls(control)] == [CHEAP]
    more = "UPDATE spending SET limit_usd = 1 WHERE scope = 'run' AND subject = :run "
    async with engine.begin() as connection:
        await connection.execute(text(more), {"run": request.collaboration})
    await models_say(control, judged(0.9))
    assert (await agents.agent(request)).model == CHEAP
    assert [call["model"] for call in await calls(control)] == [CHEAP, JUDGE]


async def test_nobody_verifies_whom_a_person_chose_or_a_step_that_is_asked_outright(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    adjusted = await verified(engine)
    async with transaction(engine) as connection:
        run = await run_of(connection, adjusted.collaboration)
        await steering.adjust(connection, run, "user:ada", "a", {"model": "openai/gpt-4o"})
    assert (await agents.agent(adjusted)).model == "openai/gpt-4o"
    outright = await begin(engine, routed({"verify": {}}))
    await chosen(engine, outright, STRONG)
    assert (await agents.agent(replace(outright, model=STRONG))).model == STRONG
    assert len(await calls(control)) == 2


async def test_a_pause_while_the_cheap_model_answers_holds_the_verifier_up(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await verified(engine)
    await models_say(control, judged(0.9), {"kind": "slow", "delay_seconds": 0.6, "match": {"model": CHEAP}})
    working = asyncio.create_task(agents.agent(request))
    while not await calls(control):
        await asyncio.sleep(0.01)
    async with transaction(engine) as connection:
        run = await run_of(connection, request.collaboration)
        await steering.pause(connection, run, "user:ada")
        await steering.tell(connection, run, uuid.uuid4(), FeedbackNote("Be strict.", None, None, "user:ada"))
    await asyncio.sleep(1.5)
    assert len(await calls(control)) == 1
    async with transaction(engine) as connection:
        await steering.resume(connection, run, "user:ada")
    assert (await working).model == CHEAP
    assert [call["model"] for call in await calls(control)] == [CHEAP, JUDGE]


async def test_the_router_plans_it_by_price_while_it_has_learned_nothing(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, routed({"verify": {"by": JUDGE}}))
    async with transaction(engine) as connection:
        facts = await known(connection, "default", simulated=True)
    question = RoutingQuestion("Say what a pear is.", "a/general", (CHEAP, STRONG))
    asked = RoutingRequest("t", None, question, "key")
    chances = {CHEAP: 0.02, STRONG: 0.98}
    decision = Chosen(STRONG, 0.98, "rules-v1", {}, chances, fallback=False)
    found = await cheap_first.planned(engine, decision, Verify(by=JUDGE), asked, facts)
    assert (found.model, found.propensity, found.candidates) == (CHEAP, 0.98, {CHEAP: 0.98, STRONG: 0.02})
    assert found.features == {"verify": PLAN}
    assert await cheap_first.planned(engine, decision, None, asked, facts) == decision
    async with transaction(engine) as connection:
        await decisions.record(connection, request, found)
    await models_say(control, judged(0.2))
    assert (await agents.agent(replace(request, model=found.model))).model == STRONG


async def test_how_good_a_verifier_is_shows_when_people_tell_what_was_right(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    for quality, ok in ((0.9, 1.0), (0.9, 0.0), (0.2, 0.0), (0.2, 0.4)):
        request = await verified(engine)
        await models_say(control, judged(quality))
        await agents.agent(request)
        tell = (
            "INSERT INTO outcomes (execution_id, tenant_id, ok, actor) SELECT id, tenant_id, :ok, 'user:ada'"
            " FROM agent_executions WHERE collaboration_id = :run AND path = 'ask' AND attempt = 1"
        )
        async with engine.begin() as connection:
            await connection.execute(text(tell), {"run": request.collaboration, "ok": ok})
    async with transaction(engine) as connection:
        found = await routed_rows.verdicts(connection, "default", JUDGE, simulated=True)
        assert found == VerifierVerdicts(3, 2, 1, 0)
        assert await routed_rows.verdicts(connection, "other", JUDGE, simulated=True) == VerifierVerdicts()


# -- as long as recommended --------------------------------------------------------------------------------

LONG = "pear " * 2_000


async def test_an_answer_that_the_recommended_limit_cuts_is_asked_for_without_it(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = replace(await begin(engine, routed({"reasoning": "auto"})), model=CHEAP, max_output_tokens=300)
    await chosen(engine, request)
    await models_say(control, says(LONG, CHEAP), says(LONG, CHEAP))
    await agents.agent(request)
    assert await said(engine, request) == LONG
    cut, whole = await calls(control)
    assert (cut["finish_reason"], cut["output_tokens"]) == ("length", 300)
    assert (whole["finish_reason"], whole["output_tokens"] > 2_000) == ("stop", True)
    assert [row[:4] for row in await rows(engine, STEPS, run=request.collaboration)] == [
        ("ask", 1, "failed", "answer_cut"),
        ("ask", 2, "completed", None),
    ]


async def test_the_limit_is_never_above_the_agents_own_and_never_too_low(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    definition = routed({"reasoning": "auto"})
    definition["agents"]["a"]["max_output_tokens"] = 290
    own = replace(await begin(engine, definition), model=CHEAP, max_output_tokens=5_000)
    low = replace(await begin(engine, definition), model=CHEAP, max_output_tokens=3)
    await models_say(control, *[says(LONG, CHEAP)] * 3)
    await agents.agent(own)
    await agents.agent(low)
    # What the agent's own limit cuts stands, as it does without a router.
    assert [call["output_tokens"] for call in await calls(control)] == [290, 256, 290]


async def test_a_limit_that_a_person_set_goes_before_the_recommended_one(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = replace(await begin(engine, routed({"reasoning": "auto"})), model=CHEAP, max_output_tokens=300)
    async with transaction(engine) as connection:
        run = await run_of(connection, request.collaboration)
        await steering.adjust(connection, run, "user:ada", "a", {"max_output_tokens": 400})
    await models_say(control, says(LONG, CHEAP))
    await agents.agent(request)
    assert [call["output_tokens"] for call in await calls(control)] == [400]


async def test_a_worker_lost_after_a_cut_does_not_ask_for_it_again(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = replace(await begin(engine, routed({"reasoning": "auto"})), model=CHEAP, max_output_tokens=300)
    hung = {"kind": "timeout", "match": {"model": CHEAP}}
    await models_say(control, says(LONG, CHEAP), hung)
    stuck = asyncio.create_task(agents.agent(request))
    while len(await calls(control)) != 2:
        await asyncio.sleep(0.01)
    await models_say(control, says(LONG, CHEAP))
    await agents.agent(request)
    assert [call["finish_reason"] == "length" for call in await calls(control)] == [True, False, False]
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck


# -- a person chooses --------------------------------------------------------------------------------------

PREDICTED = {
    CHEAP: {"ok": 0.4, "doubt": 0.2, "seconds": [1, 2, 4], "tokens": [9, 10, 12], "usd": [0.1, 0.2, 0.3]},
    STRONG: {"ok": 0.7, "doubt": 0.2, "seconds": None, "tokens": None, "usd": None},
}


async def test_what_people_are_shown_and_what_comes_of_it(engine: AsyncEngine) -> None:
    rule = {"ask_below": 0.5, "assignees": ["user:ada"]}
    request = await begin(engine, routed(rule), input={"what": "pear"})
    await chosen(engine, request, confidence=0.2, predicted=PREDICTED)
    human, question = HumanActivity(engine), replace(request, purpose="route")
    asked = await human.ask_route(question)
    assert (asked.ended, asked.assignees, asked.choice) == (None, ["user:ada"], "")
    again = await human.ask_route(question)
    assert replace(again, due_in=None) == replace(asked, due_in=None)
    [(title, show, actions)] = await rows(engine, "SELECT title, show, actions FROM human_tasks")
    assert CHEAP in title and "20% sure" in title
    assert show == {
        "step": "ask",
        "task": "t",
        "prompt": "Say what a pear is.",
        "confidence": 0.2,
        "models": {"go_on": CHEAP, "model_1": STRONG},
        "candidates": [
            {
                "model": CHEAP,
                "share": 0.9,
                "ok": 0.4,
                "doubt": 0.2,
                "seconds": [1, 2, 4],
                "usd": [0.1, 0.2, 0.3],
            },
            {"model": STRONG, "share": 0.1, "ok": 0.7, "doubt": 0.2, "seconds": None, "usd": None},
        ],
    }
    assert [(one["id"], one["title"]) for one in actions] == [
        ("go_on", f"Go on with {CHEAP}"),
        ("model_1", f"Ask {STRONG}"),
    ]
    made = DecisionRecord(question, Decision(question.path, "model_1", "user:ada"))
    settled = await human.record_decision(made)
    assert settled.ended is not None
    assert (settled.ended.status, settled.choice) == ("completed", STRONG)
    # The same whoever asks for it again; and the policy's own choice stays what it was.
    assert (await human.ask_route(question)).choice == STRONG
    decision = "SELECT chosen_model, propensity, features->'asked' FROM routing_decisions"
    assert await rows(engine, decision) == [(CHEAP, 0.9, {"model": STRONG, "by": "user:ada"})]


async def test_nobody_is_asked_where_somebody_has_adjusted_the_model(engine: AsyncEngine) -> None:
    request = await begin(engine, routed({"ask_below": 0.5}))
    await chosen(engine, request, confidence=0.2)
    async with transaction(engine) as connection:
        run = await run_of(connection, request.collaboration)
        await steering.adjust(connection, run, "user:ada", "a", {"model": JUDGE})
    asked = await HumanActivity(engine).ask_route(replace(request, purpose="route"))
    assert (asked.ended is None, asked.choice) == (False, "")
    assert await rows(engine, "SELECT 1 FROM human_tasks") == []


async def test_without_an_answer_in_time_the_run_goes_on_with_the_routers_choice(engine: AsyncEngine) -> None:
    request = await begin(engine, routed({"ask_below": 0.5}))
    await chosen(engine, request, confidence=None)
    human, question = HumanActivity(engine), replace(request, purpose="route")
    await human.ask_route(question)
    late = await ActivityEnvironment().run(human.expire, question)
    assert late.ended is not None
    assert (late.ended.status, late.choice) == ("completed", "")
    assert await rows(engine, "SELECT features ? 'asked' FROM routing_decisions") == [(False,)]


class RoutedRun:
    """A run whose routed step is held up until the test has made the router's decision for it."""

    def __init__(self, on: Stack, handle: WorkflowHandle[Any, Any]) -> None:
        self.on, self.handle = on, handle

    @classmethod
    async def begin(cls, on: Stack, rule: dict[str, Any], model: str, **features: Any) -> "RoutedRun":
        definition = routed(rule)
        definition["steps"]["first"] = {"kind": "human", "title": "Go?"}
        definition["steps"]["ask"]["needs"] = ["first"]
        definition["output"] = {"model": "${steps.ask.model}", "said": "${steps.ask.output}"}
        name = unique("routed")
        await on.store(definition | {"name": name})
        run = cls(on, await on.start(name, {}, name))
        await run.asks("first")
        request = StepRequest(str(run.handle.first_execution_run_id), "default", "ask", "")
        await chosen(on.engine, request, model, **features)
        await run.decide("first", "approve")
        return run

    async def asks(self, path: str) -> None:
        query = "SELECT 1 FROM human_tasks WHERE collaboration_id = :run AND path = :path AND status = 'open'"
        run = self.handle.first_execution_run_id
        await until(lambda: rows(self.on.engine, query, run=run, path=path))

    async def decide(self, path: str, action: str) -> None:
        await self.handle.execute_update("decide", Decision(path, action, "user:ada"))


async def until(found: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(60):
        while not await found():
            await asyncio.sleep(0.05)


async def test_a_run_asks_and_goes_on_with_the_model_that_a_person_chose(platform: Stack) -> None:
    run = await RoutedRun.begin(platform, {"ask_below": 0.5}, CHEAP, confidence=0.49, predicted=PREDICTED)
    await run.asks("ask~route")
    await run.decide("ask~route", "model_1")
    assert (await run.handle.result())["model"] == STRONG
    sure = await RoutedRun.begin(platform, {"ask_below": 0.5}, CHEAP, confidence=0.51)
    assert (await sure.handle.result())["model"] == CHEAP


async def test_a_cancelled_run_withdraws_its_question(platform: Stack) -> None:
    run = await RoutedRun.begin(platform, {"ask_below": 0.5}, CHEAP, confidence=0.1)
    await run.asks("ask~route")
    await run.handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await run.handle.result()
    query = "SELECT status FROM human_tasks WHERE collaboration_id = :run AND path = 'ask~route'"
    found = await rows(platform.engine, query, run=run.handle.first_execution_run_id)
    assert found == [("cancelled",)]


async def test_a_run_has_its_answer_verified_and_limited(platform: Stack) -> None:
    rule = {"reasoning": "auto", "verify": {"accept": 1}}
    run = await RoutedRun.begin(platform, rule, CHEAP, verify=PLAN, budget_tokens=4_000)
    assert (await run.handle.result())["model"] == STRONG
    found = await rows(platform.engine, LEDGER, run=run.handle.first_execution_run_id)
    assert [row[:3] for row in found] == [
        ("ask", "step", CHEAP),
        ("ask~verify", "verify", JUDGE),
        ("ask", "step", STRONG),
    ]
