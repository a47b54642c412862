"""Fold a run's log up to a place, for a watcher who joins in the middle."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.live import playback, tokens
from db.live.fold import began_of, end_of, plain_event
from db.live.reader import BY_KEYS
from schema.live import (
    AGENT,
    RunBegan,
    StepBegan,
    StepEnded,
    StreamPosition,
    ToolsCalled,
    ToolsReturned,
    key_of,
)

MAX_MESSAGES: Final = 200
"""The newest of them: who joins a long run is not sent a book."""

_BEFORE: Final = text("""
    SELECT type, payload FROM outbox
    WHERE aggregateid = :run AND ((xid, seq) <= (CAST(:xid AS text)::xid8, :seq) OR seq = ANY(:beyond))
    ORDER BY xid, seq
""")


@dataclass
class MissedEvents:
    began: RunBegan | None = None
    ended: dict[str, StepEnded] = field(default_factory=dict)
    """Path → its last end."""
    said: list[tuple[StepEnded, str]] = field(default_factory=list)
    open: list[tuple[StepBegan, str]] = field(default_factory=list)
    called: dict[str, ToolsCalled] = field(default_factory=dict)
    """Execution → the tools that it called."""
    returned: dict[str, ToolsReturned] = field(default_factory=dict)
    """Path of a round of calls → its results."""


async def missed(connection: AsyncConnection, run: UUID, place: StreamPosition) -> MissedEvents:
    """The same for one place whenever it is asked for."""
    found = MissedEvents()
    asked = {"run": str(run), "xid": str(place.xid), "seq": place.seq, "beyond": list(place.beyond)}
    for row in await connection.execute(_BEFORE, asked):
        event = _event(row)
        if isinstance(event, RunBegan):
            found.began = event
        elif isinstance(event, StepEnded):
            found.ended.pop(event.path, None)
            found.ended[event.path] = event
        elif isinstance(event, ToolsCalled):
            found.called[event.execution] = event
        elif isinstance(event, ToolsReturned):
            found.returned[event.path] = event
    if found.began and found.began.forked_from:
        found.began.kept.update(await playback.kept(connection, run))
    spoken = [one for one in found.ended.values() if one.kind == AGENT and one.status == "completed"]
    for ended in spoken[-MAX_MESSAGES:]:
        found.said.append((ended, await _said(connection, ended.execution)))
    for began in await begun(connection, run, list(place.open)):
        told = place.open[key_of(began.execution)]
        found.open.append((began, await _said(connection, began.execution, told)))
    return found


async def begun(connection: AsyncConnection, run: UUID, keys: list[str]) -> list[StepBegan]:
    """Executions by their keys, in that order."""
    rows = await connection.exec_driver_sql(BY_KEYS, (run, keys))
    found = {key_of(row.execution): began_of(row) for row in rows}
    return [found[key] for key in keys if key in found]


def _event(row: Any) -> Any:
    if row.type in ("StepFinished", "AttemptFailed"):
        return end_of(row.type, row.payload, None)
    return plain_event(row.type, row.payload, {})


async def _said(connection: AsyncConnection, execution: str, told: int | None = None) -> str:
    """Return an execution's text as far as the watcher was told."""
    parts: list[str] = []
    while told is None or len(parts) < told:
        most = tokens.MAX_TOKENS if told is None else min(tokens.MAX_TOKENS, told - len(parts))
        page = await tokens.spoken(connection, UUID(execution), len(parts), most=most)
        if not page:
            break
        parts += [one.text for one in page]
    return "".join(parts)
