"""Which tools a simulated model calls, and with what."""

import json
from collections.abc import Mapping

import jsonschema_rs

from infra.simulator.answers import answer_text
from infra.simulator.prompt import read_prompt
from infra.simulator.tools import calls_for

WEATHER = {
    "type": "object",
    "required": ["city", "days"],
    "additionalProperties": False,
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
}


def _tool(name: str, description: str = "", parameters: object = None) -> dict[str, object]:
    function = {"name": name, "description": description, "parameters": parameters or {"type": "object"}}
    return {"type": "function", "function": function}


TOOLS = [
    _tool("get_weather", "The weather forecast of a city.", WEATHER),
    _tool("search_notes", "Searches the archive of meeting minutes."),
]


def _calls(user: str, *later: Mapping[str, object], **more: object) -> list[tuple[str, dict[str, object]]]:
    messages: list[Mapping[str, object]] = [{"role": "user", "content": user}, *later]
    body = {"messages": messages, "tools": TOOLS, **more}
    found = calls_for(body, read_prompt(0, "openai/gpt-4o", messages))
    assert found == calls_for(body, read_prompt(0, "openai/gpt-4o", messages))
    return [(call.name, json.loads(call.arguments)) for call in found]


def test_a_tool_is_called_where_the_prompt_speaks_of_it() -> None:
    assert _calls("Write a poem.") == []
    assert [name for name, _ in _calls("Use search_notes first.")] == ["search_notes"]
    assert [name for name, _ in _calls("Get weather for the trip.")] == ["get_weather"]
    assert [name for name, _ in _calls("What did the archive of last year's minutes say?")] == [
        "search_notes"
    ]
    both = "Ask get_weather and search_notes."
    assert [name for name, _ in _calls(both)] == ["get_weather", "search_notes"]
    assert [name for name, _ in _calls(both, parallel_tool_calls=False)] == ["get_weather"]


def test_the_arguments_are_the_prompts_and_valid() -> None:
    ((_, arguments),) = _calls('Use get_weather: city is "Oslo", days: 3, in fahrenheit.')
    assert arguments == {"city": "Oslo", "days": 3, "unit": "fahrenheit"}
    ((_, invented),) = _calls("Use get_weather.")
    jsonschema_rs.validator_for(WEATHER).validate(invented)


def test_tool_choice_is_kept_to() -> None:
    assert _calls("Use get_weather.", tool_choice="none") == []
    assert [name for name, _ in _calls("A poem.", tool_choice="required")] == ["get_weather"]
    named = {"type": "function", "function": {"name": "search_notes"}}
    assert [name for name, _ in _calls("Use get_weather.", tool_choice=named)] == ["search_notes"]


def test_an_answered_tool_is_not_asked_again_and_its_result_is_used() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [called]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "12 degrees\nand rain"}
    assert _calls("Use get_weather for Oslo.", asked, result) == []
    messages: list[Mapping[str, object]] = [
        {"role": "user", "content": "Use get_weather for Oslo."},
        asked,
        result,
    ]
    answer = answer_text(0, "openai/gpt-4o", messages)
    assert answer.startswith("According to get_weather: 12 degrees and rain\n\n")
    # A person who asks anew is answered anew.
    again = {"role": "user", "content": "And get_weather for Rome?"}
    assert [name for name, _ in _calls("Use get_weather for Oslo.", asked, result, again)] == ["get_weather"]


def test_tools_that_are_not_written_as_they_should_be_are_left_aside() -> None:
    messages = [{"role": "user", "content": "Use it."}]
    for tools in ("it", [3], [{"function": {"name": 3}}], [{"type": "function"}]):
        body = {"messages": messages, "tools": tools, "tool_choice": "required"}
        assert calls_for(body, read_prompt(0, "m", messages)) == ()
