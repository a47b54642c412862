"""A full disk stops new runs with a clear state, ends no supervision, and heals when there is room."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.exceptions import ApplicationError

from infra.disk import Disk
from infra.local import read_state, start
from infra.local.doctor import examine
from infra.local.process import Command
from infra.local.service import Service
from schema.errors import Refused, Unavailable
from schema.settings import Settings
from schema.temporal.runs import PinRequest
from tests.support.api_server import served
from tests.support.lifecycle import recording

ALL_OF_IT = 10_000_000_000
"""A reserve that no disk has."""
SERVE = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = Path(tempfile.mkdtemp(prefix="facilitair-test-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "facilitair-test", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    place.chmod(0o711)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
    shutil.rmtree(place, ignore_errors=True)


def fill(place: Path) -> Path:
    """Take all the room there is."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (64 * 1024, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return filler


def service(place: Path, name: str) -> Service:
    ready = place / f"{name}.ready"  # on another disk, which is not full

    def command() -> Command:
        ready.unlink(missing_ok=True)
        return Command([sys.executable, "-I", "-S", "-c", SERVE, str(ready)], dict(os.environ), place)

    return Service(name, command, ready.exists)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def test_supervision_goes_on_while_the_disk_is_full_and_is_written_down_afterwards(
    small_disk: Path, tmp_path: Path
) -> None:
    data = small_disk / "data"
    supervisor = start(
        data,
        services=[service(tmp_path, "api"), service(tmp_path, "worker")],
        given={"FACILITAIR_DISK_RESERVE_MIB": "1"},
    )
    try:
        supervisor.wait_ready("api", "worker", timeout_seconds=20)
        until(lambda: (read_state(data) or supervisor.state) == supervisor.state)
        filler = fill(small_disk)
        for _ in range(2):
            first = supervisor.state.services["worker"].pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            until(lambda first=first: supervisor.state.services["worker"].pid not in (None, first))  # type: ignore[misc]
            supervisor.wait_ready("worker", timeout_seconds=20)
        stale = read_state(data)
        assert stale is not None
        assert stale != supervisor.state
        assert stale.disk_full.startswith("the disk is full: found 0 MiB free")
        assert next(one.verdict for one in examine(data, {}) if one.check == "disk") == "bad"
        filler.unlink()
        until(lambda: read_state(data) == supervisor.state)
        healed = read_state(data)
        assert healed is not None
        assert (healed.disk_full, healed.services["worker"].restarts) == ("", 2)
        fill(small_disk)
    finally:
        supervisor.stop()
    assert {one.status for one in supervisor.state.services.values()} == {"stopped"}


def test_a_server_that_lives_and_no_longer_answers_is_started_again(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    plain = service(tmp_path, "neo4j")
    mute = replace(plain, ready=lambda: plain.ready() and not shut.exists(), patience_seconds=0.4)
    supervisor = start(tmp_path / "data", services=[mute], given={})
    try:
        supervisor.wait_ready("neo4j", timeout_seconds=20)
        first = supervisor.state.services["neo4j"].pid
        shut.touch()
        until(lambda: supervisor.state.services["neo4j"].pid not in (None, first))
        shut.unlink()
        supervisor.wait_ready("neo4j", timeout_seconds=20)
        assert supervisor.state.services["neo4j"].restarts >= 1
    finally:
        supervisor.stop()


def test_a_platform_that_cannot_write_to_its_directory_says_so_plainly(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(Unavailable) as refused:
        start(small_disk / "data", services=[], given={})
    assert refused.value.code == "platform_failed"
    assert "No space left on device" in refused.value.message


def test_room_is_measured_where_the_data_lies() -> None:
    full = Disk("/", ALL_OF_IT)
    with pytest.raises(Unavailable) as refused:
        full.require_room()
    assert refused.value.code == "disk_full"
    assert (Disk("/", 0).full, Disk("", ALL_OF_IT).full) == ("", "")
    assert Disk.of({}) == Disk("", 512)
    assert Disk.of({"FACILITAIR_DATA": "/x", "FACILITAIR_DISK_RESERVE_MIB": "7"}) == Disk("/x", 7)


def test_a_reserve_that_is_no_number_is_refused(tmp_path: Path) -> None:
    for wrong in ("much", "-1", "nan"):
        with pytest.raises(Refused) as refused:
            start(tmp_path / "data", services=[], given={"FACILITAIR_DISK_RESERVE_MIB": wrong})
        assert refused.value.code == "disk_reserve_invalid"


async def test_the_api_refuses_new_runs_reads_on_and_tells_its_health(settings: Settings) -> None:
    full = settings.model_copy(update={"data": "/", "disk_reserve_mib": ALL_OF_IT})
    async with served(full) as door:
        began = await door.http.post("/v1/collaborations", json={"definition": "hello", "input": {}})
        assert (began.status_code, began.json()["code"]) == (503, "disk_full")
        assert (await door.http.get("/v1/collaborations")).status_code == 200
        health = await door.http.get("/health/ready")
        disk = health.json()["checks"]["disk"]
        assert (health.status_code, disk["ok"], disk["required"]) == (200, False, False)
        assert disk["detail"].startswith("the disk is full")


async def test_a_run_that_temporal_has_taken_waits_for_room(engine: AsyncEngine) -> None:
    request = PinRequest("w", str(uuid.uuid4()), "hello", {}, "default", None, None)
    async with recording(engine, disk=Disk("/", ALL_OF_IT)) as waiting:
        with pytest.raises(ApplicationError) as refused:
            await waiting.pin(request)
    assert (refused.value.type, refused.value.non_retryable) == ("disk_full", False)
    assert refused.value.next_retry_delay is not None
