"""The platform as a whole: which services there are, where they listen, how to start and stop them."""

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from infra.disk import DATA_VARIABLE, DEFAULT_RESERVE_MIB, RESERVE_VARIABLE
from infra.local import neo4j, postgres, private, process, processes, state, temporal, weaviate
from infra.local.board import OnEvent
from infra.local.ports import DEFAULTS, Ports
from infra.local.process import Command
from infra.local.service import Service, http_answers, postgres_answers, tcp_answers
from infra.local.state import PlatformState, password, payload_key
from infra.local.supervisor import Supervisor, closure, end_survivors
from schema.errors import Refused, Unavailable

DATABASE = "facilitair"


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """Every service and where it will listen, before anything is started."""

    services: Sequence[Service]
    addresses: Mapping[str, str]
    environment: Mapping[str, str]


def plan(data: Path, ports: Mapping[str, int], given: Mapping[str, str]) -> ServicePlan:
    """Plan what to run. A server that `given` (our environment) names is used as it is, and not started."""
    postgres_password = password(data, "postgres")
    local_url = f"postgresql://postgres:{postgres_password}@127.0.0.1:{ports['postgres']}/{DATABASE}"
    neo4j_password = password(data, "neo4j")
    weaviate_key = password(data, "weaviate")
    weaviate_url = given.get("WEAVIATE_URL") or f"http://127.0.0.1:{ports['weaviate']}"
    weaviate_host = urlsplit(weaviate_url).hostname or "127.0.0.1"
    weaviate_grpc_port = 50051 if given.get("WEAVIATE_URL") else ports["weaviate_grpc"]
    environment = {
        DATA_VARIABLE: str(data),
        RESERVE_VARIABLE: _disk_reserve(given),
        "TEMPORAL_ADDRESS": given.get("TEMPORAL_ADDRESS") or f"127.0.0.1:{ports['temporal']}",
        "DATABASE_URL": given.get("DATABASE_URL") or local_url,
        "NEO4J_URI": given.get("NEO4J_URI") or f"bolt://127.0.0.1:{ports['neo4j']}",
        "NEO4J_USER": given.get("NEO4J_USER", "neo4j") if given.get("NEO4J_URI") else "neo4j",
        "NEO4J_PASSWORD": given.get("NEO4J_PASSWORD", "") if given.get("NEO4J_URI") else neo4j_password,
        "WEAVIATE_URL": weaviate_url,
        "WEAVIATE_API_KEY": given.get("WEAVIATE_API_KEY", "") if given.get("WEAVIATE_URL") else weaviate_key,
        "WEAVIATE_GRPC_URL": given.get("WEAVIATE_GRPC_URL") or f"{weaviate_host}:{weaviate_grpc_port}",
        "FACILITAIR_SIMULATOR_URL": given.get("FACILITAIR_SIMULATOR_URL")
        or f"http://127.0.0.1:{ports['simulator']}",
        "FACILITAIR_HOST": given.get("FACILITAIR_HOST") or "127.0.0.1",
        "FACILITAIR_PORT": str(ports["api"]),
        "FACILITAIR_PAYLOAD_KEYS": given.get("FACILITAIR_PAYLOAD_KEYS") or payload_key(data),
        "FACILITAIR_TEMPORAL_UI_URL": given.get("FACILITAIR_TEMPORAL_UI_URL")
        or ("" if given.get("TEMPORAL_ADDRESS") else f"http://127.0.0.1:{ports['temporal_ui']}"),
    }
    addresses = {
        "temporal": environment["TEMPORAL_ADDRESS"],
        "postgres": environment["DATABASE_URL"],
        "neo4j": environment["NEO4J_URI"],
        "weaviate": weaviate_url,
        "weaviate_grpc": environment["WEAVIATE_GRPC_URL"],
        "simulator": environment["FACILITAIR_SIMULATOR_URL"],
        "api": f"http://{environment['FACILITAIR_HOST']}:{ports['api']}",
    }
    if not given.get("TEMPORAL_ADDRESS"):
        addresses["temporal_ui"] = f"http://127.0.0.1:{ports['temporal_ui']}"
        addresses["temporal_metrics"] = f"http://127.0.0.1:{ports['temporal_metrics']}/metrics"
    if not given.get("NEO4J_URI"):
        addresses["neo4j_http"] = f"http://127.0.0.1:{ports['neo4j_http']}"
    local = {
        "temporal": temporal.service(
            data,
            port=ports["temporal"],
            ui_port=ports["temporal_ui"],
            http_port=ports["temporal_http"],
            metrics_port=ports["temporal_metrics"],
            codec_url=f"http://127.0.0.1:{ports['api']}/console/codec",
        ),
        "postgres": postgres.service(data, ports["postgres"], local_url, postgres_password),
        "neo4j": neo4j.service(
            data, bolt_port=ports["neo4j"], http_port=ports["neo4j_http"], password=neo4j_password
        ),
        "weaviate": weaviate.service(
            data, ports, password=password(data, "weaviate_cluster"), key=weaviate_key
        ),
    }
    external = external_services(given)
    own = processes.services(data, environment, start_simulator=not given.get("FACILITAIR_SIMULATOR_URL"))
    return ServicePlan([*(external.get(name, local[name]) for name in local), *own], addresses, environment)


def _disk_reserve(given: Mapping[str, str]) -> str:
    asked = given.get(RESERVE_VARIABLE) or str(DEFAULT_RESERVE_MIB)
    try:
        valid = 0 <= float(asked) < float("inf")
    except ValueError:
        valid = False
    if not valid:
        raise Refused(
            "disk_reserve_invalid", f"{RESERVE_VARIABLE} is {asked!r}; expected a number of MiB, 0 or more."
        )
    return asked


def external_services(given: Mapping[str, str]) -> dict[str, Service]:
    """The servers that an environment names, by the variables their own tools use."""
    found: dict[str, Service] = {}
    if address := given.get("TEMPORAL_ADDRESS"):
        found["temporal"] = Service("temporal", None, lambda: tcp_answers(address, 7233), address)
    if database := given.get("DATABASE_URL"):
        host = urlsplit(database).hostname or ""
        found["postgres"] = Service("postgres", None, lambda: postgres_answers(database), host)
    if uri := given.get("NEO4J_URI"):
        found["neo4j"] = Service("neo4j", None, lambda: tcp_answers(uri, 7687), uri, essential=False)
    if url := given.get("WEAVIATE_URL"):
        ready = f"{url.rstrip('/')}/v1/.well-known/ready"
        found["weaviate"] = Service("weaviate", None, lambda: http_answers(ready), url, essential=False)
    return found


def start(
    data: Path,
    only: Collection[str] | None = None,
    *,
    on_event: OnEvent = lambda service: None,
    given: Mapping[str, str] | None = None,
    services: Sequence[Service] | None = None,
) -> Supervisor:
    """Start the platform under one directory and return at once; `wait_ready` waits, `stop` ends it.

    `only` names services (what they need comes with them). `given` is read for servers that run
    elsewhere (default: our environment). `services` replaces the platform's own list. Raises Refused
    (`already_running`) when another process runs the same directory: use `read_state` then.
    """
    data = data.expanduser().resolve()
    given = os.environ if given is None else given
    lock = state.lock(data)
    ports = Ports()
    try:
        before = state.read(data)
        end_survivors(before)
        private.tighten(data, passable=bool(process.unprivileged_user()))
        chosen = ports.choose(_wanted_ports(before, given))
        planned = plan(data, chosen, given)
        listed = planned.services if services is None else services
        wanted = closure(listed, [one.name for one in listed] if only is None else only)
        if services is None and any(one.name == "postgres" and one.command is not None for one in wanted):
            postgres.refuse_closed_way(data)
        supervisor = Supervisor(
            data,
            wanted,
            lock=lock,
            ports=ports,
            chosen=chosen,
            addresses=planned.addresses,
            environment=planned.environment,
            on_event=on_event,
        )
    except BaseException as error:
        ports.release()
        lock.close()
        if isinstance(error, OSError):
            raise Unavailable(
                "platform_failed", f"{data} cannot be used: {error}. Correct that, or choose another --data."
            ) from error
        raise
    supervisor.begin()
    return supervisor


def _wanted_ports(before: PlatformState | None, given: Mapping[str, str]) -> dict[str, int]:
    """The ports of last time, so that addresses last; what a person asks for comes first."""
    wanted = dict(DEFAULTS)
    if before is not None:
        wanted |= {name: port for name, port in before.ports.items() if name in wanted}
    if asked := given.get("FACILITAIR_PORT"):
        if not asked.isdigit():
            raise Refused("port_invalid", f"FACILITAIR_PORT is {asked!r}; expected a port number.")
        wanted["api"] = int(asked)
    return wanted


def start_detached(data: Path, only: Collection[str] | None = None, *, timeout_seconds: float = 30.0) -> int:
    """Start the platform in a process that outlives this one; returns its pid once it owns `data`."""
    data = data.expanduser().resolve()
    private.directory(data)
    logs = private.directory(data / "logs")
    argv = [sys.executable, "-m", "infra.local", "--data", str(data)]
    if only is not None:
        argv += ["--only", ",".join(only)]
    log = logs / "supervisor.log"
    began = log.stat().st_size if log.exists() else 0
    process.spawn_detached(Command(argv, dict(os.environ), data), log)
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        now = read_state(data)
        if now is not None and now.running and now.pid is not None:
            return now.pid
        with suppress(OSError):
            if "error:" in (said := log.read_text()[began:]):
                raise Unavailable("platform_failed", said.rpartition("error:")[2].strip())
        time.sleep(0.05)
    raise Unavailable("platform_failed", f"the platform did not start: {process.last_lines(log)} (see {log})")


def read_state(data: Path) -> PlatformState | None:
    """Return the state of the platform under `data`, running or stopped; None if nothing ever ran."""
    return state.read(data.expanduser().resolve())


def stop_running(data: Path, *, timeout_seconds: float = 90.0) -> bool:
    """End the platform that runs under `data`, also one started elsewhere; return False if none does."""
    data = data.expanduser().resolve()
    now = state.read(data)
    if now is None:
        return False
    running = now.running
    if running and now.pid is not None and now.process_started is not None:
        process.end(now.pid, now.process_started, 15, timeout_seconds)
    end_survivors(state.read(data))
    return running
