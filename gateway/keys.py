"""Tenants' keys by reference: in the environment or in a file, never in the database."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schema.errors import ProviderError

# No separators and no leading dot: a name that leads nowhere else.
NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
DEFAULT_TENANT: Final = "default"
_PREFIX: Final = "FACILITAIR_KEY_"
_KEPT: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
SENDABLE: Final = re.compile(r"[!-~]{1,4096}")


@dataclass(slots=True)
class Keys:
    """Reads keys by reference; a file is read again when it has changed."""

    directory: str
    """Empty: there are no files."""
    _read: dict[Path, tuple[tuple[int, int], str]] = field(default_factory=dict)

    def find(self, tenant: str, reference: str) -> str:
        """Raises provider_auth with the places that were looked at."""
        variable = variable_of(tenant, reference)
        for name in (variable, _older_variable(tenant, reference)):
            if name and (key := os.environ.get(name, "").strip()):
                return _sendable(key, name)
        places = [f"the environment variable {variable}"]
        if self.directory and NAME.fullmatch(tenant) and NAME.fullmatch(reference):
            path = Path(self.directory) / tenant / reference
            if key := self._in_file(path):
                return _sendable(key, str(path))
            places.append(f"the file {path}")
        raise _refused(
            f"found no key {reference!r} of tenant {tenant!r}; expected it in {' or '.join(places)} of the "
            "worker. Put it there, or take key_ref from the provider"
        )

    def _in_file(self, path: Path) -> str:
        try:
            stat = path.stat()
            mark = (stat.st_mtime_ns, stat.st_size)
            known = self._read.get(path)
            if known is None or known[0] != mark:
                known = self._read[path] = mark, path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            self._read.pop(path, None)
            return ""
        return known[1]


def variable_of(tenant: str, reference: str) -> str:
    """The environment variable of a key, which belongs to one tenant and one reference only.

    Small letters become capital ones and digits stay; every other character is `_` and its two hexadecimal
    digits. So two underscores can only be what stands between tenant and reference.
    """
    return f"{_PREFIX}{_in_variable(tenant)}__{_in_variable(reference)}"


def _in_variable(name: str) -> str:
    return "".join(
        chr(byte).upper() if byte in _KEPT else f"_{byte:02X}"
        for byte in name.encode("utf-8", "surrogateescape")
    )


def _older_variable(tenant: str, reference: str) -> str:
    """The variable's name in earlier releases, for the tenant that they had; "" where there is none.

    Other tenants' names could be the same. With two underscores it could be a name of today.
    """
    name = f"{_PREFIX}{DEFAULT_TENANT.upper()}_{re.sub(r'[^A-Z0-9]', '_', reference.upper())}"
    return name if tenant == DEFAULT_TENANT and "__" not in name else ""


def _sendable(key: str, place: str) -> str:
    if not SENDABLE.fullmatch(key):
        # Never quoted, whatever it is.
        raise _refused(f"found a key with spaces or other characters that cannot be sent in {place}; mend it")
    return key


def _refused(message: str) -> ProviderError:
    return ProviderError("provider_auth", message, retryable=False)
