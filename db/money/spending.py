"""Budgets of runs and steps: reserve, refuse, and say which limit stands in the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.errors import StepError, Unavailable
from schema.language.definition import Budget
from schema.tables.money import spending as table

_MICRO_DOLLAR: Final = Decimal("0.000001")

Scope = Literal["tenant", "user", "definition", "run", "step"]


@dataclass(frozen=True)
class Amount:
    usd: Decimal = Decimal(0)
    tokens: int = 0


NOTHING: Final = Amount()


@dataclass(frozen=True)
class LimitState:
    """A limit that holds for a call, and what is left of it."""

    scope: Scope
    subject: str
    period: str
    own: bool
    """For a run's budget: whether the call is the run's own rather than a nested run's."""
    limit_usd: Decimal | None
    limit_tokens: int | None
    spent: Amount
    reserved: Amount

    @property
    def whose(self) -> str:
        """For people, at the beginning of a sentence about money."""
        match self.scope:
            case "run":
                return "the budget" if self.own else "the budget of a run around this one"
            case "step":
                return f"the budget of step {self.subject.partition('/')[2]}"
        span = {0: "the limit", 7: "the month's limit", 10: "the day's limit"}[len(self.period)]
        of = "the tenant" if self.scope == "tenant" else f"{self.scope} {self.subject}"
        return f"{span} of {of}"


class BudgetExceeded(StepError):
    """A call could cost more than is left, whatever becomes of the calls under way."""

    def __init__(self, message: str, standing: LimitState) -> None:
        super().__init__("budget_exceeded", message)
        self.standing = standing

    @property
    def collaboration(self) -> UUID | None:
        """Return the run that owns the budget: this run, or one around it. None if no run does."""
        return UUID(self.standing.subject) if self.standing.scope == "run" else None

    @property
    def askable(self) -> bool:
        """Tell whether more money from the run's people would help."""
        return self.standing.scope == "run" and self.standing.own


class BudgetBusy(Unavailable):
    """A call would fit if the calls under way cost less than their worst case, which most of them do."""

    def __init__(self, message: str, standing: LimitState) -> None:
        super().__init__("budget_busy", message)
        self.standing = standing


async def open(connection: AsyncConnection, collaboration: UUID, tenant: str, budget: Budget) -> None:
    """Give a run its budget of dollars and tokens. Doing it again changes nothing."""
    if budget.usd is None and budget.tokens is None:
        return
    await connection.execute(
        upsert(table)
        .values(
            scope="run",
            subject=str(collaboration),
            tenant_id=tenant,
            limit_usd=to_usd(budget.usd),
            limit_tokens=budget.tokens,
        )
        .on_conflict_do_nothing()
    )


async def grant(connection: AsyncConnection, collaboration: UUID, more: Amount) -> None:
    """Raise the limits of a run's budget, as far as it has them."""
    await connection.execute(
        update(table)
        .where(table.c.scope == "run", table.c.subject == str(collaboration))
        .values(limit_usd=table.c.limit_usd + more.usd, limit_tokens=table.c.limit_tokens + more.tokens)
    )


async def count_from_now(connection: AsyncConnection, tenant: str, standings: Sequence[LimitState]) -> None:
    """Make the counters that no call has needed yet."""
    # In the order in which calls lock them, so that two who do this never wait for each other in a circle.
    ordered = sorted(standings, key=lambda one: (one.scope, one.subject, one.period))
    for one in ordered:
        step = one.scope == "step"
        await connection.execute(
            upsert(table)
            .values(
                tenant_id=tenant,
                scope=one.scope,
                subject=one.subject,
                period=one.period,
                limit_usd=one.limit_usd if step else None,
                limit_tokens=one.limit_tokens if step else None,
            )
            .on_conflict_do_nothing()
        )


def to_usd(value: float | None) -> Decimal | None:
    """Dollars as a person wrote them, to the micro-dollar."""
    return None if value is None else Decimal(str(value)).quantize(_MICRO_DOLLAR)


@dataclass(frozen=True)
class _Short:
    """The unit in which a call does not fit, told for people."""

    limit: str
    spent: str
    reserved: str
    needed: str
    hopeless: bool
    """It would not fit either if nothing were reserved."""


def refusal(standings: Sequence[LimitState], worst: Amount) -> BudgetExceeded | BudgetBusy | None:
    """Return why a call may not be made, preferring a hopeless limit to a temporary one; None if it fits."""
    found = [(one, short) for one in standings if (short := _short(one, worst))]
    if not found:
        return None
    standing, short = next(((one, short) for one, short in found if short.hopeless), found[0])
    message = (
        f"found that {standing.whose} allows {short.limit}, of which {short.spent} are spent and "
        f"{short.reserved} reserved by calls under way; expected room for {short.needed}, the most that "
        "this call can cost. "
    )
    if not short.hopeless:
        return BudgetBusy(message + "It is tried again when those have ended.", standing)
    of_definition = standing.scope in ("run", "step")
    more = "Raise the budget" if of_definition else "Raise the limit by `facilitair limits set`"
    return BudgetExceeded(
        f"{message}{more}, shorten the prompt, or lower the agent's max_output_tokens.", standing
    )


def _short(one: LimitState, worst: Amount) -> _Short | None:
    """Return where a call exceeds a budget, preferring a hopeless excess to a temporary one; None if
    it fits."""
    units = (
        ("${:.6f}", one.limit_usd, one.spent.usd, one.reserved.usd, worst.usd),
        ("{:,} tokens", one.limit_tokens, one.spent.tokens, one.reserved.tokens, worst.tokens),
    )
    short = [
        _Short(
            limit=form.format(limit),
            spent=form.format(spent),
            reserved=form.format(reserved),
            needed=form.format(needed),
            hopeless=spent + needed > limit,
        )
        for form, limit, spent, reserved, needed in units
        if limit is not None and spent + reserved + needed > limit
    ]
    return next((one for one in short if one.hopeless), short[0] if short else None)
