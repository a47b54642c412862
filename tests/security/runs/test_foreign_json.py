"""JSON that others wrote comes in by one door, which knows what JSON is."""

import ast
from pathlib import Path
from typing import Any

import pytest

from activities.agent.tool_rounds import answered
from activities.tools import text
from activities.tools.http import HttpTool
from activities.values import checked_output, storable
from gateway.failures import BrokenAnswer
from gateway.wire import ResponseReader
from schema.errors import StepError
from schema.language.steps import AgentStep
from schema.rules import answers
from schema.values.foreign import MAX_DEPTH
from schema.values.foreign_json import NotJson, UnusableJson, read_json
from tests.support.addresses import inside

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "activities",
    "api",
    "cli",
    "db",
    "gateway",
    "graph",
    "memory",
    "router",
    "plan",
    "schema",
    "workers",
    "workflows",
)

OURS = {
    "schema/values/foreign_json.py": "the door itself",
    "schema/language/document.py": "the door of uploads",
    "schema/language/json_schemas.py": "a text that the line before wrote",
    "schema/language/json_numbers.py": "a schema of a stored definition, written by ourselves",
    "gateway/translate.py": "copies of what was just written",
    "gateway/prices.py": "a file of an installed package",
    "api/definitions/versions.py": "a stored definition",
    "api/definitions/routes.py": "a stored definition",
    "api/definitions/rehearsal.py": "lines of a process of ours",
    "activities/rehearsal/walk.py": "lines of a process of ours",
    "activities/improve/optimize.py": "a schema that was stored with the prompt",
    "activities/tools/python_check.py": "the report of a program that we start",
    "db/definitions/definitions.py": "a stored definition",
    "db/live/tokens.py": "an archive that we packed",
    "router/data/packing.py": "a checkpoint that we packed",
    "router/edges/forecast.py": "a stored definition",
    "cli/watch/stream.py": "events of our own API",
}
"""Where `json.loads` may stand, and why what it reads is no stranger's."""


def test_only_texts_of_our_own_are_read_past_the_door() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("loads", "JSONDecoder")
        and ast.unparse(node.value) == "json"
    }
    assert found == set(OURS)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "hostile",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        '{"a": NaN}',
        "[1e999]",
        "-1e999",
        DEEP,
        DEEP[:5_000],
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "9" * 5_000,
        "",
        "{",
        "\ufeff{",
        "[1,]",
        "{'a': 1}",
        "nul",
    ],
)
def test_what_is_no_usable_json_is_refused_as_one_kind_of_error(hostile: str) -> None:
    with pytest.raises(NotJson):
        read_json(hostile)
    with pytest.raises(NotJson):
        read_json(hostile.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(NotJson):
        read_json(b'"\xff\xfe"')


def test_a_value_is_read_down_to_the_last_level_that_may_be() -> None:
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    with pytest.raises(UnusableJson, match="found more than 100 levels of nesting; expected at most 100"):
        read_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert read_json(b'\xef\xbb\xbf{"a": [1, 2.5, "x", null, true]}') == {"a": [1, 2.5, "x", None, True]}
    assert read_json("[" + "[]," * 200 + "[]]") == [[]] * 201


async def test_an_answer_with_nan_fails_its_http_step_with_a_code() -> None:
    reply = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"a": NaN}'
    async with inside(reply) as server:
        http = HttpTool(f"127.0.0.1:{server.port}")
        with pytest.raises(StepError) as caught:
            await http.call(f"http://127.0.0.1:{server.port}/")
        await http.close()
    assert (caught.value.code, caught.value.message) == (
        "tool_failed",
        "the answer's JSON cannot be used: found NaN; expected a finite number: JSON has no NaN.",
    )


async def test_a_deep_answer_fails_its_http_step_with_a_code() -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(DEEP)}\r\n\r\n"
    async with inside(head.encode() + DEEP.encode()) as server:
        http = HttpTool(f"127.0.0.1:{server.port}")
        with pytest.raises(StepError, match="100 levels") as caught:
            await http.call(f"http://127.0.0.1:{server.port}/")
        await http.close()
    assert caught.value.code == "tool_failed"


@pytest.mark.parametrize("hostile", ['{"quality": NaN}', DEEP, "1e999"])
def test_a_models_answer_is_asked_for_again_where_it_is_no_json(hostile: str) -> None:
    step = AgentStep(kind="agent", agent="a", prompt="x", output_schema={})
    with pytest.raises(answers.NotReadable):
        answers.read(step, hostile)


@pytest.mark.parametrize("hostile", ['{"a": NaN}', DEEP, '{"a": 1e999}', "{"])
async def test_a_models_arguments_are_refused_where_they_are_no_json(hostile: str) -> None:
    async def run(name: str, args: dict[str, Any]) -> Any:
        raise AssertionError("was run")

    kept = {"text": "", "calls": [{"id": "1", "name": "text_diff", "arguments": hostile}]}
    done = await answered(kept, ("text.diff",), run)
    assert done["calls"][0]["result"]["error"]["code"] == "tool_args_wrong"


@pytest.mark.parametrize("hostile", [b'{"choices": [{"delta": {"content": NaN}}]}', DEEP.encode(), b"\xff"])
def test_a_providers_event_that_is_no_json_is_a_broken_answer(hostile: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        ResponseReader().take(hostile)
    with pytest.raises(BrokenAnswer):
        ResponseReader().take_whole(hostile)


@pytest.mark.parametrize("hostile", ["NaN", DEEP, "[1e999]"])
def test_the_json_tool_finds_no_json_where_there_is_none(hostile: str) -> None:
    with pytest.raises(StepError) as caught:
        text.parse_json(hostile)
    assert caught.value.code == "tool_failed"


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, [-float("inf")], _nested(100_000)])
def test_what_json_cannot_hold_goes_into_no_row(value: Any) -> None:
    for door in (storable, checked_output):
        with pytest.raises(StepError) as caught:
            door(value)
        assert caught.value.code == "output_invalid"
