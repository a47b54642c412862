"""Maps and loops far beyond what one history holds: `python -m bench.wide`.

Prints one JSON object: workload → {seconds, events of the last history, whether it was continued as new}.
"""

import asyncio
import json
import time
from typing import Any, Final

from tests.support.stack import Stack, stack

_PAUSE: Final = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}
_MAP: Final = {
    "steps": {
        "each": {
            "kind": "map",
            "over": "input.items",
            "max_items": 2_000,
            "concurrency": 200,
            "body": {"steps": {"one": _PAUSE}},
        },
        "number": {"kind": "transform", "value": "${size(steps.each.output)}"},
    }
}
_LOOP: Final = {
    "steps": {
        "again": {
            "kind": "loop",
            "max_iterations": 10_000,
            "init": 0,
            "carry": "${iter.output}",
            "body": {"steps": {"next": {"kind": "transform", "value": "${iter.carry + 1}"}}},
        }
    }
}
WORKLOADS: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "map_of_2000": (_MAP, 2_000),
    "loop_of_10000": (_LOOP, 10_000),
    "map_of_2000_activities": (_MAP | {"defaults": {"chain": "off"}}, 2_000),
}
"""name → (definition, what it comes to)"""


async def measure(on: Stack, name: str) -> dict[str, Any]:
    definition, expected = WORKLOADS[name]
    await on.store(definition | {"name": name.replace("_", "-")})
    began = time.monotonic()
    handle = await on.start(name.replace("_", "-"), {"items": list(range(2_000))}, name)
    found = await asyncio.wait_for(handle.result(), 300)
    seconds = time.monotonic() - began
    if found != expected:
        raise SystemExit(f"{name} came to {found!r}; expected {expected!r}.")
    last = await on.client.get_workflow_handle(name).describe()
    return {
        "seconds": round(seconds, 1),
        "events": last.history_length,
        "continued_as_new": last.run_id != handle.result_run_id,
    }


async def _main() -> None:
    async with stack() as on:
        print(json.dumps({name: await measure(on, name) for name in WORKLOADS}))


if __name__ == "__main__":
    asyncio.run(_main())
