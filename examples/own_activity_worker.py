"""A worker of yours, importing nothing of Facilitair: `python own_activity_worker.py [ADDRESS]`."""

import asyncio
import sys
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker


@activity.defn
async def send_invoice(args: dict[str, Any]) -> dict[str, Any]:
    return {"number": 1000 + len(args["customer"])}


async def main(address: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue="billing", activities=[send_invoice]):
        print("serving the task queue billing", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7233"))
