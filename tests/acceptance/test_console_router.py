"""The router's page as a person uses it: see who decides, promote, roll back."""

from playwright.async_api import Dialog
from sqlalchemy.ext.asyncio import AsyncEngine

from schema.settings import Settings
from tests.support.api_server import served
from tests.support.browser import chromium, keep, open_page, page_of
from tests.support.learned import learned, put_to_work


async def test_a_person_promotes_a_checkpoint_and_rolls_back(settings: Settings, engine: AsyncEngine) -> None:
    found = learned()
    await put_to_work(engine, found)
    await put_to_work(engine, found, "shadow")
    asked: list[str] = []

    async def agree(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await dialog.accept()

    async with served(settings) as door, chromium() as browser:
        async with page_of(browser, f"http://127.0.0.1:{door.port}", color_scheme="dark") as page:
            page.on("dialog", agree)
            await open_page(page, "/console/router")
            assert await page.text_content("li[aria-current=step]") == "watches"
            await page.click("text=Promote")
            await page.wait_for_selector("li[aria-current=step]:has-text('decides a share')")
            await page.wait_for_selector("html[data-ready]")
            await keep(page, "router")
            await page.click("text=Roll back")
            # Who served all is rolled back, and the challenger stays on its way.
            await page.wait_for_selector("dl.facts dd:text-is('rules')")
            await page.wait_for_selector("td:text-is('rolled back')")
        assert asked == [
            "Let checkpoint 2 serve more before the evidence says so?",
            "Roll back checkpoint 1?",
        ]
        phone = {"width": 390, "height": 844}
        async with page_of(browser, f"http://127.0.0.1:{door.port}", viewport=phone) as page:
            await open_page(page, "/console/router")
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.evaluate(wider) == 0
