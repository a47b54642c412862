"""Weaviate 1.35, one node, built from its Go module so that every one of its ports stays on loopback."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from infra.local import cache, private, process
from infra.local.go import find_go
from infra.local.process import Command, SetupProgress
from infra.local.service import Service, http_answers
from schema.errors import Unavailable

VERSION = "1.35.2"
MODULE_SUM = "h1:D/cB4Lz8BIhE8s6cMUa4dRhlz356r1LRqDLgr5pKhPA="
"""Go's sum of the module's files; the module's own go.sum holds those of everything that it needs."""
MODULE = "github.com/weaviate/weaviate"
_EVERY_INTERFACE = 'fmt.Sprintf(":%d"'
_LOOPBACK = 'fmt.Sprintf("127.0.0.1:%d"'
_LISTENERS = (
    "adapters/handlers/grpc/server.go",
    "adapters/handlers/rest/clusterapi/serve.go",
    "adapters/handlers/rest/clusterapi/grpc/server.go",
)
"""Weaviate has no setting for the interface of its gRPC and cluster-data ports; these files bind them."""


def build_dir() -> Path:
    return cache.cache_dir() / "weaviate" / f"{VERSION}-loopback"


def binary() -> Path:
    """The one named by FACILITAIR_WEAVIATE_BINARY, else the cached build (which may not be there yet)."""
    named = os.environ.get("FACILITAIR_WEAVIATE_BINARY")
    return Path(named).expanduser() if named else build_dir() / "weaviate-server"


def service(data: Path, ports: Mapping[str, int], *, password: str, key: str) -> Service:
    """`ports` by their names in infra.local.ports; `key` opens its API, `password` its cluster port."""
    store = data / "weaviate"
    port = ports["weaviate"]

    def command() -> Command:
        private.directory(store)
        environment = process.server_environment(**_environment(store, ports, password, key))
        argv = [str(binary()), "--scheme", "http", "--host", "127.0.0.1", "--port", str(port)]
        return Command(argv, environment, store, niceness=process.UNHURRIED)

    return Service(
        name="weaviate",
        command=command,
        prepare=_prepare,
        ready=lambda: http_answers(f"http://127.0.0.1:{port}/v1/.well-known/ready"),
        address=f"127.0.0.1:{port}",
        essential=False,
        start_seconds=180.0,
        stop_seconds=20.0,
        death_signal=signal.SIGTERM,
    )


def _environment(store: Path, ports: Mapping[str, int], password: str, key: str) -> dict[str, str]:
    return {
        "PERSISTENCE_DATA_PATH": str(store),
        "RAFT_JOIN": "node1",
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "RAFT_PORT": str(ports["weaviate_raft"]),
        "RAFT_INTERNAL_RPC_PORT": str(ports["weaviate_raft_rpc"]),
        "CLUSTER_HOSTNAME": "node1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_GOSSIP_BIND_PORT": str(ports["weaviate_gossip"]),
        "CLUSTER_DATA_BIND_PORT": str(ports["weaviate_data"]),
        # For a foreign binary, whose cluster port we cannot keep on loopback.
        "CLUSTER_BASIC_AUTH_USERNAME": "facilitair",
        "CLUSTER_BASIC_AUTH_PASSWORD": password,
        "GRPC_PORT": str(ports["weaviate_grpc"]),
        "GO_PROFILING_DISABLE": "true",
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": key,
        "AUTHENTICATION_APIKEY_USERS": "facilitair",
        # By default it lets the pages of every origin read its answers.
        "CORS_ALLOW_ORIGIN": f"http://127.0.0.1:{ports['api']}",
        # By default a disk that is 90 % full makes shards read-only until somebody opens each by hand.
        "DISK_USE_READONLY_PERCENTAGE": "0",
        "DISABLE_TELEMETRY": "true",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "LOG_LEVEL": "warning",
    }


def _prepare(progress: SetupProgress) -> None:
    if os.environ.get("FACILITAIR_WEAVIATE_BINARY"):
        if not os.access(binary(), os.X_OK):
            raise Unavailable(
                "weaviate_missing",
                f"FACILITAIR_WEAVIATE_BINARY names {binary()}, which is no program that can be run: "
                "correct it, or unset it to have Weaviate built.",
            )
        return
    cache.install(build_dir(), lambda directory: _build(directory, progress), progress)


def _build(directory: Path, progress: SetupProgress) -> Mapping[str, object]:
    """Download the module (Go checks it against its checksum database), bind it to loopback, compile."""
    go = find_go(progress)
    progress.say(f"downloading the sources of Weaviate {VERSION}")
    # The Go that was found builds it; another would be downloaded where the module asks for one.
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    described = process.run_tool(
        [str(go), "mod", "download", "-json", f"{MODULE}@v{VERSION}"],
        progress,
        directory=directory,
        environment=environment,
    )
    # Notices of downloads may come before the document.
    module = json.loads(described[described.index("{") : described.rindex("}") + 1])
    if module.get("Sum") != MODULE_SUM:
        raise Unavailable(
            "weaviate_sources",
            f"found the sum {module.get('Sum')!r} of Weaviate {VERSION}'s sources; expected {MODULE_SUM!r}. "
            "They are not built: see what GOPROXY and GOFLAGS point to, or set WEAVIATE_URL.",
        )
    sources = directory / "sources"
    # The module cache is read-only; copyfile leaves the permissions behind.
    shutil.copytree(module["Dir"], sources, copy_function=shutil.copyfile)
    _bind_to_loopback(sources)
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        if line.startswith("go: downloading"):
            progress.say(f"Weaviate {VERSION}: {line.removeprefix('go: ')}")
        else:
            compiled += 1
            progress.say(f"compiling Weaviate {VERSION}: {compiled} packages (takes minutes, once)")

    process.run_tool(
        [str(go), "build", "-v", "-o", str(directory / "weaviate-server"), "./cmd/weaviate-server"],
        progress,
        directory=sources,
        environment=environment,
        niceness=process.UNHURRIED,
        on_line=count,
    )
    shutil.rmtree(sources)
    return {"version": VERSION, "sum": MODULE_SUM, "listens": "loopback"}


def _bind_to_loopback(sources: Path) -> None:
    for directory in (sources, *(path for path in sources.rglob("*") if path.is_dir())):
        directory.chmod(0o755)  # copied from the read-only module cache
    for name in _LISTENERS:
        text = (sources / name).read_text()
        if text.count(_EVERY_INTERFACE) != 1:
            raise Unavailable("weaviate_sources", f"{name} of Weaviate {VERSION} does not look as expected.")
        (sources / name).write_text(text.replace(_EVERY_INTERFACE, _LOOPBACK))
