"""Describe one process to the supervisor, and how to ask whether it answers."""

import base64
import json
import signal
import socket
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from infra.local.process import Command, SetupProgress


def nothing_to_prepare(progress: SetupProgress) -> None:
    """Most services come with the Python environment."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process. `command` None: it is external, never started, only asked whether it answers."""

    name: str
    command: Callable[[], Command] | None
    ready: Callable[[], bool]
    """True once it answers; False or any OSError means not yet."""
    address: str = ""
    depends_on: tuple[str, ...] = ()
    prepare: Callable[[SetupProgress], None] = nothing_to_prepare
    one_shot: bool = False
    """Ready when it has ended with 0; the others are ready when they answer and start again when they end."""
    essential: bool = True
    start_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when the supervisor dies. Servers with a store get their own clean stop."""
    patience_seconds: float | None = None
    """A server that was ready and has not answered for this long is started again; None never asks it
    again."""
    private_log: Path | None = None
    """File with the reason of a failure, if its output does not have it."""


def http_answers(url: str, *, post: object = None, user: tuple[str, str] | None = None) -> bool:
    """Tell whether a request is answered with success."""
    headers = {"Content-Type": "application/json"}
    if user is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
    body = None if post is None else json.dumps(post).encode()
    request = urllib.request.Request(url, data=body, headers=headers)
    # No proxy: the servers are on loopback, and a proxy from the environment would be asked for them.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=2):
        return True


def tcp_answers(address: str, default_port: int) -> bool:
    """Tell whether something accepts connections at host:port or scheme://host:port."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or default_port), timeout=2):
        return True


def postgres_answers(url: str, *, create: bool = False) -> bool:
    """Tell whether a database answers; `create` makes it first if the server has none of that name."""
    import psycopg
    from psycopg import conninfo, sql

    try:
        with psycopg.connect(url, connect_timeout=3, autocommit=True) as connection:
            return connection.execute("SELECT 1").fetchone() is not None
    except psycopg.OperationalError:
        if not create:
            return False
    name = str(conninfo.conninfo_to_dict(url)["dbname"])
    try:
        with psycopg.connect(
            conninfo.make_conninfo(url, dbname="postgres"), connect_timeout=3, autocommit=True
        ) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.OperationalError:
        return False
    return postgres_answers(url)
