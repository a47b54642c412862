"""The loop of an agent step: after each attempt retry with feedback, a tool result or the next model."""

from dataclasses import dataclass, replace

from opentelemetry.trace import Span

from activities.agent.attempts import Attempts
from activities.agent.output import OutputInvalid
from activities.agent.verification import AnswerCut, AnswerRejected
from activities.runs.feedback import SteeringChanged
from schema.errors import ProviderError
from schema.rules import answers
from schema.temporal.steps import StepResult


@dataclass(frozen=True)
class StepDone:
    """The step has ended with this result."""

    result: StepResult


@dataclass(frozen=True)
class WithFeedback:
    """The answer does not fit: show the agent what is wrong, and ask again."""

    wrong: OutputInvalid


@dataclass(frozen=True)
class NextModel:
    """The model failed: ask the next one."""

    failed: ProviderError


@dataclass(frozen=True)
class WithoutLimit:
    """The router's recommended limit cut the answer: ask again without."""


@dataclass(frozen=True)
class StrongModel:
    """The verifier rejected the cheap model's answer: ask the strong one."""

    model: str


@dataclass(frozen=True)
class Continue:
    """The conversation goes on: after a round of tools, or as people steer it."""


Next = StepDone | WithFeedback | NextModel | WithoutLimit | StrongModel | Continue
"""The next move after an attempt."""


async def run(attempts: Attempts, current: Span) -> StepResult:
    """Attempt the step until it is done. Raises the error with which it fails for now."""
    feedback_left = answers.rules_of(attempts.step).max
    while True:
        match await _attempt(attempts, current):
            case StepDone(result):
                return result
            case WithFeedback(wrong):
                if not feedback_left:
                    raise wrong
                feedback_left -= 1
                attempts.conversation.reply_to(wrong.answer, wrong.faults)
            case NextModel(failed):
                if not attempts.choices.next(failed):
                    raise await attempts.failure()
            case WithoutLimit():
                attempts.rule.limit = None
            case StrongModel(model):
                attempts.request = replace(attempts.request, model=model)
            case Continue():
                pass
        if done := await attempts.claim_next():
            return done


async def _attempt(attempts: Attempts, current: Span) -> Next:
    try:
        result = await attempts.answer(current)
    except OutputInvalid as wrong:
        return WithFeedback(wrong)
    except ProviderError as failed:
        return NextModel(failed)
    except AnswerCut:
        return WithoutLimit()
    except AnswerRejected:
        assert attempts.rule.verification
        return StrongModel(attempts.rule.verification.strong)
    except SteeringChanged:
        return Continue()
    return Continue() if result is None else StepDone(result)
