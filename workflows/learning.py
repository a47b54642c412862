"""Learning as a workflow: collect, train, judge, register. Temporal's UI shows each one's result."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ChildWorkflowError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from schema.temporal.learning import (
        CollectedOutcomes,
        DueTenants,
        LearnPass,
        LearnRequest,
        LearnStep,
        TrainingEnd,
        TrainingOutcome,
        TrainingRun,
        TrainingVerdict,
    )
    from schema.temporal.queues import QUEUE_LEARNING

_HEARTBEAT = timedelta(seconds=30)
# What was kept of an attempt whose worker died is where the next one goes on.
_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1), maximum_attempts=20
)


def workflow_id(tenant: str) -> str:
    """One training of a tenant at a time, whether from real or from simulated runs."""
    return f"facilitair.learn.{tenant}"


@workflow.defn(name="facilitair.learn")
class Learn:
    @workflow.run
    async def run(self, request: LearnRequest) -> TrainingOutcome:
        step = LearnStep(
            workflow.info().run_id,
            request.tenant,
            request.by,
            request.seed,
            request.until or workflow.now().isoformat(),
            request.simulated,
        )
        try:
            return await self._learn(step)
        except ActivityError as error:
            reason = getattr(error.cause, "message", None) or str(error)
            await self._end(step, "failed", reason)
            raise

    async def _learn(self, step: LearnStep) -> TrainingOutcome:
        collected: CollectedOutcomes = await workflow.execute_activity(
            "collect_outcomes",
            step,
            task_queue=QUEUE_LEARNING,
            result_type=CollectedOutcomes,
            start_to_close_timeout=timedelta(minutes=30),
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
            summary=f"collect what came of {step.tenant}'s steps",
        )
        if collected.reason:
            return await self._end(step, "refused", collected.reason)
        await workflow.execute_activity(
            "train_router",
            step,
            task_queue=QUEUE_LEARNING,
            result_type=TrainingRun,
            start_to_close_timeout=timedelta(hours=6),
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
            summary=f"learn from {collected.outcomes:,} outcomes",
        )
        judged: TrainingVerdict = await workflow.execute_activity(
            "judge_training",
            step,
            task_queue=QUEUE_LEARNING,
            result_type=TrainingVerdict,
            start_to_close_timeout=timedelta(minutes=30),
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
            summary="judge it on what it has not seen",
        )
        if not judged.may_enter:
            return await self._end(step, "refused", judged.reason)
        learned: TrainingOutcome = await workflow.execute_activity(
            "register_checkpoint",
            step,
            task_queue=QUEUE_LEARNING,
            result_type=TrainingOutcome,
            start_to_close_timeout=timedelta(minutes=5),
            retry_policy=_RETRY,
            summary="put it to work in shadow",
        )
        return learned

    async def _end(self, step: LearnStep, status: str, reason: str) -> TrainingOutcome:
        await workflow.execute_activity(
            "end_training",
            TrainingEnd(step, status, reason),
            task_queue=QUEUE_LEARNING,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=_RETRY,
            summary=f"{status}: {reason}"[:200],
        )
        return TrainingOutcome(step.training, status, reason)


@workflow.defn(name="facilitair.learn-all")
class LearnAll:
    """Learning every night, for tenants with enough new outcomes."""

    @workflow.run
    async def run(self) -> LearnPass:
        due: DueTenants = await workflow.execute_activity(
            "due_to_learn",
            task_queue=QUEUE_LEARNING,
            result_type=DueTenants,
            start_to_close_timeout=timedelta(minutes=10),
            retry_policy=_RETRY,
            summary="who has enough to learn from",
        )
        # One after the other: training takes a whole processor.
        told = [f"{tenant}: {await self._one(tenant)}" for tenant in due.tenants]
        told += [
            f"{tenant}, simulated: {await self._one(tenant, simulated=True)}" for tenant in due.simulated
        ]
        return LearnPass(len({*due.tenants, *due.simulated}), told[:100])

    async def _one(self, tenant: str, *, simulated: bool = False) -> str:
        try:
            done = await workflow.execute_child_workflow(
                Learn.run,
                LearnRequest(tenant, "schedule", simulated=simulated),
                id=workflow_id(tenant),
                task_queue=QUEUE_LEARNING,
                static_summary=f"learn from {tenant}'s outcomes",
            )
        except WorkflowAlreadyStartedError:
            return "learning already"
        except ChildWorkflowError as error:
            # The next tenant's night is not spoiled by this one's; its training says why.
            return f"failed: {error.cause}"[:300]
        return f"{done.status}: {done.reason}"[:300]
