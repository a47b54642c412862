"""Read new events of many runs at once; see `db.live.fold`."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from db.live import tokens
from db.live.fold import (
    Follower,
    FollowerView,
    NewText,
    NewTexts,
    began_of,
    failed,
    listen,
    may_have_spoken,
    tell,
)
from db.raw import Line
from schema.live import (
    AGENT,
    PlacedEvent,
    StreamPosition,
    key_of,
)

_EVENTS: Final = """
    SELECT asked.key, found.* FROM json_to_recordset(%s::json) AS asked(
        key int, run text, xid text, seq bigint, most bigint)
    CROSS JOIN LATERAL (
        SELECT xid::text::bigint AS xid, seq, type, payload, created_at,
            xid < pg_snapshot_xmin(pg_current_snapshot()) AS settled
        FROM outbox
        WHERE aggregateid = asked.run AND (outbox.xid, outbox.seq) > (asked.xid::xid8, asked.seq)
        ORDER BY outbox.xid, outbox.seq
        LIMIT asked.most
    ) AS found
"""
_UNDER_WAY: Final = """
    SELECT collaboration_id::text AS run, id::text AS execution, path, step_id AS step, kind, attempt,
        agent_name AS agent, model_id AS model, started_at, status
    FROM agent_executions
    WHERE (collaboration_id = ANY(%s::uuid[]) AND status = 'running') OR id = ANY(%s::uuid[])
    ORDER BY started_at
"""
BY_KEYS: Final = """
    SELECT id::text AS execution, path, step_id AS step, kind, attempt, agent_name AS agent,
        model_id AS model, started_at, status
    FROM agent_executions
    WHERE collaboration_id = %s AND substr(replace(id::text, '-', ''), 1, 12) = ANY(%s)
"""
_OVER: Final = """
    SELECT 1 FROM outbox
    WHERE aggregateid = %(run)s AND type = 'CollaborationFinished'
        AND ((xid, seq) <= (%(xid)s::xid8, %(seq)s) OR seq = ANY(%(beyond)s))
"""
# What a forked run took over has no event of its own; what a cache gave has.
KEPT: Final = """
    SELECT collaboration_id::text AS run, path, status FROM agent_executions AS kept
    WHERE collaboration_id = ANY(%s::uuid[]) AND strpos(path, '[') = 0
        AND status IN ('completed', 'skipped', 'caught') AND (reused_from IS NOT NULL OR agent_name = 'given')
        AND id::text NOT IN (
            SELECT payload->>'execution_id' FROM outbox
            WHERE aggregateid = kept.collaboration_id::text AND type = 'StepFinished')
"""
MAX_OUTPUT_BYTES: Final = 128 * 1024
"""A larger output is not told with a run's end, only where to read it."""
ENDS: Final = f"""
    SELECT id::text AS run, error_message,
        CASE WHEN octet_length(final_output::text) <= {MAX_OUTPUT_BYTES} THEN final_output
            WHEN final_output IS NOT NULL THEN json_build_object(
                'output_reference', '/v1/collaborations/' || temporal_workflow_id || '?include=output',
                'bytes', octet_length(final_output::text))
        END AS output,
        (SELECT path FROM agent_executions
         WHERE collaboration_id = run.id AND status = 'failed' AND error_code = run.error_code
         ORDER BY completed_at DESC LIMIT 1) AS error_step
    FROM collaborations AS run WHERE id = ANY(%s::uuid[])
"""
_SAID: Final = """
    SELECT asked.id::text AS execution, string_agg(token, '' ORDER BY seq) AS text, count(*) AS count,
        max(timestamp) AS at
    FROM unnest(%s::uuid[], %s::int[]) AS asked(id, first)
    JOIN token_stream ON execution_id = asked.id AND seq >= asked.first AND seq < asked.first + %s
    GROUP BY asked.id
"""
_ARCHIVED: Final = """
    SELECT execution_id::text AS execution, tokens, first_at FROM token_archives
    WHERE execution_id = ANY(%s::uuid[])
"""


_log = logging.getLogger(__name__)


class LiveSource:
    """Reads for all followers of a process, on one connection."""

    def __init__(self, database_url: str) -> None:
        self._line = Line(database_url, namedtuple_row)

    async def close(self) -> None:
        await self._line.close()

    async def follower(self, run: UUID, place: StreamPosition) -> Follower:
        """Go on from a place; raises psycopg.Error."""
        follower = Follower(str(run), place)
        async with self._connected() as connection:
            if place.xid or place.beyond:
                given = {"run": str(run), "xid": str(place.xid), "seq": place.seq}
                told = await connection.execute(_OVER, given | {"beyond": list(place.beyond)})
                follower.ended = await told.fetchone() is not None
            if place.open:
                rows = await connection.execute(BY_KEYS, (run, list(place.open)))
                follower.open = {row.execution: began_of(row) for row in await rows.fetchall()}
                known = {key_of(execution) for execution in follower.open}
                place.open = {key: count for key, count in place.open.items() if key in known}
        return follower

    async def read(self, followers: Sequence[Follower]) -> list[list[PlacedEvent]]:
        """Return each follower's new events from one snapshot, so that followers of one run see the same."""
        async with self._connected() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            seen = await _look(connection, followers)
            said = await _said(connection, followers, seen)
        return [_apart(tell, follower, mine, said) for follower, mine in zip(followers, seen, strict=True)]

    async def read_tokens(self, followers: Sequence[Follower]) -> list[list[PlacedEvent]]:
        """Only what the executions under way have said since."""
        seen = [FollowerView([], []) for _ in followers]
        async with self._connected() as connection:
            said = await _said(connection, followers, seen)
        return [_apart(listen, follower, said) for follower in followers]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        try:
            yield await self._line.open()
        except psycopg.Error:
            await self.close()
            raise


def _apart(fold: Callable[..., list[PlacedEvent]], follower: Follower, *read: Any) -> list[PlacedEvent]:
    """Fold for one follower. If that fails, end this follower and spare the others."""
    try:
        return fold(follower, *read)
    except Exception as error:
        _log.error("Run could not be followed", exc_info=error, extra={"run": follower.run})
        follower.ended, follower.behind = True, False
        return []


async def _look(
    connection: psycopg.AsyncConnection[Any], followers: Sequence[Follower]
) -> list[FollowerView]:
    # Two followers of one run may ask differently; an answer belongs to its question.
    asked = [{**follower.asked(), "key": at} for at, follower in enumerate(followers)]
    events: dict[int, list[Any]] = {}
    for row in await (await connection.execute(_EVENTS, (json.dumps(asked),))).fetchall():
        events.setdefault(row.key, []).append(row)
    runs = list({follower.run for follower in followers})
    opened = {execution for follower in followers for execution in follower.open}
    # Their events do not say of what kind they were.
    opened |= {row.payload["execution_id"] for rows in events.values() for row in rows if failed(row)}
    under_way: dict[str, list[Any]] = {}
    for row in await (await connection.execute(_UNDER_WAY, (runs, list(opened)))).fetchall():
        under_way.setdefault(row.run, []).append(row)
    forked = [row.payload["collaboration_id"] for rows in events.values() for row in rows if _is_fork(row)]
    kept: dict[str, dict[str, str]] = {}
    if forked:
        for row in await (await connection.execute(KEPT, (forked,))).fetchall():
            kept.setdefault(row.run, {})[row.path] = row.status
    over = [follower.run for at, follower in enumerate(followers) if any(map(_is_end, events.get(at, [])))]
    ends: dict[str, Any] = {}
    if over:
        ends = {row.run: row for row in await (await connection.execute(ENDS, (over,))).fetchall()}
    return [
        FollowerView(
            events.get(at, []),
            under_way.get(follower.run, []),
            kept.get(follower.run, {}),
            ends.get(follower.run),
        )
        for at, follower in enumerate(followers)
    ]


def _is_fork(row: Any) -> bool:
    return bool(row.type == "CollaborationStarted" and row.payload.get("forked_from"))


def _is_end(row: Any) -> bool:
    return bool(row.type == "CollaborationFinished")


async def _said(
    connection: psycopg.AsyncConnection[Any], followers: Sequence[Follower], seen: Sequence[FollowerView]
) -> NewTexts:
    """Read the new text of every execution that a follower watches."""
    wanted: dict[tuple[str, int], None] = {}
    for follower, mine in zip(followers, seen, strict=True):
        speaking = [began.execution for began in follower.open.values() if began.kind == AGENT]
        speaking += [row.execution for row in mine.under_way if row.kind == AGENT]
        speaking += [row.payload["execution_id"] for row in mine.events if may_have_spoken(row)]
        wanted |= {(execution, follower.told(execution)): None for execution in speaking}
    found: NewTexts = {}
    asked_of = list(wanted)
    while wanted:
        # Watchers of one run may have come differently far: an execution stands in a question once.
        asked = dict(wanted.keys())
        rows = await connection.execute(_SAID, (list(asked), list(asked.values()), tokens.MAX_TOKENS))
        found |= {(row.execution, asked[row.execution]): row for row in await rows.fetchall()}
        wanted = {one: None for one in wanted if asked[one[0]] != one[1]}
    ended = {row.payload["execution_id"] for mine in seen for row in mine.events if may_have_spoken(row)}
    if silent := [one for one in asked_of if one[0] in ended and one not in found]:
        found |= await _archived(connection, silent)
    return found


async def _archived(connection: psycopg.AsyncConnection[Any], asked: Sequence[tuple[str, int]]) -> NewTexts:
    """The same of executions whose tokens are not where new ones are."""
    answer = await connection.execute(_ARCHIVED, (list({execution for execution, _ in asked}),))
    archives = {row.execution: row for row in await answer.fetchall()}
    found: NewTexts = {}
    for execution, first in asked:
        if row := archives.get(execution):
            more = list(tokens.unpack(row.tokens, row.first_at, first, tokens.MAX_TOKENS))
            if more:
                text = "".join(one.text for one in more)
                found[execution, first] = NewText(text, len(more), more[-1].at)
    return found
