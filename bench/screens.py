"""Pictures of every page of the console for every example, light, dark and on a phone:
`python -m bench.screens [--out DIR] [--url API]`.

Without `--url` a platform of its own is started and ended. Every example is uploaded and run; each picture of
a plan is checked from the page, too. Prints one JSON object and exits 1 where something is wrong.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import Browser, Page, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from tests.support.browser import chromium, open_page, page_of
from tests.support.examples import EXAMPLES, finish, input_of, upload
from tests.support.pictures import faults
from tests.support.stack import SERVERS, stack

LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"viewport": {"width": 1360, "height": 850}},
    "dark": {"viewport": {"width": 1360, "height": 850}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True},
}
PAGES: Final = {
    "runs": "/console/",
    "tasks": "/console/tasks",
    "definitions": "/console/definitions",
    "new": "/console/new",
    "analytics": "/console/analytics?simulated=true",
    "analytics-real": "/console/analytics?simulated=false",
    "router": "/console/router",
}


@asynccontextmanager
async def _platform(url: str | None) -> AsyncIterator[str]:
    """The address of an API."""
    if url is not None:
        yield url
        return
    async with stack((*SERVERS, "worker", "api", "projector")) as found:
        await found.wait_ready("api")
        yield found.supervisor.addresses["api"]


async def _run_all(http: httpx.AsyncClient) -> dict[str, str]:
    """Example → its run, which has ended."""
    await upload(http)
    runs: dict[str, str] = {}
    for path in EXAMPLES:
        if path.stem == "own-activity":
            continue  # its worker is not ours
        wanted = {"definition": path.stem, "input": input_of(path)}
        runs[path.stem] = (await http.post("/v1/collaborations", json=wanted)).raise_for_status().json()["id"]
    for run in runs.values():
        await finish(http, run)
    # One stays, so that there is a question to be seen.
    asking = {"definition": "approve-change", "input": input_of(EXAMPLES[0])}
    (await http.post("/v1/collaborations", json=asking)).raise_for_status()
    return runs


async def _plan(http: httpx.AsyncClient, name: str) -> Any:
    stored = (await http.get(f"/v1/definitions/{name}")).raise_for_status().json()
    return (
        (await http.post("/v1/definitions/plan", json={"definition": stored["definition"]}))
        .raise_for_status()
        .json()
    )


async def shoot(browser: Browser, http: httpx.AsyncClient, address: str, out: Path) -> list[str]:
    """Picture everything; what is wrong with it."""
    runs = await _run_all(http)
    wrong: list[str] = []
    for look, how in LOOKS.items():
        async with page_of(browser, address, **how) as page:
            for name, place in PAGES.items():
                wrong += await _keep(page, place, out / look / f"{name}.png")
            for path in EXAMPLES:
                name = path.stem
                plan = await _plan(http, name)
                file = out / look / f"definition-{name}.png"
                wrong += await _keep(page, f"/console/definitions/{name}", file, plan)
                if name in runs:
                    file = out / look / f"run-{name}.png"
                    wrong += await _keep(page, f"/console/runs/{runs[name]}", file, plan)
    return wrong


async def _keep(page: Page, address: str, file: Path, plan: Any = None) -> list[str]:
    await open_page(page, address)
    if plan is not None:
        await expect(page.locator("svg.dag g.step")).to_have_count(len(plan["nodes"]))
    if "analytics?simulated=true" in address:
        await expect(page.locator(".plot svg text").first).to_be_visible()
    with suppress(PlaywrightTimeout):
        await page.wait_for_load_state("networkidle", timeout=2_000)
    file.parent.mkdir(parents=True, exist_ok=True)
    # What is out of sight is not painted; a picture of the whole page shows it all.
    await page.screenshot(path=file, full_page=True, style="*{content-visibility:visible!important}")
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    found = [f"{file.parent.name} {address}: {wide} px too wide"] if wide > 0 else []
    found += [f"{address}: {fault}" for fault in await faults(page, plan)] if plan is not None else []
    return found


async def main(url: str | None, out: Path) -> int:
    async with (
        _platform(url) as address,
        chromium() as browser,
        httpx.AsyncClient(base_url=address, timeout=30) as http,
    ):
        wrong = await shoot(browser, http, address, out)
    pictures = len(list(out.rglob("*.png")))
    sys.stdout.write(json.dumps({"pictures": pictures, "wrong": wrong}, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".artefacts/screens"))
    parser.add_argument("--url")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.url, given.out)))
