"""Routes about money: spending, limits and prices."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from api.http import cursors
from api.http.bodies import body_of, read_json
from api.http.problems import BadRequest, errors
from api.http.shapes import Moment
from api.money.models import (
    MODEL,
    LimitKey,
    LimitPage,
    LimitRequest,
    ModelPrice,
    NamedSum,
    PricePage,
    PriceRequest,
    PriceVersion,
    SetLimit,
    SpendingReport,
    SumFact,
    limit_fact,
)
from api.money.prices import price_list
from api.state import Actor, Connection, StateOf, Tenant
from db.definitions import definitions
from db.money import limits, prices
from db.money import report as money_report
from db.money.limits import EACH, SpendingLimit
from db.money.prices import TenantPrice
from db.money.report import By, CallTotals, ReportPeriod
from schema.errors import NotFound, Problem, Refused

router = APIRouter(tags=["spending"])

_SPAN: Final = timedelta(days=30)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)

PageSize = Annotated[int, Query(ge=1, le=200)]
Model = Annotated[str, Path(pattern=MODEL, max_length=200, examples=["openai/gpt-4o-mini"])]


@router.get("/spending", responses=errors())
async def report(
    connection: Connection,
    tenant: Tenant,
    by: Annotated[By, Query(description="What to sum by.")] = "model",
    since: Annotated[Moment | None, Query(description="Absent: 30 days before `until`.")] = None,
    until: Annotated[Moment | None, Query(description="Absent: now. Without a zone UTC is meant.")] = None,
    after: Annotated[str | None, cursors.query(cursors.USD_AND_NAME, max_length=2_000)] = None,
    limit: PageSize = 50,
) -> SpendingReport:
    """Return totals of the calls that began in a period."""
    span = _span(tenant, since, until)
    place = cursors.usd_and_name(after) if after else None
    total = await money_report.total(connection, span)
    found = await money_report.page(connection, span, by, after=place, limit=limit + 1)
    page = found[:limit]
    more = cursors.encode(f"{page[-1].usd:.6f}", page[-1].name) if len(found) > limit else None
    return SpendingReport(
        since=span.since,
        until=span.until,
        by=by,
        total=_sum(total),
        items=[NamedSum(name=one.name, **_sum(one).model_dump()) for one in page],
        next=more,
    )


def _span(tenant: str, since: datetime | None, until: datetime | None) -> ReportPeriod:
    end = _utc(until or datetime.now(UTC))
    begin = _utc(since) if since else max(end - _SPAN, _EARLIEST) if end > _EARLIEST else end
    if begin >= end:
        found = f"since {begin.isoformat()} and until {end.isoformat()}"
        fix = "Let `since` be the earlier one; `until` is now where it is left out."
        problem = Problem("request_invalid", "/query/since", found, "a moment before `until`", fix)
        raise BadRequest("request_invalid", problem.message, [problem])
    return ReportPeriod(tenant, begin, end)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _sum(found: CallTotals) -> SumFact:
    facts = asdict(found)
    del facts["name"]
    return SumFact(**facts, billed_usd=float(found.usd - found.simulated_usd))


@router.get("/limits", responses=errors())
async def list_limits(
    connection: Connection,
    tenant: Tenant,
    after: Annotated[str | None, cursors.query(cursors.LIMIT_KEY, max_length=2_000)] = None,
    limit: PageSize = 50,
) -> LimitPage:
    """The limits of the tenant, its users and its definitions, and what is spent and reserved of them now."""
    place = cursors.limit_key(after) if after else None
    found = await limits.page(connection, tenant, after=place, limit=limit + 1)
    page = found[:limit]
    more = None
    if len(found) > limit:
        scope, subject, period = page[-1].key
        more = cursors.encode(scope, period, subject)
    return LimitPage(
        items=[limit_fact(one, await limits.counters(connection, tenant, one)) for one in page], next=more
    )


@router.put("/limits", openapi_extra=body_of(LimitRequest), responses=errors(413, 415))
async def set_limit(request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> SetLimit:
    """Set what may be spent by day, by month or for ever. It holds from the next call on; what its period saw
    before counts."""
    wanted = await read_json(request, state, LimitRequest)
    limit = SpendingLimit(wanted.scope, wanted.subject, wanted.period, wanted.usd, wanted.tokens)
    async with state.transaction() as connection:
        stored = await limits.put(connection, tenant, limit, actor)
    # Apart from that: while it is set, calls wait.
    async with state.transaction() as connection:
        counters = await limits.counters(connection, tenant, stored)
        warnings = await _warnings(connection, tenant, stored)
    return SetLimit(**limit_fact(stored, counters).model_dump(), warnings=warnings)


async def _warnings(connection: AsyncConnection, tenant: str, limit: SpendingLimit) -> list[str]:
    if limit.scope != "definition" or limit.subject == EACH:
        return []
    try:
        await definitions.find(connection, tenant, limit.subject)
    except NotFound:
        return [f"found no definition {limit.subject!r}: the limit holds once there is one of that name"]
    except Refused:  # deprecated, but there
        pass
    return []


@router.delete("/limits", status_code=204, responses=errors(404))
async def remove_limit(
    key: Annotated[LimitKey, Query()], connection: Connection, tenant: Tenant, actor: Actor
) -> None:
    """Remove a limit. Where `*` has one for the period, that holds again."""
    await limits.remove(connection, tenant, (key.scope, key.subject, key.period), actor)


@router.get("/prices", responses=errors())
async def list_prices(
    connection: Connection,
    tenant: Tenant,
    after: Annotated[str, Query(pattern=f"{MODEL}|^$", description="The `next` of the page before.")] = "",
    limit: PageSize = 50,
) -> PricePage:
    """The tenant's own prices, which go before all others, in the order of models."""
    found = await prices.page(connection, tenant, after=after, limit=limit + 1)
    page = found[:limit]
    return PricePage(items=[_price(one) for one in page], next=page[-1].model if len(found) > limit else None)


@router.get("/prices/{model:path}", responses=errors(404))
async def read_price(model: Model, state: StateOf, tenant: Tenant) -> ModelPrice:
    """Return a model's current price, its source, and the tenant's own versions."""
    async with state.transaction() as connection:
        known = await price_list(state, connection, tenant)
        own = await prices.versions_of(connection, tenant, known.answering(model))
    fact = await asyncio.get_running_loop().run_in_executor(state.checking, known.fact, model)
    return ModelPrice(**fact.model_dump(), versions=[_price(one) for one in own])


@router.put("/prices/{model:path}", openapi_extra=body_of(PriceRequest), responses=errors(404, 413, 415))
async def set_price(
    model: Model, request: Request, state: StateOf, tenant: Tenant, actor: Actor
) -> PriceVersion:
    """Add a version, which holds from the next call on. What was called before keeps the price it had."""
    wanted = await read_json(request, state, PriceRequest)
    async with state.transaction() as connection:
        added = await prices.add(
            connection, tenant, model, wanted.input_usd, wanted.output_usd, wanted.cached_input_usd, actor
        )
    return _price(added)


def _price(found: TenantPrice) -> PriceVersion:
    return PriceVersion(**asdict(found))
