"""What a step may read: its definition, the run's input and the outputs it refers to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db import collaborations, executions
from db.collaborations import Run
from schema.compile import compiled, step_expressions
from schema.definition import Definition
from schema.expressions import compile_expression
from schema.messages import Plan, StepRequest
from schema.steps import AgentStep, Step, ToolStep
from schema.templates import expressions

# Parsed definitions by their hash; `compiled` keeps the parsing itself.
_sources: dict[str, str] = {}


@dataclass(frozen=True)
class StepContext:
    run: Run
    definition: Definition
    step: Step
    scope: dict[str, Any]
    """What expressions see: input, steps, run."""


async def definition_of(connection: AsyncConnection, run: Run) -> tuple[Definition, Plan]:
    source = _sources.get(run.sha256)
    if source is None:
        source = await collaborations.source_of(connection, run.version_id)
        if len(_sources) > 512:
            _sources.clear()
        _sources[run.sha256] = source
    return compiled(run.sha256, source)


def _steps_read(sources: Iterable[str]) -> list[str]:
    names: dict[str, None] = {}
    for source in sources:
        for reference in compile_expression(source).references:
            if reference.path[0] == "steps" and len(reference.path) > 1:
                names[reference.path[1]] = None
    return list(names)


async def _scope(connection: AsyncConnection, run: Run, steps: list[str]) -> dict[str, Any]:
    return {
        "input": run.input,
        "steps": await executions.outputs(connection, run.id, steps),
        "run": {
            "id": run.temporal_workflow_id, "name": run.name, "version": str(run.version),
            "tenant": run.tenant,
        },
    }  # fmt: skip


async def load(connection: AsyncConnection, request: StepRequest) -> StepContext:
    """Everything the step's own expressions refer to, and nothing more."""
    run = await collaborations.run(connection, UUID(request.collaboration))
    definition, _ = await definition_of(connection, run)
    step = definition.steps[request.step]
    names = _steps_read(source for _, source in step_expressions(step))
    return StepContext(run, definition, step, await _scope(connection, run, names))


async def output_scope(connection: AsyncConnection, run: Run, template: Any) -> dict[str, Any]:
    """The scope for a definition's output."""
    names = _steps_read(source for _, source in expressions(template))
    return await _scope(connection, run, names)


def worker_of(definition: Definition, step: Step) -> executions.Worker:
    """Who does the step, for its execution row."""
    match step:
        case AgentStep():
            agent = definition.agents[step.agent]
            return executions.Worker("agent", step.agent, step.role or agent.role)
        case ToolStep():
            return executions.Worker("tool", step.tool or step.activity or "")
        case _:
            return executions.Worker("transform", "transform")
