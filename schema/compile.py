"""From a valid definition to the plan that a run executes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from schema.definition import Definition
from schema.expressions import compile_expression
from schema.messages import Plan, PlanStep, RetryRule
from schema.steps import AgentStep, Retry, Route, Step, ToolStep, TransformStep, seconds
from schema.templates import expressions


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a step depends on, and which of it was inferred from references rather than written."""

    needs: tuple[str, ...]
    waits: tuple[str, ...]
    inferred: tuple[str, ...]


def step_expressions(step: Step) -> list[tuple[str, str]]:
    """(JSON pointer within the step, source) of every expression that runs before the step does."""
    found: list[tuple[str, str]] = []
    if step.when is not None:
        found.append(("/when", step.when))
    match step:
        case AgentStep():
            found.extend(expressions(step.prompt, "/prompt"))
        case ToolStep():
            found.extend(expressions(step.args, "/args"))
        case TransformStep():
            found.extend(expressions(step.value, "/value"))
    return found


def dependencies(step: Step) -> Dependencies:
    """Explicit needs and those that references imply; `steps[?'x']` waits for x without needing it."""
    needs = dict.fromkeys(step.needs)
    waits: dict[str, None] = {}
    for _, source in step_expressions(step):
        for reference in compile_expression(source).references:
            if reference.path[0] == "steps" and len(reference.path) > 1:
                (waits if reference.optional else needs)[reference.path[1]] = None
    inferred = tuple(name for name in dict.fromkeys((*needs, *waits)) if name not in step.needs)
    return Dependencies(tuple(needs), tuple(name for name in waits if name not in needs), inferred)


def topological(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Every id after those it depends on, as written where the order is free; cyclic ids are left out."""
    order: list[str] = []
    waiting = {node: {dep for dep in deps if dep in edges} for node, deps in edges.items()}
    dependants: dict[str, list[str]] = {}
    for node, deps in waiting.items():
        for dep in deps:
            dependants.setdefault(dep, []).append(node)
    ready = [node for node, deps in waiting.items() if not deps]
    while ready:
        node = ready.pop(0)
        order.append(node)
        for dependant in dependants.get(node, ()):
            waiting[dependant].discard(node)
            if not waiting[dependant]:
                ready.append(dependant)
    return order


def compile_plan(definition: Definition) -> Plan:
    """The plan of a valid definition: dependencies made explicit, defaults filled in."""
    links = {name: dependencies(step) for name, step in definition.steps.items()}
    order = topological({name: (*link.needs, *link.waits) for name, link in links.items()})
    return Plan([_plan_step(definition, name, links[name]) for name in order])


@lru_cache(maxsize=512)
def compiled(sha256: str, source: str) -> tuple[Definition, Plan]:
    """A stored definition, parsed once per process; `sha256` is its key."""
    definition = Definition.model_validate_json(source)
    return definition, compile_plan(definition)


def _plan_step(definition: Definition, name: str, links: Dependencies) -> PlanStep:
    step = definition.steps[name]
    agent = definition.agents[step.agent] if isinstance(step, AgentStep) else None
    return PlanStep(
        id=name,
        kind=step.kind,
        needs=list(links.needs),
        waits=list(links.waits),
        timeout_seconds=seconds(step.timeout or definition.defaults.timeout),
        retry=_retry_rule(step.retry or definition.defaults.retry),
        summary=_summary(name, step),
        conditional=step.when is not None,
        recalls=isinstance(step, AgentStep) and bool(step.recall),
        routes=agent is not None and isinstance(agent.model, Route),
        activity=step.activity if isinstance(step, ToolStep) else None,
        task_queue=step.task_queue if isinstance(step, ToolStep) else None,
    )


def _summary(name: str, step: Step) -> str:
    match step:
        case AgentStep():
            return f"{name} · {step.agent}"
        case ToolStep():
            return f"{name} · {step.tool or step.activity}"
        case TransformStep():
            return name


def _retry_rule(retry: Retry) -> RetryRule:
    return RetryRule(
        max_attempts=retry.max_attempts,
        initial_seconds=seconds(retry.initial),
        backoff=retry.backoff,
        max_seconds=seconds(retry.max),
        never=retry.never,
    )
