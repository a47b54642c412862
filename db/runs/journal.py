"""Group commit: the beginning of runs, the results of steps that share an activity, and the end of runs.

Durable when the call returns. Whatever was handed in meanwhile, by all runs of the process, goes to Postgres
in one statement; see `batches`.
"""

import asyncio
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from db.batches import ActiveTasks, Batches
from db.runs.collaborations import Run
from db.runs.executions import CANCELLED_WITH, FINISHED, FinishedExecution
from db.wakeups import Bell
from schema.cel.expressions import Json
from schema.events import AttemptFailed, CollaborationStarted, Event, StepFinished, StepSkipped
from schema.temporal.runs import Finish
from schema.values.foreign import clean_text

MAX_NAMES: Final = 4_096
_RANDOM: Final = bytearray()


def _id() -> str:
    """A random UUID. The system is asked for many at a time: at thousands a second, each question shows."""
    if not _RANDOM:
        _RANDOM.extend(os.urandom(16 * 256))
    bits = bytes(_RANDOM[-16:])
    del _RANDOM[-16:]
    return str(UUID(bytes=bits, version=4))


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One finished, skipped or failed execution of a step that called no model, or the end of an item."""

    collaboration: str
    tenant: str
    traceparent: str
    path: str
    step: str
    kind: str
    iteration: int
    attempt: int
    agent: str
    status: str
    started_at: datetime
    ended_at: datetime
    output: Json = None
    input: Json = None
    branch: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    begun: bool = False
    """Whether the execution has a row already, which is still running: that of a map or loop."""

    def row(self) -> dict[str, Any]:
        latency = int((self.ended_at - self.started_at).total_seconds() * 1000)
        id = _id()
        event = self._event(id, latency)
        return {
            "key": id,
            "tenant": self.tenant,
            "run": self.collaboration,
            "path": self.path,
            "step": self.step,
            "kind": self.kind,
            "iteration": self.iteration,
            "attempt": self.attempt,
            "agent": self.agent,
            "status": self.status,
            "started": self.started_at.isoformat(),
            "ended": self.ended_at.isoformat(),
            "latency": latency,
            "output": self.output,
            "input": self.input,
            "branch": self.branch,
            "code": self.error_code,
            "message": self.error_message,
            "begun": self.begun,
            "event_id": _id(),
            "event": type(event).__name__ if event else None,
            "payload": event.payload() if event else None,
            "trace": self.traceparent,
        }

    def _event(self, id: str, latency: int) -> Event | None:
        if self.kind == "item":
            return None
        match self.status:
            case "skipped":
                return StepSkipped(self.collaboration, self.step, self.iteration, self.path)
            case "failed":
                return AttemptFailed(
                    self.collaboration,
                    id,
                    self.step,
                    self.iteration,
                    self.attempt,
                    self.error_code or "",
                    "0.000000",
                    self.path,
                    self.error_message or "",
                )
            case "completed":
                return StepFinished(
                    collaboration_id=self.collaboration,
                    execution_id=id,
                    step=self.step,
                    kind=self.kind,
                    iteration=self.iteration,
                    attempt=self.attempt,
                    agent=self.agent,
                    role=None,
                    relationship=None,
                    model="",
                    requested_model=None,
                    input_tokens=0,
                    output_tokens=0,
                    latency_ms=latency,
                    cost_usd="0.000000",
                    found_issues=None,
                    severity=None,
                    quality=None,
                    simulated=False,
                    path=self.path,
                )
        return None


@dataclass(frozen=True)
class MeantVersion:
    """The version that a name means now."""

    id: UUID
    number: int
    sha256: str


# The version that a process remembers for a name is written down only while the name still means it.
_START: Final = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS run(
        key text, tenant text, name text, number int, alias text, version uuid, workflow_id text, task text,
        input json, requested_by text, engine int, parent uuid, parent_path text, trace text,
        parent_span text, linked text, request text, started timestamptz, event_id uuid, event text,
        payload jsonb)
), meant AS (
    SELECT given.* FROM given JOIN workflows ON id = given.version
    WHERE workflows.version = COALESCE(
        given.number,
        (SELECT version FROM aliases
         WHERE tenant_id = given.tenant AND name = given.name AND alias = given.alias),
        CASE WHEN given.alias = 'current' THEN (
            SELECT max(version) FROM workflows
            WHERE tenant_id = given.tenant AND name = given.name AND deprecated IS NULL
              AND planned_by IS NULL) END)
), added AS (
    INSERT INTO collaborations (id, tenant_id, workflow_id, temporal_workflow_id, task, input, status,
        requested_by, engine, parent_id, parent_path, traceparent, parent_span_id, linked_traceparent,
        request_digest, started_at)
    SELECT key::uuid, tenant, version, workflow_id, task, input, 'running', requested_by, engine, parent,
        parent_path, trace, parent_span, linked, request, started
    FROM meant
    ON CONFLICT DO NOTHING
    RETURNING id
), told AS (
    INSERT INTO outbox (id, tenant_id, aggregatetype, aggregateid, type, payload, traceparent)
    SELECT event_id, tenant, 'collaboration', key, event, payload, trace FROM given
    WHERE key::uuid IN (SELECT id FROM added)
)
SELECT id::text FROM added
"""

# One statement is one transaction and one round trip. What another worker had recorded first is left alone,
# and tells the outbox nothing a second time.
_RECORD: Final = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS entry(
        key uuid, tenant text, run uuid, path text, step text, kind text, iteration int, attempt int,
        agent text, status text, started timestamptz, ended timestamptz, latency int, output json,
        input json, branch text, code text, message text, begun bool, event_id uuid, event text,
        payload jsonb, trace text)
), added AS (
    INSERT INTO agent_executions (id, tenant_id, collaboration_id, path, step_id, kind, iteration, attempt,
        agent_name, model_id, status, started_at, completed_at, latency_ms, output, input, branch,
        error_code, error_message)
    SELECT key, tenant, run, path, step, kind, iteration, attempt, agent, '', status, started,
        CASE WHEN status = 'running' THEN NULL ELSE ended END, latency, output, input, branch, code, message
    FROM given WHERE NOT begun
    ON CONFLICT DO NOTHING
    RETURNING id
), closed AS (
    UPDATE agent_executions AS row
    SET status = given.status, completed_at = given.ended, latency_ms = given.latency,
        output = given.output, branch = given.branch, error_code = given.code, error_message = given.message
    FROM given
    WHERE given.begun AND row.collaboration_id = given.run AND row.path = given.path
      AND row.status = 'running'
    RETURNING given.key AS id
)
INSERT INTO outbox (id, tenant_id, aggregatetype, aggregateid, type, payload, traceparent)
SELECT event_id, tenant, 'collaboration', run, event, payload, trace FROM given
WHERE event IS NOT NULL AND key IN (SELECT id FROM added UNION ALL SELECT id FROM closed)
RETURNING id::text
"""


_STATES: Final = """
SELECT asked.key, attempt, status, output, model_id, branch, error_code, error_message, finish_reason
FROM json_to_recordset(%s::json) AS asked(key text, run uuid, path text)
JOIN LATERAL (
    SELECT * FROM agent_executions WHERE collaboration_id = asked.run AND path = asked.path
    ORDER BY attempt DESC LIMIT 1
) AS last ON true
"""

# Nothing of a run that has ended is running, also where the end of one that was closed is done again after a
# lost workflow task: what led to the step that failed has its error, the rest was cancelled. Of judgements
# the last counts: a review after the repair outweighs the one before it. Costs are those of
# sub-collaborations, too.
_FINISH: Final = f"""
WITH RECURSIVE given AS (
    SELECT * FROM json_to_recordset(%s::json) AS run(
        key text, tenant text, status text, sub_state text, code text, message text, step text, output json,
        ended timestamptz, event_id uuid, trace text)
), tree AS (
    SELECT key::uuid AS root, key::uuid AS id FROM given
    UNION ALL
    SELECT root, child.id FROM collaborations child JOIN tree ON child.parent_id = tree.id
), closed AS (
    UPDATE collaborations AS run
    SET status = given.status, sub_state = given.sub_state, error_code = given.code,
        error_message = given.message, final_output = given.output, completed_at = given.ended,
        quality_score = (
            SELECT quality_score FROM agent_executions
            WHERE collaboration_id = given.key::uuid AND quality_score IS NOT NULL
            ORDER BY completed_at DESC LIMIT 1),
        simulated = EXISTS (
                SELECT 1 FROM tree JOIN agent_executions AS done ON done.collaboration_id = tree.id
                WHERE tree.root = run.id AND done.simulated)
            OR EXISTS (
                SELECT 1 FROM tree JOIN model_calls AS call ON call.collaboration_id = tree.id
                WHERE tree.root = run.id AND call.simulated)
    FROM given
    WHERE run.id = given.key::uuid
        AND (run.status = 'running' OR run.status = 'failed' AND given.status = 'completed')
    RETURNING run.id, run.quality_score, run.simulated, given.event_id, given.tenant, given.status,
        given.sub_state, given.code, given.trace, given.ended - run.started_at AS lasted
), total AS (
    SELECT closed.id, figures.* FROM closed, LATERAL (
        SELECT coalesce(sum(cost_usd), 0) AS usd,
            coalesce(sum(input_tokens), 0) + coalesce(sum(output_tokens), 0) AS tokens
        FROM tree JOIN agent_executions ON collaboration_id = tree.id WHERE tree.root = closed.id
    ) AS figures
), behind AS (
    SELECT row.id, given.ended, given.trace, given.code IS NOT NULL AND (
        given.step = '' OR row.path = given.step OR starts_with(row.path, given.step || '~')
        OR starts_with(given.step, row.path || '[')) AS failed, given.code, given.message
    FROM given
    JOIN agent_executions AS row ON row.collaboration_id = given.key::uuid AND row.status = 'running'
), left_running AS (
    UPDATE agent_executions AS row
    SET status = 'failed', completed_at = behind.ended,
        error_code = CASE WHEN failed THEN behind.code ELSE 'cancelled' END,
        error_message = CASE WHEN failed THEN left(behind.message, 2000) ELSE '{CANCELLED_WITH}' END
    FROM behind
    WHERE row.id = behind.id AND row.status = 'running'
    RETURNING row.id, row.tenant_id, row.collaboration_id, row.step_id, row.iteration, row.attempt,
        row.error_code, row.error_message, row.cost_usd, row.path, row.kind, behind.trace
), events AS (
    SELECT 0 AS place, gen_random_uuid() AS event_id, tenant_id AS tenant, collaboration_id AS run,
        'AttemptFailed' AS type, jsonb_build_object(
        'collaboration_id', collaboration_id, 'execution_id', id, 'step', step_id, 'iteration', iteration,
        'attempt', attempt, 'error_code', error_code, 'cost_usd', COALESCE(cost_usd, 0)::numeric(10, 6)::text,
        'path', path, 'error_message', error_message) AS payload, trace
    FROM left_running WHERE kind <> 'item'
    UNION ALL
    SELECT 1, event_id, tenant, id, 'CollaborationFinished', jsonb_build_object(
        'collaboration_id', id, 'status', status, 'sub_state', sub_state, 'error_code', code,
        'cost_usd', usd::text, 'tokens', tokens, 'simulated', simulated,
        'quality', quality_score, 'latency_ms', (extract(epoch FROM lasted) * 1000)::int), trace
    FROM closed JOIN total USING (id)
), told AS (
    INSERT INTO outbox (id, tenant_id, aggregatetype, aggregateid, type, payload, traceparent)
    SELECT event_id, tenant, 'collaboration', run, type, payload, trace FROM events ORDER BY place
)
SELECT id::text, usd::text FROM total
"""


@dataclass(frozen=True)
class ClosedRun:
    cost_usd: Decimal
    """Cost of the run and all its sub-collaborations."""


class Journal:
    """The hot path of runs into Postgres."""

    def __init__(self, database_url: str, bell: Bell) -> None:
        self._bell = bell
        self._meant: dict[tuple[str, str, int | str | None], MeantVersion] = {}
        statements = (_START, _STATES, _RECORD, _FINISH)
        self.crowd = ActiveTasks()
        self._all = [Batches(database_url, statement, self.crowd) for statement in statements]
        self._start, self._states, self._record, self._finish = self._all

    def meant(self, tenant: str, name: str, selector: int | str | None) -> MeantVersion | None:
        """Return the version that a name meant when this process last looked."""
        return self._meant.get((tenant, name, selector))

    def remember(self, tenant: str, name: str, selector: int | str | None, meant: MeantVersion) -> None:
        if len(self._meant) >= MAX_NAMES:
            self._meant.clear()
        self._meant[tenant, name, selector] = meant

    async def start(
        self,
        run: Run,
        selector: int | str | None,
        requested_by: str | None,
        parent: dict[str, str] | None = None,
    ) -> bool:
        """Bind a run to its version; False when it had been bound before, or when `selector` means another
        version by now."""
        id = str(run.id)
        event = CollaborationStarted(id, run.temporal_workflow_id, run.name, run.version, run.task)
        record = {
            "tenant": run.tenant,
            "name": run.name,
            "number": selector if isinstance(selector, int) else None,
            "alias": None if isinstance(selector, int) else selector or "current",
            "version": str(run.version_id),
            "workflow_id": run.temporal_workflow_id,
            "task": run.task,
            "input": run.input,
            "requested_by": requested_by,
            "engine": run.engine,
            "parent": (parent or {}).get("collaboration"),
            "parent_path": (parent or {}).get("path"),
            "trace": run.traceparent,
            "parent_span": run.parent_span_id,
            "linked": run.linked_traceparent,
            "request": run.request_digest,
            "started": run.started_at.isoformat(),
            "event_id": _id(),
            "event": type(event).__name__,
            "payload": event.payload(),
        }
        begun = await self._start.ask(id, record) is not None
        self._bell.changed([id])
        return begun

    async def states(
        self, run: UUID, paths: Collection[str]
    ) -> tuple[dict[str, FinishedExecution], dict[str, int]]:
        """Return the same as `db.runs.executions.states`."""
        if not paths:
            return {}, {}
        keys = {f"{run}/{path}": path for path in paths}
        rows = await self._states.send(
            [{"key": key, "run": str(run), "path": path} for key, path in keys.items()]
        )
        mine = [(path, rows[key]) for key, path in keys.items() if key in rows]
        known = {path: FinishedExecution(*row[2:]) for path, row in mine if row[2] in FINISHED}
        return known, {path: row[1] for path, row in mine}

    async def record(self, *entries: JournalEntry) -> None:
        """Record the results of executions; one that another worker had finished first is left as it is."""
        await self.post(*entries)
        self._bell.changed({entry.collaboration for entry in entries})

    def post(self, *entries: JournalEntry) -> asyncio.Future[Any]:
        """Like `record`, to be awaited some time; what is recorded later cannot overtake it."""
        return self._record.send([entry.row() for entry in entries])

    async def finish(self, request: Finish, output: Json) -> ClosedRun | None:
        """Close a run; None when it had been closed already. The first close counts, unless the run had
        failed and completes after all: Temporal's reset lets it go on from where it stood before."""
        record = {
            "tenant": request.tenant,
            "status": request.status,
            "sub_state": request.sub_state,
            "code": clean_text(request.error_code or "") or None,
            "message": clean_text(request.error_message or "")[:4_000] or None,
            "step": request.step,
            "output": output,
            "ended": datetime.now(UTC).isoformat(),
            "event_id": _id(),
            "trace": request.traceparent,
        }
        closed = await self._finish.ask(request.collaboration, record)
        self._bell.changed([request.collaboration])
        return ClosedRun(Decimal(closed[1])) if closed else None

    async def close(self) -> None:
        for batches in self._all:
            await batches.close()
