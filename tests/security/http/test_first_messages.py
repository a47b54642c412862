"""A WebSocket says in time, and in moderation, what it is for."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx
import pytest
import websockets

from tests.support.api_client import door, problem
from tests.support.api_server import ApiServer, served
from tests.support.stack import Stack

_MIB: Final = 1024 * 1024


@pytest.fixture(scope="module")
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    hurried = platform.settings.model_copy(update={"first_message_seconds": 2.0, "max_watchers": 4})
    async with served(hurried) as found:
        yield found


def _socket(api: ApiServer) -> Any:
    return websockets.connect(f"ws://127.0.0.1:{api.port}/ws/collaborate", max_size=None)


async def _heard(line: Any) -> dict[str, Any]:
    return dict(json.loads(await asyncio.wait_for(line.recv(), 20)))


async def test_five_sockets_that_say_nothing_are_told_and_closed(api: ApiServer) -> None:
    async with _socket(api) as silent, _socket(api) as wrong:
        # What is no message buys no time.
        await wrong.send('{"type": "pause"}')
        assert (await _heard(wrong))["code"] == "request_invalid"
        for line in (silent, wrong):
            assert (await _heard(line))["code"] == "first_message_late"
            await asyncio.wait_for(line.wait_closed(), 20)
            assert line.close_code == 1008


async def test_a_task_of_three_megabytes_is_answered_and_the_socket_stays(api: ApiServer) -> None:
    async with _socket(api) as line:
        await line.send("x" * (3 * _MIB))
        refused = await _heard(line)
        assert (refused["type"], refused["code"]) == ("error", "body_too_large")
        await line.send('{"type": "pause"}')
        assert (await _heard(line))["code"] == "request_invalid"


async def test_a_task_that_grows_on_its_way_to_temporal_is_answered(api: ApiServer) -> None:
    async with _socket(api) as line:
        await line.send("é" * (_MIB // 2 - 1))
        assert (await _heard(line))["code"] == "input_too_large"


async def test_the_same_input_by_http_is_answered(platform: Stack) -> None:
    async with door(platform.settings) as http:
        definition = {"name": "large-input", "steps": {"a": {"kind": "transform", "value": 1}}}
        (await http.post("/v1/definitions", json=definition)).raise_for_status()
        body = json.dumps(
            {"definition": "large-input", "input": {"x": "é" * (_MIB // 2 - 100)}}, ensure_ascii=False
        )
        answer = await http.post(
            "/v1/collaborations", content=body.encode(), headers={"content-type": "application/json"}
        )
        problem(answer, 413, "input_too_large")


async def test_above_the_limit_no_further_socket_is_opened_and_requests_are_served(api: ApiServer) -> None:
    lines = [await _socket(api) for _ in range(4)]
    with pytest.raises(websockets.InvalidStatus) as caught:
        await _socket(api)
    answer = caught.value.response
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert json.loads(answer.body or b"{}")["code"] == "api_busy"
    assert (await api.http.get("/v1/definitions")).status_code == 200
    await asyncio.gather(*(line.close() for line in lines))
    await _until(lambda: _opens(api))


async def _opens(api: ApiServer) -> bool:
    try:
        async with _socket(api):
            return True
    except websockets.InvalidStatus:
        return False


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_one_address_has_a_limit_of_its_own_and_health_has_none(platform: Stack) -> None:
    narrow = platform.settings.model_copy(update={"max_requests_per_address": 2})
    async with served(narrow) as api:
        lines = [await _socket(api) for _ in range(2)]
        refused = await api.http.get("/v1/definitions")
        problem(refused, 429, "too_many_requests")
        assert refused.headers["retry-after"] == "2"
        assert (await api.http.get("/health/ready")).status_code == 200
        await asyncio.gather(*(line.close() for line in lines))


async def test_who_asks_whether_it_is_ready_asks_the_servers_once_a_second(platform: Stack) -> None:
    async with door(platform.settings) as http:
        answers = await asyncio.gather(*(http.get("/health/ready") for _ in range(50)))
    # Each time that servers are asked takes a time of its own.
    assert len({_times(one) for one in answers}) == 1


def _times(answer: httpx.Response) -> tuple[float, ...]:
    assert answer.status_code == 200
    return tuple(check["milliseconds"] for check in answer.json()["checks"].values())
