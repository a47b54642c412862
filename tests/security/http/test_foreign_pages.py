"""A page of another origin starts, changes and reads nothing, at no address and by no method."""

from typing import Any, Final

import httpx
import psycopg
import pytest
from psycopg import sql

from api.app import create_app
from schema.settings import Settings
from tests.support.api_client import door, problem
from tests.support.requests import HERE, KEY, asking, open_socket, routes

METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
HEALTH: Final = {f"{prefix}/health{end}" for prefix in ("", "/v1") for end in ("", "/live", "/ready")}
PAGES: Final = {"/", "/console", "/console/"}
SAFE: Final = {"GET", "HEAD", "OPTIONS"}
STARTING: Final = {"/stream/collaborate", "/v1/stream/collaborate"}
"""The only addresses where a GET starts something; who may ask there is held below."""
READING: Final = (
    HEALTH
    | PAGES - {"/console/"}
    | {
        "/openapi.json",
        "/docs",
        "/health/projections",
        "/v1/health/projections",
        "/model-info",
        "/metrics",
        "/v1/definitions",
        "/v1/definitions/{name}",
        "/v1/definitions/{name}/plan",
        "/v1/schema",
        "/v1/definitions/{name}/versions",
        "/v1/definitions/{name}/diff",
        "/v1/definitions/{name}/aliases",
        "/v1/definitions/{name}/edges",
        "/v1/catalogue",
        "/v1/spending",
        "/v1/limits",
        "/v1/bounds",
        "/v1/prices",
        "/v1/prices/{model:path}",
        "/v1/collaborations",
        "/v1/collaborations/{id}",
        "/v1/collaborations/{id}/steps/{step}",
        "/v1/collaborations/{id}/steps/{step}/details",
        "/v1/collaborations/{id}/trace",
        "/v1/collaborations/{id}/events",
        "/v1/collaborations/{id}/stream",
        "/v1/schedules",
        "/v1/schedules/{id}",
        "/v1/webhooks",
        "/v1/prompts",
        "/v1/prompts/{name}",
        "/v1/prompts/{name}/versions",
        "/v1/prompts/{name}/diff",
        "/v1/prompts/{name}/trial",
        "/v1/prompts/{name}/optimize",
        "/v1/graph/queries",
        "/v1/tasks",
        "/v1/tasks/{id}",
        "/v1/analytics",
        "/v1/router",
        "/v1/router/checkpoints",
        "/v1/router/checkpoints/{number}",
        "/v1/router/checkpoints/{number}/content",
        "/v1/router/trainings",
        "/v1/router/trainings/{id}",
        "/v1/router/model-info",
        "/v1/router/metrics",
        "/v1/chat/{definition}/{id}/stream",
        "/{above:path}docs/errors.md",
    }
)
"""Every GET that there is. A new one is written down here by somebody who has seen that it only reads."""
SHAKING_HANDS: Final = {"/hooks/{token}"}
"""What answers OPTIONS, as CloudEvents ask before they deliver, and no GET."""

CROSS: Final = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
FOREIGN: Final[list[dict[str, str]]] = [
    CROSS,
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},  # another server on this machine
    {"origin": "http://localhost:8700"},  # another name is another origin
    {"host": "rebound.example:8700"},
    {"host": "evil@127.0.0.1:8700"},
    {"host": ""},
]
NAVIGATION: Final = {
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
    "accept": "text/html",
}
EVENT_SOURCE: Final = {
    "sec-fetch-site": "same-origin",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
    "accept": "text/event-stream",
}


def _filled(path: str) -> str:
    return (
        path.replace("{number}", "1")
        .replace("{model:path}", "openai/gpt-4o")
        .replace("{", "")
        .replace("}", "")
    )


def _addresses() -> list[str]:
    mounted = ["/console/", "/console/login", "/console/logout", "/console/_nicegui/x", "/docs/own/start.js"]
    return sorted({_filled(path) for path, _ in routes(create_app(Settings()))} | {*mounted, "/nothing"})


@pytest.mark.parametrize("key", ["", KEY], ids=["without a key", "with a key"])
async def test_every_address_refuses_a_foreign_page_by_every_method(key: str) -> None:
    carried = {"x-api-key": key} if key else {}
    passed = []
    # With a key and no public address any name may be ours.
    signs = [one for one in FOREIGN if not (key and one.get("host", "").startswith("rebound"))]
    async with asking(Settings(FACILITAIR_API_KEY=key)) as http:
        for address in _addresses():
            for method in METHODS:
                for sign in signs:
                    if address in HEALTH and "host" not in sign:
                        continue  # tells nobody anything that a page could read
                    if address.startswith("/hooks/") and sign.get("host", "").startswith("rebound"):
                        continue  # works behind any name: its address is a secret
                    answer = await http.request(method, address, headers=carried | sign)
                    if answer.status_code != 403:
                        passed.append((method, address, sign, answer.status_code))
    assert passed == []


@pytest.mark.parametrize("sign", [*FOREIGN, NAVIGATION])
@pytest.mark.parametrize("path", ["/ws/collaborate", "/v1/ws/collaborate", "/console/_nicegui_ws/socket.io/"])
async def test_no_foreign_page_opens_a_socket(path: str, sign: dict[str, str]) -> None:
    assert await open_socket(create_app(Settings()), path, sign) == 403


async def test_two_hosts_are_none() -> None:
    async with asking() as http:
        for second in ("127.0.0.1:8700", "evil.example"):
            hosts = [("host", "127.0.0.1:8700"), ("host", second)]
            problem(await http.get("/v1/definitions", headers=hosts), 403, "origin_refused")


async def test_a_link_opens_the_console_and_nothing_else() -> None:
    async with asking(Settings(FACILITAIR_API_KEY=KEY)) as http:
        assert (await http.get("/", headers=NAVIGATION)).headers["location"] == "/console/"
        assert (await http.get("/console/login", headers=NAVIGATION)).status_code == 200
        for address in ("/docs", "/v1/definitions", "/stream/collaborate?task=x"):
            problem(await http.get(address, headers=NAVIGATION), 403, "origin_refused")
        for method in ("POST", "PUT", "DELETE"):
            assert (await http.request(method, "/console/login", headers=NAVIGATION)).status_code == 403
            # Nor may a form that says nothing of where it stands.
            assert (await http.request(method, "/console/login")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        CROSS,
        NAVIGATION,
        {"user-agent": "Mozilla/5.0 (an old browser)"},
        {"user-agent": "Mozilla/5.0 (an old browser)", "referer": "https://evil.example/127.0.0.1:8700"},
    ],
)
@pytest.mark.parametrize("address", sorted(STARTING))
async def test_a_get_starts_nothing_for_what_is_no_event_source_of_ours(
    address: str, headers: dict[str, str]
) -> None:
    async with asking() as http:
        problem(await http.get(f"{address}?task=x", headers=headers), 403, "origin_refused")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"user-agent": "curl/8.14.1"},
        EVENT_SOURCE,
        {"user-agent": "Mozilla/5.0 (an old browser)", "referer": f"{HERE}/console/"},
    ],
)
async def test_an_event_source_of_ours_and_a_program_come_through(headers: dict[str, str]) -> None:
    async with asking() as http:
        # The next to look at it finds that it says nothing of a task.
        problem(await http.get("/stream/collaborate", headers=headers), 422, "request_invalid")


def test_every_get_is_known_to_read_only() -> None:
    found = {path for path, methods in routes(create_app(Settings())) if methods & SAFE}
    assert found == READING | STARTING | SHAKING_HANDS


async def test_no_get_writes_anything(settings: Settings, servers: Any) -> None:
    servers.wait_ready("temporal", timeout_seconds=120)
    name = httpx.URL(settings.database_url.replace("postgresql://", "http://")).path.strip("/")
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name))
        )
    async with door(settings) as http:
        # This is what a write would look like.
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await _write(settings.database_url)
        for path in sorted(READING - PAGES):
            answer = await http.get(_filled(path))
            assert answer.status_code in (200, 204, 404, 422), (path, answer.text)


async def _write(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE written ()")


async def test_a_foreign_page_delivers_to_no_webhook() -> None:
    async with asking() as http:
        for sign in (CROSS, {"origin": "https://evil.example"}):
            problem(await http.post("/hooks/x", json={}, headers=sign), 403, "origin_refused")
