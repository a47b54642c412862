"""Loopback ports, claimed for as long as a supervisor lives, so that two copies never choose the same."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from schema.errors import Unavailable

DEFAULTS: Mapping[str, int] = {
    "postgres": 5432,
    "temporal": 7233,
    "temporal_ui": 8233,
    "temporal_http": 7243,
    "temporal_metrics": 7253,
    "neo4j": 7687,
    "neo4j_http": 7474,
    "weaviate": 8080,
    "weaviate_grpc": 50051,
    "weaviate_gossip": 7946,
    "weaviate_data": 7947,
    "weaviate_raft": 8300,
    "weaviate_raft_rpc": 8301,
    "simulator": 7900,
    "api": 8700,
}
# Alternatives stay below the range from which the kernel picks ports for outgoing connections.
_ALTERNATIVES = range(21000, 29000)


class Ports:
    """Claims ports: a lock file per port keeps other supervisors off before anything listens."""

    def __init__(self, directory: Path | None = None, alternatives: range = _ALTERNATIVES) -> None:
        self._directory = directory or Path(tempfile.gettempdir()) / f"facilitair-{os.getuid()}" / "ports"
        self._alternatives = alternatives
        self._held: dict[int, IO[str]] = {}

    def choose(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """One free port for each name: the wanted one where possible."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # All wanted ones first: a replacement must not be a port that a later name had all along.
        chosen = {name: port for name, port in wanted.items() if self._claim(port)}
        return {name: chosen.get(name) or self._claim_another() for name in wanted}

    def release(self) -> None:
        for file in self._held.values():
            file.close()
        self._held.clear()

    def _claim_another(self) -> int:
        for port in self._alternatives:
            if self._claim(port):
                return port
        raise Unavailable(
            "no_port", f"found no free port on 127.0.0.1 in {self._alternatives}: end what uses them."
        )

    def _claim(self, port: int) -> bool:
        if port in self._held:
            return False
        file = (self._directory / str(port)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        if not is_free(port):
            file.close()
            return False
        self._held[port] = file
        return True


def is_free(port: int) -> bool:
    """Whether a server could listen there now; connections that are only winding down do not count."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
