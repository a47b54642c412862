"""The look at the router's checkpoints, every minute, so that Temporal's UI shows what it came to."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.learning import RolloutsPass
    from schema.temporal.queues import QUEUE_LEARNING


@workflow.defn(name="facilitair.rollouts")
class Rollouts:
    @workflow.run
    async def run(self) -> RolloutsPass:
        done: RolloutsPass = await workflow.execute_activity(
            "look_at_rollouts",
            task_queue=QUEUE_LEARNING,
            result_type=RolloutsPass,
            start_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=timedelta(seconds=30),
            # The next minute comes anyway.
            retry_policy=RetryPolicy(maximum_attempts=3),
            summary="look at the router's checkpoints",
        )
        return done
