"""The ways in which a case starts its run."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError
from websockets.asyncio.client import connect

from bench.cases.judge import CaseResponse, CaseRun, codes_of
from bench.foreign.stranger import raw
from schema.temporal.queues import QUEUE_COLLABORATIONS

_ROOT: Final = Path(__file__).resolve().parents[2]


async def command(data: Path, argv: list[str], seconds: float = 120.0) -> CaseResponse:
    """Run `facilitair …` against the platform under `data`; what it writes is one text."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli.main",
        *argv[1:],
        cwd=_ROOT,
        env={**os.environ, "FACILITAIR_DATA": str(data), "NO_COLOR": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            written, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        written, _ = await process.communicate()
    code = process.returncode if process.returncode is not None else -1
    return CaseResponse(code, written.decode(errors="replace"), time.monotonic() - began, is_command=True)


def refused(answer: CaseResponse) -> CaseRun:
    """A start that came to nothing."""
    codes = [one["code"] for one in codes_of(answer.document)]
    return CaseRun(codes=codes, message=answer.text)


async def by_socket(api: str, name: str, text: str) -> CaseRun:
    """Send a text as the first message of a socket; return what it started, or its refusal."""
    address = f"{api.replace('http', 'ws', 1)}/ws/collaborate?definition={quote(name)}"
    async with asyncio.timeout(30), connect(address) as socket:
        await socket.send(text)
        async for message in socket:
            found: dict[str, Any] = json.loads(message)
            if found.get("type") == "started":
                return CaseRun(str(found["id"]), "running", text=text)
            if found.get("type") == "error":
                return CaseRun(codes=[str(found.get("code", ""))], message=str(message), text=text)
    return CaseRun(message="The socket was closed without a word.", text=text)


async def by_temporal(client: Client, name: str, id: str, input: str) -> CaseRun:
    """Start by a bare Temporal client; `input` goes as it stands."""
    value = raw(input.encode("utf-8", "surrogatepass"))
    try:
        await client.start_workflow(name, value, id=id, task_queue=QUEUE_COLLABORATIONS)
    except RPCError as error:
        return CaseRun(message=str(error))
    return CaseRun(id, "running")


async def end_at_temporal(client: Client, id: str, seconds: float) -> CaseRun | None:
    """Return how the workflow failed by itself; None where it completed or goes on."""
    try:
        async with asyncio.timeout(seconds):
            await client.get_workflow_handle(id).result()
    except WorkflowFailureError as error:
        cause = error.cause
        kind = cause.type or "" if isinstance(cause, ApplicationError) else type(cause).__name__
        code = "cancelled" if isinstance(cause, CancelledError) else kind
        return CaseRun(id, "failed", [code], str(cause))
    except TimeoutError:
        return None
    return None
