"""A plan as a picture: nodes and edges for programs, Mermaid for people."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, assert_never

from schema.language.catalogue import BUILT_IN, Catalogue
from schema.language.definition import Definition
from schema.language.dependencies import walk
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
from schema.rules.size import Prices, TreeSize, estimate
from schema.temporal.plan import Plan, PlanStep

EdgeKind = Literal["need", "wait", "branch", "catch", "live", "stream"]

MAX_LABEL: Final = 60
_FORMULA: Final = re.compile(r"\$(?=\$)")
_SAFE: Final = frozenset(" _.,:;/()+=?!@%-…·→")

_CHAINS: Final = {
    "quick": "shares a local activity with its neighbours",
    "slow": "shares an activity with its neighbours",
    "": "an activity of its own",
}
_WAITING: Final = "waits in the workflow"
_ONE_BY_ONE: Final = "its steps one by one"

_SHAPES: Final = {
    "agent": ('("', '")'),
    "tool": ('["', '"]'),
    "transform": ('[/"', '"/]'),
    "switch": ('{"', '"}'),
    "human": ('{{"', '"}}'),
    "collaboration": ('[["', '"]]'),
    "wait": ('(("', '"))'),
}
_ARROWS: Final = {
    "need": "-->",
    "branch": "-->",
    "wait": "-.->",
    "catch": "==>",
    "live": "-.->",
    "stream": "-.->",
}
_STREAM_STYLE: Final = "stroke-dasharray:8 4,stroke:#888888"
_CLASSES: Final = {
    "quick": "fill:#e8f5e9,stroke:#2e7d32,color:#111111",
    "slow": "fill:#e3f2fd,stroke:#1565c0,color:#111111",
    "own": "fill:#ffffff,stroke:#616161,color:#111111",
}


@dataclass(frozen=True)
class Arrow:
    """`source` ends before `target` begins; of `live` it only begins, and of a stream, no dependency,
    its tokens are shown to it."""

    source: str
    target: str
    kind: EdgeKind
    label: str = ""
    """Label: a branch's name, a catch's error codes, or the part on which live reading starts."""


def as_json(
    definition: Definition,
    plan: Plan,
    prices: Prices | None = None,
    catalogue: Catalogue = BUILT_IN,
    within: Mapping[str, TreeSize] | None = None,
) -> dict[str, Any]:
    """Return nodes, edges and the upper bounds of one run; `prices` for what it may cost, `within` for the
    sub-collaborations that it refers to."""
    steps = _steps(definition)
    most = estimate(definition, prices, catalogue, within=within)
    return {
        "name": definition.name,
        "nodes": [_node(one, steps[one.id], frame) for one, frame in planned(plan)],
        "edges": [
            {"from": edge.source, "to": edge.target, "kind": edge.kind, "label": edge.label}
            for edge in edges(definition, plan)
        ],
        "estimate": asdict(most) | {"usd": None if most.usd is None else float(most.usd)},
    }


def planned(plan: Plan, frame: str = "") -> Iterator[tuple[PlanStep, str]]:
    """Every step with the map or loop around it, a body's steps behind the step that has it."""
    for step in plan.steps:
        yield step, frame
        if step.body:
            yield from planned(step.body, step.id)


def edges(definition: Definition, plan: Plan) -> list[Arrow]:
    """Return the dependencies as the interpreter sees them, and the live streams."""
    steps = _steps(definition)
    found: list[Arrow] = []
    planned_steps = {step.id: step for step, _ in planned(plan)}
    for step in planned_steps.values():
        found += [Arrow(need, step.id, "need") for need in step.needs]
        found += [Arrow(wait, step.id, "wait") for wait in step.waits]
        for branch in step.branches:
            source, _, label = branch.partition(":")
            if label.startswith("!"):
                codes = [code for rule in steps[source].catch if rule.then == step.id for code in rule.errors]
                found.append(Arrow(source, step.id, "catch", ", ".join(codes)))
            else:
                found.append(Arrow(source, step.id, "branch", label))
    for stream in definition.stream:
        waits = stream.source in planned_steps[stream.target].streams if stream.start else False
        kind: EdgeKind = "live" if waits else "stream"
        found.append(Arrow(stream.source, stream.target, kind, (stream.start or "").replace("_", " ")))
    return found


def in_words(step: PlanStep) -> str:
    """Return the place that performs the step."""
    if step.chain:
        return _CHAINS[step.chain]
    if step.kind in ("human", "wait", "collaboration"):
        return _WAITING
    return _ONE_BY_ONE if step.body else _CHAINS[""]


def notes(planned: PlanStep, step: Step) -> list[str]:
    """Return further conditions on the step, in a few words each."""
    found: list[str] = []
    if planned.quorum:
        total = len(step.needs)
        found.append(f"any of {total}" if planned.quorum == 1 else f"{planned.quorum} of {total}")
    if step.when is not None:
        found.append(f"when {step.when}")
    if isinstance(step, (AgentStep, ToolStep, CollaborationStep)) and step.compensate:
        found.append(f"undo: {step.compensate.tool or step.compensate.activity}")
    values = [", ".join(rule.errors) for rule in step.catch if rule.then is None]
    return found + [f"a value instead of {codes}" for codes in values]


def what(step: Step) -> str:
    """Describe the step in a few words."""
    match step:
        case AgentStep():
            return f"agent {step.agent}"
        case ToolStep():
            return step.tool or f"activity {step.activity}"
        case TransformStep():
            return "transform"
        case SwitchStep():
            return "switch"
        case MapStep():
            return f"for each of {step.over}, {step.concurrency} at a time"
        case LoopStep():
            until = f" until {step.until}" if step.until is not None else ""
            return f"at most {step.max_iterations} times{until}"
        case HumanStep():
            return f"ask {', '.join(step.assignees) or 'people'}: {step.title}"
        case CollaborationStep():
            return f"run {step.ref or 'a planned collaboration'}"
        case WaitStep():
            return f"wait {step.duration}" if step.duration else f"wait until {step.until}"
        case _:
            assert_never(step)


def mermaid(definition: Definition, plan: Plan) -> str:
    """A flowchart. Whatever a user wrote stands in quoted labels, and cannot leave them."""
    steps = _steps(definition)
    lines = ["flowchart TD"]
    _draw(plan, steps, lines, "  ")
    for number, edge in enumerate(edges(definition, plan)):
        label = f'|"{_label(edge.label)}"|' if edge.label else ""
        lines.append(f"  {_id(edge.source)} {_ARROWS[edge.kind]}{label} {_id(edge.target)}")
        if edge.kind in ("live", "stream"):
            lines.append(f"  linkStyle {number} {_STREAM_STYLE}")
    classes: dict[str, list[str]] = {}
    for step, _ in planned(plan):
        classes.setdefault(step.chain or "own", []).append(_id(step.id))
    # Without anything shared there is nothing to explain.
    if classes.keys() - {"own"}:
        lines.append('  subgraph legend["How steps are done"]')
        for name in classes:
            words = _CHAINS.get(name, f"{_CHAINS['']}, or waits in the workflow")
            lines.append(f'    legend_{name}["{_label(words)}"]')
            classes[name].append(f"legend_{name}")
        lines.append("  end")
    for name, members in classes.items():
        lines += [f"  classDef {name} {_CLASSES[name]}", f"  class {','.join(members)} {name}"]
    return "\n".join(lines)


def _draw(plan: Plan, steps: Mapping[str, Step], lines: list[str], indent: str) -> None:
    for one in plan.steps:
        step = steps[one.id]
        parts = (one.id, what(step), *notes(one, step))
        label = "<br/>".join(map(_label, parts))
        if one.body:
            # A title has one line: what follows would lie on the steps.
            lines.append(f'{indent}subgraph {_id(one.id)}["{_label(" · ".join(parts))}"]')
            _draw(one.body, steps, lines, f"{indent}  ")
            lines.append(f"{indent}end")
        else:
            begin, end = _SHAPES[step.kind]
            lines.append(f"{indent}{_id(one.id)}{begin}{label}{end}")


def _id(step: str) -> str:
    # Mermaid keeps words such as `end` for itself.
    return f"s_{step}"


def _label(text: str) -> str:
    """Text that says the same in a quoted label: all that could mean something there is a character code."""
    short = "".join(char for char in " ".join(text[: 4 * MAX_LABEL].split()) if char.isprintable())
    short = short if len(short) <= MAX_LABEL else f"{short[: MAX_LABEL - 1]}…"
    # Mermaid draws $$…$$ as mathematics, marks its own codes by a ligature, and refuses an empty label.
    short = _FORMULA.sub("$\u200b", short).replace("\ufb02", "fl") or "·"
    return "".join(char if char.isalnum() or char in _SAFE else f"#{ord(char)};" for char in short)


def _node(planned: PlanStep, step: Step, frame: str) -> dict[str, Any]:
    asked = isinstance(step, (AgentStep, ToolStep))
    return {
        "id": planned.id,
        "kind": planned.kind,
        "summary": planned.summary,
        "what": what(step),
        "frame": frame,
        "needs": planned.needs,
        "waits": planned.waits,
        "streams": planned.streams,
        "branches": planned.branches,
        "quorum": planned.quorum,
        "when": step.when,
        "chain": planned.chain,
        "done": in_words(planned),
        "timeout_seconds": planned.timeout_seconds,
        "retry": asdict(planned.retry) if asked else None,
        "catch": [asdict(rule) for rule in planned.catches],
        "compensates": planned.compensates,
        "priority": planned.priority,
    }


def _steps(definition: Definition) -> dict[str, Step]:
    return {name: step for _, name, step, _ in walk(definition.steps)}
