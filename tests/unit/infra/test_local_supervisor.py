"""The supervisor over tiny stand-in processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local import process, read_state, start
from infra.local.process import Command, SetupProgress
from infra.local.service import Service
from infra.local.state import ServiceState
from infra.local.supervisor import Supervisor, closure, levels
from schema.errors import Refused, Unavailable

Start = Callable[..., Supervisor]

SERVE = """
import os, signal, sys, time
def leave(*_):
    with open(sys.argv[2], "a") as order:
        order.write(sys.argv[3] + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1], "w").close()
time.sleep(600)
"""
DEAF = SERVE.replace("SIGTERM, leave", "SIGTERM, signal.SIG_IGN")


def service(tmp_path: Path, name: str, *needs: str, script: str = SERVE) -> Service:
    ready = tmp_path / f"{name}.ready"

    def command() -> Command:
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-I", "-S", "-c", script, str(ready), str(tmp_path / "order"), name]
        return Command(argv, dict(os.environ), tmp_path)

    return Service(name, command, ready.exists, depends_on=needs)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    running: list[Supervisor] = []

    def begin(
        *services: Service, on_event: Callable[[ServiceState], None] = lambda event: None
    ) -> Supervisor:
        running.append(start(tmp_path / "data", services=services, given={}, on_event=on_event))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.005)


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.state.services[name].pid
    assert pid is not None
    return pid


def test_services_are_grouped_by_what_they_need(tmp_path: Path) -> None:
    services = [
        service(tmp_path, "api", "migrate", "temporal"),
        service(tmp_path, "migrate", "postgres"),
        service(tmp_path, "postgres"),
        service(tmp_path, "temporal"),
    ]
    assert levels(services) == [["postgres", "temporal"], ["migrate"], ["api"]]
    assert [one.name for one in closure(services, ["migrate"])] == ["migrate", "postgres"]
    with pytest.raises(Refused, match="expected some of api"):
        closure(services, ["redis"])
    with pytest.raises(Refused, match="need each other"):
        levels([service(tmp_path, "a", "b"), service(tmp_path, "b", "a")])


def test_each_starts_when_what_it_needs_answers_and_they_end_in_reverse(
    tmp_path: Path, started: Start
) -> None:
    events: list[tuple[str, str]] = []
    supervisor = started(
        service(tmp_path, "api", "migrate"),
        replace(service(tmp_path, "migrate", "postgres", script="pass"), one_shot=True),
        service(tmp_path, "postgres"),
        on_event=lambda event: events.append((event.name, event.status)),
    )
    supervisor.wait_ready()
    ready = [name for name, status in events if status == "ready"]
    assert ready == ["postgres", "migrate", "api"]
    supervisor.stop()
    assert (tmp_path / "order").read_text().split() == ["api", "postgres"]
    last = read_state(tmp_path / "data")
    assert last is not None
    assert not last.running
    assert {one.pid for one in last.services.values()} == {None}


def test_a_killed_service_is_back_at_once(tmp_path: Path, started: Start) -> None:
    supervisor = started(service(tmp_path, "worker"))
    supervisor.wait_ready()
    first = pid_of(supervisor, "worker")
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.state.services["worker"].pid not in (None, first))
    assert time.monotonic() - began < 0.5
    supervisor.wait_ready("worker")
    assert supervisor.state.services["worker"].restarts == 1


def test_a_service_killed_for_good_stays_down_until_it_is_started_again(
    tmp_path: Path, started: Start
) -> None:
    supervisor = started(service(tmp_path, "worker"))
    supervisor.wait_ready()
    supervisor.kill("worker", restart=False)
    until(lambda: supervisor.state.services["worker"].status == "stopped")
    supervisor.restart("worker")
    supervisor.wait_ready("worker")


def test_a_restart_ends_the_old_process_first(tmp_path: Path, started: Start) -> None:
    supervisor = started(service(tmp_path, "worker"))
    supervisor.wait_ready()
    first = pid_of(supervisor, "worker")
    supervisor.restart("worker")
    until(lambda: supervisor.state.services["worker"].pid not in (None, first))
    supervisor.wait_ready("worker")
    assert (tmp_path / "order").read_text().split() == ["worker"]
    assert process.started(first) is None


def test_a_service_that_keeps_failing_is_called_failed_with_its_last_words(
    tmp_path: Path, started: Start
) -> None:
    broken = service(tmp_path, "api", script="raise SystemExit('no such table: definitions')")
    supervisor = started(broken, service(tmp_path, "worker", "api"))
    with pytest.raises(Unavailable, match="no such table: definitions"):
        supervisor.wait_ready("worker", timeout_seconds=30)
    assert supervisor.state.services["api"].status == "failed"


def test_slow_preparation_holds_up_nobody_else(tmp_path: Path, started: Start) -> None:
    may_finish = threading.Event()

    def slow(progress: SetupProgress) -> None:
        progress.say("building")
        may_finish.wait(10)

    weaviate = replace(service(tmp_path, "weaviate"), prepare=slow, essential=False)
    supervisor = started(weaviate, service(tmp_path, "api"))
    supervisor.wait_ready()
    assert supervisor.state.ready
    assert supervisor.state.services["weaviate"].message == "building"
    may_finish.set()
    supervisor.wait_ready("weaviate")


def test_a_failed_preparation_says_why(tmp_path: Path, started: Start) -> None:
    def refuse(progress: SetupProgress) -> None:
        raise Unavailable("java_missing", "no Java 17 or 21 was found")

    supervisor = started(replace(service(tmp_path, "neo4j"), prepare=refuse))
    with pytest.raises(Unavailable, match="neo4j is failed no Java 17 or 21 was found"):
        supervisor.wait_ready("neo4j")


def test_a_process_that_ignores_the_stop_signal_is_killed(tmp_path: Path, started: Start) -> None:
    supervisor = started(replace(service(tmp_path, "deaf", script=DEAF), stop_seconds=0.2))
    supervisor.wait_ready()
    pid = pid_of(supervisor, "deaf")
    supervisor.stop()
    assert process.started(pid) is None


def test_a_server_elsewhere_is_asked_and_never_started(tmp_path: Path, started: Start) -> None:
    answers = threading.Event()
    supervisor = started(
        Service("temporal", None, answers.is_set, "temporal.internal:7233"),
        service(tmp_path, "worker", "temporal"),
    )
    with pytest.raises(Unavailable, match=r"no answer at temporal\.internal:7233"):
        supervisor.wait_ready("temporal", timeout_seconds=0.2)
    assert supervisor.state.services["worker"].pid is None
    answers.set()
    supervisor.wait_ready("worker")
    assert supervisor.state.services["temporal"].status == "external"


def test_the_second_start_of_a_directory_is_refused(tmp_path: Path, started: Start) -> None:
    started(service(tmp_path, "worker")).wait_ready()
    with pytest.raises(Refused, match="already run by process"):
        started(service(tmp_path, "worker"))


ORPHANS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_local_supervisor import DEAF, SERVE, service
from infra.local import start
where = Path(sys.argv[1])
services = [service(where, "a"), service(where, "b", script=DEAF)]
start(where / "data", services=services, given={{}}).wait_ready()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux ends the children")
def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    script = ORPHANS.format(tests=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        left = read_state(tmp_path / "data")
        parent.kill()
    assert left is not None
    until(lambda: not any(process.is_same(one.pid, one.process_started) for one in left.services.values()))


def test_what_an_earlier_supervisor_left_running_is_ended(tmp_path: Path, started: Start) -> None:
    from infra.local import state

    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]) as survivor:
        left = ServiceState(
            "worker", "ready", pid=survivor.pid, process_started=process.started(survivor.pid)
        )
        (tmp_path / "data").mkdir()
        state.write(tmp_path / "data", state.PlatformState(services={"worker": left}))
        started(service(tmp_path, "worker")).wait_ready()
        assert survivor.wait(5) == -signal.SIGTERM


def test_ports_are_the_same_after_a_restart(tmp_path: Path, started: Start) -> None:
    first = started(service(tmp_path, "worker"))
    first.stop()
    second = started(service(tmp_path, "worker"))
    assert second.state.ports == first.state.ports
    assert second.environment == first.environment
