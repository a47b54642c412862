"""Plans and dry runs through the HTTP door: of what is stored, and of what is only written yet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.definitions import rehearsal_process
from schema.settings import Settings
from tests.support.api_client import door, problem

DOCUMENT: dict[str, Any] = {
    "name": "triage",
    "input": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    "agents": {"reader": {"role": "reviewer"}},
    "steps": {
        "read": {
            "kind": "agent",
            "agent": "reader",
            "prompt": "${input.text}",
            "output_schema": {"type": "object", "properties": {"urgent": {"type": "boolean"}}},
        },
        "way": {
            "kind": "switch",
            "cases": [{"when": "steps.read.output.urgent", "then": "now"}],
            "else": "later",
        },
        "call": {"kind": "human", "title": "Call back?", "needs": ["way:now"]},
    },
}


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


async def test_a_definition_that_is_not_stored_is_rehearsed(http: httpx.AsyncClient) -> None:
    answers = {"read": [{"error": {"code": "provider_timeout"}}, {"output": {"urgent": True}}]}
    asked = {"definition": DOCUMENT, "input": {"text": "Help!"}, "mocks": answers}
    answer = await http.post("/v1/definitions/dry-run", json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["status"], found["output"]["decision"]) == ("completed", "approve")
    assert [(one["path"], one["status"], one["branch"], one["mocked"]) for one in found["trace"]] == [
        ("read", "failed", "", "mock"),
        ("read", "completed", "", "mock"),
        ("way", "completed", "now", ""),
        ("call", "completed", "", "default"),
    ]
    assert (found["model_calls"], found["defaulted"], found["never_reached"]) == (2, ["call"], [])
    assert (await http.get("/v1/definitions/triage")).status_code == 404


async def test_a_stored_version_is_rehearsed_and_drawn(http: httpx.AsyncClient) -> None:
    await http.post("/v1/definitions", json=DOCUMENT)
    asked = {"name": "triage@1", "input": {"text": "Hello."}}
    found = (await http.post("/v1/definitions/dry-run", json=asked)).json()
    assert [(one["path"], one["status"]) for one in found["trace"]] == [
        ("read", "completed"),
        ("way", "completed"),
        ("call", "skipped"),
    ]
    drawn = (await http.post("/v1/definitions/plan", json={"name": "triage"})).json()
    assert [node["id"] for node in drawn["nodes"]] == ["read", "way", "call"]
    assert drawn["edges"][-1] == {"from": "way", "to": "call", "kind": "branch", "label": "now"}
    assert drawn["estimate"]["model_calls"] == 3 and drawn["estimate"]["usd"] > 0
    assert drawn["mermaid"].startswith("flowchart TD\n")
    unknown = await http.post("/v1/definitions/dry-run", json={"name": "nobody"})
    problem(unknown, 404, "definition_unknown")


async def test_what_is_refused(http: httpx.AsyncClient) -> None:
    async def ask(**asked: Any) -> httpx.Response:
        return await http.post("/v1/definitions/dry-run", json={"input": {"text": ""}, **asked})

    wrong = await ask(definition={"name": "x", "steps": {"a": {"kind": "nonsense"}}})
    stored = await http.post("/v1/definitions", json={"name": "x", "steps": {"a": {"kind": "nonsense"}}})
    expected = problem(stored, 422, "definition_invalid")["problems"]
    assert problem(wrong, 422, "definition_invalid")["problems"] == expected
    mocks = await ask(definition=DOCUMENT, mocks={"reed": [{"output": 1}]})
    assert problem(mocks, 422, "mocks_invalid")["problems"][0]["pointer"] == "/mocks/reed"
    shape = await ask(definition=DOCUMENT, mocks={"read": {"output": 1}})
    assert problem(shape, 422, "mocks_invalid")["problems"][0]["pointer"] == "/mocks/read"
    problem(await ask(definition=DOCUMENT, input={}), 422, "input_invalid")
    problem(await ask(definition=DOCUMENT, name="triage"), 422, "request_invalid")
    problem(await ask(), 422, "request_invalid")
    large = await ask(definition={**DOCUMENT, "description": "x" * 300_000})
    problem(large, 413, "definition_invalid")


async def test_what_takes_too_long_is_ended_and_holds_nobody_up(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"steps": {"a": {"kind": "transform", "value": 1}}}
    document = {"name": "slow", "steps": {"l": {"kind": "loop", "max_iterations": 50_000, "body": body}}}
    # It stops by itself after so many steps …
    stopped = (await http.post("/v1/definitions/dry-run", json={"definition": document})).json()
    assert (stopped["status"], stopped["error"]["code"]) == ("stopped", "rehearsal_too_long")
    # … and is ended where it does not.
    monkeypatch.setattr(rehearsal_process, "REHEARSAL_TIMEOUT_SECONDS", 0.05)
    ended = await http.post("/v1/definitions/dry-run", json={"definition": document})
    problem(ended, 422, "rehearsal_too_long")
    monkeypatch.undo()
    asked = {"definition": {"name": "quick", **body}}
    many = await asyncio.gather(*(http.post("/v1/definitions/dry-run", json=asked) for _ in range(4)))
    assert [one.json()["output"] for one in many] == [1] * 4
