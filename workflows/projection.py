"""A projection as a durable workflow: a server that is away shows here as a retrying activity, and only here."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.messages import QUEUE_PROJECTIONS, ProjectionPass

PROJECTIONS: Final = ("vectors", "memory", "graph")

_PASS = timedelta(minutes=10)
_HEARTBEAT = timedelta(seconds=10)
_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=5),
    # Years of trying: a server that is away for a week must not end its projection.
    maximum_attempts=100_000_000,
)


@workflow.defn(name="facilitair.projection")
class Projection:
    """Keeps one projection in step with the outbox, for ever."""

    @workflow.run
    async def run(self, name: str) -> None:
        while not workflow.info().is_continue_as_new_suggested():
            await workflow.execute_activity(
                "project",
                name,
                result_type=ProjectionPass,
                task_queue=QUEUE_PROJECTIONS,
                start_to_close_timeout=_PASS,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_RETRY,
                summary=f"apply the outbox to {name}",
            )
        workflow.continue_as_new(name)
