"""Questions of a run to people: ask, remind, expire, and take decisions."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from plan.walk import WalkSuspended
    from schema.errors import StepError
    from schema.temporal.people import Decision, DecisionRecord, QuestionState
    from schema.temporal.plan import PlanStep
    from schema.temporal.runs import PinnedRun
    from schema.temporal.steps import StepRequest
    from workflows.local_activities import local, local_for

_NEW_QUESTION_TIMEOUT: Final = timedelta(seconds=10)


@dataclass
class OpenQuestion:
    """An open question to people. Times are the workflow's own: Postgres' clock does not skip in tests."""

    request: StepRequest
    asked: QuestionState
    remind_at: datetime | None = None
    due_at: datetime | None = None
    _noted: QuestionState | None = None

    def note(self, now: datetime) -> None:
        """Set the times that a new answer of the activities brings."""
        if self._noted is self.asked:
            return
        self._noted = self.asked
        if self.remind_at is None and self.asked.remind_in is not None:
            self.remind_at = now + timedelta(seconds=self.asked.remind_in)
        if self.due_at is None and self.asked.due_in is not None:
            self.due_at = now + timedelta(seconds=self.asked.due_in)

    def next(self) -> tuple[datetime | None, str]:
        """Return the next due time of the question and its action: `remind` or `expire`."""
        if self.remind_at and (self.due_at is None or self.remind_at < self.due_at):
            return self.remind_at, "remind"
        return self.due_at, "expire"

    def passed(self, what: str) -> None:
        if what == "remind":
            self.remind_at = None
        else:
            self.remind_at = self.due_at = None


class Questions:
    """The questions that one run has open."""

    def __init__(self, pinned: PinnedRun, draining: Callable[[], bool]) -> None:
        self._pinned, self._draining = pinned, draining
        self._open: dict[str, OpenQuestion] = {}
        """Path of the asking step → its question."""
        self._early: dict[str, QuestionState] = {}
        """Id of a question → the decision that came before this run knew that it is asked."""

    def find(self, decision: Decision) -> OpenQuestion | None:
        """Return the open question that a decision is for: by its id, else by its path."""
        at_path = self._open.get(decision.path)
        if not decision.task:
            return at_path
        # What an older release asked has no id here.
        by_id = (one for one in self._open.values() if one.asked.task == decision.task)
        return next(by_id, at_path if at_path and not at_path.asked.task else None)

    async def decide(self, decision: Decision) -> QuestionState:
        """Record a decision, or find that it was made before. Raises StepError."""
        question = self.find(decision)
        if question is None and self._pinned.revision < 1:
            question = await self._about_to_be_asked(decision)
        pinned = self._pinned
        anywhere = StepRequest(pinned.collaboration, pinned.tenant, "", pinned.traceparent)
        made = DecisionRecord(question.request if question else anywhere, decision)
        summary = f"{decision.path or decision.task} · {decision.action}"
        asked: QuestionState = await local("record_decision", made, QuestionState, summary)
        if question is None:
            self._early[asked.task] = asked
        elif question.asked.task in ("", asked.task):
            question.asked = asked
        return asked

    async def _about_to_be_asked(self, decision: Decision) -> OpenQuestion:
        """Wait for a question that the run is about to ask; runs of older releases decide so."""
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self.find(decision) is not None, timeout=_NEW_QUESTION_TIMEOUT
            )
        if (question := self.find(decision)) is None:
            raise StepError(
                "human_not_waiting",
                f"nobody is asked at {decision.path!r} now; `facilitair tasks` lists what is open.",
            )
        return question

    async def ask(self, activity: str, request: StepRequest, step: PlanStep) -> QuestionState:
        """Ask people and wait for the end; remind, escalate and expire as the definition says."""
        asked: QuestionState = await local_for(step, activity, request, QuestionState)
        asked = self._early.pop(asked.task, asked)
        question = self._open[request.path] = OpenQuestion(request, asked)
        try:
            while question.asked.ended is None:
                question.note(workflow.now())
                if (due := await self._undecided(question, step)) is not None:
                    question.asked = await local_for(step, due, request, QuestionState)
            return question.asked
        except asyncio.CancelledError:
            await local_for(step, "withdraw", request, None)
            raise
        finally:
            del self._open[request.path]

    async def _undecided(self, question: OpenQuestion, step: PlanStep) -> str | None:
        """Wait for a decision; return `remind` or `expire` if it is time for that first."""
        asked = question.asked
        moment, why = question.next()
        try:
            await workflow.wait_condition(
                lambda: question.asked is not asked or self._draining(),
                timeout=max(moment - workflow.now(), timedelta()) if moment else None,
                timeout_summary=f"{step.summary} · {why}",
            )
        except TimeoutError:
            question.passed(why)
            return why
        if question.asked is asked:
            raise WalkSuspended
        return None
