"""A neighbour of the attacks: `python -m bench.security.neighbour ADDRESS` starts one run after the other.

A process of its own, so that nothing but the platform can slow it. Prints a line for each run: when it began,
on the machine's monotonic clock, and the seconds that it took. Ends when its standard input does.
"""

import asyncio
import sys
import time
from typing import Any, Final

from schema.temporal.queues import QUEUE_COLLABORATIONS
from workflows.client import connect

NAME: Final = "neighbour"
DEFINITION: Final[dict[str, Any]] = {
    "name": NAME,
    "steps": {
        f"s{number}": {"kind": "tool", "tool": "pause", "args": {"seconds": 0}, "chain": False}
        for number in range(10)
    },
}
"""A chain of 10 steps that do nothing, each an activity of its own."""


async def main(address: str) -> None:
    client = await connect(address, "default")
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not ended.done():
        began = time.monotonic()
        await client.execute_workflow(NAME, {}, id=f"{NAME}-{began}", task_queue=QUEUE_COLLABORATIONS)
        print(began, time.monotonic() - began, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
