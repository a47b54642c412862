"""The API's way to the search for better examples: started and told about through Temporal."""

import uuid
from typing import Any

from api.prompts.models import OptimizeRequest, OptimizeStarted
from api.state import ApiState
from api.temporal import RPC_TIMEOUT, memo_of
from schema.errors import NotFound, Refused
from schema.temporal.queues import QUEUE_PROJECTIONS
from schema.temporal.upkeep import OptimizePrompt


def _workflow_id(tenant: str, name: str) -> str:
    return f"facilitair.optimize.{tenant}.{name}"


async def start(
    state: ApiState, tenant: str, name: str, wanted: OptimizeRequest, actor: str, *, simulated: bool
) -> str:
    """The workflow's id. Raises Refused while a search for the same prompt goes on."""
    client = await state.temporal.client()
    from temporalio.exceptions import WorkflowAlreadyStartedError
    from temporalio.service import RPCError

    from workflows import impostors

    id = _workflow_id(tenant, name)
    request = OptimizePrompt(
        id=str(uuid.uuid4()),
        tenant=tenant,
        name=name,
        actor=actor,
        limit=wanted.limit,
        budget_usd=str(wanted.budget_usd),
        model=wanted.model or "",
        judge=wanted.judge or "",
        simulated=simulated,
    )
    try:
        await impostors.evict(client, id, "facilitair.optimize", QUEUE_PROJECTIONS)
        await client.start_workflow(
            "facilitair.optimize",
            request,
            id=id,
            task_queue=QUEUE_PROJECTIONS,
            rpc_timeout=RPC_TIMEOUT,
            memo=memo_of(tenant, actor),
            static_summary=f"better examples for the prompt {name}",
        )
    except WorkflowAlreadyStartedError:
        raise Refused(
            "optimization_running",
            f"found that better examples for {name!r} are being looked for; expected one search at a time. "
            f"`facilitair prompts optimize {name} --show` tells how far it is.",
        ) from None
    except RPCError as error:
        raise state.temporal.told(error, id) from error
    return id


async def state_of(state: ApiState, tenant: str, name: str) -> OptimizeStarted:
    """The latest search; raises NotFound where there was none."""
    id = _workflow_id(tenant, name)
    try:
        found = await state.temporal.describe_own(id, "facilitair.optimize", tenant)
    except NotFound:
        raise NotFound(
            "optimization_unknown",
            f"found no search for better examples for {name!r}. `facilitair prompts optimize {name}` starts "
            "one.",
        ) from None
    if found.status == "RUNNING":
        return OptimizeStarted(name=name, workflow_id=id, state="running")
    if found.status != "COMPLETED":
        code, message = await state.temporal.failure(found)
        return OptimizeStarted(
            name=name, workflow_id=id, state="failed", error={"code": code, "message": message}
        )
    client = await state.temporal.client()
    handle = client.get_workflow_handle(id, run_id=found.run_id)
    result: dict[str, Any] = await handle.result(rpc_timeout=RPC_TIMEOUT)
    return OptimizeStarted(name=name, workflow_id=id, state="completed", result=result)
