"""Every example runs: uploaded by the command line, started by it, finished on the real servers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.cli import ROOT, facilitair
from tests.support.examples import BEFORE, EXAMPLES, INPUTS
from tests.support.stack import Stack

DECISIONS: Final[dict[str, dict[str, Any]]] = {
    "approve-change": {"action": "edit", "actor": "user:ada", "edited": "better"}
}
OUTPUTS: Final[dict[str, Any]] = {
    "approve-change": {"decision": "edit", "by": ["user:ada"], "text": "better"}
}


@pytest.fixture
async def billing(platform: Stack) -> AsyncIterator[None]:
    """The worker of examples/own_activity_worker.py, which imports nothing of ours."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "own_activity_worker.py"),
        platform.settings.temporal_address,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    yield
    process.terminate()
    await process.wait()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_example_runs(platform: Stack, billing: None, path: Path) -> None:
    data = platform.supervisor.data
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", timeout_seconds=120)
    for name in (*BEFORE.get(path.stem, ()), path.stem):
        applied = await facilitair(data, "apply", str(path.with_stem(name)), "--json")
        assert applied.code == 0, applied.stderr
    given = (
        ["--input", f"file=@{ROOT / 'schema' / 'language' / 'templates.py'}"]
        if path.stem == "code-review"
        else ["--input-json", str(INPUTS / path.name)]
    )
    id = f"{path.stem}-example"
    running = asyncio.create_task(facilitair(data, "run", path.stem, *given, "--id", id, "--json"))
    if path.stem in DECISIONS:
        await decide(platform, id, DECISIONS[path.stem])
    ran = await running
    assert ran.code == 0, ran.stderr
    assert ran.json["status"] == "completed"
    assert ran.json["output"]
    if path.stem in OUTPUTS:
        assert ran.json["output"] == OUTPUTS[path.stem]
    assert all(step["simulated"] for step in ran.json["steps"] if step["kind"] == "agent" and step["model"])


async def decide(platform: Stack, run: str, decision: dict[str, Any]) -> None:
    """Decide the question that a run asks, as soon as it does."""
    async with httpx.AsyncClient(base_url=f"{platform.supervisor.addresses['api']}/v1") as http:
        async with asyncio.timeout(60):
            while not (open := (await http.get("/tasks", params={"collaboration": run})).json()["items"]):
                await asyncio.sleep(0.1)
        decided = await http.post(f"/tasks/{open[0]['id']}/decisions", json=decision)
    assert decided.status_code == 200, decided.text
