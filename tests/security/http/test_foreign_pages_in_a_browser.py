"""What a real browser sends for a page of another origin starts nothing; our own page's EventSource does."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx
import pytest
from playwright.async_api import Browser, Page

from tests.support.api_server import ApiServer, served
from tests.support.browser import chromium, keep, open_page
from tests.support.stack import Stack

ELSEWHERE: Final = "https://evil.test"
_ATTACKS: Final = {
    "an image": "new Image().src = url",
    "a fetch without CORS": "fetch(url, { mode: 'no-cors' }).catch(() => {})",
    "a fetch": "fetch(url).catch(() => {})",
    "an EventSource": "new EventSource(url)",
    "a script": "document.head.append(Object.assign(document.createElement('script'), { src: url }))",
    "a frame": "document.body.append(Object.assign(document.createElement('iframe'), { src: url }))",
    "a form": "const form = Object.assign(document.createElement('form'), { method: 'post', action: url });"
    " document.body.append(form); form.submit()",
    "a link": "location = url",
}


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture(scope="module")
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    async with served(platform.settings) as found:
        await platform.store(
            {
                "name": "foreign",
                "input": {"type": "object"},
                "steps": {"a": {"kind": "transform", "value": 1}},
            }
        )
        yield found


@asynccontextmanager
async def _page(browser: Browser, address: str) -> AsyncIterator[Page]:
    """A page of `address`, which no server has to have."""
    # As on an attacker's page that is itself on this machine: the browser asks nobody for leave.
    context = await browser.new_context(permissions=["local-network-access"])
    page = await context.new_page()
    await page.route(f"{address}/page", lambda route: route.fulfill(body="<body>", content_type="text/html"))
    try:
        await page.goto(f"{address}/page")
        yield page
    finally:
        await context.close()


def _starting(api: ApiServer, run: str) -> str:
    return f"http://127.0.0.1:{api.port}/stream/collaborate?definition=foreign&task=x&id={run}"


async def _was_started(api: ApiServer, run: str) -> bool:
    return (await api.http.get(f"/v1/collaborations/{run}")).status_code == 200


def _new_run() -> str:
    return f"foreign-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("origin", [ELSEWHERE, "http://127.0.0.1:9999"], ids=["another site", "another port"])
@pytest.mark.parametrize("attack", _ATTACKS)
async def test_a_page_of_another_origin_starts_nothing(
    browser: Browser, api: ApiServer, caplog: pytest.LogCaptureFixture, attack: str, origin: str
) -> None:
    run = _new_run()
    with caplog.at_level(logging.INFO, "facilitair.access"):
        async with _page(browser, origin) as page, asyncio.timeout(20):
            await page.evaluate(f"(url) => {{ {_ATTACKS[attack]}; }}", _starting(api, run))
            while not (answered := _answered(caplog)):
                await asyncio.sleep(0.02)
    assert answered == [403]
    assert not await _was_started(api, run)


def _answered(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How the API has answered what the browser asked of it."""
    facts = [vars(record) for record in caplog.records if record.name == "facilitair.access"]
    return [one["status"] for one in facts if one["path"] == "/stream/collaborate"]


async def test_the_event_source_of_a_page_of_ours_starts_and_follows_a_run(
    browser: Browser, api: ApiServer
) -> None:
    run = _new_run()
    async with _page(browser, f"http://127.0.0.1:{api.port}") as page:
        # Only until the run is done: then the promise is kept.
        await page.evaluate(
            "(url) => new Promise((end) => { const s = new EventSource(url);"
            " s.addEventListener('done', () => { s.close(); end(); }); })",
            _starting(api, run),
        )
    assert await _was_started(api, run)


async def test_a_program_starts_and_follows_a_run(api: ApiServer) -> None:
    run = _new_run()
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.get(_starting(api, run))
    assert "event: done" in answer.text
    assert await _was_started(api, run)


@pytest.mark.parametrize("origin", [ELSEWHERE, "http://127.0.0.1:9999"], ids=["another site", "another port"])
async def test_a_page_of_another_origin_opens_no_socket(
    browser: Browser, api: ApiServer, origin: str
) -> None:
    async with _page(browser, origin) as page:
        how = await page.evaluate(
            "(url) => new Promise((end) => { const s = new WebSocket(url);"
            " s.onopen = () => end('open'); s.onclose = () => end('closed'); })",
            f"ws://127.0.0.1:{api.port}/ws/collaborate",
        )
    assert how == "closed"


async def test_the_documentation_is_shown_from_our_own_files(browser: Browser, api: ApiServer) -> None:
    context = await browser.new_context(base_url=f"http://127.0.0.1:{api.port}")
    page = await context.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    asked: set[str] = set()
    page.on("request", lambda one: asked.add(httpx.URL(one.url).host) if one.url.startswith("http") else None)
    await page.goto("/docs")
    await page.get_by_text("/definitions/validate").first.wait_for(timeout=90_000)
    await keep(page, "docs")
    await context.close()
    assert (wrong, asked) == ([], {"127.0.0.1"})


async def test_the_console_runs_no_script_that_stands_in_a_page(browser: Browser, api: ApiServer) -> None:
    context = await browser.new_context(base_url=f"http://127.0.0.1:{api.port}")
    page = await context.new_page()
    await open_page(page, "/console/")
    blocked = await page.evaluate(
        "() => new Promise((end) => { document.addEventListener('securitypolicyviolation', (event) =>"
        " end([event.effectiveDirective, window.ran])); document.body.insertAdjacentHTML('beforeend',"
        ' \'<img src="/console/none" onerror="window.ran = true">\'); })'
    )
    await context.close()
    assert blocked == ["script-src-attr", None]
