"""Start a collaboration from any Temporal SDK, importing nothing of Facilitair.

python start_by_name.py [ADDRESS [NAME [INPUT_JSON]]]

ADDRESS is Temporal's, as `facilitair status` prints it; without one, TEMPORAL_ADDRESS. NAME is a definition
that is stored, such as the one that `facilitair demo` uploads.
"""

import asyncio
import json
import os
import sys
import uuid

from temporalio.client import Client, WorkflowFailureError

EXAMPLE = '{"file": "def add(a, b): return a - b"}'


async def main(address: str = "", name: str = "code-review", input_json: str = EXAMPLE) -> None:
    address = address or os.environ.get("TEMPORAL_ADDRESS", "")
    if not address:
        sys.exit(__doc__)
    client = await Client.connect(address)
    try:
        result = await client.execute_workflow(
            name,
            json.loads(input_json),
            id=f"{name}-{uuid.uuid4().hex[:8]}",
            task_queue="collaborations",
        )
    except WorkflowFailureError as error:
        sys.exit(f"{name}: {error.cause}")
    finally:
        # An interpreter that ends at once can be crashed by the SDK's threads (temporalio/sdk-python#300).
        await asyncio.sleep(0.1)
    print(json.dumps(result, indent=2))


asyncio.run(main(*sys.argv[1:]))
