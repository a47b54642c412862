"""The check of callers: an activity that belongs to a run works for that run's own workflow only."""

from collections import OrderedDict
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.runs.context import known_run, run_of
from db.engine import transaction
from db.runs.collaborations import Run
from schema.errors import Refused, Unavailable
from schema.names import OWN_TYPES
from schema.temporal.failures import first_run_id
from schema.temporal.people import DecisionRecord
from schema.temporal.runs import ChildEnd, ChildFailure, Finish, PinRequest, SteerOrder
from schema.temporal.steps import CaughtFailure, ItemEnd, OwnActivityReturn, SegmentRequest, StepRequest

RunBound = (
    PinRequest
    | StepRequest
    | SegmentRequest
    | Finish
    | SteerOrder
    | ItemEnd
    | CaughtFailure
    | OwnActivityReturn
    | DecisionRecord
    | ChildEnd
    | ChildFailure
)
"""The arguments that name a run. Every other activity belongs to the platform's own workflows."""
_MAX_CONTINUED_RUNS: Final = 4_096
_DESCRIBE_TIMEOUT: Final = timedelta(seconds=5)


class CallerInterceptor(Interceptor):
    """Refuses, on a worker of the platform, every call that names another run than the one that calls.

    Requests carry the run and the tenant that they are for. Anyone who can schedule an activity on one of our
    queues could write any run into them; only the server's own word about the caller counts.
    """

    def __init__(self, engine: AsyncEngine, client: Client) -> None:
        self._engine = engine
        self._client = client
        self._first_runs: OrderedDict[str, str] = OrderedDict()
        """Runs that were continued as new, or reset: run id → first run id."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _CheckedCalls(next, self)

    async def check(self, request: object) -> None:
        """Raise Refused unless the calling workflow is the run of the request, and of its tenant."""
        caller = activity.info()
        if not isinstance(request, RunBound):
            if not (caller.workflow_type or "").startswith(OWN_TYPES):
                raise _foreign("a workflow of the platform")
        elif isinstance(request, PinRequest):
            # Its tenant is looked at by the pin itself, which knows what the start was given.
            if request.workflow_id != caller.workflow_id:
                raise _foreign(f"the run {request.workflow_id!r}")
            await self._check_run(caller, request.first_run_id)
        else:
            step = (
                request
                if isinstance(request, (StepRequest, SegmentRequest, Finish, SteerOrder))
                else request.request
            )
            await self._check_run(caller, step.collaboration)
            run = known_run(step.collaboration) or await self._read_run(step.collaboration)
            if run.tenant != step.tenant:
                raise _foreign(f"a run of the tenant {run.tenant!r}")

    async def _read_run(self, collaboration: str) -> Run:
        async with transaction(self._engine) as connection:
            return await run_of(connection, collaboration)

    async def _check_run(self, caller: activity.Info, collaboration: str) -> None:
        """Compare first run ids; the caller's own run id differs once it was continued as new or reset."""
        own = caller.workflow_run_id or ""
        if own != collaboration and await self._first_run(caller.workflow_id or "", own) != collaboration:
            raise _foreign(f"the run {collaboration}")

    async def _first_run(self, workflow_id: str, run_id: str) -> str:
        known = self._first_runs.get(run_id)
        if known is None:
            handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
            try:
                described = await handle.describe(rpc_timeout=_DESCRIBE_TIMEOUT)
            except RPCError as error:
                raise Unavailable(
                    "temporal_unavailable", "Temporal cannot tell which run is calling."
                ) from error
            known = self._first_runs[run_id] = first_run_id(described)
            if len(self._first_runs) > _MAX_CONTINUED_RUNS:
                self._first_runs.popitem(last=False)
        return known


class _CheckedCalls(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, callers: CallerInterceptor) -> None:
        super().__init__(next)
        self._callers = callers

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        await self._callers.check(input.args[0] if input.args else None)
        return await super().execute_activity(input)


def _foreign(expected: str) -> Refused:
    caller = activity.info()
    return Refused(
        "caller_foreign",
        f"found {caller.activity_type!r} called by the workflow {caller.workflow_id!r}; expected {expected}. "
        "The platform's activities are no tools: serve your own on a queue of your own.",
    )
