"""What happened in runs since their watchers last looked, read for many runs at once.

Order: an execution begins, says its tokens, ends; the run ends last. Between executions the order is that in
which this reader found it, so two watchers may see parallel steps interleaved differently, but nothing is
lost, told twice or told in the wrong order: a `Place` names exactly what was told, whatever commits late.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from db import tokens, wakeups
from schema.live import (
    AGENT,
    Live,
    LiveEvent,
    PeopleAsked,
    PeopleDecided,
    Place,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
    key_of,
)

MOST_EVENTS: Final = 1_000

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
_OPENED: Final = """
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
_KEPT: Final = """
    SELECT collaboration_id::text AS run, path, status FROM agent_executions AS kept
    WHERE collaboration_id = ANY(%s::uuid[]) AND strpos(path, '[') = 0
        AND status IN ('completed', 'skipped', 'caught') AND (reused_from IS NOT NULL OR agent_name = 'given')
        AND id::text NOT IN (
            SELECT payload->>'execution_id' FROM outbox
            WHERE aggregateid = kept.collaboration_id::text AND type = 'StepFinished')
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


@dataclass(slots=True)
class Follower:
    """One watcher's way through a run, or that of many who have come equally far."""

    run: str
    """UUID."""
    place: Place = field(default_factory=Place)
    open: dict[str, StepBegan] = field(default_factory=dict)
    """Execution → what is under way and was told to have begun."""
    ended: bool = False
    behind: bool = True
    """Whether there was more to read than one reading takes."""

    def asked(self) -> dict[str, Any]:
        place = self.place
        most = MOST_EVENTS + len(place.beyond)
        return {"run": self.run, "xid": str(place.xid), "seq": place.seq, "most": most}

    def told(self, execution: str) -> int:
        return self.place.open.get(key_of(execution), 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one snapshot holds for one follower."""

    events: list[Any]
    under_way: list[Any]
    kept: dict[str, str] = field(default_factory=dict)
    """Path → status of what a forked run took over."""

    def began(self, event: Any) -> StepBegan | None:
        """The beginning of an attempt that has failed."""
        if not _failed(event):
            return None
        execution = event.payload["execution_id"]
        return next((_began(row) for row in self.under_way if row.execution == execution), None)


@dataclass(frozen=True, slots=True)
class Came:
    """What an execution said since."""

    text: str
    count: int
    at: datetime


Said = dict[tuple[str, int], Any]
"""(execution, tokens told of it) → what came since."""


class LiveSource:
    """Reads for all followers of a process, on one connection."""

    def __init__(self, database_url: str) -> None:
        self._url = wakeups.plain(database_url)
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def follower(self, run: UUID, place: Place) -> Follower:
        """Go on from a place; raises psycopg.Error."""
        follower = Follower(str(run), place)
        async with self._connected() as connection:
            if place.xid or place.beyond:
                given = {"run": str(run), "xid": str(place.xid), "seq": place.seq}
                told = await connection.execute(_OVER, given | {"beyond": list(place.beyond)})
                follower.ended = await told.fetchone() is not None
            if place.open:
                rows = await connection.execute(_OPENED, (run, list(place.open)))
                follower.open = {row.execution: _began(row) for row in await rows.fetchall()}
                known = {key_of(execution) for execution in follower.open}
                place.open = {key: count for key, count in place.open.items() if key in known}
        return follower

    async def read(self, followers: Sequence[Follower]) -> list[list[Live]]:
        """What each has not been told, in one snapshot, so that followers of one run come equally far."""
        async with self._connected() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            seen = await _look(connection, followers)
            said = await _said(connection, followers, seen)
        return [tell(follower, mine, said) for follower, mine in zip(followers, seen, strict=True)]

    async def read_tokens(self, followers: Sequence[Follower]) -> list[list[Live]]:
        """Only what the executions under way have said since."""
        seen = [Seen([], []) for _ in followers]
        async with self._connected() as connection:
            said = await _said(connection, followers, seen)
        return [_listen(follower, said) for follower in followers]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        if self._connection is None:
            self._connection = await wakeups.connect(self._url)
            self._connection.row_factory = namedtuple_row
        try:
            yield self._connection
        except psycopg.Error:
            await self.close()
            raise


async def _look(connection: psycopg.AsyncConnection[Any], followers: Sequence[Follower]) -> list[Seen]:
    # Two followers of one run may ask differently; an answer belongs to its question.
    asked = [{**follower.asked(), "key": at} for at, follower in enumerate(followers)]
    events: dict[int, list[Any]] = {}
    for row in await (await connection.execute(_EVENTS, (json.dumps(asked),))).fetchall():
        events.setdefault(row.key, []).append(row)
    runs = list({follower.run for follower in followers})
    opened = {execution for follower in followers for execution in follower.open}
    # Their events do not say of what kind they were.
    opened |= {row.payload["execution_id"] for rows in events.values() for row in rows if _failed(row)}
    under_way: dict[str, list[Any]] = {}
    for row in await (await connection.execute(_UNDER_WAY, (runs, list(opened)))).fetchall():
        under_way.setdefault(row.run, []).append(row)
    forked = [row.payload["collaboration_id"] for rows in events.values() for row in rows if _is_fork(row)]
    kept: dict[str, dict[str, str]] = {}
    if forked:
        for row in await (await connection.execute(_KEPT, (forked,))).fetchall():
            kept.setdefault(row.run, {})[row.path] = row.status
    return [
        Seen(events.get(at, []), under_way.get(follower.run, []), kept.get(follower.run, {}))
        for at, follower in enumerate(followers)
    ]


def _is_fork(row: Any) -> bool:
    return bool(row.type == "CollaborationStarted" and row.payload.get("forked_from"))


async def _said(
    connection: psycopg.AsyncConnection[Any], followers: Sequence[Follower], seen: Sequence[Seen]
) -> Said:
    """What came of every execution that a follower may have to tell of."""
    wanted: dict[tuple[str, int], None] = {}
    for follower, mine in zip(followers, seen, strict=True):
        speaking = [began.execution for began in follower.open.values() if began.kind == AGENT]
        speaking += [row.execution for row in mine.under_way if row.kind == AGENT]
        speaking += [row.payload["execution_id"] for row in mine.events if _may_have_spoken(row)]
        wanted |= {(execution, follower.told(execution)): None for execution in speaking}
    found: Said = {}
    asked_of = list(wanted)
    while wanted:
        # Watchers of one run may have come differently far: an execution stands in a question once.
        asked = dict(wanted.keys())
        rows = await connection.execute(_SAID, (list(asked), list(asked.values()), tokens.MOST))
        found |= {(row.execution, asked[row.execution]): row for row in await rows.fetchall()}
        wanted = {one: None for one in wanted if asked[one[0]] != one[1]}
    ended = {row.payload["execution_id"] for mine in seen for row in mine.events if _may_have_spoken(row)}
    if silent := [one for one in asked_of if one[0] in ended and one not in found]:
        found |= await _archived(connection, silent)
    return found


async def _archived(connection: psycopg.AsyncConnection[Any], asked: Sequence[tuple[str, int]]) -> Said:
    """The same of executions whose tokens are not where new ones are."""
    answer = await connection.execute(_ARCHIVED, (list({execution for execution, _ in asked}),))
    archives = {row.execution: row for row in await answer.fetchall()}
    found: Said = {}
    for execution, first in asked:
        if row := archives.get(execution):
            more = list(tokens.unpack(row.tokens, row.first_at, first, tokens.MOST))
            if more:
                text = "".join(one.text for one in more)
                found[execution, first] = Came(text, len(more), more[-1].at)
    return found


def _failed(row: Any) -> bool:
    return bool(row.type == "AttemptFailed")


def _may_have_spoken(row: Any) -> bool:
    return _failed(row) or bool(row.type == "StepFinished" and row.payload["kind"] == AGENT)


def tell(follower: Follower, seen: Seen, said: Said) -> list[Live]:
    """Everything a snapshot holds that was not told, in order; the follower's place moves along."""
    follower.behind = len(seen.events) >= follower.asked()["most"]
    lives: list[Live] = []
    for row in seen.under_way:
        # A worker died, and the next attempt has taken over: no event tells of it.
        if row.status == "abandoned" and row.execution in follower.open:
            ended, more = _end(follower, _superseded(row), row.started_at, said)
            lives += ended
            if more:  # it has to be forgotten before the attempt that follows it ends
                follower.behind = True
                return lives
    for row in seen.events:
        if row.seq not in follower.place.beyond:
            told, more = _event(follower, row, said, seen)
            lives += told
            if more:
                follower.behind = True
                return lives
        _pass(follower.place, row)
    if follower.ended:
        return lives
    if not follower.behind:
        for row in seen.under_way:
            if row.status == "running" and row.execution not in follower.open:
                lives.append(_begin(follower, _began(row), row.started_at))
    return lives + _listen(follower, said)


def _listen(follower: Follower, said: Said) -> list[Live]:
    """What the executions under way have said."""
    lives = []
    for began in follower.open.values():
        if row := said.get((began.execution, follower.told(began.execution))):
            follower.behind |= row.count >= tokens.MOST
            lives.append(_came(follower, began, row))
    return lives


def _event(follower: Follower, row: Any, said: Said, seen: Seen) -> tuple[list[Live], bool]:
    """(what one event comes to, whether there is more to read before it is told)."""
    if row.type in ("StepFinished", "AttemptFailed"):
        began = follower.open.get(row.payload["execution_id"]) or seen.began(row)
        return _end(follower, end_of(row.type, row.payload, began), row.created_at, said, row)
    event = plain_event(row.type, row.payload, seen.kept)
    if event is None:
        return [], False
    lives: list[Live] = []
    if isinstance(event, RunEnded):
        lives, more = _close(follower, row.created_at, said)
        if more:
            return lives, True
        follower.ended = True
    _pass(follower.place, row)
    return [*lives, Live(str(follower.place), row.created_at, event)], False


def _close(follower: Follower, at: datetime, said: Said) -> tuple[list[Live], bool]:
    """The ends of what is under way when the run ends: a step that nobody waited for any more may have had
    none of its own."""
    lives: list[Live] = []
    for began in list(follower.open.values()):
        told, more = _end(follower, _superseded(began), at, said)
        lives += told
        if more:
            return lives, True
    return lives, False


def _end(
    follower: Follower, ended: StepEnded, at: datetime, said: Said, row: Any = None
) -> tuple[list[Live], bool]:
    """The end of an execution, behind all that it said and, where nobody knew of it, its beginning."""
    lives = []
    execution = ended.execution
    if execution not in follower.open:
        began = StepBegan(
            execution, ended.path, ended.step, ended.kind, ended.attempt, ended.agent, ended.model
        )
        lives.append(_begin(follower, began, at - timedelta(milliseconds=ended.latency_ms)))
    if more := said.get((execution, follower.told(execution))):
        lives.append(_came(follower, follower.open[execution], more))
        if more.count >= tokens.MOST:
            return lives, True
    del follower.open[execution]
    follower.place.open.pop(key_of(execution), None)
    if row is not None:
        _pass(follower.place, row)
    return [*lives, Live(str(follower.place), at, ended)], False


def _begin(follower: Follower, began: StepBegan, at: datetime) -> Live:
    follower.open[began.execution] = began
    follower.place.open[key_of(began.execution)] = 0
    return Live(str(follower.place), at, began)


def _came(follower: Follower, began: StepBegan, row: Any) -> Live:
    first = follower.told(began.execution)
    follower.place.open[key_of(began.execution)] = first + row.count
    event = TokensCame(began.execution, began.path, row.text, first, row.count, began.agent)
    return Live(str(follower.place), row.at, event)


def _pass(place: Place, row: Any) -> None:
    """The watcher knows of this event from now on."""
    if row.settled:
        place.xid, place.seq = row.xid, row.seq
        place.beyond.discard(row.seq)
    else:
        place.beyond.add(row.seq)


def _began(row: Any) -> StepBegan:
    return StepBegan(row.execution, row.path, row.step, row.kind, row.attempt, row.agent, row.model)


def _superseded(row: Any) -> StepEnded:
    return StepEnded(
        row.execution, row.path, row.step, row.kind, row.attempt, row.agent, "superseded", row.model
    )


def end_of(type: str, facts: dict[str, Any], began: StepBegan | None) -> StepEnded:
    """What a finished or failed attempt came to; who it was may be known from its beginning only."""
    execution, path = facts["execution_id"], facts.get("path") or facts["step"]
    if type == "StepFinished":
        return StepEnded(
            execution, path, facts["step"], facts["kind"], facts["attempt"], facts["agent"], "completed",
            facts["model"], facts["input_tokens"], facts["output_tokens"], float(facts["cost_usd"]),
            facts["latency_ms"], simulated=facts["simulated"],
        )  # fmt: skip
    return StepEnded(
        execution, path, facts["step"], began.kind if began else "", facts["attempt"],
        began.agent if began else "", "failed", began.model if began else "",
        cost_usd=float(facts["cost_usd"]), error_code=facts["error_code"],
    )  # fmt: skip


def plain_event(type: str, facts: dict[str, Any], kept: dict[str, str]) -> LiveEvent | None:
    match type:
        case "CollaborationStarted":
            return RunBegan(
                facts["temporal_workflow_id"], facts["collaboration_id"], facts["name"], facts["version"],
                facts["task"], kept, facts.get("forked_from") or "",
            )  # fmt: skip
        case "StepSkipped":
            return StepEnded("", facts.get("path") or facts["step"], facts["step"], "", 0, "", "skipped")
        case "StepCaught":
            return StepEnded(
                "", facts["path"], facts["step"], "", 0, "", "caught", error_code=facts["error_code"]
            )
        case "HumanAsked":
            return PeopleAsked(facts["task_id"], facts["path"], facts["title"], facts["assignees"])
        case "HumanDecided":
            return PeopleDecided(
                facts["task_id"], facts["path"], facts["actor"], facts["action"], facts["closed"]
            )
        case "RunSteered":
            return Steered(facts["action"], facts["actor"], facts["detail"])
        case "CollaborationFinished":
            return RunEnded(
                facts["status"], facts["sub_state"], facts["error_code"], float(facts["cost_usd"]),
                facts["quality"], facts["latency_ms"],
            )  # fmt: skip
    return None
