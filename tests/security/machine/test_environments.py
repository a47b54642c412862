"""Keys and passwords reach the processes that need them, and no output that is printed or logged."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from examples.codec.codec import data_converter, proof
from infra.local import Supervisor, neo4j, process, start
from infra.local.java import find_java
from infra.local.process import SetupProgress
from infra.local.state import PlatformState

GIVEN = {
    "OPENAI_API_KEY": "the-providers-key",
    "FACILITAIR_KEY_ACME_MAIN": "a-tenants-key",
    "AWS_SECRET_ACCESS_KEY": "a-clouds-key",
    "GITHUB_TOKEN": "a-forges-token",
    "FACILITAIR_API_KEY": "the-platforms-own-key",
}
PROVIDERS = set(GIVEN.values()) - {"the-platforms-own-key"}


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Not pytest's own folder, which is closed to other users: Postgres runs as one where we are root."""
    with tempfile.TemporaryDirectory(prefix="facilitair-test-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture
def keyed(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A platform that was started from a shell full of keys."""
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    supervisor = start(open_path / "data", ["api", "worker"], given={})
    yield supervisor
    supervisor.stop()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_providers_key_reaches_workers_alone(keyed: Supervisor) -> None:
    keyed.wait_ready(timeout_seconds=120)
    found = {}
    for name, one in keyed.state.services.items():
        if one.pid is not None:
            environment = Path(f"/proc/{one.pid}/environ").read_text()
            found[name] = {value for value in GIVEN.values() if value in environment}
    assert found == {
        "temporal": set(),
        "postgres": set(),
        "simulator": set(),
        "api": {"the-platforms-own-key"},
        "worker": PROVIDERS,
    }


async def test_workers_learn_that_the_api_has_a_key(keyed: Supervisor) -> None:
    await asyncio.to_thread(keyed.wait_ready, timeout_seconds=120)
    keys = keyed.environment["FACILITAIR_PAYLOAD_KEYS"]
    document = {"name": "plain", "steps": {"a": {"kind": "transform", "value": "done"}}}
    async with httpx.AsyncClient(base_url=keyed.addresses["api"]) as http:
        stored = await http.post(
            "/v1/definitions", json=document, headers={"x-api-key": GIVEN["FACILITAIR_API_KEY"]}
        )
        assert stored.status_code == 201
    client = await Client.connect(keyed.addresses["temporal"], data_converter=data_converter(keys))
    with pytest.raises(WorkflowFailureError) as refused:
        await client.execute_workflow("plain", {}, id="forged", task_queue="collaborations")
    assert isinstance(refused.value.cause, ApplicationError) and refused.value.cause.type == "proof_missing"
    memo = {"facilitair_proof": proof(keys, "proven", "plain")}
    proven = client.execute_workflow("plain", {}, id="proven", task_queue="collaborations", memo=memo)
    assert await proven == "done"


def test_status_as_json_tells_no_password(servers: Supervisor) -> None:
    servers.wait_ready("postgres")
    secrets = [path.read_text() for path in (servers.data / "secrets").iterdir()]
    shown = subprocess.run(
        [sys.executable, "-m", "cli.main", "status", "--json", "--data", str(servers.data)],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(shown.stdout)
    assert told["addresses"]["postgres"].startswith("postgresql://postgres:…@127.0.0.1:")
    assert told["environment"].keys() >= {"DATABASE_URL", "NEO4J_USER", "WEAVIATE_URL"}
    assert [secret for secret in secrets if secret in shown.stdout] == []


def test_no_key_of_a_server_elsewhere_is_told() -> None:
    state = PlatformState(
        addresses={"postgres": "postgresql://db.example/f?user=u&password=hidden&sslmode=require"},
        environment={"NEO4J_URI": "bolt://u:hidden@graph.example", "WEAVIATE_API_KEY": "hidden"},
    )
    told = state.as_json()
    assert told["addresses"] == {"postgres": "postgresql://db.example/f?user=u&password=…&sslmode=require"}
    assert told["environment"] == {"NEO4J_URI": "bolt://u:…@graph.example"}


@pytest.mark.usefixtures("neo4j")
def test_neo4js_first_password_is_on_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "5ec2e7" * 8
    home = tmp_path / "neo4j"
    (home / "conf").mkdir(parents=True)
    (home / "conf" / "neo4j.conf").touch()
    commands: list[str] = []
    real = process.run_tool

    def looked_at(argv: list[str], *rest: object, **how: object) -> str:
        commands.extend(argv)
        return real(argv, *rest, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(process, "run_tool", looked_at)
    neo4j._set_password(home, secret, SetupProgress())
    assert commands[0] == str(find_java())
    assert [argument for argument in commands if secret in argument] == []
    assert [path.name for path in home.iterdir() if path.is_file()] == []
    stored = (home / "data" / "dbms" / "auth.ini").read_text()
    assert stored.startswith("neo4j:SHA-256,")
    assert secret not in stored
