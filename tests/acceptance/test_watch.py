"""Watching a run as a person does: on a terminal, in a pipe, and once more when it is long over."""

import asyncio
import os
import pty
import re
import sys
from pathlib import Path

import httpx
from temporalio.client import ScheduleActionStartWorkflow

from schema.temporal.upkeep import ArchivePass
from tests.integration.runs.test_collaboration import unique
from tests.support.cli import ROOT, facilitair
from tests.support.stack import Stack

COLUMNS = 80


async def on_a_terminal(data: Path, *arguments: str, keys: dict[str, str] | None = None) -> tuple[int, str]:
    """(exit code, what went over the screen). `keys`: what is seen → what is pressed then, in this order."""
    ours, theirs = pty.openpty()
    size = {"TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": "30"}
    environment = {**os.environ, "FACILITAIR_DATA": str(data), **size}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli.main",
        *arguments,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)

    def read() -> bytes:
        found, waiting, since = b"", list((keys or {}).items()), 0
        while True:
            try:
                found += (more := os.read(ours, 65_536))
            except OSError:  # nobody holds the other end any more
                return found
            if not more:
                return found
            if waiting and waiting[0][0].encode() in found[since:]:
                os.write(ours, waiting.pop(0)[1].encode())
                since = len(found)

    shown = await asyncio.to_thread(read)
    os.close(ours)
    return await process.wait(), shown.decode()


def said(stdout: str, step: str) -> str:
    lines = [line.removeprefix(f"{step} │ ") for line in stdout.splitlines() if line.startswith(f"{step} │ ")]
    return "\n".join(lines)


async def test_a_run_is_watched_and_played_back(platform: Stack, tmp_path: Path) -> None:
    data = platform.supervisor.data
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", timeout_seconds=120)
    assert (await facilitair(data, "apply", "examples/code-review.json")).code == 0
    # Whoever watches needs a second to come, and there should be something left to see.
    mark = unique("watched")
    slow = {"kind": "pace", "times": None, "tokens_per_second": 50, "match": {"contains": mark}}
    async with httpx.AsyncClient(base_url=platform.settings.simulator_url) as control:
        (await control.post("/_simulator/faults", json=slow)).raise_for_status()
    (tmp_path / "watched.py").write_text(f"# {mark}\n{(ROOT / 'bench' / 'crash.py').read_text()}")
    started = await facilitair(
        data, "run", "code-review", "--input", f"file=@{tmp_path / 'watched.py'}", "--no-wait", "--json"
    )
    id = started.json["id"]
    (code, screen), spoken = await asyncio.gather(
        on_a_terminal(data, "watch", id), facilitair(data, "watch", id, "--tokens")
    )
    assert (code, spoken.code) == (0, 0), (screen, spoken.stderr)
    assert "▸ " in screen
    assert "p pause  r resume  q leave" in screen
    assert "Traceback" not in screen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    before_table = plain.partition("── ")[0]
    assert max(map(len, before_table.replace("\r", "\n").splitlines())) <= COLUMNS
    assert re.search(r"review\S* .*running|▸ review", plain)

    shown = await facilitair(data, "show", id, "--json")
    steps = {one["step"]: one for one in shown.json["steps"]}
    assert "code: completed" in spoken.stderr
    for step, one in steps.items():
        if one["kind"] == "agent":
            assert said(spoken.stdout, step), step

    again = await facilitair(data, "playback", id, "--speed", "0", "--tokens")
    assert again.code == 0, again.stderr
    assert {step: said(again.stdout, step) for step in steps} == {
        step: said(spoken.stdout, step) for step in steps
    }
    packed = await facilitair(data, "archive", "--older-than", "0d", "--json")
    assert packed.code == 0, packed.stderr
    assert packed.json["tokens"] > 0
    archived = await facilitair(data, "playback", id, "--speed", "0", "--tokens")
    assert archived.stdout == again.stdout
    code, screen = await on_a_terminal(data, "playback", id, "--speed", "4")
    assert code == 0, screen
    assert "▸ " in screen


async def test_keys_pause_resume_and_leave(platform: Stack) -> None:
    data = platform.supervisor.data
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", timeout_seconds=120)
    assert (await facilitair(data, "apply", "examples/code-review.json")).code == 0
    keys = {"q leave": "p", "paused by": "r", "running": "q"}
    code, screen = await on_a_terminal(
        data, "run", "code-review", "--input", "file=@bench/crash.py", "--id", "keys-1", keys=keys
    )
    assert code == 0, screen
    assert "keys-1 goes on without you. `facilitair watch keys-1`" in screen
    again = await facilitair(data, "watch", "keys-1", "--json")
    assert (again.code, again.json["status"]) == (0, "completed")


async def test_old_tokens_are_archived_every_day(platform: Stack) -> None:
    await asyncio.to_thread(platform.supervisor.wait_ready, "projector", timeout_seconds=120)
    schedule = platform.client.get_schedule_handle("facilitair-archive-tokens")
    action = (await schedule.describe()).schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    done = await platform.client.execute_workflow(
        action.workflow, id=action.id, task_queue=action.task_queue, result_type=ArchivePass
    )
    # Whatever the other tests ran is younger than a week.
    assert done == ArchivePass(0, 0, 0)
