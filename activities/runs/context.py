"""Load the values that a step may read: definition, input, outputs and its place in repetitions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db.definitions import catalogue
from db.runs import collaborations, executions
from db.runs.collaborations import Run
from plan.compile import CompiledDefinition, compiled
from schema.cel.expressions import Json, compile_expression
from schema.language.catalogue import BUILT_IN, Catalogue
from schema.language.definition import Definition
from schema.language.dependencies import later_expressions, step_expressions, steps_read
from schema.language.steps import AgentStep, CollaborationStep, HumanStep, LoopStep, MapStep, Step, ToolStep
from schema.temporal.steps import StepRequest

# A run's facts and a definition's text never change, and every step asks for them.
_MAX_KEPT: Final = 4_096
_sources: dict[str, str] = {}
_runs: dict[str, Run] = {}

Scope = Mapping[str, Any]

_REPEATED: Final = re.compile(r"([a-z][a-z0-9_]*)\[(\d+)\]")


@dataclass(frozen=True)
class StepContext:
    run: Run
    compiled: CompiledDefinition
    step: Step
    scope: dict[str, Any]
    """Variables of expressions: input, steps, run, and in repetitions item, index and iter."""
    catalogue: Catalogue = BUILT_IN
    """Names that the tenant's definitions may use now, for steps that name something."""

    @property
    def definition(self) -> Definition:
        return self.compiled.definition


async def run_of(connection: AsyncConnection, collaboration: str) -> Run:
    run = _runs.get(collaboration)
    return run or keep(await collaborations.find_run(connection, UUID(collaboration)))


def known_run(collaboration: str) -> Run | None:
    """A run, when this process has met it before."""
    return _runs.get(collaboration)


def known_facts(collaboration: str) -> tuple[Run, CompiledDefinition] | None:
    """A run and its definition, when this process has met both before."""
    run = _runs.get(collaboration)
    source = _sources.get(run.sha256) if run else None
    return (run, compiled(run.sha256, source)) if run and source else None


def keep(run: Run) -> Run:
    """Remember a run's facts in this process."""
    if len(_runs) >= _MAX_KEPT:
        _runs.pop(next(iter(_runs)))
    _runs[str(run.id)] = run
    return run


def source_of(sha256: str) -> str | None:
    """A definition's text, when this process has read it before."""
    return _sources.get(sha256)


async def definition_of(connection: AsyncConnection, run: Run) -> CompiledDefinition:
    source = _sources.get(run.sha256)
    if source is None:
        source = await collaborations.source_of(connection, run.version_id)
        if len(_sources) > 512:
            _sources.clear()
        _sources[run.sha256] = source
    return compiled(run.sha256, source)


async def facts_of(connection: AsyncConnection, collaboration: str) -> tuple[Run, CompiledDefinition]:
    """A run and its definition."""
    run = await run_of(connection, collaboration)
    return run, await definition_of(connection, run)


def paths_of(found: CompiledDefinition, names: Iterable[str], frame: str) -> dict[str, str]:
    """step → its path, as seen from a frame: each name is that of the nearest repetition around."""
    inside = {match.group(1): frame[: match.end()] for match in _REPEATED.finditer(frame)}
    return {
        name: f"{inside[owner]}.{name}" if (owner := found.owners.get(name, "")) in inside else name
        for name in names
    }


def run_facts(run: Run) -> dict[str, str]:
    return {
        "id": run.temporal_workflow_id,
        "name": run.name,
        "version": str(run.version),
        "tenant": run.tenant,
    }


async def load(connection: AsyncConnection, request: StepRequest, *, later: bool = False) -> StepContext:
    """Everything the step's own expressions refer to, and nothing more; `later`: also those that are
    evaluated when its work is done."""
    run, found = await facts_of(connection, request.collaboration)
    step = found.steps[request.step]
    sources = [source for _, source in step_expressions(step)]
    if later or isinstance(step, AgentStep):
        sources += [source for _, source in later_expressions(step)]
    here = await scope(connection, run, found, sources, request.frame)
    if not isinstance(step, (AgentStep, CollaborationStep)):
        return StepContext(run, found, step, here)
    return StepContext(run, found, step, here, await catalogue.of_tenant(connection, run.tenant))


async def scope(
    connection: AsyncConnection, run: Run, found: CompiledDefinition, sources: list[str], frame: str = ""
) -> dict[str, Any]:
    """Return the values that the expressions refer to, as seen from the frame."""
    names = steps_read(sources)
    paths = paths_of(found, names, frame)
    known = await executions.known(connection, run.id, list(paths.values()))
    steps = {name: known[path].facts() for name, path in paths.items() if path in known}
    for name, path in paths.items():
        if name in steps and isinstance(found.steps.get(name), (MapStep, LoopStep)):
            if _reads(sources, "steps", name, "items"):
                steps[name]["items"] = await item_facts(connection, run, path)
            if _reads(sources, "steps", name, "iterations"):
                ended = await executions.items(connection, run.id, path)
                steps[name]["iterations"] = ended[-1].index + 1 if ended else 0
    return {
        "input": run.input,
        "steps": steps,
        "run": run_facts(run),
        **await _repetition(connection, run, found, sources, frame),
    }


async def item_facts(connection: AsyncConnection, run: Run, path: str) -> list[dict[str, Any]]:
    return [
        item_fact(row.status, row.output, row.error_code, row.error_message)
        for row in await executions.items(connection, run.id, path)
    ]


def item_fact(status: str, output: Json, code: str | None, message: str | None) -> dict[str, Any]:
    """Build `steps.<map>.items[i]`."""
    if status == "completed":
        return {"status": status, "output": output}
    return {"status": status, "error": {"code": code or "", "message": message or ""}}


async def _repetition(
    connection: AsyncConnection, run: Run, found: CompiledDefinition, sources: list[str], frame: str
) -> dict[str, Any]:
    """`item` and `index` of the innermost map around the frame, `iter` of the innermost loop."""
    bound: dict[str, Any] = {}
    for match in reversed(list(_REPEATED.finditer(frame))):
        name, index = match.group(1), int(match.group(2))
        path = frame[: match.end(1)]
        if isinstance(found.steps[name], MapStep) and "index" not in bound:
            bound["index"] = index
            if _reads(sources, "item"):
                bound["item"] = await executions.input_item(connection, run.id, path, index)
        elif isinstance(found.steps[name], LoopStep) and "iter" not in bound:
            bound["iter"] = await iteration(connection, run, path, index) if _reads(sources, "iter") else {}
    return bound


async def iteration(connection: AsyncConnection, run: Run, path: str, index: int) -> dict[str, Any]:
    """Build `iter` for the body of a loop."""
    before = f"{path}[{index - 1}]" if index else path
    carry, output = await executions.input_and_output(connection, run.id, before)
    return {"index": index, "carry": carry, "previous": output if index else None}


def _reads(sources: Iterable[str], *path: str) -> bool:
    return any(
        reference.path[: len(path)] == path or path[: len(reference.path)] == reference.path
        for source in sources
        for reference in compile_expression(source).references
    )


def worker_of(definition: Definition, step: Step) -> executions.Assignment:
    """Return the assignment of the step, for its execution row."""
    match step:
        case AgentStep():
            agent = definition.agents[step.agent]
            return executions.Assignment("agent", step.agent, step.role or agent.role)
        case ToolStep():
            return executions.Assignment("tool", step.tool or step.activity or "")
        case CollaborationStep():
            return executions.Assignment(step.kind, step.ref or "planned")
        case HumanStep():
            return executions.Assignment(step.kind, ", ".join(step.assignees)[:200] or "people")
        case _:
            return executions.Assignment(step.kind, step.kind)
