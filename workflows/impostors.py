"""Notice, end and report whatever stands in the place of the platform's own workflows.

Workflow ids are one name space, and anyone who reaches Temporal may take any of them. The API and `pin`
refuse the platform's ids; this handles what was started before, or past both.
"""

import logging
from datetime import timedelta
from typing import Final

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from schema import names
from schema.temporal.queues import QUEUE_LEARNING, QUEUE_PROJECTIONS

QUEUES: Final = (QUEUE_PROJECTIONS, QUEUE_LEARNING)
"""Served by the platform's own workflows alone."""
_RPC_TIMEOUT: Final = timedelta(seconds=10)
_REASON: Final = "It ran under an id that belongs to the platform."
_SUSPECTS: Final = f"WorkflowId STARTS_WITH '{names.OWN}.' AND ExecutionStatus = 'Running'"

_log = logging.getLogger(__name__)


async def evict(client: Client, id: str, type: str, queue: str) -> bool:
    """End what runs under an id of the platform's and is not the workflow that belongs there. Returns whether
    there was any."""
    try:
        found = await client.get_workflow_handle(id).describe(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    if (found.workflow_type, found.task_queue) == (type, queue):
        return False
    return await _end(client, found)


async def evict_all(client: Client) -> int:
    """End every run under an id of the platform's that is none of its workflows; how many there were.

    Among them are ids that no workflow has yet: of trainings and searches, and of schedules' next runs.
    """
    ended = 0
    async for hit in client.list_workflows(_SUSPECTS, rpc_timeout=_RPC_TIMEOUT):
        if not (names.is_reserved(hit.workflow_type) and hit.task_queue in QUEUES):
            handle = client.get_workflow_handle(hit.id, run_id=hit.run_id)
            ended += await _end(client, await handle.describe(rpc_timeout=_RPC_TIMEOUT))
    return ended


async def _end(client: Client, found: WorkflowExecutionDescription) -> bool:
    if found.status is not WorkflowExecutionStatus.RUNNING:
        return False
    handle = client.get_workflow_handle(found.id, run_id=found.run_id)
    try:
        await handle.terminate(reason=_REASON, rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended meanwhile
            raise
    _log.error(
        "a run under an id of the platform was terminated",
        extra={"run": found.id, "type": found.workflow_type, "queue": found.task_queue},
    )
    return True
