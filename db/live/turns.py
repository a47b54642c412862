"""Agents who read each other live: who is speaking, and what was answered while they spoke."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.runs import agent_executions as table


@dataclass(frozen=True, slots=True)
class SpeakingAttempt:
    """The newest attempt at a step."""

    path: str
    execution: UUID
    status: str
    error_code: str | None


_NEWEST = text("""
    SELECT DISTINCT ON (path) path, id, status, error_code
    FROM agent_executions WHERE collaboration_id = :run AND path = ANY(:paths)
    ORDER BY path, attempt DESC
""")


async def newest(
    connection: AsyncConnection, run: UUID, paths: Collection[str]
) -> dict[str, SpeakingAttempt]:
    """path → its newest attempt, for those of `paths` that have begun."""
    rows = await connection.execute(_NEWEST, {"run": run, "paths": list(paths)})
    return {row.path: SpeakingAttempt(row.path, row.id, row.status, row.error_code) for row in rows}


@dataclass(frozen=True, slots=True)
class AgentTurn:
    """The request and the reaction of an agent to work in progress."""

    message: str
    heard: Mapping[str, tuple[str, int]]
    """Path → (execution, how many characters of what it said) that the agent knew of then."""
    anew: bool
    """Whether the conversation began with it."""
    reaction: str


async def note(
    connection: AsyncConnection,
    execution: UUID,
    message: str,
    heard: Mapping[str, tuple[str, int]],
    *,
    anew: bool,
) -> None:
    """Record the request of a turn that has begun."""
    asked = {"message": message, "heard": {path: list(one) for path, one in heard.items()}, "anew": anew}
    await connection.execute(update(table).where(table.c.id == execution).values(input=asked))


async def finished(connection: AsyncConnection, run: UUID, paths: Collection[str]) -> dict[str, AgentTurn]:
    """path → the turn, for those of `paths` that were finished."""
    rows = await connection.execute(
        select(table.c.path, table.c.input, table.c.output).where(
            table.c.collaboration_id == run, table.c.path.in_(paths), table.c.status == "completed"
        )
    )
    return {row.path: _turn(row.input, row.output) for row in rows}


def _turn(asked: dict[str, Any], output: Any) -> AgentTurn:
    heard = {path: (str(one[0]), int(one[1])) for path, one in asked["heard"].items()}
    return AgentTurn(asked["message"], heard, asked["anew"], str(output))


async def abandon(connection: AsyncConnection, run: UUID, paths: Collection[str]) -> None:
    """Close the turns that a worker left behind when it died."""
    await connection.execute(
        update(table)
        .where(table.c.collaboration_id == run, table.c.path.in_(paths), table.c.status == "running")
        .values(status="abandoned", completed_at=datetime.now(UTC))
    )
