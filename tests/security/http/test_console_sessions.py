"""A person who is signed in to the console: known to Postgres by a hash, gone when they sign out."""

import asyncio
from http.cookies import SimpleCookie
from typing import Any, Final

import httpx
import psycopg
import pytest

from schema.settings import Settings
from tests.support.api_client import door
from tests.support.api_server import served
from tests.support.requests import KEY, asking

SAME: Final = {"origin": "http://127.0.0.1"}
PUBLIC: Final = "https://facilitair.example"


def _keyed(settings: Settings, **more: Any) -> Settings:
    return settings.model_copy(update={"api_key": KEY, **more})


async def _sign_in(http: httpx.AsyncClient, **headers: str) -> str:
    """The Set-Cookie header of who gives the key."""
    answer = await http.post("/console/login", data={"key": KEY}, headers=SAME | headers)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    http.cookies.clear()  # the tests send them by hand
    return str(answer.headers["set-cookie"])


def _cookie(set_cookie: str) -> dict[str, str]:
    return {"cookie": set_cookie.partition(";")[0]}


async def _status(http: httpx.AsyncClient, cookie: dict[str, str]) -> int:
    return (await http.get("/console/_nicegui/anything", headers=cookie)).status_code


async def _rows(settings: Settings) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
        found = await connection.execute(
            "SELECT id_hmac, tenant_id, expires_at > now() FROM console_sessions"
        )
        return await found.fetchall()


async def test_signing_out_ends_the_session_on_the_server(settings: Settings) -> None:
    async with door(_keyed(settings)) as http:
        first, second = _cookie(await _sign_in(http)), _cookie(await _sign_in(http))
        assert [await _status(http, one) for one in (first, second, {})] == [404, 404, 401]
        for method in ("GET", "HEAD", "PUT"):
            refused = await http.request(method, "/console/logout", headers=first | SAME)
            assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        navigated = {
            "sec-fetch-site": "cross-site",
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "document",
        }
        await http.post("/console/logout", headers=first | navigated)
        assert await _status(http, first) == 404
        left = await http.post("/console/logout", headers=first | SAME)
        assert (left.status_code, "Max-Age=0" in left.headers["set-cookie"]) == (303, True)
        assert [await _status(http, one) for one in (first, second)] == [401, 404]


async def test_postgres_knows_a_session_by_a_hash_that_needs_the_key(settings: Settings) -> None:
    async with door(_keyed(settings)) as http:
        set_cookie = await _sign_in(http)
        assert KEY not in set_cookie
    value = next(iter(SimpleCookie(set_cookie).values())).value
    ((id_hmac, tenant, lasts),) = await _rows(settings)
    assert (value in id_hmac, tenant, lasts) == (False, "default", True)
    cookie = _cookie(set_cookie)
    async with door(_keyed(settings)) as restarted:
        assert await _status(restarted, cookie) == 404
        for forged in ("", "x", "%c3%a9", '"', id_hmac, value[:-1]):
            assert await _status(restarted, {"cookie": f"facilitair_console={forged}"}) == 401
    async with door(_keyed(settings, api_key="another key, as long")) as rekeyed:
        assert await _status(rekeyed, cookie) == 401


async def test_a_session_that_has_expired_is_none(settings: Settings) -> None:
    async with door(_keyed(settings)) as http:
        cookie = _cookie(await _sign_in(http))
        async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
            await connection.execute("UPDATE console_sessions SET expires_at = now() - interval '1 second'")
        assert await _status(http, cookie) == 401
        await _sign_in(http)
        assert len(await _rows(settings)) == 1


async def test_an_open_page_loses_its_line_when_its_session_ends(settings: Settings) -> None:
    websockets = pytest.importorskip("websockets")
    async with served(_keyed(settings)) as api:
        origin = {"origin": str(api.http.base_url)}
        cookie = _cookie(await _sign_in(api.http, **origin))
        address = f"ws://127.0.0.1:{api.port}/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        async with websockets.connect(address, additional_headers=cookie | origin) as line:
            await asyncio.wait_for(line.recv(), 30)  # engine.io has opened
            await api.http.post("/console/logout", headers=cookie | origin)
            await asyncio.wait_for(line.wait_closed(), 10)
            assert line.close_code == 4401


@pytest.mark.parametrize(
    ("public", "name", "path", "secure"),
    [
        ("", "facilitair_console", "/console", ""),
        ("http://facilitair.example", "facilitair_console", "/console", ""),
        (PUBLIC, "__Host-facilitair_console", "/", True),
    ],
)
async def test_behind_https_the_cookie_is_secure_and_bound_to_its_host(
    settings: Settings, public: str, name: str, path: str, secure: bool | str
) -> None:
    async with door(_keyed(settings, public_url=public)) as http:
        set_cookie = await _sign_in(http)
    ((found, morsel),) = SimpleCookie(set_cookie).items()
    facts = [morsel[one] for one in ("path", "secure", "httponly", "samesite", "domain")]
    assert (found, *facts) == (name, path, secure, True, "Strict", "")


async def test_only_the_consoles_own_form_signs_in(settings: Settings) -> None:
    async with door(_keyed(settings)) as http:
        for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
            answer = await http.post("/console/login", data={"key": KEY}, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        for after, target in (("/console/tasks", "/console/tasks"), ("//evil.example", "/console/")):
            answer = await http.post(f"/console/login?next={after}", data={"key": KEY}, headers=SAME)
            assert (answer.status_code, answer.headers["location"]) == (303, target)
        # The cookie opens the console only: the API still wants the key.
        cookie = _cookie(answer.headers["set-cookie"])
        assert (await http.get("/v1/definitions", headers=cookie)).status_code == 401


async def test_the_login_asks_for_the_key_and_leads_back() -> None:
    async with asking(Settings(FACILITAIR_API_KEY=KEY)) as http:
        at_first = await http.get("/console/runs/x", headers={"accept": "text/html"})
        assert (at_first.status_code, at_first.headers["location"]) == (
            303,
            "/console/login?next=/console/runs/x",
        )
        form = await http.get(at_first.headers["location"])
        assert 'type="password"' in form.text
        wrong = await http.post(
            "/console/login", data={"key": "no"}, headers={"origin": "http://127.0.0.1:8700"}
        )
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
