"""The daily archiving of old tokens, so that Temporal's UI shows what it came to."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from schema.temporal.queues import QUEUE_PROJECTIONS
    from schema.temporal.upkeep import ArchivePass


@workflow.defn(name="facilitair.archive")
class Archive:
    @workflow.run
    async def run(self) -> ArchivePass:
        done: ArchivePass = await workflow.execute_activity(
            "archive_tokens",
            task_queue=QUEUE_PROJECTIONS,
            result_type=ArchivePass,
            start_to_close_timeout=timedelta(hours=6),
            heartbeat_timeout=timedelta(seconds=60),
            # Whatever a broken attempt has moved stays moved. The next day comes anyway.
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=10), maximum_attempts=100),
            summary="archive old tokens",
        )
        return done
