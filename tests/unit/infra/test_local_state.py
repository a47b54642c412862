import os
from pathlib import Path

import pytest

from infra.local import process, state
from infra.local.state import PlatformState, ServiceState
from schema.errors import Refused


def test_the_state_comes_back_whole_and_is_private(tmp_path: Path) -> None:
    written = PlatformState(
        pid=os.getpid(),
        process_started=process.started(os.getpid()),
        ports={"api": 8700},
        addresses={"api": "http://127.0.0.1:8700"},
        environment={"NEO4J_PASSWORD": "secret"},
        services={"api": ServiceState("api", status="ready", pid=7, process_started="x")},
    )
    state.write(tmp_path, written)
    assert state.read(tmp_path) == written
    assert written.running
    assert (tmp_path / state.STATE_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"services": {"api": {}}}', '{"services": [1]}'])
def test_a_damaged_state_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / state.STATE_FILE).write_text(text)
    assert state.read(tmp_path) is None


def test_a_reused_pid_is_not_the_process_that_was_recorded() -> None:
    assert not PlatformState(pid=os.getpid(), process_started="another boot:1").running
    assert not PlatformState(pid=None, process_started=None).running


def test_only_what_is_essential_has_to_answer() -> None:
    mine = process.started(os.getpid())
    services = {"api": ServiceState("api", "ready"), "neo4j": ServiceState("neo4j", essential=False)}
    assert PlatformState(os.getpid(), mine, services=services).ready
    services["api"] = ServiceState("api", "starting")
    assert not PlatformState(os.getpid(), mine, services=services).ready


def test_a_data_directory_has_one_owner_and_the_second_is_told_who(tmp_path: Path) -> None:
    with state.lock(tmp_path):
        with pytest.raises(Refused, match=f"process {os.getpid()}") as refused:
            state.lock(tmp_path)
        assert refused.value.code == "already_running"
    state.lock(tmp_path).close()


def test_a_password_stays_with_its_data(tmp_path: Path) -> None:
    first = state.password(tmp_path, "postgres")
    assert state.password(tmp_path, "postgres") == first
    assert state.password(tmp_path, "neo4j") != first
    assert first.isalnum()
    assert (tmp_path / "secrets" / "postgres").stat().st_mode & 0o777 == 0o600
