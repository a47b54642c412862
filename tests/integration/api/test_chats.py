"""Chat clients at the addresses of their own documentation, and what a stream tells beside texts."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.agui import checked, verify
from tests.support.api_client import problem
from tests.support.api_server import ApiServer, ServerEvent, blocks_of, read, served
from tests.support.stack import Stack

ECHO: dict[str, Any] = {
    "input": {
        "type": "object",
        "required": ["task"],
        "properties": {"task": {"type": "string"}, "file": {"type": "string"}},
    },
    "agents": {"coder": {"role": "coder"}},
    "steps": {"answer": {"kind": "agent", "agent": "coder", "prompt": "${input.task}"}},
    "output": {"asked": "${input.task}", "file": "${'file' in input ? input.file : ''}"},
}
CALLING: dict[str, Any] = {
    "agents": {"auditor": {"role": "reviewer", "tools": ["text.diff"]}},
    "steps": {
        "audit": {
            "kind": "agent",
            "agent": "auditor",
            "prompt": "Use text_diff with before: pear and after: apple, and say what has changed.",
        }
    },
}
FAILING: dict[str, Any] = {
    "steps": {
        "fetch": {
            "kind": "tool",
            "tool": "http",
            "args": {"url": "http://127.0.0.1:9/x"},
            "retry": {"max_attempts": 1},
        }
    }
}


@pytest.fixture(scope="module")
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    async with served(platform.settings) as found:
        yield found


async def stored(platform: Stack, definition: dict[str, Any]) -> str:
    name = f"chatted-{uuid.uuid4().hex[:8]}"
    await platform.store(definition | {"name": name})
    return name


async def run_of(platform: Stack, definition: dict[str, Any]) -> str:
    name = await stored(platform, definition)
    await platform.start(name, {}, name)
    return name


async def post(http: httpx.AsyncClient, address: str, body: Any, **headers: str) -> list[ServerEvent]:
    async with http.stream("POST", address, json=body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        return blocks_of(await answer.aread())


def parts_of(blocks: list[ServerEvent]) -> list[dict[str, Any]]:
    assert blocks[-1].data == "[DONE]"
    return [json.loads(block.data) for block in blocks[:-1]]


def said_to(text: str) -> dict[str, Any]:
    return {"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": text}]}


# -- the AI SDK ---------------------------------------------------------------------------------------------


async def test_every_message_of_a_chat_starts_a_run(platform: Stack, api: ApiServer) -> None:
    name, chat = await stored(platform, ECHO), uuid.uuid4().hex[:16]
    address = f"/v1/chat/{name}"
    asked = [said_to("Write a loop.")]
    body = {"id": chat, "messages": asked, "trigger": "submit-message", "input": {"file": "a.py"}}
    first = parts_of(await post(api.http, address, body))
    assert [part["type"] for part in (first[0], first[-1])] == ["start", "finish"]
    end = next(part["data"] for part in first if part.get("id") == "end")
    assert end["output"] == {"asked": "Write a loop.", "file": "a.py"}

    asked += [{"id": "a", "role": "assistant", "parts": [{"type": "step-start"}]}, said_to("Shorter.")]
    second = parts_of(await post(api.http, address, {"id": chat, "messages": asked}))
    assert first[0]["messageId"] != second[0]["messageId"]
    runs = (await api.http.get("/v1/collaborations", params={"name": name})).json()["items"]
    assert [(one["id"], one["task"]) for one in runs] == [
        (f"chat-{chat}.2", "Shorter."),
        (f"chat-{chat}.1", "Write a loop."),
    ]
    # Nothing is under way: a chat that comes back has it all.
    assert (await api.http.get(f"{address}/{chat}/stream")).status_code == 204
    assert (await api.http.get(f"{address}/never/stream")).status_code == 204


async def test_a_chat_goes_on_with_the_run_that_is_under_way(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, {"steps": {"ask": {"kind": "human", "title": "Well?"}}})
    chat = uuid.uuid4().hex[:16]
    body = {"id": chat, "messages": [said_to("x")]}
    async with api.http.stream("POST", f"/v1/chat/{name}", json=body) as answer:
        async for some in answer.aiter_text():
            if "data-people" in some:
                break
    async with api.http.stream("GET", f"/v1/chat/{name}/{chat}/stream") as again:
        assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
        async for some in again.aiter_text():
            if "data-people" in some:
                break
    stopped = await api.http.post(f"/v1/collaborations/chat-{chat}.1/stop")
    assert stopped.status_code in (200, 202)


async def test_a_message_that_says_nothing_is_refused(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, ECHO)
    silent = {"id": "x", "messages": [{"role": "user", "parts": [{"type": "file"}]}]}
    problem(await api.http.post(f"/v1/chat/{name}", json=silent), 422, "request_invalid")
    problem(await api.http.post(f"/v1/agui/{name}", json={"runId": "x"}), 422, "request_invalid")
    unknown = {"id": "x", "messages": [said_to("x")]}
    problem(await api.http.post("/v1/chat/no-such", json=unknown), 404, "definition_unknown")


# -- AG-UI --------------------------------------------------------------------------------------------------


def input_of(text: str) -> dict[str, Any]:
    return {
        "threadId": uuid.uuid4().hex,
        "runId": str(uuid.uuid4()),
        "state": {},
        "tools": [],
        "context": [],
        "messages": [{"id": "m", "role": "user", "content": text}],
        "forwardedProps": {"input": {"file": "b.py"}},
    }


async def test_an_agent_is_run_by_a_post(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, ECHO)
    events = [checked(one.data) for one in await post(api.http, f"/v1/agui/{name}", input_of("A loop."))]
    verify(events)
    assert events[-1]["result"]["output"] == {"asked": "A loop.", "file": "b.py"}


async def test_a_run_is_watched_by_a_post(platform: Stack, api: ApiServer) -> None:
    run = await run_of(platform, CALLING)
    address = f"/v1/collaborations/{run}/stream"
    await read(api.http, address)  # once it has ended, tokens come together as they always will
    got = await read(api.http, address)
    assert await post(api.http, address, input_of("")) == got
    async with api.http.stream("POST", address) as bare:
        assert blocks_of(await bare.aread()) == got


# -- tools, failures, outputs -------------------------------------------------------------------------------


async def test_tools_that_a_model_calls_are_events_and_spans(platform: Stack, api: ApiServer) -> None:
    run = await run_of(platform, CALLING)
    address = f"/v1/collaborations/{run}/stream"
    live = [checked(block.data) for block in await read(api.http, address)]
    again = [checked(block.data) for block in await read(api.http, f"{address}?playback=0")]
    for events in (live, again):
        verify(events)
        told = {event["type"]: event for event in events if event["type"].startswith("TOOL_CALL")}
        assert list(told) == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
        assert told["TOOL_CALL_START"]["toolCallName"] == "text_diff"
        assert json.loads(told["TOOL_CALL_ARGS"]["delta"]) == {"before": "pear", "after": "apple"}
        assert json.loads(told["TOOL_CALL_RESULT"]["content"])["added"] == 1
    parts = parts_of(await read(api.http, f"{address}?dialect=vercel"))
    shown = [part for part in parts if part["type"].startswith("tool-")]
    assert [part["type"] for part in shown] == ["tool-input-available", "tool-output-available"]
    assert shown[0]["input"] == {"before": "pear", "after": "apple"}

    names: list[str] = []
    async with asyncio.timeout(20):  # workers send their spans now and then
        while "execute_tool text_diff" not in names:
            await asyncio.sleep(0.1)
            spans = (await api.http.get(f"/v1/collaborations/{run}/trace")).json()["spans"]
            names = [span["name"] for span in spans]


async def test_who_joins_behind_a_call_of_a_tool_is_told_of_it_with_its_message(
    platform: Stack, api: ApiServer
) -> None:
    run = await run_of(platform, CALLING)
    address = f"/v1/collaborations/{run}/stream"
    blocks = await read(api.http, address)
    behind = next(block.id for block in blocks if "TOOL_CALL_RESULT" in block.data)
    joined = [checked(block.data) for block in await read(api.http, f"{address}?starting_after={behind}")]
    messages = next(event["messages"] for event in joined if event["type"] == "MESSAGES_SNAPSHOT")
    assert [message["role"] for message in messages] == ["assistant", "tool"]
    assert messages[0]["toolCalls"][0]["function"]["name"] == "text_diff"


async def test_a_failed_run_says_at_which_step_and_why(platform: Stack, api: ApiServer) -> None:
    run = await run_of(platform, FAILING)
    address = f"/v1/collaborations/{run}/stream"
    events = [checked(block.data) for block in await read(api.http, address)]
    error = (await api.http.get(f"/v1/collaborations/{run}")).json()["error"]
    assert events[-1] == {"type": "RUN_ERROR", "code": error["code"], "message": error["message"]}
    failed = next(event["value"] for event in events if event.get("name") == "attempt_failed")
    assert (failed["code"], f"step 'fetch': {failed['message']}") == (error["code"], error["message"])
    parts = parts_of(await read(api.http, f"{address}?dialect=vercel&playback=0"))
    assert parts[-1]["errorText"] == f"{error['code']}: {error['message']}"


async def test_a_large_output_is_told_by_where_to_read_it(platform: Stack, api: ApiServer) -> None:
    run = await run_of(platform, {"steps": {"a": {"kind": "transform", "value": "x" * 140_000}}})
    events = [checked(block.data) for block in await read(api.http, f"/v1/collaborations/{run}/stream")]
    told = events[-1]["result"]["output"]
    whole = (await api.http.get(told["output_reference"])).json()["output"]
    assert (len(str(whole)) >= 140_000, told["bytes"] >= 140_000) == (True, True)
