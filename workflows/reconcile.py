"""The asking for lost calls, so that Temporal's UI shows what it came to."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.queues import QUEUE_PROJECTIONS
    from schema.temporal.upkeep import ReconcilePass


@workflow.defn(name="facilitair.reconcile")
class Reconcile:
    @workflow.run
    async def run(self) -> ReconcilePass:
        done: ReconcilePass = await workflow.execute_activity(
            "reconcile_calls",
            task_queue=QUEUE_PROJECTIONS,
            result_type=ReconcilePass,
            start_to_close_timeout=timedelta(minutes=30),
            heartbeat_timeout=timedelta(seconds=60),
            # The next one comes anyway.
            retry_policy=RetryPolicy(maximum_attempts=3),
            summary="ask what lost calls came to",
        )
        return done
