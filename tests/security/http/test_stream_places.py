"""A place in a stream comes from outside: what cannot be one is refused before the stream begins."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from schema.settings import Settings
from tests.support.api_server import served
from tests.support.event_log import begin, end


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with served(settings) as api:
        yield api.http


@pytest.fixture
async def ended(engine: AsyncEngine) -> str:
    request = await begin(engine, "ask")
    await end(engine, request)
    return request.collaboration


@pytest.mark.parametrize("playback", [{}, {"playback": 0}])
async def test_a_place_that_cannot_be_one_is_refused_before_the_stream_begins(
    http: httpx.AsyncClient, ended: str, playback: dict[str, int]
) -> None:
    for place in ("!j.5", f"{ended}:!j.5", "p3!j.5"):
        answer = await http.get(
            f"/v1/collaborations/{ended}/stream", params=playback, headers={"last-event-id": place}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "stream_place_invalid"), place


@pytest.mark.parametrize("place", ["1.8000000000000000", "8000000000000000.1", "1.1+ffffffffffffffff"])
async def test_a_place_beyond_the_databases_numbers_is_refused(
    http: httpx.AsyncClient, ended: str, place: str
) -> None:
    answer = await http.get(f"/v1/collaborations/{ended}/stream", params={"starting_after": place})
    assert (answer.status_code, answer.json()["code"]) == (422, "stream_place_invalid")


@pytest.mark.parametrize(
    "place",
    [
        "7fffffffffffffff.7fffffffffffffff",
        "0.0+7fffffffffffffff~ffffffffffff:7fffffff",
        "0.0!bffffffffffff.99!m000000000000.99!j.999",
        "!bffffffffffff.99",
        "p999999999999",
        "0.0!j.999!e",
    ],
)
async def test_a_place_that_no_stream_has_given_still_gets_a_whole_answer(
    http: httpx.AsyncClient, ended: str, place: str
) -> None:
    for playback in ({}, {"playback": 0}):
        async with asyncio.timeout(20):
            answer = await http.get(
                f"/v1/collaborations/{ended}/stream", params=playback, headers={"last-event-id": place}
            )
        assert answer.status_code in (200, 204, 422), (place, playback, answer.text)
