"""The search for better examples for a prompt, so that Temporal's UI shows what it came to."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.queues import QUEUE_COLLABORATIONS
    from schema.temporal.upkeep import OptimizationResult, OptimizePrompt


@workflow.defn(name="facilitair.optimize")
class Optimize:
    @workflow.run
    async def run(self, request: OptimizePrompt) -> OptimizationResult:
        done: OptimizationResult = await workflow.execute_activity(
            "optimize_prompt",
            request,
            task_queue=QUEUE_COLLABORATIONS,
            result_type=OptimizationResult,
            start_to_close_timeout=timedelta(hours=2),
            heartbeat_timeout=timedelta(seconds=20),
            # One whose worker died begins anew, and its budget counts what the first one spent.
            retry_policy=RetryPolicy(maximum_attempts=3),
            summary=f"find examples for {request.name}",
        )
        return done
