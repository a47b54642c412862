"""What the platform writes is its owner's alone, and no directory is opened for it."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import postgres, private, process, start
from infra.local.process import Command, SetupProgress
from infra.local.service import Service
from schema.errors import Refused, Unavailable

WRITE = """
import os, sys, time
print("a line of the log", flush=True)
os.mkdir("store")
open("store/row", "w").close()
open(sys.argv[1], "w").close()
time.sleep(600)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Not pytest's own folder, which is closed to other users."""
    with tempfile.TemporaryDirectory(prefix="facilitair-test-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


def writer(data: Path) -> Service:
    ready = data / "ready"

    def command() -> Command:
        argv = [sys.executable, "-I", "-S", "-c", WRITE, str(ready)]
        return Command(argv, dict(os.environ), data)

    return Service("writer", command, ready.exists)


def open_to_others(data: Path) -> dict[str, str]:
    """Everything below that others may do something with, and their mode."""
    found = {}
    for path in data.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o077 and not path.is_symlink():
            found[str(path.relative_to(data))] = f"{mode:o}"
    return found


def test_what_the_supervisor_and_its_processes_write_is_private(tmp_path: Path) -> None:
    data = tmp_path / "data"
    supervisor = start(data, services=[writer(data)], given={})
    try:
        supervisor.wait_ready("writer", timeout_seconds=20)
        assert open_to_others(data) == {}
        assert {path.name for path in data.iterdir()} >= {"lock", "logs", "platform.json", "secrets", "store"}
    finally:
        supervisor.stop()
    assert stat.S_IMODE(data.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


def test_what_an_earlier_version_left_open_is_closed_at_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("temporal/temporal.db", "logs/api.log", "weaviate/raft/raft.db"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("kept")
        (data / name).chmod(0o644)
        (data / name).parent.chmod(0o755)
    (tmp_path / "outside").touch(mode=0o644)
    (data / "link").symlink_to(tmp_path / "outside")
    before = stat.S_IMODE((tmp_path / "outside").stat().st_mode)
    start(data, services=[], given={}).stop()
    assert open_to_others(data) == {}
    assert (data / "temporal" / "temporal.db").read_text() == "kept"
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == before


@as_root
def test_a_data_directory_below_a_closed_one_is_refused_and_nothing_opened(open_path: Path) -> None:
    closed = open_path / "home"
    closed.mkdir(mode=0o700)
    with pytest.raises(Refused) as refused:
        start(closed / "data", ["postgres"], given={})
    assert refused.value.code == "data_directory_closed"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_programs_that_are_closed_to_postgres_user_are_copied_and_not_opened(
    open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = open_path / "home" / "installation"
    (installed / "bin").mkdir(parents=True)
    (open_path / "home").chmod(0o700)
    (installed / "bin" / "postgres").write_text("#!/bin/sh\necho started\n")
    (installed / "bin" / "postgres").chmod(0o700)
    (installed / "share").write_text("words")
    (installed / "share").chmod(0o600)
    monkeypatch.setattr(postgres, "_installation", lambda: installed)
    data = open_path / "data"
    data.mkdir(mode=0o711)
    program = postgres._programs(data) / "postgres"
    user = process.unprivileged_user()
    assert process.run_tool([str(program)], SetupProgress(), directory=open_path, user=user) == "started\n"
    assert stat.S_IMODE((open_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((program.parent.parent / "share").stat().st_mode) == 0o644
    with pytest.raises(Unavailable):  # the proof that it had to be copied
        process.run_tool(
            [str(installed / "bin" / "postgres")], SetupProgress(), directory=open_path, user=user
        )
    start(data, services=[], given={}).stop()
    assert process.run_tool([str(program)], SetupProgress(), directory=open_path, user=user) == "started\n"


def test_a_log_is_turned_while_its_process_runs(tmp_path: Path) -> None:
    from infra.local.process import older
    from infra.local.upkeep import turn

    log = tmp_path / "api.log"
    with private.appended(log) as writing:
        writing.write(b"before\n")
        writing.flush()
        turn(log)
        writing.write(b"after\n")
    assert older(log).read_text() == "before\n"
    assert log.read_text() == "after\n"
