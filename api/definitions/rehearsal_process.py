"""Dry runs in a process of their own: nothing else could end an expression or a tool that takes too long."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Final

import activities
from schema.errors import FacilitairError, Refused, Unavailable

REHEARSAL_TIMEOUT_SECONDS: Final = 10.0
"""For one dry run; it gives up by itself a little earlier, if it can."""
_START_SECONDS: Final = 60.0
_MAX_USES: Final = 100
"""Then a new process: every definition that it has seen takes memory."""
_MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024


class RehearsalProcess:
    """One process, begun when it is first needed; dry runs take turns."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._uses = 0

    async def rehearse(self, asked: bytes) -> bytes:
        """Return the answer of `activities.rehearsal.walk.serve`. Raises Refused("rehearsal_too_long")."""
        async with self._turn:
            process = self._process or await self._start()
            assert process.stdin and process.stdout
            answer = b""
            try:
                async with asyncio.timeout(REHEARSAL_TIMEOUT_SECONDS):
                    process.stdin.write(asked + b"\n")
                    await process.stdin.drain()
                    answer = await process.stdout.readline()
            except TimeoutError:
                raise Refused(
                    "rehearsal_too_long",
                    f"found no end within {REHEARSAL_TIMEOUT_SECONDS:g} s; let the dry run do less.",
                ) from None
            except ConnectionError:
                pass  # it has died, as the missing answer tells
            finally:
                self._uses += 1
                if not answer.endswith(b"\n") or self._uses >= _MAX_USES:
                    await self.close()
        if not answer.endswith(b"\n"):
            raise FacilitairError(
                "internal_error", "the process of dry runs has died; the API's log says why."
            )
        return answer

    async def _start(self) -> Process:
        folder = Path(next(iter(activities.__path__))).parent
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "activities.rehearsal.walk",
            cwd=folder,
            stdin=PIPE,
            stdout=PIPE,
            limit=_MAX_ANSWER_BYTES,
        )
        self._process, self._uses = process, 0
        assert process.stdout
        try:
            async with asyncio.timeout(_START_SECONDS):
                await process.stdout.readline()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    "rehearsal_unavailable", "the process of dry runs does not start; try again."
                ) from None
            raise
        return process

    async def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
