"""Every page of the documentation, typed as it stands: its commands in its order, on one platform."""

import gc
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from infra.local import Supervisor
from tests.support.pages import PAGES, ROOT, PageBlock, blocks

_OURS: Final = "uv run facilitair "
_API: Final = "localhost:8700"
_SIMULATOR: Final = "localhost:7900"
_SETTLE_SECONDS: Final = 60.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def platform_of_pages(servers: Supervisor) -> Supervisor:
    servers.wait_ready("api", "worker", "simulator", timeout_seconds=180)
    typed = CommandRunner(servers)
    typed.ours(["apply", str(ROOT / "examples")])
    return servers


class CommandRunner:
    """What types commands: our own in this process, as starting one for each would take minutes."""

    def __init__(self, servers: Supervisor) -> None:
        self._data = servers.data
        self._api = servers.addresses["api"]
        self._temporal = servers.addresses["temporal"]
        self._simulator = servers.environment["FACILITAIR_SIMULATOR_URL"]

    def type(self, command: str) -> None:
        # The addresses of a platform that has the machine for itself.
        for usual, here in ((_API, self._api), (_SIMULATOR, self._simulator)):
            command = command.replace(usual, here)
        parts = command.split(" && ")
        if all(part.startswith(_OURS) for part in parts):
            for part in parts:
                self.ours(shlex.split(part.replace("\\\n", " "), comments=True)[3:])
        else:
            programs = shlex.quote(str(Path(sys.executable).parent))
            self._shell(command.replace("uv run ", f"{programs}/"))

    def ours(self, arguments: list[str]) -> None:
        environment = {"FACILITAIR_DATA": str(self._data), "NO_COLOR": "1"}
        with warnings.catch_warnings():
            # A command leaves its connections to the end of its process.
            warnings.simplefilter("ignore", ResourceWarning)
            found = CliRunner().invoke(app, arguments, env=environment)
            gc.collect()
        assert found.exit_code == 0, f"{arguments}: {found.output}\n{found.exception!r}"
        if "--no-wait" in arguments:
            self._settle(arguments[arguments.index("--id") + 1])

    def _settle(self, run: str) -> None:
        """Wait until a run has ended or asks somebody: a person is not as quick as the next line."""
        until = time.monotonic() + _SETTLE_SECONDS
        with httpx.Client(base_url=f"{self._api}/v1") as http:
            while time.monotonic() < until:
                asks: list[Any] = http.get("/tasks", params={"collaboration": run}).json()["items"]
                if asks or http.get(f"/collaborations/{run}").json().get("status") == "completed":
                    return
                time.sleep(0.05)
        raise AssertionError(f"{run} neither ends nor asks")

    def _shell(self, command: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FACILITAIR_DATA": str(self._data),
            "TEMPORAL_ADDRESS": self._temporal,
        }
        done = subprocess.run(
            ["bash", "-c", command], check=False, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the repository's, in which a page may write."""
    for path in ROOT.iterdir():
        if not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _runnable() -> Iterator[Any]:
    for page in PAGES:
        if any(block.language == "sh" and not block.not_run for block in blocks(page)):
            yield pytest.param(page, id=page.stem)


@pytest.mark.parametrize("page", list(_runnable()))
def test_a_page_runs_as_it_stands(page: Path, platform_of_pages: Supervisor, folder: Path) -> None:
    typed = CommandRunner(platform_of_pages)
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    for block in blocks(page):
        if block.language == "sh" and not block.not_run:
            for command in block.commands():
                typed.type(command)


def test_commands_stand_in_blocks_that_are_run() -> None:
    def is_hidden(block: PageBlock) -> bool:
        return block.language != "sh" and block.text.startswith(("facilitair ", "uv run ", "$ "))

    def is_bare(block: PageBlock) -> bool:
        return block.language == "sh" and block.text.startswith(("facilitair ", "python "))

    found = [block for page in PAGES for block in blocks(page)]
    assert [f"{one.page}:{one.line}" for one in found if is_hidden(one) or is_bare(one)] == []
    assert sum(bool(one.not_run) for one in found) <= 12
