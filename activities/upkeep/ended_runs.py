"""Runs that were terminated in Temporal, or timed out there: they cannot say in Postgres that they ended."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import heartbeats
from activities.runs.finish import end_run_span
from db.engine import transaction
from db.runs import collaborations, executions, people
from db.runs.collaborations import Run
from db.runs.journal import Journal
from schema.endings import SUB_STATES, error_of
from schema.temporal.failures import failure_of, first_run_id
from schema.temporal.runs import Finish
from schema.temporal.upkeep import EndingsPass

PAGE: Final = 200
"""Runs that Temporal is asked about at once."""
_LISTED: Final = 100
_ENDED: Final = ", ".join(f"'{status.title().replace('_', '')}'" for status in SUB_STATES)
"""Ended statuses as Temporal's lists spell them."""


class EndingsActivity:
    def __init__(self, engine: AsyncEngine, journal: Journal, client: Client) -> None:
        self._engine = engine
        self._journal = journal
        self._client = client

    @activity.defn(name="close_ended")
    async def close_ended(self) -> EndingsPass:
        """Close in Postgres what runs there and has ended in Temporal, and steps whose run has ended.

        Doing it again finds nothing more.
        """
        looked, closed = 0, list[str]()
        behind: Run | None = None
        async with heartbeats():
            async with transaction(self._engine) as connection:
                await executions.close_left(connection)
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
        by_id: dict[str, dict[str, Run]] = {}
        for run in page:
            by_id.setdefault(run.temporal_workflow_id, {})[str(run.id)] = run
        found = []
        for id, run_ids in (await self._candidates(by_id)).items():
            left = by_id[id]
            # The newest goes first: a run that was reset goes on under its id.
            for run_id in (None, *run_ids):
                if left and (told := await self._describe(id, run_id)):
                    ours = left.pop(first_run_id(told), None)
                    if ours and _status(told) in SUB_STATES:
                        found.append((ours, told))
        return found

    async def _candidates(self, ids: Collection[str]) -> dict[str, list[str]]:
        """Return, by tenant, those of the ids whose runs Temporal lists as ended."""
        # Temporal's lists never find the first ones.
        found: dict[str, list[str]] = {id: [] for id in ids if '"' in id or "\\" in id}
        if among := ", ".join(f'"{id}"' for id in ids if id not in found):
            query = f"ExecutionStatus IN ({_ENDED}) AND WorkflowId IN ({among})"
            async for hit in self._client.list_workflows(query):
                found.setdefault(hit.id, []).append(hit.run_id)
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
            handle = self._client.get_workflow_handle(ended.id, run_id=ended.run_id)
            code, message = await failure_of(handle)
        async with transaction(self._engine) as connection:
            await people.withdraw(connection, run.id)
        finish = Finish(
            str(run.id), run.tenant, run.traceparent, "failed", SUB_STATES[_status(ended)], code, message
        )
        if not await self._journal.finish(finish, None):
            return False
        end_run_span(run, finish)
        return True


def _status(told: WorkflowExecutionDescription) -> str:
    return told.status.name if told.status else ""
