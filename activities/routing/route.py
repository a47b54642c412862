"""Choose the model for a step, and keep the choice with the chance it had."""

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.routing import cheap_first
from activities.routing import simulated as routing_simulated
from activities.routing.facts import Chooser, RoutingContext, RoutingRequest, known
from activities.runs.context import facts_of, worker_of
from activities.runs.failures import recorded
from activities.spans import span
from db.definitions import catalogue
from db.engine import transaction
from db.router import decisions
from db.router.decisions import RecordedDecision
from gateway.destinations import Destinations
from plan.compile import CompiledDefinition
from router.data import question as data_question
from router.serve.predictions import RoutingQuestion
from schema import telemetry
from schema.language.catalogue import ROUTABLE_MODELS
from schema.language.steps import AgentStep, Route
from schema.temporal.steps import RouteResult, StepRequest


class RouteActivity:
    def __init__(
        self, engine: AsyncEngine, destinations: Destinations, chooser: Chooser | None = None
    ) -> None:
        self._engine = engine
        self._to = destinations
        self._chooser = chooser or Chooser(engine)

    @activity.defn(name="route")
    async def route(self, request: StepRequest) -> RouteResult:
        """The model for a step: the same one however often it is asked."""
        with span(
            f"route {request.step}",
            request,
            {telemetry.STEP: request.step, telemetry.ITERATION: request.iteration},
        ) as current:
            async with recorded(self._engine, request), transaction(self._engine) as connection:
                run, found = await facts_of(connection, request.collaboration)
                kept = await decisions.find(connection, request)
                step, rule = _asked(found, request, run.task)
                if kept is None:
                    step, facts = await self._facts(connection, run.tenant, step)
            if kept is None:
                # No connection is held while a text is embedded: there are fewer of them than steps.
                [decision] = await self._chooser.choose(facts, [step], activity.logger.exception)
                decision = await cheap_first.planned(self._engine, decision, rule.verify, step, facts)
                async with transaction(self._engine) as connection:
                    kept = await decisions.record(connection, request, decision)
            current.set_attributes(
                {
                    telemetry.ROUTED_MODEL: kept.model,
                    telemetry.POLICY: kept.policy,
                    telemetry.PROPENSITY: kept.propensity,
                }
            )
            return _result(kept, rule)

    async def _facts(
        self, connection: AsyncConnection, tenant: str, step: RoutingRequest
    ) -> tuple[RoutingRequest, RoutingContext]:
        """The question among those who can really be asked, where there are any, and what decides it."""
        own = await catalogue.of_tenant(connection, tenant)
        among, simulated = routing_simulated.candidates(self._to, step.question.candidates, own, tenant)
        question = replace(step.question, candidates=among)
        return replace(step, question=question), await known(connection, tenant, simulated=simulated)


def _result(kept: RecordedDecision, rule: Route) -> RouteResult:
    unsure = rule.ask_below is not None and kept.confidence is not None and kept.confidence < rule.ask_below
    limit = kept.budget_tokens if rule.reasoning == "auto" else None
    return RouteResult(kept.model, kept.policy, kept.propensity, kept.confidence, unsure, limit)


def _asked(found: CompiledDefinition, request: StepRequest, task: str) -> tuple[RoutingRequest, Route]:
    step = found.steps[request.step]
    assert isinstance(step, AgentStep), "only agent steps are routed"
    rule = found.definition.agents[step.agent].model
    rule = rule if isinstance(rule, Route) else Route()
    role = worker_of(found.definition, step).role
    question = RoutingQuestion(
        data_question.text(task, step.prompt),
        data_question.category(role, step.agent, task),
        tuple(rule.among or ROUTABLE_MODELS),
    )
    return RoutingRequest(task, role, question, f"{request.collaboration}/{request.path}"), rule
