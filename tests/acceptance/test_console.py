"""The console as a person uses it: written, started, watched, steered, decided, forked, found again."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
from playwright.async_api import Browser, CDPSession, Page, expect
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from tests.support.browser import chromium, keep, open_page, page_of
from tests.support.cli import ROOT
from tests.support.examples import EXAMPLES, upload
from tests.support.pictures import faults
from tests.support.stack import Stack

_DRAFT: Final[dict[str, Any]] = {
    "language": "facilitair/v1",
    "name": "console-story",
    "input": {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}},
    "agents": {"writer": {"role": "architect", "model": "openai/gpt-4"}, "critic": {"role": "reviewer"}},
    "steps": {
        "draft": {"kind": "agent", "agent": "writer", "prompt": "Design at length: ${input.task}"},
        "check": {"kind": "agent", "agent": "critic", "prompt": "Review this:\n${steps.draft.output}"},
        "polish": {"kind": "agent", "agent": "writer", "prompt": "Design again: ${steps.check.output}"},
        "approve": {
            "kind": "human",
            "title": "Publish it?",
            "show": {"text": "${steps.polish.output}"},
            "form": {"type": "object", "properties": {"reason": {"type": "string"}}},
            "actions": [
                {"id": "yes", "title": "Publish"},
                {"id": "no", "title": "Refuse", "requires": ["reason"]},
            ],
        },
        "publish": {"kind": "transform", "needs": ["approve"], "value": "${steps.polish.output}"},
    },
    "output": "${steps.publish.output}",
}
_WRONG: Final = {
    **_DRAFT,
    "steps": {**_DRAFT["steps"], "check": {"kind": "agent", "agent": "nobody", "prompt": "?"}},
}


expect.set_options(timeout=45_000)
_REMEMBER: Final = """(step) => {
    const node = document.querySelector(`g.step[data-step="${step}"]`);
    window.remembered = [];
    new MutationObserver(() => window.remembered.push(node.dataset.status))
        .observe(node, { attributes: true, attributeFilter: ["data-status"] });
}"""


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture
async def address(platform: Stack) -> str:
    await platform.wait_ready("api")
    return platform.supervisor.addresses["api"]


async def _write(page: Page, text: str) -> None:
    await page.locator(".cm-content").click()
    await page.keyboard.press("Control+A")
    await page.keyboard.insert_text(text)


def _step(page: Page, step: str) -> Any:
    return page.locator(f'svg.dag g.step[data-step="{step}"]')


async def test_a_definition_from_the_editor_to_a_fork(browser: Browser, address: str) -> None:
    async with page_of(browser, address, viewport={"width": 1360, "height": 850}) as page:
        await _upload(page)
        run = await _start_and_pause(page)
        await _tell_and_resume(page)
        await _approve(page)
        await _fork(page, run)
        await _find(page, run)


async def _upload(page: Page) -> None:
    await open_page(page, "/console/new")
    await _write(page, json.dumps(_WRONG, indent=2))
    problem = page.locator(".problem")
    await expect(problem).to_contain_text("nobody")
    await expect(problem).to_contain_text(re.compile(r"line \d+"))
    await expect(page.locator("#save")).to_be_disabled()
    await keep(page, "editor-problem")
    await _write(page, json.dumps(_DRAFT, indent=2))
    await expect(page.locator("#verdict")).to_contain_text("Valid: 5 steps")
    await expect(_step(page, "approve")).to_be_visible()
    await page.locator("#save").click()
    await page.wait_for_url("**/console/definitions/console-story")
    await page.wait_for_selector("html[data-ready]")
    await page.locator("#tab-versions").click()
    await expect(page.locator(".versions")).to_contain_text("what the name means")
    await keep(page, "definition")


async def _start_and_pause(page: Page) -> str:
    """Its address."""
    await page.locator("#new-run").click()
    await page.locator("#start-task").fill("a queue that survives its worker")
    await page.locator("#start button[type=submit]").click()
    await page.wait_for_url("**/console/runs/*")
    await expect(page.locator(".panel pre").first).not_to_be_empty()
    await expect(
        page.locator("svg.dag g.step[data-status=running], svg.dag g.step[data-status=completed]")
    ).not_to_have_count(0)
    await page.keyboard.press("p")
    await expect(page.locator("#state")).to_contain_text("paused")
    await expect(page.locator("#paused")).to_contain_text("nothing new begins")
    # What was under way ends; what comes behind it does not begin.
    await expect(page.locator("svg.dag g.step[data-status=running]")).to_have_count(0)
    await expect(_step(page, "publish")).to_have_attribute("data-status", "pending")
    await expect(_step(page, "approve")).to_have_attribute("data-status", "pending")
    await expect(page.locator("#f-tokens")).not_to_have_text("0")
    await keep(page, "paused")
    return page.url


async def _tell_and_resume(page: Page) -> None:
    await page.locator("#tell").click()
    await page.locator("#tell-text").fill("Prefer the standard library.")
    await page.locator("#tell-form button[type=submit]").click()
    await expect(page.locator(".note")).to_contain_text("Prefer the standard library.")
    await page.locator("#resume").click()
    await expect(page.locator("#state")).to_contain_text("running")


async def _approve(page: Page) -> None:
    question = page.locator("form.asked")
    await expect(question).to_contain_text("Publish it?")
    await expect(_step(page, "approve")).to_have_attribute("data-status", "waiting")
    await keep(page, "asked")
    await question.locator("input[name=actor]").fill("ada")
    await question.get_by_role("button", name="Refuse").click()
    await expect(page.locator(".toast.bad")).to_contain_text("needs reason")
    await question.get_by_role("button", name="Publish").click()
    await expect(page.locator("#state")).to_contain_text("completed")
    await expect(question).to_have_count(0)
    for step in _DRAFT["steps"]:
        await expect(_step(page, step)).to_have_attribute("data-status", "completed")
    await expect(page.locator("#simulated")).to_contain_text("simulated")
    await keep(page, "completed")


async def _fork(page: Page, source: str) -> None:
    await _step(page, "draft").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator("#view-step h2")).to_have_text("check")
    await expect(page.locator("#view-step")).to_contain_text("Model answered")
    for tab in ("timeline", "trace", "events", "result"):
        await page.locator(f"#tab-{tab}").click()
        await expect(page.locator(f"#view-{tab} :is(li, pre)")).not_to_have_count(0)
        await keep(page, tab)
    await page.locator("#tab-step").click()
    await page.locator("#fork").click()
    await page.locator("#fork-form button[type=submit]").click()
    await page.wait_for_url(lambda url: "/console/runs/" in url and url != source)
    await expect(_step(page, "draft")).to_contain_text("kept")
    await expect(page.locator(".titles")).to_contain_text("forked from")
    await keep(page, "fork")
    await page.locator("#stop").click()
    await page.locator("#stop-sure").click()
    await expect(page.locator("#state")).to_contain_text("cancelled")
    await expect(page.locator("#rerun")).to_be_visible()


async def _find(page: Page, run: str) -> None:
    id = run.rpartition("/")[2]
    await page.keyboard.press("g")
    await page.keyboard.press("r")
    await page.wait_for_url("**/console/")
    await page.wait_for_selector("html[data-ready]")
    await page.keyboard.press("/")
    await page.keyboard.type(id)
    rows = page.locator("#rows tr[data-id]")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("completed")
    await keep(page, "runs")
    await page.locator("#search").fill("there is no such run")
    await expect(page.locator("#rows")).to_contain_text("No run fits")


async def test_playback_tells_an_ended_run_once_more(browser: Browser, platform: Stack, address: str) -> None:
    async with page_of(browser, address, viewport={"width": 1360, "height": 850}) as page:
        id = await _finished(platform)
        await open_page(page, f"/console/runs/{id}")
        await expect(page.locator("#state")).to_contain_text("completed")
        await page.evaluate(_REMEMBER, "write")
        await page.locator("#speed").select_option("1")
        await page.locator("#play").click()
        await page.wait_for_function("window.remembered.join() === 'pending,running,completed'")
        await expect(page.locator(".panel pre").first).not_to_be_empty()
        await expect(page.locator("#play")).to_be_enabled()
        await expect(page.locator("#state")).to_contain_text("completed")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("phone", {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}),
        ("dark", {"viewport": {"width": 1360, "height": 850}, "color_scheme": "dark"}),
    ],
)
async def test_every_page_fits_a_phone_and_the_dark(
    browser: Browser, platform: Stack, address: str, name: str, how: dict[str, Any]
) -> None:
    id = await _finished(platform)
    async with httpx.AsyncClient(base_url=address) as http:
        daily = {
            "name": "console-poem",
            "cron": "0 9 * * 1-5",
            "timezone": "Europe/Berlin",
            "input": {"task": "a"},
        }
        schedule = (await http.post("/v1/schedules", json=daily)).raise_for_status().json()["id"]
    async with page_of(browser, address, **how) as page:
        for page_name, path in (
            ("runs", "/console/"),
            ("run", f"/console/runs/{id}"),
            ("tasks", "/console/tasks"),
            ("definitions", "/console/definitions"),
            ("definition", "/console/definitions/console-poem"),
            ("schedules", "/console/schedules"),
            ("analytics", "/console/analytics"),
        ):
            await open_page(page, path)
            await expect(page.locator("#main")).to_be_visible()
            if page_name == "run":
                await expect(_step(page, "write")).to_have_attribute("data-status", "completed")
            if page_name == "definition":
                await expect(page.locator("#verdict")).to_contain_text("Valid")
            if page_name == "schedules":
                await expect(page.locator(f'[data-schedule="{schedule}"] .starts li')).to_have_count(5)
                await expect(page.locator(f'[data-schedule="{schedule}"]')).to_contain_text("09:00+0")
            if page_name == "analytics":
                await expect(page.locator(".plot svg").first).to_be_visible()
            if page_name == "definitions":
                # A table that is too wide would be cut, not the page be wider.
                box = await page.locator("[data-start]").first.bounding_box()
                assert box is not None and box["x"] + box["width"] <= how["viewport"]["width"]
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{path} is {wide} px too wide"
            await keep(page, f"{name}-{page_name}")
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(15, 18, 22)") == (name == "dark")
        if name == "dark":
            # auto → light, and it stays so.
            await page.locator("#theme-button").click()
            await page.reload()
            assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


async def test_every_examples_plan_stands_as_it_should(browser: Browser, address: str) -> None:
    async with (
        httpx.AsyncClient(base_url=address, timeout=30) as http,
        page_of(browser, address, viewport={"width": 1360, "height": 850}) as page,
    ):
        await upload(http)
        for path in EXAMPLES:
            stored = (await http.get(f"/v1/definitions/{path.stem}")).json()["definition"]
            plan = (await http.post("/v1/definitions/plan", json={"definition": stored})).json()
            await open_page(page, f"/console/definitions/{path.stem}")
            await expect(page.locator("svg.dag g.step")).to_have_count(len(plan["nodes"]))
            assert await faults(page, plan) == [], path.stem
            if path.stem == "debate":
                await keep(page, "debate")


async def test_runs_are_filtered_and_definitions_say_how_they_went(
    browser: Browser, platform: Stack, address: str
) -> None:
    id = await _finished(platform)
    async with page_of(browser, address, viewport={"width": 1360, "height": 850}) as page:
        await open_page(page, "/console/definitions")
        row = page.locator("#rows tr[data-id=console-poem]")
        await expect(row.locator(".last")).to_contain_text("completed")
        await open_page(page, "/console/?name=console-poem&simulated=true&period=24h")
        rows = page.locator("#rows tr[data-id]")
        # Other tests have run it, too, under the same id.
        await expect(rows.first).to_contain_text(id)
        names = await rows.locator("a.name").all_text_contents()
        assert set(names) == {"console-poem@1"}
        await page.get_by_label("any cost").select_option("10")
        await expect(page.locator("#rows")).to_contain_text("No run fits")
        assert "least_usd=10" in page.url
        await page.get_by_label("any cost").select_option("")
        await page.get_by_label("real and simulated").select_option("false")
        await expect(page.locator("#rows")).to_contain_text("No run fits")


async def test_analytics_are_of_one_kind_with_axes_that_hold_every_bar(
    browser: Browser, platform: Stack, address: str
) -> None:
    await _finished(platform)
    async with page_of(browser, address, viewport={"width": 1360, "height": 850}) as page:
        await open_page(page, "/console/analytics?simulated=true")
        await expect(page.locator(".sums .simulated")).to_be_visible()
        latency = page.locator("#plot-latency")
        await expect(latency.locator("text", has_text=re.compile(r"^[0-9.]+ s$"))).not_to_have_count(0)
        assert await page.evaluate(_BARS_PAST_THE_AXIS) == []
        await page.get_by_role("link", name="Real runs").click()
        await expect(page.locator("#main")).to_contain_text(re.compile("No real run|Real runs"))
        await expect(page.locator(".sums .simulated")).to_have_count(0)


_BARS_PAST_THE_AXIS: Final = """() => [...document.querySelectorAll(".plot .room")].flatMap((room) => {
  const { chart } = getElement(Number(room.querySelector("[id^=c]").id.slice(1)));
  const { series, xAxis, yAxis } = chart.getOption();
  const axis = [...xAxis, ...yAxis].find((one) => one.type === "value");
  const tops = series[0].data.map((_, at) => {
    const bars = series.map((one) => one.data[at]);
    return series[0].stack ? bars.reduce((sum, bar) => sum + bar, 0) : Math.max(...bars);
  });
  return tops.filter((top) => top > axis.max).map((top) => `${room.id}: ${top} > ${axis.max}`);
})"""


async def test_two_hundred_steps_stay_smooth(browser: Browser, platform: Stack, address: str) -> None:
    wide = 40
    steps: dict[str, Any] = {}
    for at in range(200):
        asked = {"kind": "agent", "agent": "coder", "prompt": f"Write part {at}."}
        done = asked if at // wide in (1, 3) else {"kind": "transform", "value": at}
        above = [f"s{at - wide}", f"s{at - 1 if at % wide else at - wide}"]
        steps[f"s{at}"] = {**done, "needs": list(dict.fromkeys(above)) if at >= wide else []}
    model = {"role": "coder", "model": "openai/gpt-4o-mini"}
    await platform.store({"name": "console-wide", "agents": {"coder": model}, "steps": steps, "output": "x"})
    async with page_of(browser, address, viewport={"width": 1360, "height": 850}) as page:
        line = await page.context.new_cdp_session(page)
        await line.send("Performance.enable")
        handle = await platform.start("console-wide", {}, id="console-wide-run")
        await open_page(page, "/console/runs/console-wide-run")
        before = await _spent(line)
        await expect(page.locator("svg.dag g.step[data-status=running]")).not_to_have_count(0)
        await keep(page, "two-hundred")
        await expect(page.locator("svg.dag g.step[data-status=completed]")).to_have_count(
            200, timeout=120_000
        )
        after = await _spent(line)
        await handle.result()
    # Of the time that the page was watched; of a playback it is 0.06 to 0.09 with all else on two cores.
    share = (after["busy"] - before["busy"]) / (after["at"] - before["at"])
    assert share < 0.4, f"scripts and layout took {share:.0%} of the time"


async def _spent(line: CDPSession) -> dict[str, float]:
    """Seconds that the page has spent on scripts, styles and layout, and the time."""
    metrics = {one["name"]: one["value"] for one in (await line.send("Performance.getMetrics"))["metrics"]}
    names = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
    return {"busy": sum(metrics[name] for name in names), "at": metrics["Timestamp"]}


@pytest.fixture
async def keyed(platform: Stack) -> AsyncIterator[str]:
    """The address of an API that wants a key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"FACILITAIR_PORT": str(port), "FACILITAIR_API_KEY": "open sesame, please"}
    given = {**platform.supervisor.environment, **own}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api",
        cwd=ROOT,
        env={**os.environ, **given},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(60), httpx.AsyncClient() as http:
        while not await _answers(http, f"{address}/health/live"):
            await asyncio.sleep(0.1)
    yield address
    process.terminate()
    # A page that is open does not keep the process.
    assert await asyncio.wait_for(process.wait(), 20) is not None


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


async def test_with_a_key_a_person_signs_in_once(browser: Browser, keyed: str) -> None:
    async with page_of(browser, keyed, viewport={"width": 1360, "height": 850}) as page:
        await page.goto("/console/tasks")
        await page.locator("#key").fill("guessed")
        await page.keyboard.press("Enter")
        await expect(page.locator("#hint")).to_have_text("That is not the key.")
        await keep(page, "sign-in")
        await page.locator("#key").fill("open sesame, please")
        await page.keyboard.press("Enter")
        # The page is the one that was asked for, and its line stands.
        await page.wait_for_url("**/console/tasks")
        await page.wait_for_selector("html[data-ready]")
        assert "sesame" not in await page.content()
        assert await page.evaluate("document.cookie") == ""
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/console/login?**")


async def _finished(platform: Stack) -> str:
    """The id of a run that has ended."""
    await platform.store(
        {
            "name": "console-poem",
            "agents": {"poet": {"model": "openai/gpt-4o-mini", "system": "You write haiku."}},
            "steps": {"write": {"kind": "agent", "agent": "poet", "prompt": "A haiku on queues"}},
            "output": "${steps.write.output}",
        }
    )
    handle = await platform.client.start_workflow(
        "console-poem",
        {},
        id="console-poem-finished",
        task_queue="collaborations",
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    await asyncio.wait_for(handle.result(), 60)
    return "console-poem-finished"
