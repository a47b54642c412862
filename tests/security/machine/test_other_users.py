"""What another user of the machine can do with a running platform; docs/operations.md says the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.local import Supervisor, process
from infra.local.private import PROGRAMS

STRANGER = Path(__file__).with_name("stranger.py")
FOREIGN = {"Origin": "http://evil.test"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def stranger(**asked: Any) -> dict[str, Any]:
    """What a user sees who is neither us nor the one that Postgres runs as."""
    user = 65_533 if process.unprivileged_user().startswith("65534:") else 65_534
    nothing: dict[str, Any] = {
        "files": [],
        "directories": [],
        "environments": [],
        "secrets": {},
        "requests": {},
    }
    found = subprocess.run(
        [sys.executable, "-I", str(STRANGER)],
        input=json.dumps(nothing | asked | {"user": user}),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(found.stdout))


def secrets_of(servers: Supervisor) -> dict[str, str]:
    return {path.name: path.read_text() for path in (servers.data / "secrets").iterdir()}


@as_root
def test_another_user_reads_no_file_and_lists_no_folder(platform: Any, servers: Supervisor) -> None:
    below = [path for path in servers.data.rglob("*") if PROGRAMS not in path.parts]
    files = [str(path) for path in below if path.is_file()]
    directories = [str(path) for path in (servers.data, *below) if path.is_dir()]
    names = {Path(path).name for path in files}
    assert names >= {"temporal.db", "api.log", "worker.log", "platform.json", "PG_VERSION", "lock"}
    told = stranger(files=files, directories=directories)
    assert (told["files"], told["directories"]) == ([], [])


@as_root
def test_no_password_stands_in_the_process_list_nor_in_an_environment_that_others_read(
    platform: Any, servers: Supervisor
) -> None:
    secrets = secrets_of(servers)
    assert secrets.keys() == {"payloads", "postgres", "neo4j", "weaviate", "weaviate_cluster"}
    pids = [one.pid for one in servers.state.services.values() if one.pid is not None]
    told = stranger(secrets=secrets, environments=[f"/proc/{pid}/environ" for pid in pids])
    assert (told["secrets"], told["environments"]) == ([], [])


@as_root
def test_the_process_list_is_really_looked_at(servers: Supervisor) -> None:
    servers.wait_ready("temporal")
    assert stranger(secrets={"the port": str(servers.state.ports["temporal"])})["secrets"] == ["the port"]


@as_root
@pytest.mark.usefixtures("weaviate")
def test_another_user_and_a_foreign_page_get_nothing_of_weaviate(servers: Supervisor) -> None:
    url = servers.addresses["weaviate"]
    ours = f"http://127.0.0.1:{servers.state.ports['api']}"
    told = stranger(
        requests={
            "ready": {"url": f"{url}/v1/.well-known/ready"},
            "reading": {"url": f"{url}/v1/objects", "headers": FOREIGN},
            "schema": {"url": f"{url}/v1/schema", "headers": FOREIGN},
            "asking": {
                "url": f"{url}/v1/graphql",
                "headers": {"Content-Type": "application/json"},
                "body": {"query": "{Aggregate{Collaboration{meta{count}}}}"},
            },
            "writing": {
                "url": f"{url}/v1/objects",
                "headers": {"Content-Type": "application/json"},
                "body": {"class": "Collaboration", "properties": {}},
            },
            "deleting": {"url": f"{url}/v1/schema/Collaboration", "method": "DELETE"},
            "wrong key": {"url": f"{url}/v1/schema", "headers": {"Authorization": "Bearer guessed"}},
            "asking whether it may": {
                "url": f"{url}/v1/objects",
                "method": "OPTIONS",
                "headers": FOREIGN | {"Access-Control-Request-Method": "DELETE"},
            },
        }
    )
    statuses = {name: status for name, (status, _) in told["requests"].items()}
    origins = {origin for _, origin in told["requests"].values()}
    assert statuses.pop("ready") == 200
    assert statuses.pop("asking whether it may") in (200, 204)
    assert set(statuses.values()) == {401}
    assert origins <= {ours, None}


@as_root
@pytest.mark.usefixtures("neo4j")
def test_another_user_gets_nothing_of_neo4j_and_postgres(servers: Supervisor) -> None:
    query = {
        "url": f"{servers.addresses['neo4j_http']}/db/neo4j/query/v2",
        "headers": {"Content-Type": "application/json"},
        "body": {"statement": "RETURN 1"},
    }
    assert stranger(requests={"query": query})["requests"]["query"][0] == 401
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(servers.addresses["postgres"], password="guessed")


@as_root
def test_what_stays_open_to_others_is_what_the_documentation_says(platform: Any, servers: Supervisor) -> None:
    """Temporal's own door and, without a key, ours have no login: docs/operations.md tells what to do."""
    servers.wait_ready("api")
    ui = f"{servers.addresses['temporal_ui']}/api/v1/namespaces/default/workflows"
    api = f"{servers.addresses['api']}/v1/definitions"
    told = stranger(requests={"ui": {"url": ui}, "api": {"url": api}})
    assert {name: status for name, (status, _) in told["requests"].items()} == {"ui": 200, "api": 200}
