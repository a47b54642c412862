"""The command line, as a person runs it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path


async def command(*arguments: str) -> str:
    """What `facilitair` prints; it must succeed."""
    program = Path(sys.executable).with_name("facilitair")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=PIPE, stderr=PIPE, env=os.environ | {"COLUMNS": "200"}
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    return said.decode()
