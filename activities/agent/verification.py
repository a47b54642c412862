"""Apply a routing rule to a step's answer: the recommended length, and the verifier's threshold."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.agent.judge import VERDICT
from db.router import rules
from db.runs import executions
from db.runs.executions import Assignment, AttemptOutcome
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language.catalogue import Catalogue
from schema.language.steps import Agent, AgentStep, Route, Verify
from schema.temporal.steps import StepRequest

PURPOSE: Final = "verify"
"""Purpose of the call that judges an answer, and of its execution: `code~verify`."""
MIN_OUTPUT_TOKENS: Final = 256
"""A lower limit would cut answers that nobody takes for long."""
VERIFIER: Final = "verifier"
"""Name of a verifier that is a model alone, in executions and the graph."""


class AnswerCut(StepError):
    """The answer broke off at the limit that the router recommends; it is asked for again without."""

    def __init__(self, tokens: int) -> None:
        super().__init__(rules.CUT, f"the answer broke off at the router's limit of {tokens:,} tokens")


class AnswerRejected(StepError):
    """The verifier thinks too little of the answer, or says nothing; the strong model is asked instead."""

    def __init__(self, score: float | None, accept: float) -> None:
        found = "the verifier gave no score" if score is None else f"the verifier gave it {score:g}"
        super().__init__("answer_rejected", f"{found}; expected at least {accept:g}")


@dataclass(frozen=True)
class Draft:
    """A valid answer that counts only when a verifier takes it."""

    execution: str
    """The execution that gave the answer, and has paid."""
    answer: Json
    model: str
    provider: str | None
    simulated: bool

    def outcome(self) -> AttemptOutcome:
        """Return the outcome for a later attempt that adopts the answer: it called no model."""
        return AttemptOutcome(
            self.answer, self.model, self.provider, simulated=self.simulated, reused_from=UUID(self.execution)
        )


@dataclass
class Verification:
    """A cheap model answers, a verifier judges it once, and where it is rejected a strong one answers."""

    rule: Verify
    cheap: str
    strong: str
    verifier: Assignment
    draft: Draft | None = None
    """The answer that is to be judged, or was."""
    accepted: bool | None = None
    """None: it was not judged."""

    def agent(self) -> Agent:
        return Agent(model=self.rule.by) if "/" in self.rule.by else Agent(role=self.rule.by)

    def judge(self, score: float | None) -> None:
        """Raises AnswerRejected."""
        self.accepted = score is not None and score >= self.rule.accept
        if not self.accepted:
            raise AnswerRejected(score, self.rule.accept)


@dataclass
class RoutingRuleState:
    """A routing rule's demands on one step's answer, and how far they are met."""

    limit: int | None = None
    """Tokens; None where none is recommended, or one has cut an answer."""
    verification: Verification | None = None

    def most_tokens(self, own: int | None) -> int | None:
        """Return the output limit in tokens, given the agent's own."""
        return min((limit for limit in (own, self.limit) if limit is not None), default=None)

    def cuts(self, own: int | None) -> bool:
        """Tell whether an answer would break off at the recommended limit rather than at the agent's own."""
        return self.limit is not None and (own is None or self.limit < own)


async def of_step(
    connection: AsyncConnection, request: StepRequest, agent: Agent, catalogue: Catalogue
) -> RoutingRuleState:
    """Load the rule's demands and what an earlier activity recorded of them. Raises
    StepError("role_unknown")."""
    if not isinstance(agent.model, Route) or request.purpose:
        return RoutingRuleState()
    limit = request.max_output_tokens
    if limit is not None:
        cut = await rules.was_cut(connection, request)
        limit = None if cut else max(limit, MIN_OUTPUT_TOKENS)
    return RoutingRuleState(limit, await _verification(connection, request, agent.model.verify, catalogue))


async def _verification(
    connection: AsyncConnection, request: StepRequest, rule: Verify | None, catalogue: Catalogue
) -> Verification | None:
    plan = await rules.planned(connection, request) if rule else None
    if rule is None or plan is None:
        return None
    found = Verification(rule, plan["cheap"], plan["strong"], _verifier(rule.by, catalogue))
    path = replace(request, purpose=PURPOSE).path
    draft, verdict = await executions.input_and_output(connection, UUID(request.collaboration), path)
    if draft:
        found.draft = Draft(**draft)
    if verdict:
        found.accepted = verdict["accepted"]
    return found


def _verifier(by: str, catalogue: Catalogue) -> Assignment:
    if "/" in by:
        return Assignment("agent", VERIFIER, None, by)
    return Assignment("agent", by, by, catalogue.role(by).model)


def kept(draft: Draft) -> dict[str, Json]:
    """As the verifier's execution keeps it."""
    return asdict(draft)


def verdict(score: float | None, rule: Verify) -> dict[str, Any]:
    """As the verifier's execution keeps it. Not called quality: that would be taken for the whole run's."""
    return {"score": score, "accepted": score is not None and score >= rule.accept}


def step_of(step: AgentStep, verifier: str) -> AgentStep:
    """The step as the verifier has it: within the same time and money."""
    changes = {"agent": verifier, "output_schema": VERDICT, "emits": None, "reflect": None, "cache": None}
    return step.model_copy(update=changes)
