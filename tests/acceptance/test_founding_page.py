"""The page of the founding document (S3, section 9), word for word, in a real browser."""

from tests.support.api_server import served
from tests.support.browser import chromium, page_of
from tests.support.stack import Stack

_RENDERING = """
window.shown = {};
window.renderAgent = (agent, content) => {
  if (agent !== undefined) window.shown[agent] = (window.shown[agent] ?? '') + content;
};
"""
_EVENT_SOURCE = """
const eventSource = new EventSource('/stream/collaborate?task=add+two+numbers');
eventSource.onmessage = (e) => {
  const chunk = JSON.parse(e.data);
  renderAgent(chunk.agent, chunk.content);
};
"""
_SOCKET = """
const ws = new WebSocket(`ws://${location.host}/ws/collaborate`);
ws.onmessage = (e) => {
  const chunk = JSON.parse(e.data);
  renderAgent(chunk.agent, chunk.content);
};
ws.onopen = () => ws.send('add two numbers');
"""
_TEAM = "() => ['architect', 'coder', 'reviewer', 'tester'].every((agent) => window.shown[agent])"


async def test_its_snippets_show_what_agents_say(platform: Stack) -> None:
    async with chromium() as browser, served(platform.settings) as api:
        for snippet in (_EVENT_SOURCE, _SOCKET):
            async with page_of(browser, f"http://127.0.0.1:{api.port}") as page:
                await page.goto("/docs")
                await page.evaluate(f"{_RENDERING}{snippet}\nnull")
                await page.wait_for_function(_TEAM, timeout=60_000)
