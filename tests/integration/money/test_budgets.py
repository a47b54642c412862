"""Budgets hold whatever happens at the same time, and nobody fails for money that comes back."""

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from db.engine import async_engine, statement, transaction
from db.money import ledger, spending
from db.money.ledger import Booking
from db.money.spending import Amount, BudgetBusy, BudgetExceeded
from db.runs import executions
from db.runs.executions import Assignment
from gateway import litellm_door
from gateway.client import Gateway
from gateway.estimate import most_input_tokens
from gateway.request import Completion, Message, Usage
from schema.errors import FacilitairError
from schema.temporal.steps import StepRequest
from tests.support.providers import only_simulated
from tests.support.runs import attempts, begin, rows

TRANSFORM = {"steps": {"ask": {"kind": "transform", "value": 1}}}
STRONG, CHEAP = "openai/gpt-4", "openai/gpt-4o-mini"


@pytest.fixture
async def crowded(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """As many connections as a busy worker has."""
    engine = async_engine(postgres_url, pool_size=20)
    yield engine
    await engine.dispose()


def usd(amount: str) -> Amount:
    return Amount(Decimal(amount), 1)


def run_of(request: StepRequest) -> UUID:
    return UUID(request.collaboration)


def item(request: StepRequest, index: int) -> StepRequest:
    return StepRequest(request.collaboration, request.tenant, "ask", request.traceparent, frame=f"m[{index}]")


async def claimed(engine: AsyncEngine, request: StepRequest, index: int = 0) -> UUID:
    """The running execution of one item of the step."""
    async with transaction(engine) as connection:
        return (await executions.claim(connection, item(request, index), Assignment("agent", "a"))).execution


async def all_claimed(engine: AsyncEngine, request: StepRequest, count: int) -> list[UUID]:
    async with transaction(engine) as connection:
        claims = [
            await executions.claim(connection, item(request, index), Assignment("agent", "a"))
            for index in range(count)
        ]
    return [claim.execution for claim in claims]


def call_of(execution: UUID, request: StepRequest, worst: Amount, **more: Any) -> Booking:
    """A call of the run, with a price at which its worst case is this."""
    return Booking(
        id=execution,
        tenant=request.tenant,
        account="sim:1",
        provider="simulator",
        model=STRONG,
        priced_model=STRONG,
        simulated=True,
        most_input_tokens=0,
        most_output_tokens=worst.tokens,
        seconds=60,
        run=run_of(request),
        execution=execution,
        path="ask",
        agent_name="a",
        price_source="test:1",
        input_usd=worst.usd,
        output_usd=worst.usd * 1_000_000 / max(worst.tokens, 1),
        **more,
    )


async def reserve(
    engine: AsyncEngine, request: StepRequest, execution: UUID, worst: Amount, **more: Any
) -> None:
    """Book a call with the name of its execution, which is as good as another."""
    async with statement(engine) as connection:
        await ledger.open(connection, call_of(execution, request, worst, **more))


async def settle(engine: AsyncEngine, request: StepRequest, execution: UUID, spent: Amount) -> None:
    usage = Usage(0, spent.tokens)
    done = Completion("", STRONG, usage, spent.usd, "stop", True, "simulator", "r", None)
    async with transaction(engine) as connection:
        assert await ledger.settle(connection, execution, done)


async def standing(engine: AsyncEngine, request: StepRequest) -> tuple[Any, ...]:
    """(spent, reserved) in dollars, then in tokens."""
    columns = "spent_usd, reserved_usd, spent_tokens, reserved_tokens"
    found = await rows(
        engine,
        f"SELECT {columns} FROM spending WHERE subject = CAST(:run AS text)",
        run=request.collaboration,
    )
    return found[0]


async def test_200_at_once_reserve_exactly_what_there_is(crowded: AsyncEngine) -> None:
    request = await begin(crowded, TRANSFORM | {"budget": {"usd": 1.0}})
    keys = await all_claimed(crowded, request, 200)
    worst = usd("0.013")
    results = await asyncio.gather(
        *(reserve(crowded, request, key, worst) for key in keys), return_exceptions=True
    )
    assert results.count(None) == 76
    assert [type(result) for result in results if result] == [BudgetBusy] * 124
    assert await standing(crowded, request) == (Decimal(0), Decimal("0.988"), 0, 76)


async def test_201_at_once_spend_no_more_than_there_is(crowded: AsyncEngine) -> None:
    """Calls that reserve, wait for each other, cost something else than feared, and come again."""
    outer = await begin(crowded, TRANSFORM | {"budget": {"usd": 1.0}})
    children = [
        await begin(crowded, TRANSFORM | {"budget": {"usd": 0.4}}, parent=outer),
        await begin(crowded, TRANSFORM | {"budget": {"usd": 5.0, "tokens": 1_000_000}}, parent=outer),
        await begin(crowded, TRANSFORM, parent=outer),
    ]
    work = [(child, await all_claimed(crowded, child, 67)) for child in children]
    chance = random.Random(7)
    spent = {child.collaboration: Decimal(0) for child in children}
    over: list[Any] = []

    async def call(child: StepRequest, key: UUID) -> None:
        while True:
            worst = Amount(Decimal(chance.randint(1, 40)) / 1000, 10)
            try:
                await reserve(crowded, child, key, worst)
                break
            except BudgetBusy:
                await asyncio.sleep(0.3 + chance.random())
            except BudgetExceeded:
                return
        await asyncio.sleep(chance.random() / 100)
        cost = (worst.usd * chance.randint(0, 100) / 100).quantize(Decimal("0.000001"))
        await settle(crowded, child, key, Amount(cost, 5))
        spent[child.collaboration] += cost

    async def watch() -> None:
        query = "SELECT spent_usd, reserved_usd FROM spending WHERE spent_usd + reserved_usd > limit_usd"
        while True:
            over.extend(await rows(crowded, query))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(call(child, key) for child, keys in work for key in keys))
    watching.cancel()
    assert over == []
    total = sum(spent.values())
    assert Decimal("0.9") < total <= 1
    assert (await standing(crowded, outer))[:2] == (total, 0)
    for child in children[:2]:
        assert (await standing(crowded, child))[:2] == (spent[child.collaboration], 0)
    assert spent[children[0].collaboration] <= Decimal("0.4")


async def test_what_others_reserved_is_waited_for_and_what_they_spent_is_not(engine: AsyncEngine) -> None:
    request = await begin(engine, TRANSFORM | {"budget": {"usd": 1.0, "tokens": 100}})
    first, second = await claimed(engine, request, 0), await claimed(engine, request, 1)
    await reserve(engine, request, first, Amount(Decimal("0.7"), 40))
    with pytest.raises(BudgetBusy, match=r"reserved by calls under way") as busy:
        await reserve(engine, request, second, usd("0.4"))
    assert busy.value.retryable
    # Both units are short: tokens only for now, dollars for good.
    with pytest.raises(BudgetExceeded, match=r"allows \$1\.000000, of which .* room for \$1\.100000"):
        await reserve(engine, request, second, Amount(Decimal("1.1"), 70))
    await settle(engine, request, first, Amount(Decimal("0.65"), 30))
    with pytest.raises(BudgetExceeded, match=r"\$0\.650000 are spent and \$0\.000000 reserved") as exceeded:
        await reserve(engine, request, second, usd("0.4"))
    assert (exceeded.value.code, exceeded.value.retryable) == ("budget_exceeded", False)
    with pytest.raises(BudgetExceeded, match=r"allows 100 tokens, .* room for 71 tokens"):
        await reserve(engine, request, second, Amount(Decimal(0), 71))
    async with transaction(engine) as connection:
        await spending.grant(connection, run_of(request), usd("0.05"))
    await reserve(engine, request, second, Amount(Decimal("0.4"), 70))
    assert await standing(engine, request) == (Decimal("0.65"), Decimal("0.4"), 30, 70)


async def test_a_child_spends_from_the_runs_around_it(engine: AsyncEngine) -> None:
    outer = await begin(engine, TRANSFORM | {"budget": {"usd": 1.0}})
    middle = await begin(engine, TRANSFORM, parent=outer)
    inner = await begin(engine, TRANSFORM | {"budget": {"usd": 9.0}}, parent=middle)
    key = await claimed(engine, inner)
    await reserve(engine, inner, key, usd("0.6"))
    assert [(await standing(engine, run))[1] for run in (outer, inner)] == [Decimal("0.6")] * 2
    other = await claimed(engine, outer)
    with pytest.raises(BudgetBusy):
        await reserve(engine, outer, other, usd("0.6"))
    with pytest.raises(BudgetExceeded, match="the budget of a run around this one") as caught:
        await reserve(engine, inner, await claimed(engine, inner, 1), usd("1.5"))
    assert caught.value.collaboration == run_of(outer)
    await settle(engine, inner, key, usd("0.25"))
    assert [(await standing(engine, run))[:2] for run in (outer, inner)] == [(Decimal("0.25"), 0)] * 2


async def test_without_a_limit_nothing_is_locked(engine: AsyncEngine) -> None:
    request = await begin(engine, TRANSFORM)
    other = await begin(engine, TRANSFORM | {"budget": {"usd": 1.0}})
    await reserve(engine, other, await claimed(engine, other), usd("0.5"))
    key = await claimed(engine, request)
    async with engine.begin() as holder:
        await holder.exec_driver_sql("SELECT * FROM spending, reservations FOR UPDATE")
        async with asyncio.timeout(5):
            await reserve(engine, request, key, usd("5"))
            await settle(engine, request, key, usd("4"))
    assert await rows(engine, "SELECT * FROM reservations WHERE call_id = :key", key=key) == []
    booked = "SELECT state, basis, usd, reserved_usd FROM model_calls WHERE id = :key"
    assert await rows(engine, booked, key=key) == [("settled", "usage", Decimal(4), None)]


def asking(budget: dict[str, Any], model: str = STRONG, **step: Any) -> dict[str, Any]:
    """A definition with one agent step whose call costs at most about 1.3 cents with the strong model."""
    agent = {"model": model, "max_output_tokens": 100}
    asked = {"kind": "agent", "agent": "a", "prompt": "Add 1 and 2."} | step
    return {"agents": {"a": agent}, "steps": {"ask": asked}, "budget": budget}


async def calls(control: httpx.AsyncClient) -> int:
    total: int = (await control.get("/_simulator/calls")).json()["total"]["calls"]
    return total


async def paid(engine: AsyncEngine, request: StepRequest) -> tuple[Any, ...]:
    query = (
        "SELECT sum(cost_usd), 0::numeric, sum(input_tokens + output_tokens)::bigint, 0 FROM agent_executions"
    )
    return (await rows(engine, f"{query} WHERE collaboration_id = :run", run=request.collaboration))[0]


async def test_a_call_is_paid_from_the_budget(engine: AsyncEngine, agents: AgentActivity) -> None:
    request = await begin(engine, asking({"usd": 0.02, "tokens": 1_000}))
    result = await agents.agent(request)
    assert Decimal(result.cost_usd) > 0
    assert await standing(engine, request) == await paid(engine, request)


async def test_a_call_that_could_cost_too_much_is_not_made(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    for budget in ({"usd": 0.005}, {"tokens": 150}):
        request = await begin(engine, asking(budget))
        with pytest.raises(BudgetExceeded):
            await agents.agent(request)
        assert await attempts(engine, request) == [(1, "failed", "budget_exceeded", False)]
        assert await standing(engine, request) == (0, 0, 0, 0)
    assert await calls(control) == 0


@pytest.mark.parametrize("around", [False, True])
async def test_a_budget_may_go_on_with_a_cheaper_model(
    engine: AsyncEngine, agents: AgentActivity, around: bool
) -> None:
    budget = {"usd": 0.005, "on_exceed": "degrade", "degrade_to": CHEAP}
    request = await begin(engine, asking({"usd": 9.0} if around else budget))
    if around:
        outer = await begin(engine, asking(budget))
        request = await begin(engine, asking({"usd": 9.0}), parent=outer)
    result = await agents.agent(request)
    assert result.model == CHEAP
    models = "SELECT requested_model, model_id FROM agent_executions WHERE collaboration_id = :run"
    assert await rows(engine, models, run=request.collaboration) == [(STRONG, CHEAP)]
    assert await standing(engine, request) == await paid(engine, request)


async def test_a_cheaper_model_that_is_too_dear_is_not_asked_either(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    budget = {"usd": 0.00001, "on_exceed": "degrade", "degrade_to": CHEAP}
    with pytest.raises(BudgetExceeded):
        await agents.agent(await begin(engine, asking(budget)))


async def test_a_cheaper_answer_is_not_kept_for_those_who_ask_the_better_model(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    budget = {"usd": 0.005, "on_exceed": "degrade", "degrade_to": CHEAP}
    await agents.agent(await begin(engine, asking(budget, cache={})))
    rich = await agents.agent(await begin(engine, asking({"usd": 1.0}, cache={})))
    assert (rich.model, await calls(control)) == (STRONG, 2)


async def test_wrong_answers_are_paid_and_failed_calls_are_not(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    schema = {"type": "object", "required": ["total"]}
    request = await begin(engine, asking({"usd": 1.0}, output_schema=schema))
    rules = [{"kind": "answer", "text": "[]"}, {"kind": "server_error"}, {"kind": "answer", "text": "{}"}]
    (await control.post("/_simulator/faults", json=rules)).raise_for_status()
    with pytest.raises(FacilitairError) as caught:
        await agents.agent(request)
    assert caught.value.code == "provider_unavailable"
    assert await attempts(engine, request) == [
        (1, "failed", "output_invalid", True),
        (2, "failed", "provider_unavailable", False),
    ]
    assert await standing(engine, request) == await paid(engine, request)


async def test_a_call_waits_until_others_have_given_back(engine: AsyncEngine, agents: AgentActivity) -> None:
    request = await begin(engine, asking({"usd": 0.02}))
    key = await claimed(engine, request)
    await reserve(engine, request, key, usd("0.015"))
    working = asyncio.create_task(agents.agent(request))
    while not await attempts(engine, request):
        await asyncio.sleep(0.01)
    await settle(engine, request, key, usd("0.001"))
    assert (await working).status == "completed"


async def test_a_call_that_waited_half_of_its_time_is_tried_again_later(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    request = await begin(engine, asking({"usd": 0.02}, timeout="600ms"))
    await reserve(engine, request, await claimed(engine, request), usd("0.015"))
    with pytest.raises(BudgetBusy) as caught:
        await agents.agent(request)
    assert (caught.value.code, caught.value.retryable) == ("budget_busy", True)
    assert await attempts(engine, request) == [(1, "failed", "budget_busy", False)]


async def test_an_agent_without_a_limit_gets_one_where_there_is_a_budget(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    definition = asking({"usd": 9.0})
    del definition["agents"]["a"]["max_output_tokens"]
    rule = {"kind": "answer", "text": "word " * 5_000}
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    assert (await agents.agent(await begin(engine, definition))).output_tokens == 4_096


async def test_an_unknown_price_is_no_small_price(engine: AsyncEngine, agents: AgentActivity) -> None:
    request = await begin(engine, asking({"usd": 9.0}, model="openai/never-heard-of"))
    with pytest.raises(FacilitairError) as caught:
        await agents.agent(request)
    assert caught.value.code == "price_missing"
    assert await attempts(engine, request) == [(1, "failed", "price_missing", False)]
    assert await standing(engine, request) == (0, 0, 0, 0)


TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog, and nobody minds. " * 20,
    "code": "def total(items: list[int]) -> int:\n    return sum(item for item in items if item > 0)\n" * 20,
    "numbers": "\n".join(f"{number * 7.31:.2f},{number * 13.7:.3f}" for number in range(200)),
    "base64": "aGVsbG8gd29ybGQgdGhpcyBpcyBhIHRlc3Q+/Qx9zKp3W1vU0mTn5bYc8dEfGhIjKlMn" * 20,
    "hex": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" * 20,
    "punctuation": "!@#$%^&*()_+-=[]{}|;':\",./<>?~`" * 20,
    "chinese": "多个智能体协作完成任务，每一步都会被记录下来。" * 20,
    "amharic": "ሰላም ለዓለም ይህ ጽሑፍ ነው " * 20,
    "emoji": "😀🎉🚀👩‍👩‍👧‍👦🏳️‍🌈" * 20,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_no_tokenizer_at_hand_counts_more_than_the_bound(simulator_url: str, kind: str) -> None:
    message = Message("user", TEXTS[kind])
    bound = most_input_tokens([message], None, Gateway(only_simulated(simulator_url)).destination(STRONG))
    counted = [
        litellm_door.litellm().token_counter(model=model, text=TEXTS[kind])
        for model in ("gpt-4", "gpt-4o", "claude-2", "text-davinci-003")
    ]
    assert max(counted) <= bound <= 6 * max(counted) + 100
