"""The look at the A/B tests of prompts, every minute, so that Temporal's UI shows what it came to."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.queues import QUEUE_PROJECTIONS
    from schema.temporal.upkeep import TrialsPass


@workflow.defn(name="facilitair.trials")
class Trials:
    @workflow.run
    async def run(self) -> TrialsPass:
        done: TrialsPass = await workflow.execute_activity(
            "look_at_trials",
            task_queue=QUEUE_PROJECTIONS,
            result_type=TrialsPass,
            start_to_close_timeout=timedelta(minutes=2),
            # The next minute comes anyway.
            retry_policy=RetryPolicy(maximum_attempts=3),
            summary="look at the trials of prompts",
        )
        return done
