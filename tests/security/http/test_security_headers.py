"""Every answer says that it is not to be guessed, framed or embedded, whoever gives it."""

import asyncio
from typing import Final

import httpx
import pytest

from schema.settings import Settings
from tests.support.api_server import served
from tests.support.requests import HERE, KEY, asking

EXPECTED: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def of(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers.get(name, "") for name in EXPECTED}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/health/live", {}, 200),
        ("/nothing", {"x-api-key": KEY}, 404),
        ("/v1/definitions/x", {"x-api-key": "wrong"}, 401),
        ("/v1/definitions/x", {"host": "evil@127.0.0.1"}, 403),
        ("/v1/definitions", {"x-api-key": KEY}, 503),
    ],
)
async def test_every_answer_carries_them(path: str, headers: dict[str, str], status: int) -> None:
    away = "postgresql://postgres@127.0.0.1:9/none"
    async with asking(Settings(FACILITAIR_API_KEY=KEY, database_url=away)) as http:
        answer = await http.get(path, headers=headers)
    assert (answer.status_code, of(answer)) == (status, EXPECTED)
    assert "strict-transport-security" not in answer.headers


async def test_pages_bring_a_policy_of_their_own_and_the_rest() -> None:
    async with asking(Settings(FACILITAIR_API_KEY=KEY)) as http:
        for path, headers in (("/console/login", {}), ("/docs", {"x-api-key": KEY})):
            answer = await http.get(path, headers=headers)
            policy = answer.headers["content-security-policy"]
            assert of(answer) == EXPECTED | {"content-security-policy": policy}
            directives = dict(one.strip().split(" ", 1) for one in policy.split(";"))
            assert (directives["default-src"], directives["script-src"], directives["frame-ancestors"]) == (
                "'none'",
                "'self'",
                "'none'",
            )


async def test_only_a_public_address_by_https_asks_for_https() -> None:
    public = Settings(FACILITAIR_API_KEY=KEY, FACILITAIR_PUBLIC_URL="https://facilitair.example")
    async with asking(public) as http:
        found = (await http.get(f"{HERE}/health/live")).headers["strict-transport-security"]
    assert found == "max-age=31536000"


async def test_what_is_no_request_is_answered_with_them_too() -> None:
    async with served(Settings()) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"NOT HTTP\r\n\r\n")
        answer = (await asyncio.wait_for(reader.read(), 10)).decode()
        writer.close()
        await writer.wait_closed()
    lines = answer.split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert {f"{name}: {value}" for name, value in EXPECTED.items()} <= set(lines)
