"""Steer a running collaboration, for HTTP and WebSocket alike."""

from dataclasses import replace
from typing import Literal

from api.http.audited_acts import audited
from api.runs import service
from api.state import ApiState
from db.definitions import catalogue
from db.runs import collaborations
from schema.errors import NotFound, Refused
from schema.rules.steering import fault_of
from schema.temporal.runs import Steer

Action = Literal["pause", "resume", "inject_feedback", "adjust"]


async def steer_run(state: ApiState, tenant: str, actor: str, id: str, action: Action, steer: Steer) -> str:
    """Pause, resume, tell or adjust a run; `paused` or `running`, as it is then. Raises NotFound, Refused or
    Unavailable.

    `actor` is the caller; `steer.actor` may name somebody they speak for.
    """
    if action == "adjust":
        async with state.transaction() as connection:
            providers = (await catalogue.of_tenant(connection, tenant, fresh=True)).provider_names()
        fault = fault_of(action, steer, providers)
    else:
        fault = fault_of(action, steer)
    if fault:
        raise fault
    workflow, first_run, status = await _find(state, tenant, id)
    if status != "running":
        raise Refused(
            "collaboration_ended", f"found {workflow!r} {status}; expected one that is still running."
        )
    steer = replace(steer, actor=steer.actor or actor)
    if steer.actor == actor:
        # The act itself is in the log with what it changed, by the run's own hand.
        return await state.temporal.steer(workflow, first_run, action, steer)
    for_whom = {"how": action, "steered_by": steer.actor}
    async with audited(state, tenant, actor, "run.speak_for", workflow, **for_whom):
        return await state.temporal.steer(workflow, first_run, action, steer)


async def _find(state: ApiState, tenant: str, id: str) -> tuple[str, str, str]:
    """(workflow id, first run id, status)"""
    try:
        async with state.transaction() as connection:
            found = await collaborations.find(connection, tenant, id)
        return found.id, str(found.uuid), found.status
    except NotFound:
        # Accepted by Temporal a moment ago, and perhaps not begun by any worker.
        begun = await service.not_in_postgres(state.temporal, tenant, id)
        return begun.id, begun.run_id, begun.status
