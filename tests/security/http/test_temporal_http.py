"""Temporal's HTTP port, which the development server always opens, carries out nothing for anybody."""

import urllib.error
import urllib.request
import uuid

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from infra.local import Supervisor

HOSTS = (None, "evil.test", "127.0.0.1", "localhost", "*", "<nobody>", "")
PATHS = (
    "/api/v1/namespaces/default/workflows",
    "/api/v1/namespaces",
    "/namespaces/default/workflows",
    "/cluster/namespaces/default/search-attributes",
)


def status(servers: Supervisor, path: str, host: str | None, body: bytes | None = None) -> int:
    headers = {"Content-Type": "text/plain", "Origin": "http://evil.test"}
    headers |= {} if host is None else {"Host": host}
    url = f"http://127.0.0.1:{servers.state.ports['temporal_http']}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data=body, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("path", PATHS)
def test_it_reads_nothing_for_any_host(servers: Supervisor, path: str) -> None:
    servers.wait_ready("temporal")
    assert {status(servers, path, host) for host in HOSTS} <= {400, 403}


@pytest.mark.parametrize("host", HOSTS)
async def test_a_page_starts_no_run_through_it(
    servers: Supervisor, temporal_client: Client, host: str | None
) -> None:
    id = f"foreign-{uuid.uuid4()}"
    body = b'{"workflowType": {"name": "hello"}, "taskQueue": {"name": "nobody"}}'
    assert status(servers, f"/api/v1/namespaces/default/workflows/{id}", host, body) in (400, 403)
    with pytest.raises(RPCError) as missing:
        await temporal_client.get_workflow_handle(id).describe()
    assert missing.value.status == RPCStatusCode.NOT_FOUND
