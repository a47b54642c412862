"""Executions: one row per attempt at a step, at most one of them finished."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import Select, case, desc, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import outbox, wakeups
from db.definitions import catalogue
from schema.cel.expressions import Json
from schema.events import AttemptFailed, Event, StepCaught, StepFinished, StepSkipped
from schema.tables.runs import agent_executions as table
from schema.tables.runs import collaborations
from schema.temporal.steps import StepRequest, StepResult
from schema.values.foreign import MAX_CODE_CHARS, clean_text

FINISHED: Final = ("completed", "skipped", "caught")
LAST: Final = "last"
"""`branch` of the last iteration of a loop: a worker that takes over must not begin another."""
EXHAUSTED: Final = "exhausted"
"""`branch` of one that was the last, and a failure, as `until` never held."""
CANCELLED_WITH: Final = "cancelled: what it was a part of had ended"
"""The message of an attempt that did not fail by itself."""


@dataclass(frozen=True)
class Assignment:
    """The agent, role and model, or the tool, that a step is assigned to."""

    kind: str
    agent: str
    role: str | None = None
    requested_model: str | None = None
    prompt: str | None = None
    """The stored prompt that it works with, as name@3."""
    trial_id: UUID | None = None
    """The A/B test that chose the prompt."""
    simulated: bool = False
    """Whether the simulator is asked: an attempt that fails there says nothing of a real model."""


@dataclass(frozen=True)
class AttemptOutcome:
    """Result of an attempt."""

    output: Any
    model: str = ""
    provider: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    first_token_ms: int | None = None
    simulated: bool = False
    branch: str | None = None
    reused_from: UUID | None = None
    """The execution whose output this is, where nothing was called."""
    finish_reason: str | None = None
    """Why a model's answer ended."""
    repaired: bool = False
    """Whether its JSON had to be mended."""


@dataclass(frozen=True)
class Claim:
    """An attempt that was begun, or the result of the one that already finished."""

    execution: UUID
    attempt: int
    started_at: datetime
    done: StepResult | None = None
    goes_on: bool = False
    """Whether it had been begun before."""


def _of_step(request: StepRequest) -> Select[Any]:
    # Without the output: it may be megabytes, and no caller of this reads it.
    return select(
        table.c.id,
        table.c.attempt,
        table.c.status,
        table.c.started_at,
        table.c.model_id,
        table.c.input_tokens,
        table.c.output_tokens,
        table.c.cost_usd,
        table.c.simulated,
    ).where(
        table.c.collaboration_id == UUID(request.collaboration),
        table.c.path == request.path,
    )


def _usd(cost: Decimal) -> str:
    """To the micro-dollar, as the table keeps it."""
    return f"{cost:.6f}"


def _result(row: Any) -> StepResult:
    return StepResult(
        execution=str(row.id),
        status=row.status,
        model=row.model_id,
        input_tokens=row.input_tokens or 0,
        output_tokens=row.output_tokens or 0,
        cost_usd=_usd(row.cost_usd or Decimal(0)),
        simulated=row.simulated,
    )


async def claim(connection: AsyncConnection, request: StepRequest, worker: Assignment) -> Claim:
    """Begin an attempt, unless the step has finished already.

    An attempt that is still `running` belongs to a worker that died (Temporal starts the next one only
    then): it becomes `abandoned`, and whatever it may still write cannot finish the step any more.
    """
    rows = (await connection.execute(_of_step(request).order_by(table.c.attempt))).all()
    for row in rows:
        if row.status in FINISHED:
            return Claim(row.id, row.attempt, row.started_at, _result(row))
    now = datetime.now(UTC)
    if any(row.status == "running" for row in rows):
        await connection.execute(
            update(table)
            .where(table.c.id.in_([row.id for row in rows if row.status == "running"]))
            .values(status="abandoned", completed_at=now)
        )
    attempt = rows[-1].attempt + 1 if rows else 1
    execution = uuid4()
    await connection.execute(
        insert(table).values(
            id=execution,
            tenant_id=request.tenant,
            collaboration_id=UUID(request.collaboration),
            path=request.path,
            step_id=request.step,
            iteration=request.iteration,
            attempt=attempt,
            kind=worker.kind,
            agent_name=worker.agent,
            role=worker.role,
            model_id=worker.requested_model or "",
            requested_model=worker.requested_model,
            status="running",
            started_at=now,
            prompt=worker.prompt,
            trial_id=worker.trial_id,
            simulated=worker.simulated,
        )
    )
    wakeups.note(connection, request.collaboration)
    return Claim(execution, attempt, now)


async def resume(connection: AsyncConnection, request: StepRequest, worker: Assignment) -> Claim:
    """Like `claim` for what goes on where it was instead of starting anew: maps, loops, waits, people."""
    rows = (await connection.execute(_of_step(request).order_by(table.c.attempt))).all()
    if rows and rows[-1].status == "running":
        return Claim(rows[-1].id, rows[-1].attempt, rows[-1].started_at, goes_on=True)
    return await claim(connection, request, worker)


async def begun(connection: AsyncConnection, request: StepRequest, execution: UUID) -> Claim:
    """An attempt that was begun earlier, or the result of the one that finished meanwhile."""
    rows = (await connection.execute(_of_step(request))).all()
    for row in rows:
        if row.status in FINISHED:
            return Claim(row.id, row.attempt, row.started_at, _result(row))
    row = next(row for row in rows if row.id == execution)
    return Claim(row.id, row.attempt, row.started_at)


def _judgement(output: Any) -> dict[str, Any]:
    """Return a reviewer's judgement from the known fields of its answer; empty if it has none."""
    if not isinstance(output, dict):
        return {}
    quality, found, severity = (output.get(key) for key in ("quality", "found_issues", "severity"))
    if isinstance(quality, bool) or not isinstance(quality, (int, float)) or not 0 <= quality <= 1:
        quality = None
    return {
        "quality_score": quality,
        "found_issues": found if isinstance(found, bool) else None,
        "severity": severity[:40] if isinstance(severity, str) else None,
    }


def _paid(outcome: AttemptOutcome, started_at: datetime, now: datetime) -> dict[str, Any]:
    return {
        "model_id": outcome.model,
        "provider": outcome.provider,
        "input_tokens": outcome.input_tokens,
        "output_tokens": outcome.output_tokens,
        "cost_usd": outcome.cost_usd,
        "latency_ms": int((now - started_at).total_seconds() * 1000),
        "first_token_ms": outcome.first_token_ms,
        "simulated": outcome.simulated,
        "completed_at": now,
        "branch": outcome.branch,
        "reused_from": outcome.reused_from,
        "finish_reason": outcome.finish_reason,
        "repaired": outcome.repaired,
    }


async def _relationship(connection: AsyncConnection, tenant: str, worker: Assignment) -> str | None:
    """The edge that an execution leaves in the collaboration graph."""
    if worker.kind != "agent":
        return None
    return (await catalogue.of_tenant(connection, tenant)).relationship(worker.role)


async def complete(
    connection: AsyncConnection,
    request: StepRequest,
    worker: Assignment,
    begun: Claim,
    outcome: AttemptOutcome,
    behind: Event | None = None,
) -> StepResult | None:
    """Finish the step with this attempt, and tell the outbox; None when the attempt had been given up.

    What it cost is booked either way. `behind` is told right after the end.
    """
    now = datetime.now(UTC)
    paid = _paid(outcome, begun.started_at, now)
    judgement = _judgement(outcome.output)
    done = await connection.execute(
        update(table)
        .where(table.c.id == begun.execution, table.c.status == "running")
        .values(status="completed", output=outcome.output, **paid, **judgement)
    )
    if done.rowcount == 0:
        row = (await connection.execute(select(table).where(table.c.id == begun.execution))).one()
        if row.status == "completed":
            return _result(row)  # by a commit of this attempt's own that nobody had heard of
        await connection.execute(update(table).where(table.c.id == begun.execution).values(**paid))
        return None
    event = StepFinished(
        collaboration_id=request.collaboration,
        execution_id=str(begun.execution),
        step=request.step,
        kind=worker.kind,
        iteration=request.iteration,
        attempt=begun.attempt,
        agent=worker.agent,
        role=worker.role,
        relationship=await _relationship(connection, request.tenant, worker),
        model=outcome.model,
        requested_model=worker.requested_model,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        latency_ms=paid["latency_ms"],
        cost_usd=_usd(outcome.cost_usd),
        found_issues=judgement.get("found_issues"),
        severity=judgement.get("severity"),
        quality=judgement.get("quality_score"),
        simulated=outcome.simulated,
        path=request.path,
        finish_reason=outcome.finish_reason or "",
        repaired=outcome.repaired,
    )
    for told in (event, behind) if behind else (event,):
        await outbox.append(connection, request.tenant, request.collaboration, told, request.traceparent)
    return StepResult(
        execution=str(begun.execution),
        status="completed",
        model=outcome.model,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cost_usd=_usd(outcome.cost_usd),
        simulated=outcome.simulated,
    )


async def fail(
    connection: AsyncConnection,
    request: StepRequest,
    begun: Claim,
    code: str,
    message: str,
    outcome: AttemptOutcome | None = None,
) -> None:
    """Close an attempt that failed. What it had cost by then is kept: it was paid."""
    now = datetime.now(UTC)
    code, message = clean_text(code)[:MAX_CODE_CHARS], clean_text(message)[:2_000]
    values: dict[str, Any] = {"status": "failed", "error_code": code, "error_message": message}
    values |= _paid(outcome, begun.started_at, now) if outcome else {"completed_at": now}
    done = await connection.execute(
        update(table).where(table.c.id == begun.execution, table.c.status == "running").values(**values)
    )
    if done.rowcount:
        cost = _usd(outcome.cost_usd if outcome else Decimal(0))
        event = AttemptFailed(
            request.collaboration,
            str(begun.execution),
            request.step,
            request.iteration,
            begun.attempt,
            code,
            cost,
            request.path,
            message[:2_000],
        )
        await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)
    elif outcome:  # it was closed with its run; what it cost is booked all the same
        paid = _paid(outcome, begun.started_at, now)
        await connection.execute(update(table).where(table.c.id == begun.execution).values(**paid))


async def failed_with(connection: AsyncConnection, request: StepRequest, code: str, message: str) -> bool:
    """Return whether the last attempt at the step failed for this reason."""
    last = (
        select(table.c.status, table.c.error_code, table.c.error_message)
        .where(table.c.collaboration_id == UUID(request.collaboration), table.c.path == request.path)
        .order_by(desc(table.c.attempt))
        .limit(1)
    )
    found = (await connection.execute(last)).first()
    return found is not None and tuple(found) == ("failed", code, message[:2_000])


async def close_running(
    connection: AsyncConnection, request: StepRequest, at: str, *, code: str, message: str, step: str
) -> None:
    """Close what an error left running at a path and within it, and tell the outbox. `step` is the path of
    the one that failed; what did not lead there was only cancelled."""
    code, message = clean_text(code)[:MAX_CODE_CHARS], clean_text(message)[:2_000]
    path = table.c.path  # not with LIKE: a step's name may hold underscores
    within = or_(path == at, *(func.starts_with(path, at + mark) for mark in ".[~"))
    failed = or_(path == step, func.starts_with(path, f"{step}~"), func.starts_with(step, path + "["))
    left = await connection.execute(
        update(table)
        .where(table.c.collaboration_id == UUID(request.collaboration), table.c.status == "running", within)
        .values(
            status="failed",
            completed_at=datetime.now(UTC),
            error_code=case((failed, code), else_="cancelled"),
            error_message=case((failed, message), else_=CANCELLED_WITH),
        )
        .returning(
            table.c.id,
            table.c.step_id,
            table.c.iteration,
            table.c.attempt,
            table.c.error_code,
            table.c.cost_usd,
            path,
            table.c.error_message,
            table.c.kind,
        )
    )
    for id, name, iteration, attempt, error, cost, *told, kind in left.all():
        if kind != "item":
            usd = _usd(cost or Decimal(0))
            event = AttemptFailed(request.collaboration, str(id), name, iteration, attempt, error, usd, *told)
            await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)


async def close_left(connection: AsyncConnection) -> int:
    """Close what is still running in runs that have ended; returns how many.

    A worker that is let go may write that a step has begun after its run was closed, and older releases
    closed nothing. What began after the end belongs to a run that was reset.
    """
    run = collaborations.c
    ended = (run.id == table.c.collaboration_id, run.completed_at >= table.c.started_at)
    left = await connection.execute(
        update(table)
        .where(table.c.status == "running", *ended)
        .values(
            status="failed",
            completed_at=datetime.now(UTC),
            error_code="cancelled",
            error_message=CANCELLED_WITH,
        )
    )
    return left.rowcount


async def is_running(connection: AsyncConnection, collaboration: UUID, path: str) -> bool:
    of_step = (table.c.collaboration_id == collaboration, table.c.path == path)
    found = await connection.execute(select(table.c.id).where(*of_step, table.c.status == "running"))
    return found.first() is not None


async def wait(connection: AsyncConnection, request: StepRequest, seconds: float) -> None:
    """Note with the step's last attempt when it is tried again."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    last = _of_step(request).with_only_columns(func.max(table.c.attempt)).scalar_subquery()
    await connection.execute(
        update(table)
        .where(
            table.c.collaboration_id == UUID(request.collaboration),
            table.c.path == request.path,
            table.c.attempt == last,
        )
        .values(retry_at=until)
    )


async def move(connection: AsyncConnection, begun: Claim, path: str) -> None:
    """Let an attempt under way stand under another path: it turned out to be no answer to its step yet."""
    running = (table.c.id == begun.execution, table.c.status == "running")
    await connection.execute(update(table).where(*running).values(path=path))


async def set_results(connection: AsyncConnection, request: StepRequest, round: Json, told: Event) -> None:
    """Replace a finished round of tools by the same with the results of its calls, once, and tell the
    outbox."""
    done = await connection.execute(
        update(table)
        .where(table.c.collaboration_id == UUID(request.collaboration), table.c.path == request.path)
        .where(table.c.status == "completed", table.c.output["calls", -1, "result"].is_(None))
        .values(output=round)
    )
    if done.rowcount:
        await outbox.append(connection, request.tenant, request.collaboration, told, request.traceparent)


async def skip(connection: AsyncConnection, request: StepRequest, worker: Assignment) -> None:
    """Record that the step will not run."""
    now = datetime.now(UTC)
    added = await connection.execute(
        upsert(table)
        .values(
            id=uuid4(),
            tenant_id=request.tenant,
            collaboration_id=UUID(request.collaboration),
            path=request.path,
            step_id=request.step,
            iteration=request.iteration,
            attempt=1,
            kind=worker.kind,
            agent_name=worker.agent,
            role=worker.role,
            model_id="",
            status="skipped",
            started_at=now,
            completed_at=now,
            latency_ms=0,
        )
        .on_conflict_do_nothing()
        .returning(table.c.id)
    )
    if added.first():
        event = StepSkipped(request.collaboration, request.step, request.iteration, request.path)
        await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)


@dataclass(frozen=True)
class FinishedExecution:
    """A finished execution as expressions and the interpreter see it."""

    status: str
    output: Any
    model: str
    branch: str | None
    error_code: str | None
    error_message: str | None
    finish_reason: str | None

    def facts(self) -> dict[str, Any]:
        """Return the value of `steps.<id>`."""
        found: dict[str, Any] = {"status": self.status, "model": self.model}
        if self.model:
            found["finish_reason"] = self.finish_reason or ""
        if self.status == "completed":
            found["output"] = self.output
        if self.branch and not self.branch.startswith("!"):
            found["branch"] = self.branch
        if self.error_code:
            found["error"] = {"code": self.error_code, "message": self.error_message or ""}
        return found


_KNOWN = (
    table.c.status,
    table.c.output,
    table.c.model_id,
    table.c.branch,
    table.c.error_code,
    table.c.error_message,
    table.c.finish_reason,
)


async def known(
    connection: AsyncConnection, collaboration: UUID, paths: Collection[str]
) -> dict[str, FinishedExecution]:
    """path → how it ended, for those of `paths` that have."""
    if not paths:
        return {}
    rows = await connection.execute(
        select(table.c.path, *_KNOWN).where(
            table.c.collaboration_id == collaboration,
            table.c.path.in_(paths),
            table.c.status.in_(FINISHED),
        )
    )
    return {row[0]: FinishedExecution(*tuple(row)[1:]) for row in rows}


async def ended(connection: AsyncConnection, collaboration: UUID, paths: Collection[str]) -> list[Any]:
    """(path, status, branch) of those of `paths` that have ended, without their outputs."""
    rows = await connection.execute(
        select(table.c.path, table.c.status, table.c.branch).where(
            table.c.collaboration_id == collaboration,
            table.c.path.in_(paths),
            table.c.status.in_(FINISHED),
        )
    )
    return list(rows)


async def states(
    connection: AsyncConnection, collaboration: UUID, paths: Collection[str]
) -> tuple[dict[str, FinishedExecution], dict[str, int]]:
    """(path → how it ended, path → attempts so far), for those of `paths` that have begun."""
    rows = await connection.execute(
        select(table.c.path, table.c.attempt, *_KNOWN)
        .where(table.c.collaboration_id == collaboration, table.c.path.in_(paths))
        .order_by(table.c.attempt)
    )
    finished: dict[str, FinishedExecution] = {}
    attempts: dict[str, int] = {}
    for path, attempt, *facts in rows:
        attempts[path] = attempt
        if facts[0] in FINISHED:
            finished[path] = FinishedExecution(*facts)
    return finished, attempts


async def input_item(connection: AsyncConnection, collaboration: UUID, path: str, index: int) -> Any:
    """The item of a map that is repeated for the index."""
    return (
        await connection.execute(
            select(table.c.input[index])
            .where(table.c.collaboration_id == collaboration, table.c.path == path)
            .order_by(desc(table.c.attempt))
            .limit(1)
        )
    ).scalar()


async def input_and_output(connection: AsyncConnection, collaboration: UUID, path: str) -> tuple[Any, Any]:
    """Return input and output: a map's list, or the next carry of a loop or iteration, and its result."""
    row = (
        await connection.execute(
            select(table.c.input, table.c.output)
            .where(table.c.collaboration_id == collaboration, table.c.path == path)
            .order_by(desc(table.c.attempt))
            .limit(1)
        )
    ).first()
    return (row.input, row.output) if row else (None, None)


@dataclass(frozen=True)
class Item:
    """One ended item of a map, or iteration of a loop."""

    index: int
    status: str
    output: Any
    branch: str | None
    error_code: str | None
    error_message: str | None


async def items(connection: AsyncConnection, collaboration: UUID, path: str) -> list[Item]:
    """The items that ended, in order."""
    rows = await connection.execute(
        select(
            table.c.iteration,
            table.c.status,
            table.c.output,
            table.c.branch,
            table.c.error_code,
            table.c.error_message,
        )
        .where(
            table.c.collaboration_id == collaboration,
            table.c.path.startswith(f"{path}[", autoescape=True),
            table.c.step_id == path.rpartition(".")[2],
            table.c.kind == "item",
        )
        .order_by(table.c.iteration)
    )
    return [Item(*row) for row in rows]


async def set_input(connection: AsyncConnection, execution: UUID, value: Any) -> None:
    """Keep the list of a map, or the first carry of a loop, with its running execution."""
    await connection.execute(update(table).where(table.c.id == execution).values(input=value))


async def add_item(
    connection: AsyncConnection,
    request: StepRequest,
    index: int,
    *,
    output: Any = None,
    carry: Any = None,
    mark: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    """Record the end of one item or iteration of the map or loop that `request` names."""
    now = datetime.now(UTC)
    await connection.execute(
        upsert(table)
        .values(
            id=uuid4(),
            tenant_id=request.tenant,
            collaboration_id=UUID(request.collaboration),
            path=f"{request.path}[{index}]",
            step_id=request.step,
            iteration=index,
            attempt=1,
            kind="item",
            agent_name="item",
            model_id="",
            status="failed" if error_code else "completed",
            output=output,
            input=carry,
            branch=mark,
            error_code=error_code,
            error_message=(error_message or "")[:2_000] or None,
            started_at=now,
            completed_at=now,
            latency_ms=0,
        )
        .on_conflict_do_nothing()
    )


async def catch(
    connection: AsyncConnection,
    request: StepRequest,
    worker: Assignment,
    *,
    then: str,
    output: Any,
    code: str,
    message: str,
    step: str = "",
) -> None:
    """Note that a failed step is caught: `then` takes over, or `output` stands for its own. `step` is the
    path of the one that failed, where it is one within it."""
    now = datetime.now(UTC)
    rows = (await connection.execute(_of_step(request).order_by(desc(table.c.attempt)))).all()
    if any(row.status in FINISHED for row in rows):
        return
    values: dict[str, Any] = {
        "status": "caught" if then else "completed",
        "branch": f"!{then}" if then else None,
        "output": output,
        "error_code": code,
        "error_message": message[:2_000],
        "completed_at": now,
    }
    if rows:
        await connection.execute(update(table).where(table.c.id == rows[0].id).values(**values))
    else:
        await connection.execute(
            insert(table).values(
                id=uuid4(),
                tenant_id=request.tenant,
                collaboration_id=UUID(request.collaboration),
                path=request.path,
                step_id=request.step,
                iteration=request.iteration,
                attempt=1,
                kind=worker.kind,
                agent_name=worker.agent,
                role=worker.role,
                model_id="",
                started_at=now,
                latency_ms=0,
                **values,
            )
        )
    await close_running(
        connection, request, request.path, code=code, message=message, step=step or request.path
    )
    event = StepCaught(request.collaboration, request.step, request.iteration, request.path, code, then)
    await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)


async def page(
    connection: AsyncConnection, collaboration: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Any]:
    """Attempts at steps in the order they began, those behind the (started_at, id) of the last one seen.

    Without what went in and came out: so each is a few kilobytes at most.
    """
    columns = [column for column in table.c if column.name not in ("input", "output")]
    order = table.c.started_at, table.c.id
    query = select(*columns).where(table.c.collaboration_id == collaboration)
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return list(await connection.execute(query.order_by(*order).limit(limit)))
