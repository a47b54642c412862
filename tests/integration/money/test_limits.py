"""Limits of tenants, users, definitions and steps: what counts for which, from when on, and what they say."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.guard import translate
from db.engine import async_engine, statement, transaction
from db.money import ledger, limits, prices, report
from db.money.ledger import Booking
from db.money.limits import EACH, SpendingLimit
from db.money.report import ReportPeriod
from db.money.spending import BudgetBusy, BudgetExceeded
from schema.errors import FacilitairError, NotFound
from schema.temporal.memo import BY_TEMPORAL, started_by
from schema.temporal.runs import OTHERS_MONEY
from schema.temporal.steps import StepRequest
from tests.support.runs import begin, rows

STRONG, CHEAP = "openai/gpt-4", "openai/gpt-4o-mini"

ZERO = Decimal(0)


def asking(name: str = "one", **step: Any) -> dict[str, Any]:
    """A definition with one agent step whose call costs at most about 1.3 cents."""
    agent = {"model": STRONG, "max_output_tokens": 100}
    asked = {"kind": "agent", "agent": "a", "prompt": "Add 1 and 2."} | step
    return {"name": name, "agents": {"a": agent}, "steps": {"ask": asked}}


def limit(
    scope: Any, subject: str, period: Any, usd: str | None = None, tokens: int | None = None
) -> SpendingLimit:
    return SpendingLimit(scope, subject, period, None if usd is None else Decimal(usd), tokens)


async def put(engine: AsyncEngine, *wanted: SpendingLimit, tenant: str = "default") -> None:
    async with transaction(engine) as connection:
        for one in wanted:
            await limits.put(connection, tenant, one, "test")


async def counters(engine: AsyncEngine) -> dict[tuple[str, str, str], tuple[Decimal, Decimal]]:
    found = await rows(engine, "SELECT scope, subject, period, spent_usd, reserved_usd FROM spending")
    return {row[:3]: row[3:] for row in found}


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


async def open_call(engine: AsyncEngine, run: StepRequest, usd: str, tenant: str = "default") -> UUID:
    """A call whose worst case is this."""
    call = Booking(
        id=uuid4(),
        tenant=tenant,
        account="sim:1",
        provider="simulator",
        model=STRONG,
        priced_model=STRONG,
        simulated=True,
        most_input_tokens=0,
        most_output_tokens=10,
        seconds=60,
        run=UUID(run.collaboration),
        execution=uuid4(),
        path="ask",
        agent_name="a",
        price_source="test:1",
        input_usd=Decimal(0),
        output_usd=Decimal(usd) * 100_000,
    )
    async with statement(engine) as connection:
        await ledger.open(connection, call)
    return call.id


async def close_call(engine: AsyncEngine, call: UUID, usd: str) -> None:
    async with transaction(engine) as connection:
        await ledger.settle_later(connection, call, "asked", ledger.Tokens(0, 5), Decimal(usd))


async def test_a_call_counts_for_everything_that_limits_it(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    await put(
        engine,
        limit("tenant", "", "day", "1"),
        limit("tenant", "", "month", "2"),
        limit("user", EACH, "total", "3"),
        limit("user", "ada", "month", tokens=10_000),
        limit("definition", "outer", "day", "4"),
        limit("definition", EACH, "day", "5"),
        limit("user", "bob", "day", "0.000001"),
        limit("definition", "other", "day", "0.000001"),
    )
    outer = await begin(engine, asking("outer") | {"budget": {"usd": 6.0}}, user="ada")
    inner = await begin(engine, asking("inner", budget={"usd": 7.0}), parent=outer)
    usd = Decimal((await agents.agent(inner)).cost_usd)
    day, month = today(), today()[:7]
    assert await counters(engine) == {
        ("tenant", "", day): (usd, ZERO),
        ("tenant", "", month): (usd, ZERO),
        ("user", "ada", ""): (usd, ZERO),
        ("user", "ada", month): (usd, ZERO),
        ("definition", "outer", day): (usd, ZERO),
        ("definition", "inner", day): (usd, ZERO),
        ("run", outer.collaboration, ""): (usd, ZERO),
        ("step", f"{inner.collaboration}/ask", ""): (usd, ZERO),
    }
    assert await rows(engine, "SELECT requested_by, definition FROM model_calls") == [("ada", "inner")]


@pytest.mark.parametrize(
    ("user", "asker"),
    [
        ("ada", "ada"),
        ("schedule:nightly", "schedule:nightly"),
        ("webhook:1", "webhook:1"),
        # As rows were written before runs past the API had a user.
        (None, BY_TEMPORAL),
    ],
)
async def test_a_users_limit_holds_for_all_that_runs_within_their_run(
    engine: AsyncEngine, user: str | None, asker: str
) -> None:
    outer = await begin(engine, asking("outer"), user=user)
    middle = await begin(engine, asking("middle"), parent=outer, user=started_by("outer"))
    inner = await begin(engine, asking("inner"), parent=middle, user=started_by("middle"))
    await put(engine, limit("user", EACH, "day", "0.5"))
    await close_call(engine, await open_call(engine, inner, "0.4"), "0.4")
    assert await counters(engine) == {("user", asker, today()): (Decimal("0.4"), ZERO)}
    with pytest.raises(BudgetExceeded, match=f"limit of user {asker}"):
        await open_call(engine, middle, "0.2")
    await put(engine, limit("user", asker, "month", "0.6"))
    assert (await counters(engine))["user", asker, today()[:7]] == (Decimal("0.4"), ZERO)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (limit("tenant", "", "day", "0.005"), "the day's limit of the tenant allows \\$0.005000"),
        (limit("user", EACH, "month", "0.005"), "the month's limit of user ada allows"),
        (limit("definition", "one", "total", "0.005"), "the limit of definition one allows"),
        (limit("tenant", "", "total", tokens=150), "allows 150 tokens"),
    ],
)
async def test_what_is_over_a_limit_is_refused_and_nobody_is_asked_for_more(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient, wanted: SpendingLimit, said: str
) -> None:
    await put(engine, wanted)
    budget = {"usd": 5.0, "on_exceed": "degrade", "degrade_to": CHEAP}
    request = await begin(engine, asking() | {"budget": budget}, user="ada")
    with pytest.raises(BudgetExceeded, match=said) as caught:
        await agents.agent(request)
    assert "facilitair limits set" in caught.value.message
    assert getattr(translate(caught.value), "details", None) == (OTHERS_MONEY,)
    assert (await control.get("/_simulator/calls")).json()["total"]["calls"] == 0


async def test_people_are_asked_only_for_the_runs_own_budget(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    short = {"budget": {"usd": 0.005}}
    own = await begin(engine, asking() | short)
    around = await begin(engine, asking(), parent=await begin(engine, asking() | short))
    step = await begin(engine, asking(budget={"usd": 0.005}))
    details = []
    for request in (own, around, step):
        with pytest.raises(BudgetExceeded) as caught:
            await agents.agent(request)
        details.append(getattr(translate(caught.value), "details", None))
    assert details == [(), (OTHERS_MONEY,), (OTHERS_MONEY,)]


async def test_a_steps_budget_is_for_all_its_attempts_and_repetitions(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    schema = {"type": "object", "required": ["total"]}
    request = await begin(engine, asking(budget={"usd": 0.018}, output_schema=schema))
    # What a wrong answer cost, the next one cannot: 1.4 cents at most.
    rule = {"kind": "answer", "text": "word " * 90}
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    with pytest.raises(BudgetExceeded, match="the budget of step ask allows"):
        await agents.agent(request)
    usd = (await rows(engine, "SELECT sum(usd) FROM model_calls"))[0][0]
    assert usd > 0
    assert await counters(engine) == {("step", f"{request.collaboration}/ask", ""): (usd, ZERO)}


async def test_a_limit_counts_from_the_next_call_on_and_knows_what_was_spent_before(
    engine: AsyncEngine,
) -> None:
    outer = await begin(engine, asking("outer"), user="ada")
    request = await begin(engine, asking("inner"), parent=outer)
    other = await begin(engine, asking("outer"), user="bob")
    before, going_on, others = [await open_call(engine, one, "0.3") for one in (request, request, other)]
    await close_call(engine, before, "0.25")
    await put(
        engine,
        limit("tenant", "", "day", "1"),
        limit("user", EACH, "month", "5"),
        limit("definition", "outer", "total", "5"),
        limit("definition", "inner", "total", "5"),
    )
    day, month = today(), today()[:7]
    spent = Decimal("0.25")
    # Nothing was reserved for a call that no limit held for, but what it comes to is booked.
    assert await counters(engine) == {
        ("tenant", "", day): (spent, ZERO),
        ("user", "ada", month): (spent, ZERO),
        ("user", "bob", month): (ZERO, ZERO),
        ("definition", "outer", ""): (spent, ZERO),
        ("definition", "inner", ""): (spent, ZERO),
    }
    await close_call(engine, going_on, "0.2")
    await close_call(engine, others, "0.1")
    found = await counters(engine)
    assert found["tenant", "", day] == (Decimal("0.55"), ZERO)
    assert found["user", "ada", month] == found["definition", "inner", ""] == (Decimal("0.45"), ZERO)
    assert found["definition", "outer", ""] == (Decimal("0.55"), ZERO)
    with pytest.raises(BudgetExceeded):
        await open_call(engine, request, "0.46")
    await put(engine, limit("tenant", "", "day", "1.5"))
    await open_call(engine, request, "0.46")
    # Set anew after a time without: what was spent meanwhile counts too.
    async with transaction(engine) as connection:
        await limits.remove(connection, "default", ("tenant", "", "day"), "test")
    await close_call(engine, await open_call(engine, other, "0.2"), "0.15")
    await put(engine, limit("tenant", "", "day", "1"))
    assert (await counters(engine))["tenant", "", day] == (Decimal("0.70"), Decimal("0.46"))


async def test_no_call_slips_past_a_limit_that_is_being_set(postgres_url: str) -> None:
    engine = async_engine(postgres_url, pool_size=20)
    request = await begin(engine, asking(), user="ada")

    async def calls() -> None:
        for _ in range(40):
            try:
                call = await open_call(engine, request, "0.01")
            except (BudgetBusy, BudgetExceeded):
                continue
            await close_call(engine, call, "0.01")

    async def change() -> None:
        for number in range(12):
            await put(engine, limit("tenant", "", "day", "2"), limit("user", EACH, "day", "3"))
            if number < 11:
                async with transaction(engine) as connection:
                    await limits.remove(connection, "default", ("tenant", "", "day"), "test")
            await asyncio.sleep(0.02)

    await asyncio.gather(change(), *(calls() for _ in range(8)))
    booked = (await rows(engine, "SELECT sum(usd) FROM model_calls"))[0][0]
    found = await counters(engine)
    assert found["tenant", "", today()] == found["user", "ada", today()] == (booked, ZERO)
    await engine.dispose()


async def test_tenants_do_not_see_each_others_limits(engine: AsyncEngine) -> None:
    await put(engine, limit("tenant", "", "day", "0.1"), tenant="acme")
    request = await begin(engine, asking())
    await open_call(engine, request, "5")
    theirs = await begin(engine, asking(), tenant="acme")
    with pytest.raises(BudgetExceeded):
        await open_call(engine, theirs, "5", tenant="acme")


async def test_limits_are_listed_with_what_is_left(engine: AsyncEngine) -> None:
    wanted = [
        limit("definition", EACH, "day", "1"),
        limit("definition", "one", "day", "2", 100),
        limit("tenant", "", "total", None, 50),
    ]
    await put(engine, *wanted)
    request = await begin(engine, asking())
    await close_call(engine, await open_call(engine, request, "0.5"), "0.2")
    await open_call(engine, await begin(engine, asking("two")), "0.7")
    async with transaction(engine) as connection:
        first = await limits.page(connection, "default", limit=2)
        rest = await limits.page(connection, "default", after=first[-1].key)
        found = [(one.key, await limits.counters(connection, "default", one)) for one in [*first, *rest]]
    facts = [
        (key, [(one.subject, one.spent.usd, one.reserved.usd, one.spent.tokens) for one in counted])
        for key, counted in found
    ]
    assert facts == [
        (("definition", EACH, "day"), [("two", 0, Decimal("0.7"), 0)]),
        (("definition", "one", "day"), [("one", Decimal("0.2"), 0, 5)]),
        (("tenant", "", "total"), [("", Decimal("0.2"), Decimal("0.7"), 5)]),
    ]
    async with transaction(engine) as connection:
        with pytest.raises(NotFound):
            await limits.remove(connection, "default", ("user", "x", "day"), "test")
    audited = await rows(engine, "SELECT action, subject FROM audit_log ORDER BY id LIMIT 1")
    assert audited == [("limit.set", "definition/*/day")]


async def test_a_tenants_own_price_goes_before_ours_and_its_versions_stay(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    async with transaction(engine) as connection:
        await prices.add(connection, "default", STRONG, Decimal(1), Decimal(2), None, "test")
        await prices.add(connection, "default", STRONG, Decimal(100), Decimal(200), Decimal(50), "test")
        await prices.add(connection, "acme", STRONG, Decimal(5), Decimal(5), None, "test")
    result = await agents.agent(await begin(engine, asking()))
    usd = (Decimal(result.input_tokens) * 100 + Decimal(result.output_tokens) * 200) / 1_000_000
    assert Decimal(result.cost_usd) == usd
    sources = "SELECT price_source, input_price_usd, cached_input_price_usd, usd FROM model_calls"
    assert await rows(engine, sources) == [("tenant:default@2", 100, 50, usd)]


async def test_a_model_without_a_price_is_asked_once_the_tenant_has_set_one(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    definition = asking()
    definition["agents"]["a"]["model"] = "openai/never-heard-of"
    with pytest.raises(FacilitairError, match="facilitair prices set openai/never-heard-of --in") as caught:
        await agents.agent(await begin(engine, definition))
    assert caught.value.code == "price_missing"
    async with transaction(engine) as connection:
        await prices.add(connection, "default", "openai/never-heard-of", Decimal(1), Decimal(2), None, "test")
    assert Decimal((await agents.agent(await begin(engine, definition))).cost_usd) > 0


async def test_what_was_spent_is_summed_by_whatever_one_asks(
    engine: AsyncEngine, agents: AgentActivity
) -> None:
    first = await begin(engine, asking("outer"), user="ada")
    for request in (first, await begin(engine, asking("inner"), parent=first)):
        await agents.agent(request)
    await open_call(engine, first, "0.5")
    now = datetime.now(UTC)
    span = ReportPeriod("default", now - timedelta(hours=1), now + timedelta(hours=1))
    usd = (await rows(engine, "SELECT sum(usd) FROM model_calls"))[0][0]
    async with transaction(engine) as connection:
        total = await report.total(connection, span)
        assert (total.calls, total.open_calls, total.usd, total.open_usd) == (3, 1, usd, ZERO)
        assert total.simulated and total.simulated_usd == usd
        names = {by: [one.name for one in await report.page(connection, span, by)] for by in report.BYS}
        days = await report.page(connection, span, "day")
        runs = await report.page(connection, span, "run", limit=1)
        rest = await report.page(connection, span, "run", after=(runs[0].usd, runs[0].name))
        others = ReportPeriod("acme", span.since, span.until)
        assert (await report.total(connection, others)).calls == 0
    assert names["agent"] == ["a"]
    assert names["model"] == [STRONG]
    assert sorted(names["definition"]) == ["inner", "outer"]
    assert (names["user"], names["tenant"], names["provider"]) == (["ada"], ["default"], ["simulator"])
    assert [one.name for one in [*runs, *rest]] == names["run"]
    assert names["run"] and all(name.startswith("wf-") for name in names["run"])
    assert [(one.name, one.usd) for one in days] == [(now.strftime("%Y-%m-%d"), usd)]
