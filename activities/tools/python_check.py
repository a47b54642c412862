"""Static analysis of Python source by ruff, in a process of its own: the source is read, never run."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Any, Final

from schema.errors import StepError

MAX_SOURCE_BYTES: Final = 1024 * 1024
MAX_FINDINGS: Final = 200
MAX_MESSAGE_CHARS: Final = 1_000
_MAX_LINE_BYTES: Final = 1024 * 1024
"""Longest finding: ruff quotes what it found."""
_RUFF_TIMEOUT_SECONDS: Final = 20
_DEFAULT_RULES: Final = ("E9", "F", "B", "C90", "S", "PL", "SIM", "PERF", "RET")


async def check(source: str, filename: str = "source.py", select: list[str] | None = None) -> dict[str, Any]:
    """ruff's findings on `source`; `select` names its rule groups."""
    data = source.encode("utf-8", "replace")
    if len(data) > MAX_SOURCE_BYTES:
        raise StepError(
            "tool_failed", f"found {len(data):,} bytes of source; expected at most {MAX_SOURCE_BYTES:,}."
        )
    rules = select or list(_DEFAULT_RULES)
    if not all(rule.isalnum() for rule in rules):
        raise StepError("tool_failed", f"found the rules {rules!r}; expected names such as F, B or E501.")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--output-format",
        "json-lines",
        "--exit-zero",
        "--select",
        ",".join(rules),
        "--stdin-filename",
        filename.rsplit("/", 1)[-1] or "source.py",
        "-",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=_MAX_LINE_BYTES,
    )
    sending = asyncio.create_task(_send(process, data))
    try:
        async with asyncio.timeout(_RUFF_TIMEOUT_SECONDS):
            found = await _found(process)
    except TimeoutError:
        raise StepError("tool_failed", f"ruff did not finish within {_RUFF_TIMEOUT_SECONDS} s.") from None
    finally:
        sending.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    findings = [
        {
            "code": item["code"] or "syntax",
            "message": item["message"][:MAX_MESSAGE_CHARS],
            "line": item["location"]["row"],
            "column": item["location"]["column"],
        }
        for item in found[:MAX_FINDINGS]
    ]
    return {
        "findings": findings,
        "found_issues": bool(findings),
        "lines": source.count("\n") + 1,
        "truncated": len(found) > MAX_FINDINGS,
    }


async def _send(process: Process, data: bytes) -> None:
    assert process.stdin
    with suppress(ConnectionError):  # it has been ended, with as much as is told
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()


async def _found(process: Process) -> list[dict[str, Any]]:
    """One more finding than is told, where there are more: the rest is neither held nor read."""
    assert process.stdout and process.stderr
    found: list[dict[str, Any]] = []
    while len(found) <= MAX_FINDINGS:
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise StepError(
                "tool_failed", f"ruff told a finding of more than {_MAX_LINE_BYTES:,} bytes; expected less."
            ) from None
        if not line:
            break
        found.append(json.loads(line))
    else:
        return found
    errors = await process.stderr.read(_MAX_LINE_BYTES)
    if await process.wait() != 0:
        raise StepError("tool_failed", f"ruff failed: {errors.decode(errors='replace')[:300]}")
    return found
