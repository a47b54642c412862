"""The running platform in `<data>/platform.json`, and the lock that makes one supervisor its owner."""

import base64
import fcntl
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urlsplit

from infra.disk import Disk
from infra.local import private, process
from schema.errors import Refused

Status = Literal["preparing", "starting", "ready", "failed", "external", "stopped"]

STATE_FILE = "platform.json"
_SECRET_ENDINGS = ("_PASSWORD", "_KEY", "_KEYS")


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
        """Tell whether everything that the main job needs answers."""
        return self.running and all(one.answers for one in self.services.values() if one.essential)

    @property
    def disk_full(self) -> str:
        """Return why no run can begin, looked up now: a full disk cannot record itself."""
        return Disk.of(self.environment).full

    def as_json(self) -> dict[str, object]:
        """Return what programs may print and log: everything but passwords and keys."""
        told = asdict(self) | {"running": self.running, "ready": self.ready, "disk_full": self.disk_full}
        told["addresses"] = {name: without_password(address) for name, address in self.addresses.items()}
        told["environment"] = {
            name: without_password(value)
            for name, value in self.environment.items()
            if not name.endswith(_SECRET_ENDINGS)
        }
        return told


def without_password(address: str) -> str:
    """Return an address as people and logs may see it."""
    password = urlsplit(address).password if "//" in address else None
    shown = address.replace(f":{password}@", ":…@") if password else address
    return re.sub(r"(?i)(password=)[^&\s]+", r"\1…", shown)


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
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk half of it would take what room there is
        raise


def lock(data: Path) -> IO[str]:
    """Become the one supervisor of a data directory, for as long as the returned file stays open."""
    private.directory(data)
    file = os.fdopen(os.open(data / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "a+")
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
    with suppress(OSError):  # only told to the next who wants it; a full disk is no reason to stay away
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), str(os.getpid()).encode())
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
        private.directory(path.parent)
        write_private(path, new)
    return path.read_text().strip()
