"""Agent steps whose provider fails in every way: do they end as documented? python -m bench.gateway.faults

Every fault of tests/support/faults.py, of streamed calls and of others, with and without another model to
ask: docs/gateway.md says what each comes to.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from db.engine import async_engine
from db.wakeups import Bell
from gateway.client import warm_up
from schema.errors import FacilitairError
from schema.temporal.steps import StepRequest
from tests.support.faults import FAULTS, POLICY, Failure
from tests.support.providers import running_simulator
from tests.support.runs import begin, means_of

FIRST: Final = "openai/gpt-4o-mini"
SECOND: Final = "deepseek/deepseek-chat"
MOVES_ON_NOT: Final = "provider_bad_request"
_ATTEMPTS: Final = text("""
    SELECT status, error_code, model_id FROM agent_executions
    WHERE collaboration_id = CAST(:run AS uuid) ORDER BY attempt
""")
_OPEN: Final = text("SELECT count(*) FROM model_calls WHERE state = 'open'")


@dataclass(frozen=True)
class Cell:
    fault: str
    stream: bool
    fallback: bool

    @property
    def failure(self) -> Failure | None:
        _, streamed, whole = FAULTS[self.fault]
        return streamed if self.stream else whole

    def definition(self) -> dict[str, Any]:
        agent: dict[str, Any] = {"model": FIRST, "stream": self.stream}
        if self.stream:
            agent |= {"first_token_timeout": "500ms", "stall_timeout": "300ms"}
        if self.fallback:
            agent["fallback"] = [SECOND]
        # The time of the answer in one piece is shared with the model that is asked next.
        step = {"kind": "agent", "agent": "a", "prompt": "Build a rate limiter.", "timeout": "3s"}
        return {"agents": {"a": agent}, "steps": {"ask": step}}

    def expected(self) -> tuple[str, ...]:
        """How each attempt ends: the model that answered, or the code of the failure."""
        if self.failure is None:
            refused = self.fallback and self.fault == "filtered"
            return (POLICY.code, SECOND) if refused else (FIRST,)
        moves_on = self.fallback and self.failure.code != MOVES_ON_NOT
        return (self.failure.code, SECOND) if moves_on else (self.failure.code,)


CELLS: Final = [
    Cell(fault, stream, fallback)
    for fault in FAULTS
    for stream in (True, False)
    for fallback in (False, True)
]


async def matrix(
    database_url: str, simulator_url: str, cells: Sequence[Cell] = CELLS
) -> dict[str, int | list[str]]:
    """{"fault_cells", "fault_cells_failed", "faults"}: how many ended otherwise than documented, and how."""
    engine = async_engine(database_url)
    bell = Bell(database_url)
    tokens = TokenLog(database_url, bell)
    wrong = []
    # As a worker does: the first cell's time would go by with it.
    await asyncio.to_thread(warm_up)
    async with httpx.AsyncClient(base_url=simulator_url) as control:
        for cell in cells:
            # A process of its own for each would be fairer still: here each has its own circuits.
            async with means_of(engine, simulator_url, tokens) as means:
                await control.delete("/_simulator/faults")
                rule = FAULTS[cell.fault][0] | {"times": None, "match": {"model": FIRST}}
                (await control.post("/_simulator/faults", json=rule)).raise_for_status()
                found = await _try(engine, AgentActivity(means), cell)
            async with engine.begin() as connection:
                await connection.execute(text("TRUNCATE circuits, pauses"))
            if found != cell.expected():
                wrong.append(f"{cell}: found {found}, expected {cell.expected()}")
        await control.delete("/_simulator/faults")
    async with engine.connect() as connection:
        if unclosed := await connection.scalar(_OPEN):
            wrong.append(f"{unclosed} calls are still open in the ledger")
    await tokens.close()
    await bell.close()
    await engine.dispose()
    return {"fault_cells": len(cells), "fault_cells_failed": len(wrong), "faults": wrong}


async def _try(engine: AsyncEngine, agents: AgentActivity, cell: Cell) -> tuple[str, ...]:
    request = await begin(engine, cell.definition())
    wanted, raised = cell.expected(), ""
    try:
        async with asyncio.timeout(10):
            await agents.agent(request)
    except FacilitairError as error:
        retryable = cell.failure.retryable if cell.failure else None
        raised = error.code if error.retryable == retryable else f"{error.code}, retryable: {error.retryable}"
    except TimeoutError:
        return ("hangs",)
    ended = await _attempts(engine, request)
    finished = wanted[-1] in (FIRST, SECOND)
    return ended if finished == (raised == "") and raised in ("", wanted[-1]) else (*ended, raised)


async def _attempts(engine: AsyncEngine, request: StepRequest) -> tuple[str, ...]:
    async with engine.connect() as connection:
        rows = (await connection.execute(_ATTEMPTS, {"run": request.collaboration})).all()
    return tuple(row.model_id if row.status == "completed" else str(row.error_code) for row in rows)


async def _measure() -> int:
    from tests.support.stack import stack

    async with stack(("temporal", "postgres", "migrate")) as on:
        with running_simulator() as simulator:
            found = await matrix(on.settings.database_url, simulator)
    faults = found.pop("faults")
    assert isinstance(faults, list)
    print(found, *faults, sep="\n")
    return int(bool(found["fault_cells_failed"]))


if __name__ == "__main__":
    sys.exit(asyncio.run(_measure()))
