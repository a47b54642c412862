"""A checkpoint as bytes and back, and what is written beside it so that it can be made again."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from router.data import packing
from router.network.adapter import Neural
from router.statistics.model import FittedModel
from schema.errors import Refused

_LIBRARIES: Final = ("numpy", "torch", "transformers", "scikit-learn")


@dataclass(frozen=True)
class Checkpoint(FittedModel):
    """Everything that serving needs: a model without a network, and the network beside it.

    A reader that takes its content as a `FittedModel` finds the model. Fields that were added later are
    None in older content.
    """

    neural: Neural | None = None
    neural_weight: float = 0.0
    """Weight of the network's chances beside the model's: 0 if it was no better on unseen outcomes."""


def of(model: FittedModel, neural: Neural | None = None, neural_weight: float = 0.0) -> Checkpoint:
    held = {one.name: getattr(model, one.name) for one in fields(FittedModel)}
    return Checkpoint(**held, neural=neural, neural_weight=neural_weight)


def pack(checkpoint: Checkpoint) -> tuple[bytes, str]:
    """(content, its sha256)."""
    content = packing.pack(checkpoint)
    return content, sha256_of(content)


def unpack(content: bytes, sha256: str) -> Checkpoint:
    """Raises Refused("checkpoint_broken") where the bytes are not those that were packed."""
    check(content, sha256)
    try:
        return packing.unpack(Checkpoint, content)
    except ValueError as error:
        raise _broken(f"{error}.") from error


def check(content: bytes, sha256: str) -> None:
    """Raises Refused("checkpoint_broken") where the bytes are not those of the sum."""
    if (found := sha256_of(content)) != sha256:
        raise _broken(f"found bytes of sha256 {found[:12]}…; expected {sha256[:12]}….")


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(
    seed: int, arguments: dict[str, Any], data: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """Return the manifest of a checkpoint: the same code, data and seed make the same one."""
    return {
        "code": code(),
        "seed": seed,
        "arguments": arguments,
        "data": data,
        "figures": figures,
        "libraries": libraries(),
    }


@lru_cache(maxsize=1)
def code() -> str:
    """The package's version, and the commit where it runs from a checkout."""
    version = _version("facilitair") or "unknown"
    asked = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        root = Path(__file__).resolve().parents[2]
        found = subprocess.run(asked, cwd=root, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}+{found.stdout.strip()}"


@lru_cache(maxsize=1)
def libraries() -> dict[str, str]:
    """Versions of those that weights depend on; what is not installed is left out."""
    return {name: version for name in _LIBRARIES if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _broken(what: str) -> Refused:
    return Refused(
        "checkpoint_broken",
        f"{what} The checkpoint is not used; `facilitair router rollback` lets the one before it serve.",
    )
