"""The platform's own upkeep as workflows, so that Temporal's UI shows when each ran and with what result."""

from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.learning import RolloutsPass
    from schema.temporal.queues import QUEUE_COLLABORATIONS, QUEUE_LEARNING, QUEUE_PROJECTIONS
    from schema.temporal.upkeep import (
        ArchivePass,
        EndingsPass,
        OptimizationResult,
        OptimizePrompt,
        ProjectionPass,
        ReconcilePass,
        TrialsPass,
        VerifyPass,
    )

T = TypeVar("T")

PROJECTIONS: Final = ("vectors", "memory", "graph")

# A regular workflow runs again soon: it need not retry for long.
_SOON_AGAIN: Final = RetryPolicy(maximum_attempts=3)
# Whatever a broken attempt has done stays done, and the next run is a day away.
_A_DAY_AWAY: Final = RetryPolicy(maximum_interval=timedelta(minutes=10), maximum_attempts=100)


async def _execute(
    activity: str,
    result: type[T],
    summary: str,
    at_most: timedelta,
    *args: Any,
    heartbeat: timedelta | None = timedelta(seconds=60),
    retry: RetryPolicy = _SOON_AGAIN,
    queue: str = QUEUE_PROJECTIONS,
) -> T:
    """Run the one activity of a workflow and return its result."""
    done: T = await workflow.execute_activity(
        activity,
        args=args,
        task_queue=queue,
        result_type=result,
        start_to_close_timeout=at_most,
        heartbeat_timeout=heartbeat,
        retry_policy=retry,
        summary=summary,
    )
    return done


@workflow.defn(name="facilitair.archive")
class Archive:
    @workflow.run
    async def run(self) -> ArchivePass:
        return await _execute(
            "archive_tokens", ArchivePass, "archive old tokens", timedelta(hours=6), retry=_A_DAY_AWAY
        )


@workflow.defn(name="facilitair.verify")
class VerifyCopies:
    @workflow.run
    async def run(self) -> VerifyPass:
        return await _execute(
            "verify_copies", VerifyPass, "compare the copies with the log", timedelta(hours=2)
        )


@workflow.defn(name="facilitair.close-ended")
class CloseEnded:
    @workflow.run
    async def run(self) -> EndingsPass:
        return await _execute(
            "close_ended", EndingsPass, "close runs that ended in Temporal alone", timedelta(minutes=10)
        )


@workflow.defn(name="facilitair.reconcile")
class Reconcile:
    @workflow.run
    async def run(self) -> ReconcilePass:
        return await _execute(
            "reconcile_calls", ReconcilePass, "ask what lost calls came to", timedelta(minutes=30)
        )


@workflow.defn(name="facilitair.rollouts")
class Rollouts:
    @workflow.run
    async def run(self) -> RolloutsPass:
        return await _execute(
            "look_at_rollouts",
            RolloutsPass,
            "look at the router's checkpoints",
            timedelta(minutes=10),
            heartbeat=timedelta(seconds=30),
            queue=QUEUE_LEARNING,
        )


@workflow.defn(name="facilitair.trials")
class Trials:
    @workflow.run
    async def run(self) -> TrialsPass:
        return await _execute(
            "look_at_trials",
            TrialsPass,
            "look at the trials of prompts",
            timedelta(minutes=2),
            heartbeat=None,
        )


@workflow.defn(name="facilitair.optimize")
class Optimize:
    @workflow.run
    async def run(self, request: OptimizePrompt) -> OptimizationResult:
        # A search whose worker died begins anew; its budget counts what the first one spent.
        return await _execute(
            "optimize_prompt",
            OptimizationResult,
            f"find examples for {request.name}",
            timedelta(hours=2),
            request,
            heartbeat=timedelta(seconds=20),
            queue=QUEUE_COLLABORATIONS,
        )


@workflow.defn(name="facilitair.projection")
class Projection:
    """A copy of the log, kept pass by pass: while its server is away, Temporal's UI shows it waiting."""

    @workflow.run
    async def run(self, name: str) -> None:
        # A server may be away for days; the copy waits for it, and a run never does.
        patient = RetryPolicy(
            initial_interval=timedelta(seconds=0.5),
            maximum_interval=timedelta(seconds=5),
            maximum_attempts=1_000_000_000,
        )
        while not workflow.info().is_continue_as_new_suggested():
            await _execute(
                "project",
                ProjectionPass,
                f"copy the log to {name}",
                timedelta(minutes=10),
                name,
                heartbeat=timedelta(seconds=10),
                retry=patient,
            )
        workflow.continue_as_new(name)
