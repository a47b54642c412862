"""Choose the model for a step, and keep the choice with the chance it had."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.context import facts_of, worker_of
from activities.spans import span
from db import catalogue, routing
from db.engine import transaction
from db.routing import Decision
from router import rules
from schema import telemetry
from schema.catalogue import BUILT_IN, ROUTABLE_MODELS, Catalogue
from schema.compile import Compiled
from schema.messages import RouteResult, StepRequest
from schema.steps import AgentStep, Route


class RouteActivity:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="route")
    async def route(self, request: StepRequest) -> RouteResult:
        """The model for a step: the same one however often it is asked."""
        with span(
            f"route {request.step}",
            request.traceparent,
            {telemetry.STEP: request.step, telemetry.ITERATION: request.iteration},
        ) as current:
            async with transaction(self._engine) as connection:
                run, found = await facts_of(connection, request.collaboration)
                role, candidates = _question(found, request.step)
                key = f"{request.collaboration}/{request.path}"
                known = await catalogue.of_tenant(connection, run.tenant)
                decision = decide(run.task, role, candidates, key, known)
                result = await routing.record(connection, request, decision)
            current.set_attributes(
                {
                    telemetry.REQUEST_MODEL: result.model,
                    telemetry.POLICY: result.policy,
                    telemetry.PROPENSITY: result.propensity,
                }
            )
            return result


def decide(
    task: str, role: str | None, candidates: Sequence[str], key: str, known: Catalogue = BUILT_IN
) -> Decision:
    """The policy's choice; the plain default when the policy fails, because a run must go on (S2-45)."""
    try:
        return rules.choose(task, role, candidates, key, known.roles)
    except Exception:
        activity.logger.exception("the routing policy failed; the role's default is used")
        return rules.fallback_choice(role, candidates, key, known.roles)


def _question(found: Compiled, step_id: str) -> tuple[str | None, Sequence[str]]:
    step = found.steps[step_id]
    assert isinstance(step, AgentStep), "only agent steps are routed"
    rule = found.definition.agents[step.agent].model
    among = rule.among if isinstance(rule, Route) else []
    return worker_of(found.definition, step).role, among or ROUTABLE_MODELS
