"""Find whose score grades whose answer in a definition."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from plan.compile import CompiledDefinition, compiled
from schema.language.dependencies import steps_read
from schema.language.steps import (
    AgentStep,
    CollaborationStep,
    HumanStep,
    LoopStep,
    MapStep,
    Step,
    ToolStep,
    TransformStep,
)
from schema.language.templates import expressions
from schema.rules.answers import rules_of

SCORE = "quality"
"""The field of an answer by which it judges what it has read."""


@dataclass(frozen=True, slots=True)
class JudgedSteps:
    """Graders and graded steps of one definition, each in the order of its steps."""

    reviewed: tuple[tuple[str, str], ...]
    """(step that may judge, agent step whose answer its prompt shows) of one frame."""
    shown: tuple[tuple[str, str], ...]
    """(step that asks people, agent step whose answer it shows) of one frame."""
    final: tuple[str, ...]
    """Agent steps whose answers the run's output or a judging step reads."""
    checked: tuple[str, ...]
    """Agent steps whose answer had to fit a schema or expectations."""
    prompts: Mapping[str, str]
    """Agent step → its prompt as written."""


@lru_cache(maxsize=512)
def verdicts(sha256: str, source: str) -> JudgedSteps:
    """Return the graders of a stored definition, parsed as `compiled` does."""
    return read(compiled(sha256, source))


def read(found: CompiledDefinition) -> JudgedSteps:
    """By references alone: `when` and what is merely needed judge nothing."""
    made_of = {name: _made_of(found, name, step) for name, step in found.steps.items()}
    agents = {name: step for name, step in found.steps.items() if isinstance(step, AgentStep)}
    judges = [name for name, step in agents.items() if _judges(step)]
    whole = _reads(found.outputs[""])
    for judge in judges:
        whole |= made_of[judge]
    final = _behind(whole, made_of)
    return JudgedSteps(
        tuple((name, one) for name in agents for one in _read_by(found, name, made_of) if one in agents),
        tuple(
            (name, one)
            for name, step in found.steps.items()
            if isinstance(step, HumanStep)
            for one in _read_by(found, name, made_of)
            if one in agents
        ),
        tuple(name for name in agents if name in final),
        tuple(
            name for name, step in agents.items() if step.output_schema or step.emits or rules_of(step).expect
        ),
        {name: step.prompt for name, step in agents.items()},
    )


def _made_of(found: CompiledDefinition, name: str, step: Step) -> set[str]:
    """The steps from whose output that of this one is made."""
    match step:
        case AgentStep():
            return _reads(step.prompt) | {edge.source for edge in found.streams.read_by(name)}
        case ToolStep():
            return _reads(step.args)
        case TransformStep():
            return _reads(step.value)
        case HumanStep():
            return _reads(step.show) | _reads(step.title)
        case CollaborationStep():
            return _reads(step.definition) | _reads(step.input)
        case MapStep():
            return steps_read([step.over]).keys() | _reads(found.outputs[name])
        case LoopStep():
            return _reads(step.init) | _reads(step.carry) | _reads(found.outputs[name])
    return set()


def _reads(template: object) -> set[str]:
    return set(steps_read(source for _, source in expressions(template)))


def _judges(step: AgentStep) -> bool:
    fields = (step.output_schema or {}).get("properties")
    return isinstance(fields, dict) and SCORE in fields


def _read_by(found: CompiledDefinition, name: str, made_of: Mapping[str, set[str]]) -> list[str]:
    """Steps of its frame that it shows, directly or through what only puts them together."""
    frame = found.owners[name]
    seen: dict[str, None] = {}
    stack = sorted(made_of[name])
    while stack:
        one = stack.pop()
        if one in seen or found.owners.get(one) != frame:
            continue
        seen[one] = None
        if isinstance(found.steps[one], TransformStep):
            stack.extend(sorted(made_of[one]))
    return sorted(seen)


def _behind(names: Iterable[str], made_of: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = list(names)
    while stack:
        one = stack.pop()
        if one not in seen:
            seen.add(one)
            stack.extend(made_of.get(one, ()))
    return seen
