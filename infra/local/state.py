"""What is running, as written to `<data>/platform.json`, and the lock that makes one supervisor its owner."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Literal

from infra.local import process
from schema.errors import Refused

Status = Literal["preparing", "starting", "ready", "failed", "external", "stopped"]

STATE_FILE = "platform.json"


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service as it is now."""

    name: str
    status: Status = "starting"
    message: str = ""
    address: str = ""
    essential: bool = True
    """Whether the main job needs it; what is not essential may still be arriving."""
    pid: int | None = None
    process_started: str | None = None
    started_at: str | None = None
    restarts: int = 0
    stop_signal: int = 15

    @property
    def answers(self) -> bool:
        return self.status in ("ready", "external")


@dataclass(frozen=True, slots=True)
class PlatformState:
    """Everything that a reader outside the supervisor can know. Holds passwords: the file is private."""

    pid: int | None = None
    process_started: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, ServiceState] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return process.is_same(self.pid, self.process_started)

    @property
    def ready(self) -> bool:
        """Whether everything that the main job needs answers."""
        return self.running and all(one.answers for one in self.services.values() if one.essential)

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"running": self.running, "ready": self.ready}


def read(data: Path) -> PlatformState | None:
    """The last state written under `data`, or None. What it calls running may have died since."""
    try:
        document = json.loads((data / STATE_FILE).read_text())
        services = {
            name: ServiceState(
                **{one.name: value[one.name] for one in fields(ServiceState) if one.name in value}
            )
            for name, value in document.get("services", {}).items()
        }
        kept = {one.name: document[one.name] for one in fields(PlatformState) if one.name in document}
        return replace(PlatformState(**kept), services=services)
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # never written, or by a version that wrote it differently: start afresh


def write(data: Path, state: PlatformState) -> None:
    write_private(data / STATE_FILE, json.dumps(asdict(state), indent=1))


def write_private(path: Path, text: str) -> None:
    """Replace a file whole, readable by its owner only."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def lock(data: Path) -> IO[str]:
    """Become the one supervisor of a data directory, for as long as the returned file stays open."""
    data.mkdir(parents=True, exist_ok=True)
    file = (data / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise Refused(
            "already_running",
            f"the platform under {data} is already run by process {holder}. Use it as it is "
            f"(`facilitair status --data {data}`), end it with `facilitair down --data {data}`, "
            "or choose another --data directory.",
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def password(data: Path, name: str) -> str:
    """Return a generated password that stays with the data it protects."""
    # Hexadecimal: one that begins with "-" would be an option to the commands that it is given to.
    return _kept_secret(data, name, secrets.token_hex(24))


def payload_key(data: Path) -> str:
    """Return the generated key that seals payloads in Temporal's histories: base64 of 32 bytes."""
    return _kept_secret(data, "payloads", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())


def _kept_secret(data: Path, name: str, new: str) -> str:
    """Return the secret of a name, which is `new` when there was none."""
    path = data / "secrets" / name
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(path, new)
    return path.read_text().strip()
