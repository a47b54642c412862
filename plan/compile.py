"""From a valid definition to the plan that a run executes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from schema.language.definition import Definition
from schema.language.dependencies import dependencies, edges, handlers, topological, walk
from schema.language.steps import (
    AgentStep,
    CollaborationStep,
    HumanStep,
    LoopStep,
    MapStep,
    Quorum,
    Retry,
    Route,
    Step,
    SwitchStep,
    ToolStep,
    TransformStep,
    WaitStep,
    seconds,
)
from schema.language.streams import Streams, most_turns, streams_of
from schema.language.tools import TOOLS
from schema.temporal.plan import CatchRule, Plan, PlanStep, RetryRule

HUMAN_TIMEOUT_SECONDS = 7 * 86_400.0
"""Time that people have if the definition names none."""
CHILD_TIMEOUT_SECONDS = 30 * 86_400.0
MAX_LISTENING_SECONDS = 86_400.0
"""Longest wait of a step for those that it reads live."""


def compile_plan(definition: Definition) -> Plan:
    """The plan of a valid definition: dependencies made explicit, defaults filled in."""
    return _plan(definition, definition.steps, streams_of(definition.stream))


@dataclass(frozen=True, slots=True)
class CompiledDefinition:
    """A stored definition, parsed, with its plan and all its steps at hand."""

    definition: Definition
    plan: Plan
    steps: dict[str, Step]
    """Every step by id, those of bodies included."""
    plan_steps: dict[str, PlanStep]
    plans: dict[str, Plan]
    """Map or loop → the plan of its body; "" → the whole."""
    owners: dict[str, str]
    """Step → the map or loop around it, or ""."""
    outputs: dict[str, object]
    """Map or loop → the template of one repetition's output; "" → of the whole's."""
    streams: Streams

    def plan_names(self, owner: str) -> list[str]:
        """The steps of a map's or loop's body, or of the whole."""
        return [step.id for step in self.plans[owner].steps]


@lru_cache(maxsize=512)
def compiled(sha256: str, source: str) -> CompiledDefinition:
    """A stored definition, parsed once per process; `sha256` is its key."""
    definition = Definition.model_validate_json(source)
    plan = compile_plan(definition)
    plan_steps: dict[str, PlanStep] = {}
    plans = {"": plan}
    stack = [plan]
    while stack:
        for step in stack.pop().steps:
            plan_steps[step.id] = step
            if step.body:
                plans[step.id] = step.body
                stack.append(step.body)
    found = list(walk(definition.steps))
    streams = streams_of(definition.stream)
    outputs = {"": output_template(definition.steps, definition.output, streams)}
    for _, name, one, _ in found:
        if isinstance(one, (MapStep, LoopStep)):
            outputs[name] = output_template(one.body.steps, one.body.output, streams)
    return CompiledDefinition(
        definition,
        plan,
        {name: step for _, name, step, _ in found},
        plan_steps,
        plans,
        {name: owner for _, name, _, owner in found},
        outputs,
        streams,
    )


def _plan(definition: Definition, steps: Mapping[str, Step], streams: Streams) -> Plan:
    takes_over = handlers(steps)
    found: dict[str, PlanStep] = {}
    for name in topological(edges(steps, streams=streams)):
        one = _plan_step(definition, name, steps[name], steps.keys(), takes_over.get(name, []), streams)
        found[name] = _listening(definition, one, found, steps, streams)
    return Plan(list(found.values()))


def _listening(
    definition: Definition,
    step: PlanStep,
    before: Mapping[str, PlanStep],
    steps: Mapping[str, Step],
    streams: Streams,
) -> PlanStep:
    """The step as it is where it reads others live: it takes as long as they, and never goes first."""
    edges = streams.read_by(step.id)
    if not edges:
        return step
    waiting = 0.0
    for name in (edge.source for edge in edges):
        # A source may be listening itself; among peers nobody waits for another's whole time.
        rule = retry_rule(steps[name].retry or definition.defaults.retry)
        own = before[name].timeout_seconds if name in step.streams else _timeout(definition, steps[name])
        waiting += (own + rule.max_seconds) * rule.max_attempts
    return replace(
        step,
        timeout_seconds=step.timeout_seconds * (1 + 2 * most_turns(edges))
        + min(waiting, MAX_LISTENING_SECONDS),
        priority=max(step.priority, *(before[source].priority for source in step.streams), 0),
    )


def _plan_step(
    definition: Definition,
    name: str,
    step: Step,
    frame: Collection[str],
    takes_over: list[str],
    streams: Streams,
) -> PlanStep:
    # What a body needs from outside has ended before its map or loop began; and a handler that reads the
    # error of a step must not need that the step completed.
    links = dependencies(step)
    read = [edge.source for edge in streams.sources.get(name, ())]
    needs = [need for need in links.needs if need in frame and need not in takes_over and need not in read]
    waits = [wait for wait in links.waits if wait in frame]
    agent = definition.agents[step.agent] if isinstance(step, AgentStep) else None
    branches = [*links.branches, *(f"{failing}:!{name}" for failing in takes_over)]
    body = _plan(definition, step.body.steps, streams) if isinstance(step, (MapStep, LoopStep)) else None
    share = isinstance(step, MapStep) and step.tolerate.failed_percent is not None
    return PlanStep(
        id=name,
        kind=step.kind,
        needs=needs,
        waits=waits,
        timeout_seconds=_timeout(definition, step),
        retry=retry_rule(step.retry or definition.defaults.retry),
        summary=_summary(name, step),
        conditional=step.when is not None,
        recalls=isinstance(step, AgentStep) and bool(step.recall),
        routes=agent is not None and isinstance(agent.model, Route),
        activity=step.activity if isinstance(step, ToolStep) else None,
        task_queue=step.task_queue if isinstance(step, ToolStep) else None,
        branches=branches,
        quorum=_quorum(step),
        chain="" if name in streams.live else _chain(definition, step, body),
        catches=[CatchRule(rule.errors, rule.then or "") for rule in step.catch],
        priority=step.priority or definition.defaults.priority,
        body=body,
        concurrency=step.concurrency if isinstance(step, MapStep) else 0,
        max_failed=_max_failed(step) if isinstance(step, MapStep) else 0.0,
        failed_share=share,
        max_iterations=step.max_iterations if isinstance(step, LoopStep) else 0,
        compensates=isinstance(step, (AgentStep, ToolStep, CollaborationStep)) and bool(step.compensate),
        streams=read,
    )


def _quorum(step: Step) -> int:
    if isinstance(step.join, Quorum):
        return step.join.quorum
    return 1 if step.join == "any" else 0


def _max_failed(step: MapStep) -> float:
    if step.tolerate.failed_percent is not None:
        return step.tolerate.failed_percent / 100
    return float(step.tolerate.failed or 0)


def _timeout(definition: Definition, step: Step) -> float:
    if step.timeout is not None:
        return seconds(step.timeout)
    match step:
        case MapStep() | LoopStep():
            return 0.0  # their body's steps have their own
        case HumanStep():
            return HUMAN_TIMEOUT_SECONDS
        case CollaborationStep():
            return CHILD_TIMEOUT_SECONDS
        case WaitStep() if step.duration is not None:
            return seconds(step.duration)
    return seconds(definition.defaults.timeout)


def _chain(definition: Definition, step: Step, body: Plan | None) -> str:
    """Classify a step by whether it may share an activity with its neighbours: a pure function of the
    definition.

    `quick` steps take milliseconds and may run as a local activity; `slow` ones were asked for.
    """
    wish = definition.defaults.chain if step.chain is None else ("all" if step.chain else "off")
    match step:
        case TransformStep() | SwitchStep():
            return "quick"  # never an activity of its own
        case ToolStep() if step.tool is not None:
            if wish == "off" or step.cache:
                return ""
            return "quick" if TOOLS[step.tool].quick else ("slow" if wish == "all" else "")
        case AgentStep():
            routes = isinstance(definition.agents[step.agent].model, Route)
            return "slow" if wish == "all" and not routes and not step.recall else ""
        case MapStep() | LoopStep():
            assert body is not None
            inner = {one.chain for one in body.steps}
            # A long stretch needs heartbeats, however quick each of its steps.
            return "" if "" in inner or wish == "off" else "slow"
    return ""


def _summary(name: str, step: Step) -> str:
    match step:
        case AgentStep():
            return f"{name} · {step.agent}"
        case ToolStep():
            return f"{name} · {step.tool or step.activity}"
        case CollaborationStep():
            return f"{name} · {step.ref or 'planned'}"
        case MapStep() | LoopStep() | HumanStep() | WaitStep() | SwitchStep():
            return f"{name} · {step.kind}"
        case TransformStep():
            return name


def retry_rule(retry: Retry) -> RetryRule:
    return RetryRule(
        max_attempts=retry.max_attempts,
        initial_seconds=seconds(retry.initial),
        backoff=retry.backoff,
        max_seconds=seconds(retry.max),
        never=retry.never,
    )


def last_steps(steps: Mapping[str, Step], streams: Streams | None = None) -> list[str]:
    """The steps that no other step of the frame uses: their output is the frame's where none is written.

    One whose handler alone uses it is among them, as the handler has no output where nothing fails.
    """
    takes_over = handlers(steps)
    used = {
        need
        for name, needs in edges(steps, streams=streams).items()
        for need in needs
        if need not in takes_over.get(name, ())
    }
    return [name for name in steps if name not in used]


def output_template(steps: Mapping[str, Step], written: object, streams: Streams | None = None) -> object:
    """Return the output template of a frame: the written one, else the outputs of its last steps."""
    if written is not None:
        return written
    last = last_steps(steps, streams)
    if len(last) == 1:
        return f"${{steps[?'{last[0]}'].?output.orValue(null)}}"
    return {name: f"${{steps[?'{name}'].?output.orValue(null)}}" for name in last}
