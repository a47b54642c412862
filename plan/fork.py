"""Decide what a forked run takes over from its source, and what it runs again. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from plan.compile import CompiledDefinition
from schema.cel.expressions import Json
from schema.errors import Refused
from schema.language import json_schemas
from schema.language.steps import AgentStep, CollaborationStep, LoopStep, MapStep, Step, SwitchStep, ToolStep
from schema.temporal.plan import PlanStep
from schema.temporal.runs import Fork


@dataclass(frozen=True)
class StepBefore:
    """A top-level step as the other run left it."""

    kind: str
    ended: bool
    branch: str | None = None
    undone: bool = False
    """It, or something within it, was compensated: its effects are gone."""
    exhausted: bool = False
    """A loop that had run out of iterations."""


@dataclass(frozen=True)
class Division:
    """The top-level steps of the new run, in the order of its plan."""

    kept: list[str]
    given: list[str]
    """Steps whose output was given by hand."""
    resumed: list[str]
    """Maps, loops and sub-collaborations that had begun, and go on behind what they had finished."""
    again: list[str]


def divide(
    found: CompiledDefinition,
    before: CompiledDefinition,
    left: Mapping[str, StepBefore],
    fork: Fork,
    *,
    same_input: bool,
) -> Division:
    """`found` is the new run's definition, `before` and `left` are the other's definition and steps.

    Raises Refused where the fork names steps that are not there, or outputs that they cannot have.
    """
    _check(found, fork)
    again = set(fork.from_steps)
    while True:
        division, changed = _divide(found, before, left, fork, again, same_input)
        # Live readers and their sources produced their outputs together.
        heard = {name for name in found.steps if changed.intersection(found.streams.peers_of(name))}
        if heard <= again | fork.outputs.keys():
            return division
        again |= heard - fork.outputs.keys()


def _divide(
    found: CompiledDefinition,
    before: CompiledDefinition,
    left: Mapping[str, StepBefore],
    fork: Fork,
    again: set[str],
    same_input: bool,
) -> tuple[Division, set[str]]:
    """Return the division when at least `again` run again, and the steps whose outputs change."""
    changed: set[str] = set(fork.outputs)
    unfinished: set[str] = set()
    division = Division([], list(fork.outputs), [], [])
    for step in found.plan.steps:
        if step.id in fork.outputs:
            continue
        was = left.get(step.id)
        sources = _sources(step)
        # What it ended without, it ended without: of several to wait for, some may never have been needed.
        known = _sources(before.plan_steps[step.id]) if step.id in before.plan_steps else set()
        fresh = step.id in again or bool(sources & changed) or bool((sources - known) & unfinished)
        if not fresh and was and was.ended and not was.undone and _fits(found.steps[step.id], was):
            division.kept.append(step.id)
            continue
        goes_on = was and same_input and not fresh and _goes_on(found.steps[step.id], before, step.id, was)
        (division.resumed if goes_on else division.again).append(step.id)
        if fresh or (was and was.ended) or step.id not in before.plan_steps:
            changed.add(step.id)
        else:
            unfinished.add(step.id)
    return division, changed


def _sources(step: PlanStep) -> set[str]:
    return {*step.needs, *step.waits, *step.streams, *(branch.partition(":")[0] for branch in step.branches)}


def _fits(step: Step, was: StepBefore) -> bool:
    """Tell whether the step's recorded end is possible in the new definition."""
    if step.kind != was.kind:
        return False
    if was.branch is None:
        return True
    if was.branch.startswith("!"):
        return was.branch[1:] in {rule.then for rule in step.catch}
    return isinstance(step, SwitchStep) and was.branch in branches_of(step)


def _goes_on(step: Step, before: CompiledDefinition, name: str, was: StepBefore) -> bool:
    """Tell whether the step's partial work is kept, because the step is unchanged."""
    if step != before.steps.get(name):
        return False
    match step:
        case MapStep() | CollaborationStep():
            return isinstance(step, MapStep) or not was.undone
        case LoopStep():
            return not was.undone and not was.exhausted
    return False


def branches_of(step: SwitchStep) -> set[str]:
    return {*(case.then for case in step.cases), step.otherwise}


def _check(found: CompiledDefinition, fork: Fork) -> None:
    known = list(found.definition.steps)
    for name in (*fork.from_steps, *fork.outputs):
        if name not in known:
            raise _unknown(found, name, known)
    for name, output in fork.outputs.items():
        if name in fork.from_steps:
            raise Refused(
                "fork_output_invalid",
                f"found an output for {name!r}, which is to run again; expected one or the other.",
            )
        if fault := _fault(found.steps[name], output):
            raise Refused("fork_output_invalid", f"found an output for {name!r} that {fault}.")


def _unknown(found: CompiledDefinition, name: str, known: Collection[str]) -> Refused:
    around = name
    while found.owners.get(around):
        around = found.owners[around]
    where = f"it is repeated within {around!r}, which runs again as a whole; " if around != name else ""
    return Refused(
        "fork_step_unknown", f"found the step {name!r}: {where}expected one of {', '.join(known)}."
    )


def _fault(step: Step, output: Json) -> str | None:
    """Return why an output cannot be the step's; None if it fits."""
    match step:
        case SwitchStep() if output not in branches_of(step):
            return f"is none of its branches; expected one of {', '.join(sorted(branches_of(step)))}"
        case MapStep() if not isinstance(output, list):
            return "is no list; expected one, as of every map"
        case AgentStep() | ToolStep() if step.output_schema is not None:
            fault = json_schemas.faults(step.output_schema, output, most=1)
            return f"does not fit its output_schema: {fault}" if fault else None
    return None
