"""Dependencies of a definition's steps: the expressions they read, and the order that follows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schema.cel.expressions import compile_expression
from schema.language.steps import (
    AgentStep,
    CollaborationStep,
    HumanStep,
    LoopStep,
    MapStep,
    Step,
    SwitchStep,
    ToolStep,
    TransformStep,
    WaitStep,
)
from schema.language.streams import Streams
from schema.language.templates import expressions


@dataclass(frozen=True, slots=True)
class Dependencies:
    """A step's dependencies, and which of them were inferred from references rather than written."""

    needs: tuple[str, ...]
    waits: tuple[str, ...]
    inferred: tuple[str, ...]
    branches: tuple[str, ...] = ()


def step_expressions(step: Step) -> list[tuple[str, str]]:
    """(JSON pointer within the step, source) of every expression of the step itself: those of a body are its
    steps' own."""
    found: list[tuple[str, str]] = []
    if step.when is not None:
        found.append(("/when", step.when))
    match step:
        case AgentStep():
            found.extend(expressions(step.prompt, "/prompt"))
            expected = step.reflect.expect if step.reflect else []
            found.extend((f"/reflect/expect/{at}/that", one.that) for at, one in enumerate(expected))
        case ToolStep():
            found.extend(expressions(step.args, "/args"))
        case TransformStep():
            found.extend(expressions(step.value, "/value"))
        case SwitchStep():
            found.extend((f"/cases/{at}/when", case.when) for at, case in enumerate(step.cases))
        case MapStep():
            found.append(("/over", step.over))
        case LoopStep():
            found.extend(expressions(step.init, "/init"))
        case HumanStep():
            found.extend(expressions(step.title, "/title"))
            found.extend(expressions(step.show, "/show"))
        case CollaborationStep():
            found.extend(expressions(step.definition, "/definition"))
            found.extend(expressions(step.input, "/input"))
        case WaitStep():
            found.extend(expressions(step.until, "/until"))
    for at, rule in enumerate(step.catch):
        found.extend(expressions(rule.value, f"/catch/{at}/value"))
    return found


def later_expressions(step: Step) -> list[tuple[str, str]]:
    """(JSON pointer, source) of what is evaluated once a step has done its work: it may name the step itself
    or its body's steps."""
    found: list[tuple[str, str]] = []
    if isinstance(step, (MapStep, LoopStep)):
        found.extend(expressions(step.body.output, "/body/output"))
    if isinstance(step, LoopStep):
        found.extend(expressions(step.carry, "/carry"))
        if step.until is not None:
            found.append(("/until", step.until))
    if isinstance(step, (AgentStep, ToolStep, CollaborationStep)) and step.compensate:
        found.extend(expressions(step.compensate.args, "/compensate/args"))
    return found


def walk(steps: Mapping[str, Step], pointer: str = "/steps") -> Iterator[tuple[str, str, Step, str]]:
    """(JSON pointer, id, step, id of the map or loop around it or "") of every step, bodies included."""
    stack = [(f"{pointer}/{name}", name, step, "") for name, step in reversed(list(steps.items()))]
    while stack:
        where, name, step, owner = stack.pop()
        yield where, name, step, owner
        if isinstance(step, (MapStep, LoopStep)):
            inner = reversed(list(step.body.steps.items()))
            stack.extend((f"{where}/body/steps/{id}", id, one, name) for id, one in inner)


def steps_read(sources: Iterable[str]) -> dict[str, bool]:
    """step → whether every reference to it is optional (`steps[?'x']`), over some expressions."""
    found: dict[str, bool] = {}
    for source in sources:
        for reference in compile_expression(source).references:
            if reference.path[0] == "steps" and len(reference.path) > 1:
                name = reference.path[1]
                found[name] = found.get(name, True) and reference.optional
    return found


def dependencies(step: Step) -> Dependencies:
    """Explicit needs and those that references imply; `steps[?'x']` waits for x without needing it.

    A map or loop depends on whatever its body's steps refer to outside of it.
    """
    needs = dict.fromkeys(need for need in step.needs if ":" not in need)
    branches = tuple(dict.fromkeys(need for need in step.needs if ":" in need))
    switches = {branch.partition(":")[0] for branch in branches}
    waits: dict[str, None] = {}
    known = {*needs, *switches}
    for read, optional in steps_read(_sources(step)).items():
        if step.join == "all":
            (waits if optional else needs)[read] = None
        elif read not in known:
            # Where some of the needs are enough, what is read besides is no further one to choose from.
            waits[read] = None
    if isinstance(step, (MapStep, LoopStep)):
        inside = {id for _, id, _, _ in walk(step.body.steps)}
        for _, _, inner, _ in walk(step.body.steps):
            for need in inner.needs:
                needs[need.partition(":")[0]] = None
        needs = {need: None for need in needs if need not in inside}
        waits = {need: None for need in waits if need not in inside}
    waited = tuple(one for one in waits if one not in needs and one not in switches)
    needed = tuple(one for one in needs if one not in switches)
    inferred = tuple(one for one in (*needed, *waited) if one not in step.needs)
    return Dependencies(needed, waited, inferred, branches)


def _sources(step: Step) -> Iterator[str]:
    yield from (source for _, source in step_expressions(step))
    if isinstance(step, (MapStep, LoopStep)):
        for _, _, inner, _ in walk(step.body.steps):
            yield from (source for _, source in step_expressions(inner))
            yield from (source for _, source in later_expressions(inner))
        yield from (source for _, source in later_expressions(step))


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


def handlers(steps: Mapping[str, Step]) -> dict[str, list[str]]:
    """step → the steps that it takes over for when they fail."""
    found: dict[str, list[str]] = {}
    for name, step in steps.items():
        for rule in step.catch:
            if rule.then and name not in found.setdefault(rule.then, []):
                found[rule.then].append(name)
    return found


def edges(
    steps: Mapping[str, Step],
    links: Mapping[str, Dependencies] | None = None,
    streams: Streams | None = None,
) -> dict[str, tuple[str, ...]]:
    """step → every step that must have ended, or that it reads live and so must have begun, before it;
    `links` where they are known already."""
    takes_over = handlers(steps)
    read = streams.before() if streams else {}
    found: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():
        link = links[name] if links else dependencies(step)
        switches = (branch.partition(":")[0] for branch in link.branches)
        others = (*takes_over.get(name, ()), *read.get(name, ()))
        found[name] = tuple(dict.fromkeys((*link.needs, *switches, *link.waits, *others)))
    return found
