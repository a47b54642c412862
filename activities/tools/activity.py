"""One tool step: a built-in tool, found by name."""

from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.guard import describe, given_up
from activities.runs.context import load, worker_of
from activities.spans import span
from activities.tools import python_check, text
from activities.tools.http import HttpTool
from activities.tools.pause import pause
from activities.values import as_promised, checked_output, output_fault, storable
from db.engine import persist, transaction
from db.runs import cache, executions
from db.runs.executions import AttemptOutcome
from schema import telemetry
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language import json_schemas
from schema.language.steps import ToolStep, seconds
from schema.language.templates import render
from schema.language.tools import TOOLS
from schema.temporal.steps import StepRequest, StepResult

_KEEP_SECONDS: Final = 30.0


class ToolActivity:
    def __init__(self, engine: AsyncEngine, http: HttpTool) -> None:
        self._engine = engine
        self._http = http

    async def tool(self, request: StepRequest) -> StepResult:
        """Do a tool step, or return the result of the attempt that already finished it."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            step = context.step
            assert isinstance(step, ToolStep) and step.tool is not None
            worker = worker_of(context.definition, step)
            begun = await executions.claim(connection, request, worker)
            if begun.done:
                return begun.done
        with span(
            f"{telemetry.EXECUTE_TOOL} {step.tool}",
            request,
            {
                telemetry.OPERATION: telemetry.EXECUTE_TOOL,
                telemetry.TOOL_NAME: step.tool,
                telemetry.STEP: request.step,
                telemetry.ATTEMPT: begun.attempt,
            },
        ):
            try:
                args = render(step.args, context.scope)
                outcome = await self._kept(request, step, args)
                if outcome is None:
                    output = as_promised(step, storable(checked_output(await self.run(step.tool, args))))
                    if fault := output_fault(step, output):
                        raise StepError("output_invalid", fault)
                    outcome = AttemptOutcome(output)

                async def finish() -> StepResult | None:
                    async with transaction(self._engine) as connection:
                        done = await executions.complete(connection, request, worker, begun, outcome)
                        if done and step.cache and outcome.reused_from is None:
                            key = _cache_key(step, args)
                            await cache.store(connection, request.tenant, key, begun.execution)
                    return done

                # What a tool did, it did: another attempt would do it again.
                result = await persist(finish, _KEEP_SECONDS)
            except Exception as error:
                async with transaction(self._engine) as connection:
                    await executions.fail(connection, request, begun, *describe(error))
                raise
        if result is None:
            raise given_up()
        return result

    async def _kept(
        self, request: StepRequest, step: ToolStep, args: dict[str, Any]
    ) -> AttemptOutcome | None:
        """Return the cached output of an equal call, if the step may reuse it and it still fits."""
        if step.cache is None:
            return None
        async with transaction(self._engine) as connection:
            key, age = _cache_key(step, args), seconds(step.cache.ttl)
            kept = await cache.find(connection, request.tenant, key, age)
        return kept if kept and not output_fault(step, kept.output) else None

    async def run(self, name: str, args: dict[str, Any]) -> Json:
        """Run a built-in tool and record nothing. Raises StepError or Unavailable."""
        if fault := json_schemas.faults(TOOLS[name].args, args, most=1):
            raise StepError("tool_args_wrong", f"{name}: {fault}.")
        match name:
            case "http":
                return await self._http.call(**args)
            case "python.check":
                return await python_check.check(**args)
            case "text.diff":
                return text.diff(**args)
            case "text.code_blocks":
                return text.code_blocks(**args)
            case "json.parse":
                return text.parse_json(**args)
            case "pause":
                return await pause(**args)
        raise StepError("tool_unknown", f"found the tool {name!r}; expected one of {', '.join(TOOLS)}.")


def _cache_key(step: ToolStep, args: dict[str, Any]) -> str:
    return cache.key_of({"kind": "tool", "tool": step.tool, "args": args})
