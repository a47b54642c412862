"""Runs as their clients see them: over server-sent events, cut at any byte, and over a WebSocket."""

import asyncio
import base64
import json
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.agui import checked, verify
from tests.support.api_client import problem
from tests.support.api_server import ApiServer, ServerEvent, read, served
from tests.support.stack import Stack

AGENTS = {"coder": {"role": "coder"}, "critic": {"role": "reviewer"}}
SMALL: dict[str, Any] = {
    "agents": AGENTS,
    "steps": {
        "one": {"kind": "agent", "agent": "coder", "prompt": "Write a sorting function for ${input.task}."},
        "two": {"kind": "agent", "agent": "critic", "prompt": "What is to be said of ${input.task}?"},
        "never": {"kind": "transform", "when": "input.task == 'no'", "value": 1},
        "both": {"kind": "transform", "needs": ["one", "two"], "value": "${steps.one.output}"},
    },
    "input": {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}},
    "output": "${steps.both.output}",
}


@pytest.fixture(scope="module")
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    async with served(platform.settings) as found:
        yield found


def new_name() -> str:
    return f"watched-{uuid.uuid4().hex[:8]}"


async def begun(platform: Stack, definition: dict[str, Any]) -> str:
    """A run that has been accepted; its definition is called like it."""
    name = new_name()
    await platform.store(definition | {"name": name})
    await platform.start(name, {"task": "lists"}, name)
    return name


async def no_watchers(api: ApiServer) -> None:
    for _ in range(200):
        if api.hub.watchers == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{api.hub.watchers} still watch")


def stream(run: str, **query: str) -> str:
    return str(httpx.URL(f"/v1/collaborations/{run}/stream", params=query))


# -- server-sent events -------------------------------------------------------------------------------------


async def test_a_run_in_agui_events(platform: Stack, api: ApiServer) -> None:
    run = await begun(platform, SMALL)
    async with api.http.stream("GET", stream(run)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    blocks = await read(api.http, stream(run))
    events = [checked(block.data) for block in blocks]
    messages = verify(events)
    assert events[-1]["type"] == "RUN_FINISHED"
    names = [event["name"] for event in events if event["type"] == "TEXT_MESSAGE_START"]
    assert sorted(names) == ["coder", "critic"]
    whole = (await api.http.get(f"/v1/collaborations/{run}?include=output")).json()
    assert whole["output"] in messages.values()
    assert events[0]["runId"] == whole["run_id"]
    assert all(block.id.startswith(f"{whole['run_id']}:") for block in blocks)
    # Whoever comes back with the last id of all is told to stay away.
    over = await api.http.get(stream(run), headers={"Last-Event-ID": blocks[-1].id})
    assert over.status_code == 204
    await no_watchers(api)


@pytest.mark.parametrize("dialect", ["agui", "vercel", "seed"])
@pytest.mark.parametrize("playback", [None, "0"])
async def test_a_line_cut_at_any_byte_goes_on_exactly(
    platform: Stack, api: ApiServer, dialect: str, playback: str | None
) -> None:
    run = await begun(platform, SMALL)
    await read(api.http, stream(run))
    query = {"dialect": dialect} | ({"playback": playback} if playback else {})
    whole = await read(api.http, stream(run, **query))
    chance = random.Random(7)
    for _ in range(20):
        told: list[ServerEvent] = []
        cuts = 0
        while not told or not told[-1].id.endswith("!e"):
            headers = {"last_event_id": told[-1].id} if told else {}
            cut = chance.choice([chance.randint(1, 3_000), chance.randint(1, 20_000)]) if cuts < 8 else None
            told += await read(api.http, stream(run, **query), bytes=cut, **headers)
            cuts += 1
        assert told == whole
    await no_watchers(api)


async def test_a_line_cut_while_the_run_goes_on_loses_nothing(platform: Stack, api: ApiServer) -> None:
    run = await begun(platform, SMALL)
    chance = random.Random(3)
    told: list[ServerEvent] = []
    while not told or not told[-1].id.endswith("!e"):
        headers = {"last_event_id": told[-1].id} if told else {}
        told += await read(api.http, stream(run), bytes=chance.randint(1, 4_000), **headers)
    events = [checked(block.data) for block in told]
    messages = verify(events)
    later = verify([checked(block.data) for block in await read(api.http, stream(run))])
    assert messages == later
    assert len({block.id for block in told}) == len(told)


async def test_one_who_joins_in_the_middle_is_told_what_the_rest_needs(
    platform: Stack, api: ApiServer
) -> None:
    run = await begun(platform, SMALL)
    whole = await read(api.http, stream(run))
    texts = verify([checked(block.data) for block in whole])
    for at in range(0, len(whole) - 1, max(len(whole) // 12, 1)):
        joined = await read(api.http, stream(run, starting_after=whole[at].id))
        events = [checked(block.data) for block in joined]
        messages = verify(events)
        for snapshot in (one for one in events if one["type"] == "MESSAGES_SNAPSHOT"):
            messages |= {one["id"]: one["content"] for one in snapshot["messages"]}
        assert messages == texts
        for cut in range(0, min(len(joined) - 1, 12)):
            again = await read(
                api.http, stream(run, starting_after=whole[at].id), last_event_id=joined[cut].id
            )
            assert again == joined[cut + 1 :]
    parts = await read(api.http, stream(run, dialect="vercel", starting_after=whole[len(whole) // 2].id))
    assert [json.loads(one.data)["type"] for one in parts[:2]] == ["start", "start-step"]
    assert parts[-1].data == "[DONE]"


async def test_what_is_refused(platform: Stack, api: ApiServer) -> None:
    run, other = await begun(platform, SMALL), await begun(platform, SMALL)
    whole = await read(api.http, stream(other))
    foreign = await api.http.get(stream(run), headers={"Last-Event-ID": whole[3].id})
    problem(foreign, 422, "stream_place_invalid")
    for place in ("nonsense", "1.x"):
        problem(await api.http.get(stream(run, starting_after=place)), 422, "stream_place_invalid")
    problem(await api.http.get(stream("no-such-run")), 404, "collaboration_unknown")
    problem(await api.http.get(stream(run, dialect="morse")), 422, "request_invalid")
    strange = await api.http.get(stream(run), headers={"Origin": "https://evil.example"})
    problem(strange, 403, "origin_refused")


async def test_a_run_that_never_begins_says_so(platform: Stack, api: ApiServer) -> None:
    """Temporal has accepted it, and the worker knows no such definition."""
    name = new_name()
    await platform.start(name, {}, name)
    # As a problem, where that was known before the stream began; else as its one event.
    assert "definition_unknown" in (await api.http.get(stream(name))).text


async def test_a_closed_reader_stops_nothing(platform: Stack, api: ApiServer) -> None:
    run = await begun(platform, SMALL)
    await read(api.http, stream(run), bytes=200)
    await no_watchers(api)
    blocks = await read(api.http, stream(run))
    assert checked(blocks[-1].data)["type"] == "RUN_FINISHED"


async def test_silence_is_filled(platform: Stack, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.subscription.SILENCE_SECONDS", 0.05)
    steps = {"ask": {"kind": "human", "title": "Well?"}}
    run = await begun(platform, {"steps": steps})
    said = b""
    async with api.http.stream("GET", stream(run)) as answer:
        async for some in answer.aiter_raw():
            said += some
            if b"people_asked" in said and said.endswith(b"\n\n: \n\n: \n\n"):
                break
    assert said.startswith(b"retry: 1000\n\n")
    await api.http.post(f"/v1/collaborations/{run}/stop")


# -- the seed's address -------------------------------------------------------------------------------------


async def runs_of(api: ApiServer, name: str) -> list[str]:
    found = (await api.http.get("/v1/collaborations", params={"name": name})).json()["items"]
    return [one["id"] for one in found]


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_who_comes_back_starts_no_second_run(platform: Stack, api: ApiServer, prefix: str) -> None:
    name = new_name()
    await platform.store(SMALL | {"name": name})
    address = str(httpx.URL(f"{prefix}/stream/collaborate", params={"task": "lists", "definition": name}))
    # The line is cut as soon as anything has come, and whenever a little more has.
    told = await read(api.http, address, bytes=180)
    assert [block.event for block in told] == ["started"]
    chance = random.Random(5)
    while not told[-1].id.endswith("!e"):
        told += await read(api.http, address, bytes=chance.randint(1, 3_000), last_event_id=told[-1].id)
    [run] = await runs_of(api, name)
    assert json.loads(told[0].data)["id"] == run
    again = await read(api.http, stream(run, dialect="seed"))
    text = _said(told)
    assert text == _said(again)
    assert set(text) == {"coder", "critic"}
    assert told[-1].event == "done"
    assert (await api.http.get(address, headers={"Last-Event-ID": told[-1].id})).status_code == 204
    assert await runs_of(api, name) == [run]


def _said(blocks: list[ServerEvent]) -> dict[str, str]:
    found: dict[str, str] = {}
    for block in blocks:
        if block.event == "agent_output":
            said = json.loads(block.data)
            found[said["agent"]] = found.get(said["agent"], "") + said["content"]
    return found


async def test_the_same_key_is_the_same_run(platform: Stack, api: ApiServer) -> None:
    name = new_name()
    await platform.store(SMALL | {"name": name})
    address = str(httpx.URL("/stream/collaborate", params={"task": "lists", "definition": name}))
    first = await read(api.http, address, bytes=1, idempotency_key="k")
    assert first == []
    second = await read(api.http, address, idempotency_key="k")
    assert second[-1].event == "done"
    assert _said(await read(api.http, address, idempotency_key="k")) == _said(second)
    assert len(await runs_of(api, name)) == 1
    named = f"{address}&id={name}.1"
    assert _said(await read(api.http, named)) == _said(await read(api.http, named))
    assert len(await runs_of(api, name)) == 2
    problem(await api.http.get(f"{address}&more=1&id={name}!"), 422, "request_invalid")
    problem(await api.http.get("/stream/collaborate?task=x&definition=no-such"), 404, "definition_unknown")


async def test_without_a_definition_a_team_works_on_the_task(platform: Stack, api: ApiServer) -> None:
    blocks = await read(api.http, "/stream/collaborate?task=Merge+two+sorted+lists.")
    assert list(_said(blocks)) == ["architect", "coder", "reviewer", "tester"]
    assert blocks[-1].event == "done"


# -- WebSockets ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def socket(
    api: ApiServer, path: str = "/ws/collaborate", **how: Any
) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{api.port}{path}", **how) as found:
        yield found


async def say(line: ClientConnection, **message: Any) -> None:
    await line.send(json.dumps(message))


async def hear(line: ClientConnection, type: str, /, **wanted: Any) -> dict[str, Any]:
    """The next message of this kind."""
    async for text in line:
        message = json.loads(text)
        about = message["event"] if message["type"] == "event" else message
        if message["type"] == type and wanted.items() <= about.items():
            return dict(message)
    raise AssertionError(f"no {type} {wanted} came")


async def rest(line: ClientConnection) -> list[dict[str, Any]]:
    return [json.loads(text) async for text in line]


@pytest.mark.parametrize("path", ["/ws/collaborate", "/v1/ws/collaborate"])
async def test_a_task_in_plain_words(platform: Stack, api: ApiServer, path: str) -> None:
    name = new_name()
    await platform.store(SMALL | {"name": name})
    async with socket(api, f"{path}?definition={name}") as line:
        await line.send("lists")
        started = await hear(line, "started")
        told = await rest(line)
    assert await runs_of(api, name) == [started["id"]]
    verify([checked(json.dumps(one["event"])) for one in told])
    blocks = await read(api.http, stream(started["id"]))
    # Whoever was cut off goes on behind any `seq`.
    middle = told[len(told) // 2]["seq"]
    async with socket(api, path) as line:
        await say(line, type="watch", id=started["id"], starting_after=middle)
        assert (await hear(line, "started"))["run_id"] == started["run_id"]
        later = await rest(line)
    assert verify([one["event"] for one in told]) == verify([checked(block.data) for block in blocks])
    text = "".join(one["event"].get("delta", "") for one in told[: len(told) // 2 + 1] if _is_text(one))
    text += "".join(one["event"]["delta"] for one in later if _is_text(one))
    assert len(text) == sum(len(one["event"]["delta"]) for one in told if _is_text(one))
    await no_watchers(api)


def _is_text(message: dict[str, Any]) -> bool:
    return bool(message["event"]["type"] == "TEXT_MESSAGE_CONTENT")


async def test_a_hand_on_a_run(platform: Stack, api: ApiServer) -> None:
    name = new_name()
    steps = {
        "ask": {"kind": "human", "title": "Ship it?"},
        "write": {"kind": "agent", "agent": "coder", "needs": ["ask"], "prompt": "Write a sorting function."},
    }
    await platform.store({"name": name, "agents": AGENTS, "steps": steps})
    async with socket(api) as line:
        await say(line, type="start", definition=name, id=name)
        started = await hear(line, "started")
        assert (started["id"], started["found"]) == (name, False)
        await hear(line, "event", name="people_asked")
        for message in (
            {"type": "pause"},
            {"type": "inject_feedback", "feedback": "Prefer the standard library.", "agent": "coder"},
            {"type": "adjust", "changes": {"temperature": 0.1}, "agent": "coder"},
            {"type": "resume", "actor": "user:ada"},
            {"type": "ack", "seq": "1.1"},
            {"type": "approve"},
        ):
            await say(line, **message)
            answer = await hear(line, "ack")
            assert (answer["of"], answer["ok"]) == (message["type"], True)
        events = [one["event"] for one in await rest(line) if one["type"] == "event"]
    assert events[-1]["type"] == "RUN_FINISHED", events[-1]
    whole = verify([checked(block.data) for block in await read(api.http, stream(name))])
    assert len(whole) == 1
    async with socket(api) as line:  # the same id is the same run
        await say(line, type="start", definition=name, id=name)
        assert (await hear(line, "started"))["found"] is True


@pytest.mark.parametrize("task", ["[urgent] fix the login page", "{name} is missing from the greeting"])
async def test_a_task_in_brackets_starts_a_run(platform: Stack, api: ApiServer, task: str) -> None:
    definition = f"brackets-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": definition, "steps": {"t": {"kind": "transform", "value": "${input}"}}})
    async with socket(api, f"/ws/collaborate?definition={definition}") as line:
        await line.send(task)
        run = (await hear(line, "started"))["id"]
        await hear(line, "event", outcome={"type": "success"})
    found = (await api.http.get(f"/v1/collaborations/{run}?include=output")).json()
    assert (found["status"], found["output"]) == ("completed", {"task": task})


async def test_stop(platform: Stack, api: ApiServer) -> None:
    run = await begun(platform, {"steps": {"ask": {"kind": "human", "title": "Well?"}}})
    async with socket(api) as line:
        await say(line, type="watch", id=run)
        await hear(line, "event", name="people_asked")
        await say(line, type="stop")
        await hear(line, "event", outcome={"type": "cancelled"})


async def test_what_is_asked_again_is_decided_by_its_id_only(platform: Stack, api: ApiServer) -> None:
    write = {"kind": "agent", "agent": "coder", "prompt": "Write a sorting function."}
    budget = {"tokens": 1, "on_exceed": "ask"}
    run = await begun(platform, {"agents": AGENTS, "budget": budget, "steps": {"write": write}})
    async with socket(api) as line:
        await say(line, type="watch", id=run)
        await hear(line, "event", name="people_asked")
        await say(line, type="approve", form={"tokens": 1})
        asked = await hear(line, "event", name="people_asked")
        for by in ({}, {"path": "write~budget"}):
            await say(line, type="approve", **by)
            error = await hear(line, "error")
            assert error["code"] == "human_question_unnamed"
            assert asked["event"]["value"]["task_id"] in error["message"]
        await say(line, type="reject", task_id=asked["event"]["value"]["task_id"])
        while (await hear(line, "event"))["event"]["type"] != "RUN_ERROR":
            pass


async def test_wrong_messages_are_answered_and_the_line_stands(platform: Stack, api: ApiServer) -> None:
    run = await begun(platform, {"steps": {"ask": {"kind": "human", "title": "Well?"}}})
    async with socket(api) as line:
        for text, expected in (
            ("{", "request_invalid"),
            ("[1]", "request_invalid"),
            ('{"type": "dance"}', "request_invalid"),
            ('{"type": "pause"}', "request_invalid"),
            ('{"type": "start", "definition": "no-such-thing"}', "definition_unknown"),
            ('{"type": "watch", "id": "no-such-run"}', "collaboration_unknown"),
            (json.dumps({"type": "watch", "id": run, "starting_after": "x"}), "stream_place_invalid"),
            ("[" * 100_000, "request_invalid"),
        ):
            await line.send(text)
            assert (await hear(line, "error"))["code"] == expected
        await say(line, type="watch", id=run)
        await hear(line, "event", name="people_asked")
        for text, expected in (
            ("pause", "request_invalid"),
            ('{"type": "watch", "id": "x"}', "request_invalid"),
            ('{"type": "inject_feedback"}', "request_invalid"),
            ('{"type": "inject_feedback", "feedback": " "}', "steer_invalid"),
            ('{"type": "decide"}', "request_invalid"),
            ('{"type": "approve", "path": "nowhere"}', "human_not_waiting"),
            ('{"type": "decide", "action": "shrug"}', "human_action_unknown"),
        ):
            await line.send(text)
            error = await hear(line, "error")
            assert (error["code"], "expected" in error["message"]) == (expected, True), error
        await say(line, type="reject", path="ask")
        assert (await hear(line, "ack"))["of"] == "reject"


async def test_a_closed_socket_stops_nothing(platform: Stack, api: ApiServer) -> None:
    run = await begun(platform, {"steps": {"ask": {"kind": "human", "title": "Well?"}}})
    async with socket(api) as line:
        await say(line, type="watch", id=run)
        await hear(line, "event", name="people_asked")
        assert api.hub.watchers == 1
    await no_watchers(api)
    assert (await api.http.get(f"/v1/collaborations/{run}")).json()["status"] == "running"
    await api.http.post(f"/v1/collaborations/{run}/stop")


async def test_no_web_page_gets_a_socket_through_a_browser(platform: Stack, api: ApiServer) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with socket(api, origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403


async def test_with_a_key_a_socket_needs_it(platform: Stack) -> None:
    coded = base64.urlsafe_b64encode(b"secret").decode().rstrip("=")
    async with served(platform.settings.model_copy(update={"api_key": "secret"})) as api:
        for wrong in ({}, {"additional_headers": {"X-API-Key": "wrong"}}, {"subprotocols": ["facilitair"]}):
            with pytest.raises(InvalidStatus) as caught:
                async with socket(api, **wrong):
                    pass
            assert caught.value.response.status_code == 401
        for right in (
            {"additional_headers": {"Authorization": "Bearer secret"}},
            {"subprotocols": ["facilitair", f"facilitair.key.{coded}"], "origin": str(api.http.base_url)},
        ):
            async with socket(api, **right) as line:
                await say(line, type="pause")
                assert (await hear(line, "error"))["code"] == "request_invalid"
                assert line.subprotocol == ("facilitair" if "origin" in right else None)
