"""Schedules in Temporal: ids that carry the tenant, runs that start as the API starts them."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from api.http.shared_models import (
    Overlap,
    ScheduleDetail,
    ScheduledRun,
    ScheduleFact,
    SchedulePage,
    ScheduleRequest,
)
from api.temporal import RPC_TIMEOUT, TASK_TIMEOUT, Temporal, details_of, memo_of, summary_of
from schema import names
from schema.errors import NotFound, Refused
from schema.language import cron
from schema.language.steps import seconds
from schema.temporal.memo import MEMO_REQUESTED_BY
from schema.temporal.queues import QUEUE_COLLABORATIONS

# As in api.temporal: importing temporalio takes half a second.
if TYPE_CHECKING:
    from temporalio.client import ScheduleActionResult, ScheduleHandle, ScheduleListDescription

MEMO_RHYTHM: Final = "facilitair_schedule"
"""The request except its input: Temporal itself keeps a cron text as parsed fields."""
_RHYTHM: Final = ("name", "cron", "every", "timezone", "overlap", "catch_up")
_MIN_SECONDS: Final = 1.0
_TIMEZONE_OF_EVERY: Final = (
    "`timezone` has no effect on `every`, which is counted from the epoch in UTC: for a time of the clock "
    "write `cron`."
)
_MAX_SECONDS: Final = 366 * 86_400.0
_MIN_CATCH_UP_SECONDS: Final = 10.0


class Schedules:
    """The schedules of one tenant."""

    def __init__(self, temporal: Temporal, tenant: str) -> None:
        self._temporal = temporal
        self._tenant = tenant

    async def create(self, id: str, wanted: ScheduleRequest, actor: str, secret: bytes) -> None:
        """Raises Refused("schedule_invalid") for a rhythm that there cannot be.

        `secret` goes into the ids of its runs: Temporal adds only the time, and an id that can be told before
        its time can be taken by another run.
        """
        check(wanted)
        client = await self._temporal.client()
        from temporalio.client import (
            Schedule,
            ScheduleActionStartWorkflow,
            ScheduleIntervalSpec,
            ScheduleOverlapPolicy,
            SchedulePolicy,
            ScheduleSpec,
            ScheduleState,
        )

        stem = f"{id}-{names.digest(secret, 'schedule', self._tenant, id)}"
        by = f"schedule:{id}"
        memo = memo_of(self._tenant, by) | self._temporal.proof_of(self._tenant, by, stem, wanted.name)
        intervals = [ScheduleIntervalSpec(timedelta(seconds=seconds(wanted.every)))] if wanted.every else []
        schedule = Schedule(
            action=ScheduleActionStartWorkflow(
                wanted.name,
                wanted.input,
                id=stem,
                task_queue=QUEUE_COLLABORATIONS,
                task_timeout=TASK_TIMEOUT,
                memo=memo,
                static_summary=summary_of(wanted.input),
                static_details=details_of(wanted.name, by),
            ),
            spec=ScheduleSpec(
                cron_expressions=cron.parse(wanted.cron).expressions() if wanted.cron else [],
                intervals=intervals,
                time_zone_name=wanted.timezone,
            ),
            policy=SchedulePolicy(
                overlap=ScheduleOverlapPolicy[wanted.overlap.upper()],
                catchup_window=timedelta(seconds=seconds(wanted.catch_up)),
            ),
            state=ScheduleState(paused=wanted.paused),
        )
        rhythm = {**memo_of(self._tenant, actor), MEMO_RHYTHM: wanted.model_dump(include=set(_RHYTHM))}
        async with self._errors(id, wanted):
            await client.create_schedule(self._own(id), schedule, memo=rhythm, rpc_timeout=RPC_TIMEOUT)

    async def read(self, id: str) -> ScheduleDetail:
        """Raises NotFound, also for a schedule of another tenant."""
        from temporalio.client import ScheduleActionStartWorkflow

        async with self._errors(id):
            found = await (await self._handle(id)).describe(rpc_timeout=RPC_TIMEOUT)
            memo = await found.memo()
        action = found.schedule.action
        assert isinstance(action, ScheduleActionStartWorkflow)
        (input,) = await found.data_converter.decode(list(action.args))
        info = found.info
        fact = _fact(id, memo, found.schedule.state.paused, info.next_action_times, info.recent_actions)
        return ScheduleDetail(
            **fact.model_dump(),
            input=input,
            starts=info.num_actions,
            skipped=info.num_actions_skipped_overlap,
            missed=info.num_actions_missed_catchup_window,
        )

    async def page(self, after: str, limit: int) -> SchedulePage:
        """In the order of ids, those behind `after`. A change shows here a moment later."""
        # Temporal lists in an order of its own.
        found = {id: one async for id, one in self._all() if id > after}
        ids = sorted(found)
        page = [await _listed(id, found[id]) for id in ids[:limit]]
        return SchedulePage(items=page, next=page[-1].id if len(ids) > limit else None)

    async def count(self) -> int:
        """Count the schedules. A change shows after a moment."""
        return len([id async for id, _ in self._all()])

    async def _all(self) -> "AsyncIterator[tuple[str, ScheduleListDescription]]":
        client = await self._temporal.client()
        async with self._errors(""):
            mine = f"ScheduleId STARTS_WITH {json.dumps(self._own(''))}"
            async for one in await client.list_schedules(mine, rpc_timeout=RPC_TIMEOUT):
                id = one.id.rpartition("/")[2]
                if self._own(id) == one.id and one.schedule and one.info:
                    yield id, one

    async def pause(self, id: str, actor: str) -> None:
        async with self._errors(id):
            await (await self._handle(id)).pause(note=f"paused by {actor}", rpc_timeout=RPC_TIMEOUT)

    async def resume(self, id: str, actor: str) -> None:
        async with self._errors(id):
            await (await self._handle(id)).unpause(note=f"resumed by {actor}", rpc_timeout=RPC_TIMEOUT)

    async def run(self, id: str) -> None:
        """Start a run now, as if it were time; the overlap policy holds."""
        async with self._errors(id):
            await (await self._handle(id)).trigger(rpc_timeout=RPC_TIMEOUT)

    async def remove(self, id: str) -> None:
        """Runs that it has started go on."""
        async with self._errors(id):
            await (await self._handle(id)).delete(rpc_timeout=RPC_TIMEOUT)

    def _own(self, id: str) -> str:
        # Ids have no slash, so the tenant is all that is before the last one.
        return f"{self._tenant}/{id}"

    async def _handle(self, id: str) -> "ScheduleHandle":
        return (await self._temporal.client()).get_schedule_handle(self._own(id))

    @asynccontextmanager
    async def _errors(self, id: str, wanted: ScheduleRequest | None = None) -> AsyncIterator[None]:
        from temporalio.service import RPCError, RPCStatusCode

        try:
            yield
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise NotFound(
                    "schedule_unknown",
                    f"found no schedule {id!r}; expected the id that making it returned. "
                    "`facilitair schedule list` shows them.",
                ) from None
            if error.status is RPCStatusCode.INVALID_ARGUMENT and wanted is not None:
                raise _invalid(wanted, error.message) from None
            raise self._temporal.told(error, id) from error


def check(wanted: ScheduleRequest, shortest_seconds: float = _MIN_SECONDS) -> list[str]:
    """Return warnings about a schedule. Raises Refused("schedule_invalid") if it is meaningless or never
    fires."""
    told = _check_times(wanted)
    if wanted.every is not None and not shortest_seconds <= seconds(wanted.every) <= _MAX_SECONDS:
        raise Refused(
            "schedule_invalid",
            f"found every {wanted.every!r}; expected {shortest_seconds:g}s up to 366d, such as 30m "
            "(FACILITAIR_MIN_SCHEDULE_SECONDS).",
        )
    if seconds(wanted.catch_up) < _MIN_CATCH_UP_SECONDS:
        raise Refused("schedule_invalid", f"found catch_up {wanted.catch_up!r}; expected 10s or more.")
    return told


def _check_times(wanted: ScheduleRequest) -> list[str]:
    if fault := cron.zone_fault(wanted.timezone):
        raise _zone_wrong(wanted.timezone, fault)
    if wanted.cron is None:
        useless = "timezone" in wanted.model_fields_set and wanted.timezone != "UTC"
        return [_TIMEZONE_OF_EVERY] if useless else []
    try:
        return cron.warnings(cron.parse(wanted.cron), wanted.timezone, datetime.now(UTC))
    except cron.CronInvalid as error:
        raise _cron_wrong(wanted.cron, str(error)) from None


def _invalid(wanted: ScheduleRequest, reason: str) -> Refused:
    """Translate Temporal's refusal of a schedule into the likely fault."""
    if "zone" not in reason and wanted.cron is not None:
        return _cron_wrong(wanted.cron, reason.removeprefix("Invalid schedule spec: "))
    return _zone_wrong(wanted.timezone, reason)


def _zone_wrong(zone: str, reason: str) -> Refused:
    return Refused(
        "schedule_invalid",
        f"found the timezone {zone!r} ({reason}); expected a name of the IANA database, such as "
        "Europe/Berlin or UTC.",
    )


def _cron_wrong(cron: str, reason: str) -> Refused:
    return Refused(
        "schedule_invalid",
        f"found the cron expression {cron!r} ({reason}); expected five fields, minute hour day-of-month "
        "month day-of-week, such as `0 9 * * 1-5` for nine o'clock on working days.",
    )


async def _listed(id: str, one: "ScheduleListDescription") -> ScheduleFact:
    assert one.schedule is not None
    assert one.info is not None
    state, info = one.schedule.state, one.info
    return _fact(id, await one.memo(), state.paused, info.next_action_times, info.recent_actions)


def _fact(
    id: str,
    memo: Mapping[str, Any],
    paused: bool,
    coming: "list[datetime] | Any",
    recent: "list[ScheduleActionResult] | Any",
) -> ScheduleFact:
    rhythm = memo[MEMO_RHYTHM]
    return ScheduleFact(
        id=id,
        name=rhythm["name"],
        cron=rhythm["cron"],
        every=rhythm["every"],
        timezone=rhythm["timezone"],
        overlap=cast("Overlap", rhythm["overlap"]),
        catch_up=rhythm["catch_up"],
        paused=paused,
        created_by=memo.get(MEMO_REQUESTED_BY),
        next=[] if paused else list(coming)[:5],
        recent=[ScheduledRun(id=one.action.workflow_id, at=one.started_at) for one in reversed(list(recent))],
    )
