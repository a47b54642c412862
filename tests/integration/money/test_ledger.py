"""Every call is booked once, whatever becomes of its worker: what the provider counted, to a micro-dollar."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from activities.upkeep.reconcile import Reconciler
from db.engine import transaction
from db.money import ledger, lost_calls
from db.money.ledger import Tokens
from db.runs import executions
from db.runs.executions import Assignment
from gateway.client import Gateway
from gateway.prices import PRICES
from gateway.request import Completion, Usage
from schema.errors import FacilitairError, ProviderError
from schema.temporal.steps import StepRequest
from schema.temporal.upkeep import ReconcilePass
from tests.support.providers import only_simulated
from tests.support.runs import attempts, begin, rows

MODEL = "openai/gpt-4"
PRICE = PRICES[MODEL]


def asking(budget: dict[str, Any] | None = None, **step: Any) -> dict[str, Any]:
    agent = {"model": MODEL, "max_output_tokens": 100}
    asked = {"kind": "agent", "agent": "a", "prompt": "Add 1 and 2."} | step
    definition = {"agents": {"a": agent}, "steps": {"ask": asked}}
    return definition | ({"budget": budget} if budget else {})


@pytest.fixture
async def reconcilers(engine: AsyncEngine, simulator_url: str) -> AsyncIterator[Callable[..., Reconciler]]:
    gateway = Gateway(only_simulated(simulator_url))
    yield lambda **more: Reconciler(engine, gateway, **more)
    await gateway.close()


@pytest.fixture
def reconciler(reconcilers: Callable[..., Reconciler]) -> Reconciler:
    return reconcilers()


async def faults(control: httpx.AsyncClient, *rules: dict[str, Any]) -> None:
    (await control.post("/_simulator/faults", json=list(rules))).raise_for_status()


async def counted(control: httpx.AsyncClient) -> dict[str, tuple[str, Decimal]]:
    """The provider's own books: our name for a call → how it ended, what it comes to."""
    page = (await control.get("/_simulator/calls")).json()["recent"]
    return {
        one["request_id"]: (one["outcome"], PRICE.cost_usd(one["input_tokens"], one["output_tokens"]))
        for one in page
    }


async def booked(engine: AsyncEngine) -> dict[str, tuple[str, str | None, Decimal]]:
    found = await rows(engine, "SELECT id::text, state, basis, usd FROM model_calls ORDER BY opened_at")
    return {row[0]: row[1:] for row in found}


async def standing(engine: AsyncEngine, request: StepRequest) -> tuple[Any, ...]:
    """(spent, reserved) of the run's budget."""
    query = "SELECT spent_usd, reserved_usd FROM spending WHERE subject = :run"
    return (await rows(engine, query, run=request.collaboration))[0]


async def costs(engine: AsyncEngine, request: StepRequest) -> list[Decimal | None]:
    query = "SELECT cost_usd FROM agent_executions WHERE collaboration_id = :run ORDER BY attempt"
    return [row[0] for row in await rows(engine, query, run=request.collaboration)]


async def begun(control: httpx.AsyncClient, count: int = 1) -> None:
    """Wait until the provider has so many calls."""
    while (await control.get("/_simulator/calls")).json()["total"]["calls"] < count:
        await asyncio.sleep(0.01)


async def over(control: httpx.AsyncClient) -> None:
    """Wait until the provider has noticed that nobody listens any more."""
    while (await control.get("/_simulator/calls")).json()["total"]["open"]:
        await asyncio.sleep(0.01)


async def test_a_call_is_booked_by_its_name_and_with_its_price(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking(), user="ada")
    await agents.agent(request)
    ((call, (outcome, usd)),) = (await counted(control)).items()
    assert outcome == "finished"
    assert await booked(engine) == {call: ("settled", "usage", usd)}
    told = "SELECT definition, requested_by, agent_name, path, model, price_source, reserved_usd, simulated"
    assert await rows(engine, f"{told} FROM model_calls") == [
        ("one", "ada", "a", "ask", MODEL, "facilitair:2026-11-21", None, True)
    ]


async def test_what_a_provider_refused_is_given_back(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking({"usd": 1.0}))
    await faults(control, {"kind": "rate_limit"})
    with pytest.raises(ProviderError):
        await agents.agent(request)
    assert [one[:2] for one in (await booked(engine)).values()] == [("refunded", None)]
    assert await standing(engine, request) == (0, 0)


@pytest.mark.parametrize("fault", ["drop_mid_stream", "end_early"])
async def test_what_a_cut_answer_came_to_is_asked_at_once(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient, fault: str
) -> None:
    request = await begin(engine, asking({"usd": 1.0}))
    await faults(control, {"kind": fault, "after_tokens": 5})
    with pytest.raises(ProviderError):
        await agents.agent(request)
    ((call, (outcome, usd)),) = (await counted(control)).items()
    assert outcome == "broken"
    assert usd > 0
    assert await booked(engine) == {call: ("settled", "asked", usd)}
    assert await standing(engine, request) == (usd, 0)
    assert await costs(engine, request) == [usd]


async def test_a_cancelled_call_stays_reserved_until_it_is_known(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient, reconciler: Reconciler
) -> None:
    request = await begin(engine, asking({"usd": 1.0}))
    await faults(control, {"kind": "timeout", "after_tokens": 3})
    working = asyncio.create_task(agents.agent(request))
    await begun(control)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    spent, reserved = await standing(engine, request)
    assert (spent, reserved > 0) == (0, True)
    await over(control)
    assert await reconciler.all_lost() == ReconcilePass(1, 0, 0, 0)
    ((call, (_, usd)),) = (await counted(control)).items()
    assert await booked(engine) == {call: ("settled", "asked", usd)}
    assert await standing(engine, request) == (usd, 0)
    assert await costs(engine, request) == [usd]
    assert await reconciler.all_lost() == ReconcilePass(0, 0, 0, 0)


async def test_the_call_of_a_worker_that_died_is_booked_when_another_takes_over(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient, reconciler: Reconciler
) -> None:
    request = await begin(engine, asking({"usd": 1.0}))
    await faults(control, {"kind": "timeout", "after_tokens": 3})
    working = asyncio.create_task(agents.agent(request))
    await begun(control)
    # While its execution runs, it is nobody else's affair.
    assert await reconciler.all_lost() == ReconcilePass(0, 0, 0, 0)
    async with transaction(engine) as connection:
        await executions.claim(connection, request, Assignment("agent", "a"))
    # Still running for all that the provider knows.
    assert await reconciler.all_lost() == ReconcilePass(0, 0, 0, 1)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await over(control)
    passes = await asyncio.gather(reconciler.all_lost(), reconciler.all_lost(), reconciler.all_lost())
    assert sum(one.settled for one in passes) == 1
    ((_, (_, usd)),) = (await counted(control)).items()
    assert await standing(engine, request) == (usd, 0)


async def test_a_lost_call_that_is_in_the_way_is_asked_for_without_waiting_for_the_schedule(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking({"usd": 0.014}))
    await faults(control, {"kind": "timeout", "after_tokens": 3})
    working = asyncio.create_task(agents.agent(request))
    await begun(control)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert (await agents.agent(request)).status == "completed"
    spent = sum(usd for _, usd in (await counted(control)).values())
    assert await standing(engine, request) == (spent, 0)


async def lost(engine: AsyncEngine, request: StepRequest, **changes: str) -> UUID:
    """A call that was opened and never made, by a worker that died some minutes ago."""
    async with transaction(engine) as connection:
        execution = (await executions.claim(connection, request, Assignment("agent", "a"))).execution
    account = Gateway(only_simulated("http://127.0.0.1:9")).destination(MODEL).account
    values = {
        "account": f"'{account}'",
        "state": "'open'",
        "response_id": "NULL",
        "reserved_usd": "0.5",
        "reserved_tokens": "1100",
        "ends_by": "now() - interval '6 minutes'",
    } | changes
    query = f"""
        INSERT INTO model_calls (id, collaboration_id, execution_id, model, provider, price_source,
            input_price_usd, output_price_usd, most_input_tokens, {", ".join(values)})
        VALUES ('{execution}', '{request.collaboration}', '{execution}', '{MODEL}', 'simulator', 'test:1',
            30, 60, 100, {", ".join(values.values())})
    """
    async with engine.begin() as connection:
        await connection.exec_driver_sql(query)
        await connection.exec_driver_sql("UPDATE agent_executions SET status = 'abandoned'")
    return execution


async def test_a_call_that_never_arrived_is_given_back_after_a_while(
    engine: AsyncEngine, simulator_url: str, reconciler: Reconciler
) -> None:
    account = Gateway(only_simulated(simulator_url)).destination(MODEL).account
    at = {"account": f"'{account}'"}
    young = await lost(engine, await begin(engine, asking()), **at, ends_by="now() - interval '4 minutes'")
    old = await lost(engine, await begin(engine, asking()), **at)
    heard = await lost(engine, await begin(engine, asking()), **at, response_id="'chatcmpl-gone'")
    assert await reconciler.all_lost() == ReconcilePass(settled=0, assumed=1, refunded=1, left=1)
    assert await booked(engine) == {
        str(young): ("open", None, 0),
        str(old): ("refunded", "asked", 0),
        # It did arrive: the answer had begun.
        str(heard): ("settled", "assumed", Decimal("0.5")),
    }


async def test_a_provider_that_does_not_answer_says_nothing(engine: AsyncEngine) -> None:
    gateway = Gateway(only_simulated("http://127.0.0.1:9"))
    await lost(engine, await begin(engine, asking()))
    assert await Reconciler(engine, gateway).all_lost() == ReconcilePass(0, 0, 0, 1)
    await gateway.close()


async def test_where_nobody_can_tell_the_most_is_assumed(
    engine: AsyncEngine, reconciler: Reconciler, tokens: TokenLog
) -> None:
    elsewhere = {"account": "'openai:abc'"}
    request = await begin(engine, asking())
    bounded = await lost(engine, request, **elsewhere)
    free = {"reserved_usd": "NULL", "reserved_tokens": "NULL"}
    other = await begin(engine, asking())
    unbounded = await lost(engine, other, **elsewhere, **free)
    await tokens.append("default", other.collaboration, unbounded, 0, "zwölf", [])
    await tokens.flush()
    alive = await lost(
        engine, await begin(engine, asking()), **elsewhere, ends_by="now() + interval '1 minute'"
    )
    assert await reconciler.all_lost() == ReconcilePass(settled=0, assumed=2, refunded=0, left=1)
    # 100 tokens in; of the second one six bytes had been read.
    assert await booked(engine) == {
        str(bounded): ("settled", "assumed", Decimal("0.5")),
        str(unbounded): ("settled", "assumed", Decimal("0.00336")),
        str(alive): ("open", None, 0),
    }
    paid = "SELECT input_tokens, output_tokens, cost_usd FROM agent_executions WHERE id = :id"
    assert await rows(engine, paid, id=bounded) == [(100, 1000, Decimal("0.5"))]
    assert await rows(engine, paid, id=unbounded) == [(100, 6, Decimal("0.00336"))]


def completion(usd: str) -> Completion:
    return Completion("", MODEL, Usage(10, 5), Decimal(usd), "stop", True, "simulator", "r", None)


async def test_nothing_is_booked_twice_and_what_is_known_goes_before_what_was_assumed(
    engine: AsyncEngine, reconciler: Reconciler, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking({"usd": 5.0}))
    await faults(control, {"kind": "timeout"})
    working = asyncio.create_task(agents.agent(request))
    await begun(control)
    ((id, _),) = (await booked(engine)).items()
    call = UUID(id)
    async with transaction(engine) as connection:
        assert await ledger.settle_later(connection, call, "assumed", Tokens(100, 100), Decimal("0.5"))
    assert await standing(engine, request) == (Decimal("0.5"), 0)
    async with transaction(engine) as connection:
        assert not await ledger.settle_later(connection, call, "assumed", Tokens(1, 1), Decimal("0.4"))
        assert not await ledger.refund(connection, call)
        assert not await ledger.fail(connection, call, ProviderError("provider_auth", "", retryable=False))
    # The worker was alive after all.
    async with transaction(engine) as connection:
        assert await ledger.settle(connection, call, completion("0.2"))
        assert not await ledger.settle(connection, call, completion("0.3"))
        assert not await ledger.settle_later(connection, call, "asked", Tokens(1, 1), Decimal("0.4"))
    assert await standing(engine, request) == (Decimal("0.2"), 0)
    assert await booked(engine) == {id: ("settled", "usage", Decimal("0.2"))}
    assert await rows(engine, "SELECT * FROM reservations") == []
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert await standing(engine, request) == (Decimal("0.2"), 0)


async def test_a_call_that_was_taken_for_one_that_never_arrived_is_booked_when_it_ends(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await begin(engine, asking({"usd": 5.0}))
    await faults(control, {"kind": "timeout"})
    working = asyncio.create_task(agents.agent(request))
    await begun(control)
    ((id, _),) = (await booked(engine)).items()
    async with transaction(engine) as connection:
        assert await ledger.refund_lost(connection, UUID(id))
    assert await standing(engine, request) == (0, 0)
    async with transaction(engine) as connection:
        assert await ledger.settle(connection, UUID(id), completion("0.2"))
    assert await standing(engine, request) == (Decimal("0.2"), 0)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_settling_many_ways_at_once_books_one(engine: AsyncEngine) -> None:
    request = await begin(engine, asking({"usd": 5.0}))
    call = await lost(engine, request, reserved_usd="0.5")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE spending SET reserved_usd = 0.5, reserved_tokens = 1100")
        await connection.exec_driver_sql(
            "INSERT INTO reservations SELECT id, tenant_id, 'run', collaboration_id::text, '', 0.5, 1100"
            " FROM model_calls"
        )

    async def one(number: int) -> bool:
        async with transaction(engine) as connection:
            match number % 4:
                case 0:
                    return await ledger.settle(connection, call, completion("0.25"))
                case 1:
                    return await ledger.settle_later(connection, call, "asked", Tokens(9, 9), Decimal("0.25"))
                case 2:
                    return await ledger.settle_later(connection, call, "assumed", Tokens(), Decimal("0.4"))
                case _:
                    return await ledger.refund_lost(connection, call)

    await asyncio.gather(*(one(number) for number in range(40)))
    ((_, (state, basis, usd)),) = (await booked(engine)).items()
    assert (state, usd) == ("settled", Decimal("0.25")) or (state, basis) == ("refunded", "asked")
    assert await standing(engine, request) == (usd, 0)


async def test_a_call_before_midnight_is_settled_in_its_own_day(
    engine: AsyncEngine, agents: AgentActivity, control: httpx.AsyncClient
) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO spending_limits (scope, subject, period, limit_usd) VALUES ('tenant', '', 'day', 5)"
        )
    request = await begin(engine, asking())
    await faults(control, {"kind": "slow", "delay_seconds": 0.3})
    working = asyncio.create_task(agents.agent(request))
    await begun(control)
    async with engine.begin() as connection:
        for table in ("spending", "reservations"):
            await connection.exec_driver_sql(f"UPDATE {table} SET period = '2026-01-31'")
    usd = Decimal((await working).cost_usd)
    days = "SELECT period, spent_usd, reserved_usd FROM spending"
    assert await rows(engine, days) == [("2026-01-31", usd, 0)]


async def test_a_call_that_may_not_be_made_is_not_booked(engine: AsyncEngine, agents: AgentActivity) -> None:
    request = await begin(engine, asking({"tokens": 10}))
    with pytest.raises(FacilitairError):
        await agents.agent(request)
    assert await booked(engine) == {}
    assert await attempts(engine, request) == [(1, "failed", "budget_exceeded", False)]


async def test_pages_of_lost_calls_follow_each_other(engine: AsyncEngine) -> None:
    calls = [await lost(engine, await begin(engine, asking())) for _ in range(5)]
    found: list[UUID] = []
    behind = None
    async with transaction(engine) as connection:
        while page := await lost_calls.oldest(connection, 2, behind):
            found += [one.id for one in page]
            behind = page[-1]
    assert found == calls
