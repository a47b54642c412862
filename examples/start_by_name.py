"""Start a collaboration from any Temporal SDK, importing nothing of Facilitair.

python start_by_name.py [ADDRESS [NAME [INPUT_JSON]]]
"""

import asyncio
import json
import sys
import uuid

from temporalio.client import Client


async def main(address: str = "127.0.0.1:7233", name: str = "hello", input_json: str = "") -> None:
    client = await Client.connect(address)
    result = await client.execute_workflow(
        name,
        json.loads(input_json or '{"task": "write a function that adds two numbers"}'),
        id=f"{name}-{uuid.uuid4().hex[:8]}",
        task_queue="collaborations",
    )
    print(json.dumps(result, indent=2))
    # An interpreter that ends at once can be crashed by the SDK's threads (temporalio/sdk-python#300).
    await asyncio.sleep(0.1)


asyncio.run(main(*sys.argv[1:]))
