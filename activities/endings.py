"""Runs that were terminated in Temporal, or timed out there: they cannot say in Postgres that they ended."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import heartbeats
from activities.record import end_run_span
from db import collaborations, executions
from db.collaborations import Run
from db.engine import transaction
from db.journal import Journal
from schema.endings import SUB_STATES, error_of
from schema.messages import EndingsPass, Finish
from workflows.failures import cause_of

PAGE: Final = 200
"""Runs that Temporal is asked about at once."""
_LISTED: Final = 100
_ENDED: Final = "ExecutionStatus IN ('Terminated', 'TimedOut', 'Failed', 'Canceled')"


class EndingsActivity:
    def __init__(self, engine: AsyncEngine, journal: Journal, client: Client) -> None:
        self._engine = engine
        self._journal = journal
        self._client = client

    @activity.defn(name="close_ended")
    async def close_ended(self) -> EndingsPass:
        """Close in Postgres what runs there and has ended in Temporal. Doing it again finds nothing more."""
        looked, closed = 0, list[str]()
        behind: Run | None = None
        async with heartbeats():
            while True:
                async with transaction(self._engine) as connection:
                    page = await collaborations.running(connection, PAGE, behind)
                for run, ended in await self._ended(page):
                    if await self._close(run, ended):
                        closed.append(f"{run.temporal_workflow_id}: {_status(ended)}")
                looked += len(page)
                if len(page) < PAGE:
                    return EndingsPass(looked, len(closed), closed[:_LISTED])
                behind = page[-1]

    async def _ended(self, page: Sequence[Run]) -> list[tuple[Run, WorkflowExecutionDescription]]:
        if not page:
            return []
        by_id: dict[str, list[Run]] = {}
        for run in page:
            by_id.setdefault(run.temporal_workflow_id, []).append(run)
        seen: set[tuple[str, str]] = set()
        found = []
        for id, run_id in await self._candidates(by_id):
            told = await self._describe(id, run_id)
            if told is None or (id, _first(told)) in seen:
                continue
            seen.add((id, _first(told)))
            if _status(told) in SUB_STATES:
                found += [(run, told) for run in by_id[id] if str(run.id) == _first(told)]
        return found

    async def _candidates(self, ids: Collection[str]) -> list[tuple[str, str | None]]:
        """(id, run id) of what may have ended, None for the newest of an id. That one goes first: a run that
        was reset goes on under its id."""
        # Temporal's lists never find these.
        found: list[tuple[str, str | None]] = [(id, None) for id in ids if '"' in id or "\\" in id]
        if among := ", ".join(f'"{id}"' for id in ids if (id, None) not in found):
            async for hit in self._client.list_workflows(f"{_ENDED} AND WorkflowId IN ({among})"):
                found += [(hit.id, None), (hit.id, hit.run_id)]
        return found

    async def _describe(self, id: str, run_id: str | None) -> WorkflowExecutionDescription | None:
        try:
            return await self._client.get_workflow_handle(id, run_id=run_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _close(self, run: Run, ended: WorkflowExecutionDescription) -> bool:
        code, message = error_of(_status(ended)) or (None, None)
        if _status(ended) == "FAILED":
            code, message = await self._failure(ended)
        async with transaction(self._engine) as connection:
            await executions.abandon(connection, run, code or "cancelled", message or "its run was cancelled")
        finish = Finish(
            str(run.id), run.tenant, run.traceparent, "failed", SUB_STATES[_status(ended)], code, message
        )
        if not await self._journal.finish(finish, None):
            return False
        end_run_span(run, finish)
        return True

    async def _failure(self, ended: WorkflowExecutionDescription) -> tuple[str, str]:
        try:
            await self._client.get_workflow_handle(ended.id, run_id=ended.run_id).result()
        except WorkflowFailureError as error:
            return cause_of(error)
        return "run_failed", ""


def _status(told: WorkflowExecutionDescription) -> str:
    return told.status.name if told.status else ""


def _first(told: WorkflowExecutionDescription) -> str:
    """The same along a chain of continued runs: Postgres' key of the collaboration."""
    return told.raw_description.workflow_execution_info.first_run_id or told.run_id
