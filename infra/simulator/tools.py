"""Simulate tool calls: which tools a model calls, with which arguments, and how it uses their results."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.simulator.conform import conforming, nothing
from infra.simulator.faults import ScriptedToolCall
from infra.simulator.prompt import ReadPrompt, text_of

# A description is heard in a prompt when so many of its words are.
WORDS_IN_COMMON: Final = 2
MAX_RESULT: Final = 400
_SMALL_WORDS: Final = """
a an and any are as at be by can find for from get give given gives has have how in into is it its list
made make of on one or out return returns some that the their them this to tool use uses used what when
where which who with you your
"""
SMALL_WORDS: Final = frozenset(_SMALL_WORDS.split())


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A function that the caller offers."""

    name: str
    description: str
    parameters: Mapping[str, object]


def tools_of(body: Mapping[str, object]) -> list[OfferedTool]:
    """The functions on offer, as far as they are written as OpenAI wants them."""
    offered = body.get("tools")
    found = []
    for each in offered if isinstance(offered, list) else []:
        function = each.get("function") if isinstance(each, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            found.append(
                OfferedTool(
                    function["name"],
                    str(function.get("description") or ""),
                    parameters if isinstance(parameters, Mapping) else {},
                )
            )
    return found


def calls_for(body: Mapping[str, object], prompt: ReadPrompt) -> tuple[ScriptedToolCall, ...]:
    """The tools that the model wants now: those the prompt speaks of and that were not yet asked.

    It is a model that does as it is told: `tool_choice` of "none" and of a name are kept to, and "required"
    without a tool in the prompt takes the first on offer.
    """
    tools, choice = tools_of(body), body.get("tool_choice", "auto")
    messages = body["messages"]
    assert isinstance(messages, list)
    if not tools or choice == "none":
        return ()
    named = _named(choice)
    if named is not None:
        wanted = [tool for tool in tools if tool.name == named]
    else:
        asked = _asked(messages)
        wanted = [tool for tool in tools if tool.name not in asked and _spoken_of(tool, messages)]
        if choice == "required":
            wanted = wanted or tools[:1]
    if body.get("parallel_tool_calls") is False:
        wanted = wanted[:1]
    return tuple(
        ScriptedToolCall(tool.name, json.dumps(_arguments(tool, prompt), ensure_ascii=False))
        for tool in wanted
    )


def results_in(messages: Sequence[Mapping[str, object]]) -> list[str]:
    """Return tools' results, a line each; an answer begins with them."""
    names = {
        call.get("id"): function.get("name")
        for message in messages
        for call in _sequence(message.get("tool_calls"))
        if isinstance(call, Mapping) and isinstance(function := call.get("function"), Mapping)
    }
    return [
        f"According to {names.get(message.get('tool_call_id'), 'the tool')}: "
        f"{' '.join(text_of(message).split())[:MAX_RESULT]}"
        for message in messages
        if message.get("role") == "tool"
    ]


def _named(choice: object) -> str | None:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def _asked(messages: Sequence[Mapping[str, object]]) -> Counter[str]:
    """The tools called since a person last spoke."""
    names: Counter[str] = Counter()
    for message in messages:
        if message.get("role") == "user":
            names.clear()
        for call in _sequence(message.get("tool_calls")):
            function = call.get("function") if isinstance(call, Mapping) else None
            if isinstance(function, Mapping):
                names[str(function.get("name"))] += 1
    return names


def _spoken_of(tool: OfferedTool, messages: Sequence[Mapping[str, object]]) -> bool:
    heard = [m for m in messages if m.get("role") in ("system", "developer", "user")]
    text = "\n".join(text_of(message) for message in heard).lower()
    spoken = re.sub(r"[_\W]+", " ", tool.name.lower()).strip()
    if re.search(rf"\b{re.escape(tool.name.lower())}\b", text) or re.search(
        rf"\b{re.escape(spoken)}\b", text
    ):
        return True
    said = set(re.findall(r"[a-z]{3,}", text))
    described = set(re.findall(r"[a-z]{3,}", tool.description.lower())) - SMALL_WORDS
    return len(said & described) >= WORDS_IN_COMMON


def _arguments(tool: OfferedTool, prompt: ReadPrompt) -> object:
    """Arguments that the tool's schema accepts, taken from the prompt where it names them."""

    def hint(name: str, schema: Mapping[str, object]) -> object:
        label = re.escape(name).replace("_", "[_ ]")
        given = re.search(
            rf'\b{label}\b\s*(?:is|=|:|of)?\s*("[^"]*"|\'[^\']*\'|[\w.+/-]+)', prompt.text, re.I
        )
        value = given[1].strip("\"'").rstrip(".") if name and given else ""
        match schema.get("type"):
            case "integer" | "number":
                number = re.search(r"-?\d+(?:\.\d+)?", value or prompt.text)
                return float(number[0]) if number else nothing
            case "string" if "enum" not in schema:
                quoted = re.search(r'"([^"\n]{1,200})"', prompt.text)
                return value or (quoted[1] if quoted else " ".join(prompt.words[:3]))
            case "string":
                allowed = [a for a in _sequence(schema["enum"]) if isinstance(a, str)]
                return next((a for a in allowed if a.lower() in prompt.text.lower()), nothing)
            case _:
                return nothing

    return conforming({"type": "object", **tool.parameters}, prompt.draw(f"tool/{tool.name}"), hint)


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
