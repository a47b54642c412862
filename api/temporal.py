"""The API's way to Temporal: connected when first needed, and again when it was away."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from api.health.queues import WaitingWork, waiting_in
from schema import names
from schema.errors import FacilitairError, NotFound, Refused, Unavailable
from schema.language.tasks import task_of
from schema.settings import Settings
from schema.temporal.memo import (
    MEMO_FORK,
    MEMO_PROOF,
    MEMO_REQUEST,
    MEMO_REQUEST_SPAN,
    MEMO_REQUESTED_BY,
    MEMO_TENANT,
    MEMO_TRACEPARENT,
)
from schema.temporal.queues import QUEUE_COLLABORATIONS, TASK_TIMEOUT_SECONDS
from schema.temporal.runs import Fork, Steer
from schema.temporal.signing import signer_of

# Importing temporalio takes half a second: it happens on first use, after the API has begun to answer.
if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
    from temporalio.service import RPCError

_CONNECT_TIMEOUT_SECONDS: Final = 3.0
RPC_TIMEOUT: Final = timedelta(seconds=5)
"""Longest time of one call to Temporal."""
_POLLS: Final = timedelta(seconds=2)
_UPDATE_TIMEOUT_SECONDS: Final = 15.0
"""A run that is just being taken over by another worker needs some."""
_STEER_REFUSED: Final = (
    "steer_invalid",
    "agent_unknown",
    "step_unknown",
    "model_unknown",
    "collaboration_ended",
)
_MAX_INPUT_BYTES: Final = 2 * 1024 * 1024 - 64 * 1024
"""Temporal takes no payload of more than 2 MiB, and writes what is not ASCII as six bytes for two."""
_MAX_SUMMARY_CHARS: Final = 90
"""Temporal takes 400 bytes of JSON."""
ENDED_MEANWHILE: Final = "AcceptedUpdateCompletedWorkflow"
"""Temporal's own type for an Update that a workflow accepted and never handled."""
TASK_TIMEOUT: Final = timedelta(seconds=TASK_TIMEOUT_SECONDS)


@dataclass(frozen=True)
class TemporalRun:
    """A run as Temporal knows it, whether or not it has reached Postgres."""

    id: str
    run_id: str
    first_run_id: str
    """The same along a chain of continued runs: Postgres' key of the collaboration."""
    type: str
    status: str
    """Status in Temporal's words: RUNNING, COMPLETED, FAILED, CANCELED, TERMINATED, TIMED_OUT."""
    tenant: str
    started_at: datetime
    closed_at: datetime | None
    request_digest: str | None = None
    """Digest of the request that started it; None if it was started past the API."""
    waiting: Sequence[WaitingWork] = ()
    """Its work that no worker has taken so far."""


class Temporal:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.signer = signer_of(settings)
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> "Client":
        """Once connected, the client itself follows a server that goes and comes back."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self._connect()
        return self._client

    async def _connect(self) -> "Client":
        await asyncio.to_thread(_import)
        from temporalio.client import Client
        from temporalio.service import RetryConfig

        from workflows.codec import data_converter

        address = self._settings.temporal_address
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
                return await Client.connect(
                    address,
                    namespace=self._settings.temporal_namespace,
                    identity="facilitair-api",
                    data_converter=data_converter(self._settings),
                    retry_config=RetryConfig(max_elapsed_time_millis=3_000),
                )
        except (RuntimeError, TimeoutError, OSError) as error:
            raise _away(address) from error

    async def start(
        self,
        definition: str,
        input: Any,
        *,
        id: str,
        tenant: str,
        actor: str,
        traceparent: str | None = None,
        span_id: str | None = None,
        request_digest: str | None = None,
        fork: Fork | None = None,
    ) -> str:
        """Start a collaboration; its first run id. `definition` is name, name@version or name@alias.

        Raises Refused("collaboration_exists") for an id that a run has, also one that has ended.
        """
        client = await self.client()
        from temporalio.common import WorkflowIDReusePolicy
        from temporalio.exceptions import WorkflowAlreadyStartedError
        from temporalio.service import RPCError

        _check_size(input)
        memo = memo_of(tenant, actor, traceparent, fork, span_id=span_id, request_digest=request_digest)
        memo |= self.proof_of(tenant, actor, id, definition, fork)
        try:
            handle = await client.start_workflow(
                definition,
                input,
                id=id,
                task_queue=QUEUE_COLLABORATIONS,
                static_summary=summary_of(input),
                static_details=details_of(definition, actor),
                memo=memo,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                task_timeout=TASK_TIMEOUT,
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            raise exists(id) from None
        except RPCError as error:
            raise self.told(error, id) from error
        return handle.first_execution_run_id or ""

    def proof_of(
        self, tenant: str, actor: str, id: str, definition: str, fork: Fork | None = None
    ) -> dict[str, str]:
        """Return what a start's memo holds so that workers believe the rest of it."""
        return {MEMO_PROOF: self.signer.start(tenant, actor, id, definition, fork)} if self.signer else {}

    async def describe(self, id: str, tenant: str) -> TemporalRun:
        """A collaboration. Raises NotFound, also for a run of another tenant and for what is none.

        A bare SDK client starts runs without a memo. What makes them collaborations is the platform's own:
        the task queue, which nobody serves but the one workflow that runs definitions, and neither an id nor
        a type that belongs to the platform.
        """
        found = await self._described(id)
        if found.task_queue != QUEUE_COLLABORATIONS or any(map(names.is_reserved, (id, found.workflow_type))):
            raise _unknown(id)
        # Without a memo it belongs to the default tenant.
        execution = await _execution(found, "default")
        if execution.tenant != tenant:
            raise _unknown(id)
        return execution

    async def describe_own(self, id: str, type: str, tenant: str) -> TemporalRun:
        """A workflow of the platform's own that was started for a tenant. Raises NotFound, also for what
        stands there in its place."""
        found = await self._described(id)
        execution = await _execution(found, "")
        if (execution.type, execution.tenant) != (type, tenant) or found.task_queue == QUEUE_COLLABORATIONS:
            raise _unknown(id)
        return execution

    async def _described(self, id: str) -> "WorkflowExecutionDescription":
        client = await self.client()
        from temporalio.service import RPCError

        try:
            return await client.get_workflow_handle(id).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise self.told(error, id) from error

    async def failure(self, execution: TemporalRun) -> tuple[str, str]:
        """(code, message) of a run that failed."""
        client = await self.client()
        from temporalio.service import RPCError

        from schema.temporal.failures import failure_of

        try:
            return await failure_of(
                client.get_workflow_handle(execution.id, run_id=execution.run_id), RPC_TIMEOUT
            )
        except RPCError as error:
            raise self.told(error, execution.id) from error

    async def handle_of(self, id: str, run: str) -> "WorkflowHandle[Any, Any]":
        """Return the handle of the run with this UUID, and of nothing else that has its id by now.

        The UUID is the first run id of a chain of continued runs. Those that a cron schedule starts share one
        as well, and each of them is a collaboration under its own run id.
        """
        client = await self.client()
        from temporalio.service import RPCError, RPCStatusCode

        from schema.temporal.failures import first_run_id

        own = client.get_workflow_handle(id, run_id=run)
        try:
            if first_run_id(await own.describe(rpc_timeout=RPC_TIMEOUT)) != run:
                return own
        except RPCError as error:
            # The first of a long chain may have been forgotten.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise self.told(error, id) from error
        return client.get_workflow_handle(id, first_execution_run_id=run)

    async def cancel(self, id: str, first_run_id: str) -> None:
        """Ask a run to stop; nothing else that has its id by now is touched."""
        from temporalio.service import RPCError

        try:
            await (await self.handle_of(id, first_run_id)).cancel(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise self.told(error, id) from error

    async def steer(self, id: str, first_run_id: str, action: str, steer: Steer) -> str:
        """Let a run take an Update: pause, resume, inject_feedback or adjust; `paused` or `running`, as it is
        then. Raises Refused where it does not."""
        from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
        from temporalio.exceptions import ApplicationError
        from temporalio.service import RPCError, RPCStatusCode

        handle = await self.handle_of(id, first_run_id)
        steer = self.signer.steer(first_run_id, action, steer) if self.signer else steer
        try:
            async with asyncio.timeout(_UPDATE_TIMEOUT_SECONDS):
                told: str = await handle.execute_update(
                    action, steer, result_type=str, rpc_timeout=RPC_TIMEOUT
                )
                return told
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            code = cause.type if isinstance(cause, ApplicationError) and cause.type else "internal_error"
            if code == ENDED_MEANWHILE:
                raise _ended(id) from error
            message = cause.message if isinstance(cause, ApplicationError) else type(cause).__name__
            kind = Refused if code in _STEER_REFUSED else FacilitairError
            raise kind(code, message) from error
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            raise Unavailable(
                "worker_unavailable",
                "no worker took it in time; it may still be taken. Look at the run before you try once more.",
            ) from error
        except RPCError as error:
            # What is closed takes no Update, and the caller has just found the run.
            raise (_ended(id) if error.status is RPCStatusCode.NOT_FOUND else self.told(error, id)) from error

    async def last_poll(self, queue: str, *, of_workflows: bool = False) -> datetime | None:
        """Return when a worker last polled a task queue for activities, or for workflows; None where none has
        for five minutes. Raises Unavailable."""
        client = await self.client()
        from temporalio.api.enums.v1 import TaskQueueType
        from temporalio.api.taskqueue.v1 import TaskQueue
        from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
        from temporalio.service import RPCError

        kind = (
            TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW if of_workflows else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
        )
        asked = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
        )
        try:
            found = await client.workflow_service.describe_task_queue(asked, timeout=_POLLS)
        except RPCError as error:
            raise self.told(error, queue) from error
        polls = [one.last_access_time.ToDatetime(UTC) for one in found.pollers]
        return max(polls, default=None)

    async def check(self) -> None:
        """Raises Unavailable unless the server and the namespace answer."""
        client = await self.client()
        from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
        from temporalio.service import RPCError

        try:
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=client.namespace), timeout=timedelta(seconds=2)
            )
        except RPCError as error:
            raise self.told(error, client.namespace) from error

    def told(self, error: "RPCError", id: str) -> FacilitairError:
        """Translate a refusal of Temporal; an unknown fault stays the exception that it is."""
        from temporalio.service import RPCStatusCode

        if error.status is RPCStatusCode.NOT_FOUND:
            return _unknown(id)
        if error.status in (
            RPCStatusCode.UNAVAILABLE,
            RPCStatusCode.DEADLINE_EXCEEDED,
            RPCStatusCode.CANCELLED,
            RPCStatusCode.RESOURCE_EXHAUSTED,
            RPCStatusCode.UNKNOWN,
        ):
            return _away(self._settings.temporal_address)
        raise error


def memo_of(
    tenant: str,
    actor: str,
    traceparent: str | None = None,
    fork: Fork | None = None,
    *,
    span_id: str | None = None,
    request_digest: str | None = None,
) -> dict[str, Any]:
    """Return the memo that tells a collaboration about its start, beside its input."""
    told: dict[str, Any] = {MEMO_TENANT: tenant, MEMO_REQUESTED_BY: actor}
    more = {MEMO_TRACEPARENT: traceparent, MEMO_REQUEST_SPAN: span_id, MEMO_REQUEST: request_digest}
    told |= {key: value for key, value in more.items() if value}
    return told | {MEMO_FORK: asdict(fork)} if fork else told


def summary_of(input: Any) -> str:
    """Return what Temporal's lists say of a run: what it is about."""
    return " ".join(task_of(input, {}).split())[:_MAX_SUMMARY_CHARS]


def details_of(definition: str, actor: str) -> str:
    """Return what Temporal's page of a run says of its start, as Markdown."""
    return f"`{definition}`, asked for by {actor}"


def exists(id: str) -> Refused:
    return Refused(
        "collaboration_exists",
        f"found a run with the id {id!r} that another request started; expected a new id, or the very "
        "request that started it. Choose another id, or none to have one made.",
    )


def _import() -> None:
    import temporalio.client  # noqa: F401


def _away(address: str) -> Unavailable:
    return Unavailable("temporal_unavailable", f"Temporal does not answer at {address}. Try again shortly.")


def _check_size(input: Any) -> None:
    """Raise Refused where Temporal would not take an input: it would say so as a fault of ours."""
    size = len(json.dumps(input, separators=(",", ":")))
    if size > _MAX_INPUT_BYTES:
        raise Refused(
            "input_too_large",
            f"found an input of {size:,} bytes as Temporal keeps it; expected at most {_MAX_INPUT_BYTES:,}. "
            "Pass large texts by reference.",
        )


def _unknown(id: str) -> NotFound:
    return NotFound(
        "collaboration_unknown",
        f"found no collaboration {id!r}; expected the id that starting one returned. "
        "`facilitair list --runs` shows the recent ones.",
    )


def _ended(id: str) -> Refused:
    return Refused("collaboration_ended", f"found {id!r} ended; expected one that is still running.")


async def _execution(found: "WorkflowExecutionDescription", tenant: str) -> TemporalRun:
    """`tenant`: whose it is where its memo does not say."""
    from schema.temporal.failures import first_run_id

    memo = await found.memo()
    return TemporalRun(
        id=found.id,
        run_id=found.run_id,
        first_run_id=first_run_id(found),
        type=found.workflow_type,
        status=found.status.name if found.status else "RUNNING",
        tenant=str(memo.get(MEMO_TENANT, tenant)),
        started_at=found.start_time.astimezone(UTC),
        closed_at=found.close_time,
        request_digest=memo.get(MEMO_REQUEST),
        waiting=waiting_in(found.raw_description, datetime.now(UTC)),
    )
