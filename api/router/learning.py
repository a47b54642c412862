"""The API's way to the learning of the router: a workflow, one at a time for a tenant."""

from api.router.models import TrainingRequest, TrainingStarted
from api.state import ApiState
from api.temporal import RPC_TIMEOUT, memo_of
from schema.errors import Refused
from schema.temporal.learning import LearnRequest
from schema.temporal.queues import QUEUE_LEARNING


async def start(
    state: ApiState, tenant: str, wanted: TrainingRequest, actor: str, *, simulated: bool
) -> TrainingStarted:
    """Raises Refused while the tenant's router learns."""
    client = await state.temporal.client()
    from temporalio.exceptions import WorkflowAlreadyStartedError
    from temporalio.service import RPCError

    from workflows import impostors

    id = f"facilitair.learn.{tenant}"
    until = wanted.until.isoformat() if wanted.until else ""
    learn = LearnRequest(tenant, actor, wanted.seed, until, simulated)
    try:
        await impostors.evict(client, id, "facilitair.learn", QUEUE_LEARNING)
        handle = await client.start_workflow(
            "facilitair.learn",
            learn,
            id=id,
            task_queue=QUEUE_LEARNING,
            rpc_timeout=RPC_TIMEOUT,
            memo=memo_of(tenant, actor),
            static_summary=f"learn from {tenant}'s outcomes",
        )
    except WorkflowAlreadyStartedError:
        raise Refused(
            "training_running",
            "found that the router learns already; expected one training at a time. "
            "`facilitair router status` tells how far it is.",
        ) from None
    except RPCError as error:
        raise state.temporal.told(error, id) from error
    return TrainingStarted(id=handle.first_execution_run_id or "", workflow_id=id)
