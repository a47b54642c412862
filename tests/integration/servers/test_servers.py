"""The real servers, from nothing: they answer, stay on loopback, keep their data, leave no orphans."""

import json
import os
import signal
import socket
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import neo4j
import psycopg
import pytest
from temporalio.client import Client

from infra.local import PlatformState, Supervisor, process, read_state, start, start_detached, stop_running
from infra.local.java import bundled_java, java_version
from infra.local.state import ServiceState
from schema.temporal import search_attributes

SERVERS = ("postgres", "temporal", "neo4j", "weaviate")
BUILD_SECONDS = 900
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 300)
Begin = Callable[..., Supervisor]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not pytest's own: each new session of pytest closes its parent to other users, Postgres among them."""
    with tempfile.TemporaryDirectory(prefix="facilitair-test-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)  # data directories are made in it, and Postgres' user passes through
        yield Path(directory)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    running: list[Supervisor] = []

    def start_here(name: str, *only: str) -> Supervisor:
        running.append(start(tmp_path / name, only, given={}))
        return running[-1]

    yield start_here
    for one in running:
        one.stop()


def weaviate_json(environment: Mapping[str, str], path: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {environment['WEAVIATE_API_KEY']}",
    }
    request = urllib.request.Request(f"{environment['WEAVIATE_URL']}/v1/{path}", data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def cypher(environment: dict[str, str], query: str) -> list[list[object]]:
    auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    with neo4j.GraphDatabase.driver(environment["NEO4J_URI"], auth=auth) as driver:
        return [list(record) for record in driver.execute_query(query).records]


def sockets_of(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed while we looked
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of every socket that takes what others send."""
    mine, found = sockets_of(pid), set()
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and fields[9] in mine:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def living(state: PlatformState) -> list[ServiceState]:
    return [one for one in state.services.values() if process.is_same(one.pid, one.process_started)]


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)


async def test_temporal_answers_and_knows_our_search_attributes(servers: Supervisor) -> None:
    servers.wait_ready("temporal")
    client = await Client.connect(servers.addresses["temporal"])
    started = await client.start_workflow("nobody", id=f"w-{uuid.uuid4()}", task_queue="nobody")
    try:
        async for event in started.fetch_history_events():
            timeout = event.workflow_execution_started_event_attributes.workflow_task_timeout
            assert timeout.ToTimedelta().total_seconds() == 2
            break
        for name, kind in search_attributes.KINDS.items():
            value = "1.5" if kind == "Double" else "'x'"
            assert (await client.count_workflows(f"{name} = {value}")).count == 0
    finally:
        await started.terminate()


def test_postgres_answers_with_pgvector_and_asks_for_the_password(servers: Supervisor) -> None:
    servers.wait_ready("postgres")
    url = servers.addresses["postgres"]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert connection.execute("SELECT '[1,0]'::vector <=> '[0,1]'::vector").fetchone() == (1.0,)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        connection.rollback()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url, password="wrong")


def test_neo4j_answers(servers: Supervisor) -> None:
    servers.wait_ready("neo4j", timeout_seconds=BUILD_SECONDS)
    assert cypher(dict(servers.environment), "RETURN 1") == [[1]]
    with pytest.raises(neo4j.exceptions.AuthError):
        cypher({**servers.environment, "NEO4J_PASSWORD": "wrong"}, "RETURN 1")


def test_weaviate_answers(servers: Supervisor) -> None:
    servers.wait_ready("weaviate", timeout_seconds=BUILD_SECONDS)
    meta = weaviate_json(servers.environment, "meta")
    assert isinstance(meta, dict)
    assert meta["version"] == "1.35.2"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_nothing_listens_beyond_loopback(servers: Supervisor) -> None:
    servers.wait_ready(*SERVERS, timeout_seconds=BUILD_SECONDS)
    for name in SERVERS:
        pid = servers.state.services[name].pid
        assert pid is not None
        found = listening(pid)
        assert found, f"{name} listens nowhere"
        assert {(address, port) for address, port in found if address not in LOOPBACK} == set(), name


async def test_data_survives_a_killed_supervisor_which_leaves_no_orphans(
    tmp_path: Path, begin: Begin
) -> None:
    data = tmp_path / "one"
    supervisor_pid = start_detached(data, SERVERS)
    try:
        until(lambda: _all_answer(data), BUILD_SECONDS)
        before = _state(data)
        environment = dict(before.environment)
        with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id int)")
            connection.execute("INSERT INTO kept VALUES (7)")
        client = await Client.connect(environment["TEMPORAL_ADDRESS"])
        await client.start_workflow("nobody", id="kept", task_queue="nobody")
        cypher(environment, "CREATE (:Kept {id: 7})")
        weaviate_json(environment, "schema", {"class": "Kept", "vectorizer": "none"})
    finally:
        os.kill(supervisor_pid, signal.SIGKILL)
    until(lambda: not living(before), 30)

    # Two addresses are taken while it is down: the servers move, with their data.
    with (
        socket.create_server(("127.0.0.1", before.ports["weaviate_raft"])),
        socket.create_server(("127.0.0.1", before.ports["postgres"])),
    ):
        again = begin("one", *SERVERS)
        again.wait_ready(*SERVERS, timeout_seconds=120)
        moved = {name for name, port in again.state.ports.items() if port != before.ports[name]}
        assert moved == {"weaviate_raft", "postgres"}
        environment = dict(again.environment)
        with psycopg.connect(environment["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(7,)]
        client = await Client.connect(environment["TEMPORAL_ADDRESS"])
        assert (await client.get_workflow_handle("kept").describe()).workflow_type == "nobody"
        assert cypher(environment, "MATCH (k:Kept) RETURN k.id") == [[7]]
        weaviate_json(environment, "schema", {"class": "Later", "vectorizer": "none"})
        schema = weaviate_json(environment, "schema")
        assert isinstance(schema, dict)
        assert sorted(one["class"] for one in schema["classes"]) == ["Kept", "Later"]


def test_a_detached_platform_is_adopted_and_ended_by_others(tmp_path: Path) -> None:
    data = tmp_path / "detached"
    first = start_detached(data, ["postgres"])
    try:
        assert start_detached(data, ["postgres"]) == first
        until(lambda: _state(data).services["postgres"].answers, 60)
        state = _state(data)
        assert state.running
    finally:
        assert stop_running(data)
    assert living(state) == []
    assert not _state(data).running
    assert not stop_running(data)


def test_two_copies_on_one_machine_do_not_collide(begin: Begin) -> None:
    copies = [begin(name, *SERVERS) for name in ("first", "second")]
    for one in copies:
        one.wait_ready(*SERVERS, timeout_seconds=BUILD_SECONDS)
    ports = [port for one in copies for port in one.state.ports.values()]
    assert len(set(ports)) == len(ports)
    for number, one in enumerate(copies):
        weaviate_json(one.environment, "schema", {"class": f"Copy{number}", "vectorizer": "none"})
    for number, one in enumerate(copies):
        schema = weaviate_json(one.environment, "schema")
        assert isinstance(schema, dict)
        assert [found["class"] for found in schema["classes"]] == [f"Copy{number}"]


def test_postgres_comes_back_after_kill_9_and_with_a_stale_pid_file(tmp_path: Path, begin: Begin) -> None:
    supervisor = begin("one", "postgres")
    supervisor.wait_ready("postgres")
    with psycopg.connect(supervisor.addresses["postgres"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS id")
    supervisor.kill("postgres", restart=False)
    until(lambda: supervisor.state.services["postgres"].status == "stopped", 10)
    lock = tmp_path / "one" / "postgres" / "postmaster.pid"
    # What a container's restart leaves: the pid in the file belongs to someone else by now.
    lock.write_text("\n".join([str(os.getpid()), *lock.read_text().splitlines()[1:]]) + "\n")
    supervisor.restart("postgres")
    supervisor.wait_ready("postgres")
    with psycopg.connect(supervisor.addresses["postgres"]) as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(7,)]


def test_the_bundled_java_suits_neo4j() -> None:
    java = bundled_java()
    assert java is not None
    assert java_version(java) == 21


def _all_answer(data: Path) -> bool:
    services = _state(data).services.values()
    assert [one for one in services if one.status == "failed"] == []
    return all(one.answers for one in services)


def _state(data: Path) -> PlatformState:
    found = read_state(data)
    assert found is not None
    return found
