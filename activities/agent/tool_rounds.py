"""Tools that a model calls by itself: the offer, and the results of each round of calls."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from opentelemetry.trace import Status, StatusCode

from activities.spans import span
from activities.values import storable
from gateway.request import Completion, Message, ModelToolCall, ToolSpec
from schema import telemetry
from schema.cel.expressions import Json
from schema.errors import FacilitairError
from schema.events import ToolsCalled, ToolsReturned
from schema.language.templates import as_text
from schema.language.tools import TOOLS
from schema.temporal.steps import StepRequest
from schema.values.foreign_json import NotJson, read_json

MAX_CHARS: Final = 60_000
"""Longest result: a longer one would fill the model's context."""

MAX_TOLD_CHARS: Final = 4_000
"""Longest arguments and result of one call in live events; the API has the whole."""

Run = Callable[[str, dict[str, Any]], Awaitable[Json]]


def purpose(number: int) -> str:
    """Return the name of a round of tools, which follows the step's path: `review~tools1`."""
    return f"tools{number}"


def specs(names: Sequence[str]) -> list[ToolSpec]:
    """Return the specifications of the tools that a model may call."""
    return [
        ToolSpec(_wire_name(name), TOOLS[name].description, TOOLS[name].args) for name in dict.fromkeys(names)
    ]


def called(kept: dict[str, Any], request: StepRequest, execution: str, agent: str) -> ToolsCalled:
    """Return what watchers are told of the calls of a round. `request` is of the round itself."""
    calls = [
        {"id": _call_id(request, number), "name": call["name"], "arguments": _told_arguments(call)}
        for number, call in enumerate(kept["calls"])
    ]
    return ToolsCalled(request.collaboration, execution, request.step, request.path, agent, storable(calls))


def returned(kept: dict[str, Any], request: StepRequest) -> ToolsReturned:
    """Return what watchers are told of the results of a round's calls."""
    results = [
        {
            "id": _call_id(request, number),
            "content": as_text(call["result"])[:MAX_TOLD_CHARS],
            "error": _error_code(call["result"]),
        }
        for number, call in enumerate(kept["calls"])
    ]
    return ToolsReturned(request.collaboration, request.step, request.path, storable(results))


def record(completion: Completion) -> dict[str, Json]:
    """A round as its execution keeps it, before anything was called."""
    calls: list[Json] = [
        {"id": call.id, "name": call.name, "arguments": call.arguments} for call in completion.tool_calls
    ]
    return {"text": completion.text, "calls": calls}


async def answered(kept: dict[str, Any], names: Sequence[str], run: Run) -> dict[str, Any]:
    """The round with a result for each call. What fails is told to the model, which may try otherwise."""
    by_wire = {_wire_name(name): name for name in names}
    calls = [
        call if "result" in call else {**call, "result": await _result(call, by_wire, run)}
        for call in kept["calls"]
    ]
    return {**kept, "calls": calls}


def messages(kept: dict[str, Any]) -> list[Message]:
    """A finished round as the conversation goes on with it."""
    asked = tuple(ModelToolCall(call["id"], call["name"], call["arguments"]) for call in kept["calls"])
    results = [
        Message("tool", as_text(call["result"])[:MAX_CHARS], tool_call_id=call["id"])
        for call in kept["calls"]
    ]
    return [Message("assistant", kept["text"], tool_calls=asked), *results]


async def _result(call: dict[str, Any], by_wire: dict[str, str], run: Run) -> Json:
    attributes = {
        telemetry.OPERATION: telemetry.EXECUTE_TOOL,
        telemetry.TOOL_NAME: call["name"],
        telemetry.TOOL_CALL_ID: call["id"],
    }
    with span(f"{telemetry.EXECUTE_TOOL} {call['name'][:100]}", None, attributes) as current:
        result = await _called(call, by_wire, run)
        if code := _error_code(result):
            current.set_attribute(telemetry.ERROR_TYPE, code)
            current.set_status(Status(StatusCode.ERROR, code))
        return result


async def _called(call: dict[str, Any], by_wire: dict[str, str], run: Run) -> Json:
    # Some models write a dot where the name that they were given has none.
    name = by_wire.get(_wire_name(call["name"]))
    if name is None:
        return _error("tool_unknown", f"found {call['name']!r}; expected one of {', '.join(by_wire)}.")
    try:
        arguments = read_json(call["arguments"] or "{}")
    except NotJson as error:
        return _error("tool_args_wrong", f"the arguments are not JSON: {error}.")
    if not isinstance(arguments, dict):
        return _error("tool_args_wrong", "expected a JSON object of arguments.")
    try:
        return await run(name, arguments)
    except FacilitairError as error:
        return _error(error.code, error.message)


def _error(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


def _error_code(result: Json) -> str | None:
    error = result.get("error") if isinstance(result, dict) and result.keys() == {"error"} else None
    return str(error["code"]) if isinstance(error, dict) and "code" in error else None


def _call_id(request: StepRequest, number: int) -> str:
    # Providers give the same id again in other rounds, and some give none.
    return f"{request.path}.{number}"


def _told_arguments(call: dict[str, Any]) -> str:
    text = str(call["arguments"] or "{}")
    return text if len(text) <= MAX_TOLD_CHARS else json.dumps({"cut": text[:MAX_TOLD_CHARS]})


def _wire_name(name: str) -> str:
    # Providers take letters, digits, _ and -.
    return name.replace(".", "_")
