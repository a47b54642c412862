"""Budgets: what runs may spend. Reserved before a call, settled after it.

A call spends from the budget of its own run and from those of all runs around it. Their rows are locked
together, from the outermost inwards, so two calls never wait for each other in a circle, and no two can
both take what is left. Where no run has a budget, nothing is locked.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.definition import Budget
from schema.errors import StepError, Unavailable
from schema.messages import StepRequest
from schema.tables import agent_executions as executions
from schema.tables import budgets, collaborations, reservations

_MICRO_DOLLAR = Decimal("0.000001")


@dataclass(frozen=True)
class Amount:
    usd: Decimal = Decimal(0)
    tokens: int = 0


NOTHING = Amount()


class BudgetExceeded(StepError):
    """A call could cost more than is left, whatever becomes of the calls under way."""

    def __init__(self, message: str, collaboration: UUID) -> None:
        super().__init__("budget_exceeded", message)
        self.collaboration = collaboration
        """Whose budget it is: the run's own, or that of a run around it."""


class BudgetBusy(Unavailable):
    """A call would fit if the calls under way cost less than their worst case, which most of them do."""


async def open(connection: AsyncConnection, collaboration: UUID, tenant: str, budget: Budget) -> None:
    """Give a run its budget of dollars and tokens. Doing it again changes nothing."""
    if budget.usd is None and budget.tokens is None:
        return
    usd = None if budget.usd is None else Decimal(str(budget.usd)).quantize(_MICRO_DOLLAR)
    await connection.execute(
        upsert(budgets)
        .values(collaboration_id=collaboration, tenant_id=tenant, limit_usd=usd, limit_tokens=budget.tokens)
        .on_conflict_do_nothing()
    )


async def grant(connection: AsyncConnection, collaboration: UUID, more: Amount) -> None:
    """Raise the limits of a run's budget, as far as it has them."""
    await connection.execute(
        update(budgets)
        .where(budgets.c.collaboration_id == collaboration)
        .values(limit_usd=budgets.c.limit_usd + more.usd, limit_tokens=budgets.c.limit_tokens + more.tokens)
    )


async def bounded(connection: AsyncConnection, collaboration: UUID) -> bool:
    """Whether the run or one around it has a budget."""
    return (await connection.execute(_chain(collaboration).limit(1))).first() is not None


async def reserve(connection: AsyncConnection, collaboration: UUID, execution: UUID, worst: Amount) -> None:
    """Set aside the worst case of a call; raises BudgetExceeded or BudgetBusy, and then nothing is."""
    found = await _locked(connection, collaboration)
    for row in found:
        if _short(row, worst) and (short := _short(swept := await _swept(connection, row), worst)):
            raise _refusal(swept, short, own=row.collaboration_id == collaboration)
    if not found:
        return
    ids = [row.collaboration_id for row in found]
    await connection.execute(
        update(budgets)
        .where(budgets.c.collaboration_id.in_(ids))
        .values(
            reserved_usd=budgets.c.reserved_usd + worst.usd,
            reserved_tokens=budgets.c.reserved_tokens + worst.tokens,
        )
    )
    await connection.execute(
        insert(reservations),
        [
            {"execution_id": execution, "collaboration_id": id, "usd": worst.usd, "tokens": worst.tokens}
            for id in ids
        ],
    )


async def settle(connection: AsyncConnection, collaboration: UUID, execution: UUID, spent: Amount) -> None:
    """Give an execution's reservation back and book what it came to; once per execution.

    What was spent is booked also where the reservation is gone: of an attempt that was given up and went on.
    """
    found = await _locked(connection, collaboration)
    if not found:
        return
    gone = (
        delete(reservations)
        .where(reservations.c.execution_id == execution)
        .returning(reservations.c.collaboration_id, reservations.c.usd, reservations.c.tokens)
        .cte("gone")
    )

    def released(column: Any) -> Any:
        mine = select(func.sum(column)).where(gone.c.collaboration_id == budgets.c.collaboration_id)
        return func.coalesce(mine.scalar_subquery(), 0)

    await connection.execute(
        update(budgets)
        .where(budgets.c.collaboration_id.in_([row.collaboration_id for row in found]))
        .values(
            spent_usd=budgets.c.spent_usd + spent.usd,
            spent_tokens=budgets.c.spent_tokens + spent.tokens,
            reserved_usd=budgets.c.reserved_usd - released(gone.c.usd),
            reserved_tokens=budgets.c.reserved_tokens - released(gone.c.tokens),
        )
    )


async def release_abandoned(connection: AsyncConnection, request: StepRequest) -> None:
    """Give back what earlier attempts at a step left behind when their worker died."""
    left = await connection.execute(
        select(reservations.c.execution_id)
        .distinct()
        .join(executions, executions.c.id == reservations.c.execution_id)
        .where(
            executions.c.collaboration_id == UUID(request.collaboration),
            executions.c.path == request.path,
            executions.c.status != "running",
        )
    )
    for execution in left.scalars().all():
        await settle(connection, UUID(request.collaboration), execution, NOTHING)


def _chain(collaboration: UUID) -> Select[Any]:
    """The budgets of a run and of all runs around it, the outermost first."""
    lineage = (
        select(collaborations.c.id, collaborations.c.parent_id, literal(0).label("depth"))
        .where(collaborations.c.id == collaboration)
        .cte("lineage", recursive=True)
    )
    lineage = lineage.union_all(
        select(collaborations.c.id, collaborations.c.parent_id, lineage.c.depth + 1).join(
            lineage, lineage.c.parent_id == collaborations.c.id
        )
    )
    return (
        select(budgets)
        .join(lineage, lineage.c.id == budgets.c.collaboration_id)
        .order_by(lineage.c.depth.desc())
    )


async def _locked(connection: AsyncConnection, collaboration: UUID) -> list[Row[Any]]:
    # Postgres locks rows in the order in which it returns them.
    return list(await connection.execute(_chain(collaboration).with_for_update(of=budgets)))


@dataclass(frozen=True)
class _Short:
    """The unit in which a call does not fit, told for people."""

    limit: str
    spent: str
    reserved: str
    needed: str
    hopeless: bool
    """It would not fit either if nothing were reserved."""


def _short(row: Row[Any], worst: Amount) -> _Short | None:
    """Where a call does not fit into a budget; rather where it is hopeless than where it is not."""
    units = (
        ("${:.6f}", row.limit_usd, row.spent_usd, row.reserved_usd, worst.usd),
        ("{:,} tokens", row.limit_tokens, row.spent_tokens, row.reserved_tokens, worst.tokens),
    )
    short = [
        _Short(
            limit=form.format(limit), spent=form.format(spent), reserved=form.format(reserved),
            needed=form.format(needed), hopeless=spent + needed > limit,
        )
        for form, limit, spent, reserved, needed in units
        if limit is not None and spent + reserved + needed > limit
    ]  # fmt: skip
    return next((one for one in short if one.hopeless), short[0] if short else None)


async def _swept(connection: AsyncConnection, row: Row[Any]) -> Row[Any]:
    """The budget without reservations whose execution or run has ended: nobody is left to settle them."""
    alive = (
        select(executions.c.id)
        .join(collaborations, collaborations.c.id == executions.c.collaboration_id)
        .where(
            executions.c.id == reservations.c.execution_id,
            executions.c.status == "running",
            collaborations.c.status == "running",
        )
    )
    gone = (
        delete(reservations)
        .where(reservations.c.collaboration_id == row.collaboration_id, ~alive.exists())
        .returning(reservations.c.usd, reservations.c.tokens)
        .cte("gone")
    )
    usd, tokens = (
        func.coalesce(select(func.sum(column)).scalar_subquery(), 0) for column in (gone.c.usd, gone.c.tokens)
    )
    swept: Row[Any] = (
        await connection.execute(
            update(budgets)
            .where(budgets.c.collaboration_id == row.collaboration_id)
            .values(
                reserved_usd=budgets.c.reserved_usd - usd, reserved_tokens=budgets.c.reserved_tokens - tokens
            )
            .returning(budgets)
        )
    ).one()
    return swept


def _refusal(row: Row[Any], short: _Short, *, own: bool) -> BudgetExceeded | BudgetBusy:
    whose = "the budget" if own else "the budget of a run around this one"
    message = (
        f"found that {whose} allows {short.limit}, of which {short.spent} are spent and {short.reserved} "
        f"reserved by calls under way; expected room for {short.needed}, the most that this call can cost. "
    )
    if short.hopeless:
        fix = "Raise the budget, shorten the prompt, or lower the agent's max_output_tokens."
        return BudgetExceeded(message + fix, row.collaboration_id)
    return BudgetBusy("budget_busy", message + "It is tried again when those have ended.")
