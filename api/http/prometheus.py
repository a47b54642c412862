"""Prometheus' text format, version 0.0.4."""

from collections.abc import Iterator
from typing import Final

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def metric(name: str, kind: str, told: str, values: list[tuple[str, float]]) -> Iterator[str]:
    """Yield a family of which each value has the labels that `label` wrote, or "" for none."""
    yield from head(name, kind, told)
    for labels, value in values:
        yield f"{name}{labels} {value}"


def head(name: str, kind: str, told: str) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"


def label(**values: str) -> str:
    """Write labels; a value may be any text."""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
