"""The closing of runs that ended in Temporal alone, so that Temporal's UI shows what it came to."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.queues import QUEUE_PROJECTIONS
    from schema.temporal.upkeep import EndingsPass


@workflow.defn(name="facilitair.close-ended")
class CloseEnded:
    @workflow.run
    async def run(self) -> EndingsPass:
        done: EndingsPass = await workflow.execute_activity(
            "close_ended",
            task_queue=QUEUE_PROJECTIONS,
            result_type=EndingsPass,
            start_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=timedelta(seconds=60),
            # The next one comes anyway.
            retry_policy=RetryPolicy(maximum_attempts=3),
            summary="close runs that ended in Temporal alone",
        )
        return done
