"""A projection as a durable workflow: while its server is away, Temporal's UI shows it waiting."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.queues import QUEUE_PROJECTIONS
    from schema.temporal.upkeep import ProjectionPass

PROJECTIONS: Final = ("vectors", "memory", "graph")


@workflow.defn(name="facilitair.projection")
class Projection:
    @workflow.run
    async def run(self, name: str) -> None:
        """Pass after pass, for ever."""
        while not workflow.info().is_continue_as_new_suggested():
            await workflow.execute_activity(
                "project",
                name,
                task_queue=QUEUE_PROJECTIONS,
                result_type=ProjectionPass,
                start_to_close_timeout=timedelta(minutes=10),
                heartbeat_timeout=timedelta(seconds=10),
                # A server may be away for days; the copy waits for it, and a run never does.
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(seconds=0.5),
                    maximum_interval=timedelta(seconds=5),
                    maximum_attempts=1_000_000_000,
                ),
                summary=f"copy the log to {name}",
            )
        workflow.continue_as_new(name)
