"""Loopback ports, claimed for as long as a supervisor lives, so that two copies never choose the same."""

import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from infra.local import cache, private
from schema.errors import Refused, Unavailable

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
        self._directory = directory or registry()
        self._alternatives = alternatives
        self._held: dict[int, int] = {}

    def choose(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """One free port for each name: the wanted one where possible."""
        private.owned(self._directory)
        # All wanted ones first: a replacement must not be a port that a later name had all along.
        chosen = {name: port for name, port in wanted.items() if self._claim(port)}
        return {name: chosen.get(name) or self._claim_another() for name in wanted}

    def release(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
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
        descriptor = _opened(self._directory / str(port))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        if not is_free(port):
            os.close(descriptor)
            return False
        self._held[port] = descriptor
        return True


def registry() -> Path:
    """Return the directory of the lock files: one a user, never one that another user could have made."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "facilitair" / "ports" if runtime else cache.cache_dir() / "ports"


def _opened(path: Path) -> int:
    """Open a lock file to lock it: its content is nobody's, so it is neither read nor cut off."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(
            "directory_not_ours",
            f"found {path}, which cannot be opened as a lock file ({error.strerror}); expected a plain file "
            "of ours. Remove it.",
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise Refused(
            "directory_not_ours",
            f"found {path}, which is no plain file of ours; expected a lock file. Remove it.",
        )
    return descriptor


def is_free(port: int) -> bool:
    """Tell whether a server could listen there now; closing connections do not count."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
