"""Every example runs: uploaded by the command line, started by it, finished on the real servers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.stack import Stack
from tests.acceptance.command import ROOT, facilitair

EXAMPLES = sorted((ROOT / "examples").glob("*.json"))
INPUTS = ROOT / "examples" / "inputs"


@pytest.fixture
async def billing(platform: Stack) -> AsyncIterator[None]:
    """The worker of examples/own_activity_worker.py, which imports nothing of ours."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / "own_activity_worker.py"), platform.settings.temporal_address,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline()
    yield
    process.terminate()
    await process.wait()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_example_runs(platform: Stack, billing: None, path: Path) -> None:
    data = platform.supervisor.data
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", timeout_seconds=120)
    applied = await facilitair(data, "apply", str(path), "--json")
    assert applied.code == 0, applied.stderr
    given = (
        ["--input", f"file=@{ROOT / 'schema' / 'templates.py'}"]
        if path.stem == "code-review"
        else ["--input-json", str(INPUTS / path.name)]
    )
    ran = await facilitair(data, "run", path.stem, *given, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["status"] == "completed"
    assert ran.json["output"]
    assert all(step["simulated"] for step in ran.json["steps"] if step["kind"] == "agent" and step["model"])
