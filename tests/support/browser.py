"""A headless Chromium that does what a person does, and keeps pictures of what they would have seen."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.support.cli import ROOT

ARTEFACTS: Final = Path(os.environ.get("FACILITAIR_TEST_ARTEFACTS") or ROOT / ".artefacts")
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser of the machine, or the one that `playwright install chromium` brought."""
    async with async_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, _NAMES)), None) or (own if Path(own).exists() else None)
        if found is None:
            pytest.skip("found no Chromium; apt-get install chromium, or playwright install chromium")
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def page_of(browser: Browser, address: str, **how: Any) -> AsyncIterator[Page]:
    """A page that must not throw, and whose requests must not leave the platform."""
    context = await browser.new_context(base_url=address, **how)
    page = await context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if _is_own(asked.url, address) else wrong.append(asked.url))
    try:
        yield page
        assert wrong == []
    finally:
        await context.close()


def _is_own(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:"))


async def open_page(page: Page, path: str) -> None:
    await page.goto(path)
    await page.wait_for_selector("html[data-ready]")


async def keep(page: Page, name: str) -> None:
    """A picture as an artefact of the test."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"console-{name}.png")
