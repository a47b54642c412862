"""Static analysis of Python source by ruff, in a process of its own: the source is read, never run."""

import asyncio
import json
import sys
from typing import Any, Final

from schema.errors import StepError

MAX_SOURCE_BYTES: Final = 1024 * 1024
MAX_FINDINGS: Final = 200
_SECONDS: Final = 20
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
        sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format", "json",
        "--exit-zero", "--select", ",".join(rules),
        "--stdin-filename", filename.rsplit("/", 1)[-1] or "source.py", "-",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            output, errors = await process.communicate(data)
    except TimeoutError:
        raise StepError("tool_failed", f"ruff did not finish within {_SECONDS} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StepError("tool_failed", f"ruff failed: {errors.decode(errors='replace')[:300]}")
    found = json.loads(output)
    findings = [
        {
            "code": item["code"] or "syntax",
            "message": item["message"],
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
