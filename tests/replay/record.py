"""Record one history per feature: `python -m tests.replay.record [NAME ...]`.

A history is recorded once, by the code that first had the feature, and kept for ever beside later ones: it
stands for the runs of users that are still open when the code changes.
"""

import asyncio
import contextlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any, Final

from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.worker import Worker

from bench.stack import Stack, stack

HISTORIES: Final = Path(__file__).parent / "histories"
OWN_QUEUE: Final = "recorded-own-queue"
PROJECTION: Final = "projection"

_CODER: Final = {"coder": {"role": "coder"}}
_ROUTED: Final = {
    "coder": {"role": "coder", "model": {"among": ["deepseek/deepseek-chat", "qwen/qwen-2.5-coder"]}}
}

FEATURES: Final[dict[str, dict[str, Any]]] = {
    "transform_chain": {
        "steps": {
            "a": {"kind": "transform", "value": "${input.n + 1}"},
            "b": {"kind": "transform", "value": "${steps.a.output + 1}"},
        },
    },
    "condition_and_skip": {
        "steps": {
            "a": {"kind": "transform", "value": "${input.n}"},
            "b": {"kind": "transform", "when": "steps.a.output > 10", "value": 1},
            "c": {"kind": "transform", "value": "${steps.b.output}"},
            "d": {"kind": "transform", "value": "${steps[?'c'].?output.orValue('none')}"},
        },
    },
    "agent": {
        "agents": _CODER,
        "steps": {"code": {"kind": "agent", "agent": "coder", "prompt": "${input.task}"}},
    },
    "agent_routed_and_recalling": {
        "agents": _ROUTED,
        "steps": {"code": {"kind": "agent", "agent": "coder", "prompt": "${input.task}", "recall": True}},
    },
    "fan_out": {
        "agents": _CODER,
        "steps": {
            **{
                f"s{i}": {"kind": "agent", "agent": "coder", "prompt": f"part {i}: ${{input.task}}"}
                for i in range(6)
            },
            "join": {"kind": "transform", "value": [f"${{steps.s{i}.output}}" for i in range(6)]},
        },
    },
    "tool": {
        "steps": {
            "check": {"kind": "tool", "tool": "python.check", "args": {"source": "import os\n"}},
            "list": {"kind": "transform", "value": "${steps.check.output.findings}"},
        },
    },
    "own_activity": {
        "steps": {
            "own": {
                "kind": "tool", "activity": "recorded_own", "task_queue": OWN_QUEUE,
                "args": {"n": "${input.n}"},
            }
        },
    },
    "failed_step": {
        "agents": _CODER,
        "steps": {
            "bad": {"kind": "tool", "tool": "json.parse", "args": {"text": "${input.task}"}},
            "slow": {"kind": "agent", "agent": "coder", "prompt": "${input.task}"},
        },
    },
    "cancelled": {
        "agents": _CODER,
        "steps": {"slow": {"kind": "agent", "agent": "coder", "prompt": "${input.task}"}},
    },
}  # fmt: skip


@activity.defn(name="recorded_own")
async def own(args: dict[str, int]) -> int:
    return args["n"] * 2


def _anonymous(value: Any) -> Any:
    """Without the name and the paths of the machine it was recorded on."""
    if isinstance(value, dict):
        hidden = {"identity": "recorder", "stackTrace": ""}
        return {key: hidden.get(key, _anonymous(item)) for key, item in value.items()}
    return [_anonymous(item) for item in value] if isinstance(value, list) else value


async def _record(on: Stack, name: str) -> None:
    definition = {"name": name, **FEATURES[name]}
    await on.store(definition)
    id = f"{name}-{uuid.uuid4().hex[:8]}"
    handle = await on.start(name, {"n": 3, "task": "write a prime checker"}, id)
    if name == "cancelled":
        await asyncio.sleep(1)
        await handle.cancel()
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    await _write(name, handle)


async def _record_projection(on: Stack) -> None:
    """A projection never ends; what it has done so far is its history."""
    handle = on.client.get_workflow_handle("facilitair.projection.vectors")
    while len((await handle.fetch_history()).events) < 5:
        await asyncio.sleep(0.2)
    await _write(PROJECTION, handle)


async def _write(name: str, handle: WorkflowHandle[Any, Any]) -> None:
    history = _anonymous(json.loads((await handle.fetch_history()).to_json()))
    (HISTORIES / f"{name}.json").write_text(json.dumps(history, indent=1) + "\n")
    print(name, len(history["events"]), "events")


async def main(names: list[str]) -> None:
    async with (
        stack(("temporal", "postgres", "simulator", "migrate", "worker", "projector")) as on,
        Worker(on.client, task_queue=OWN_QUEUE, activities=[own]),
    ):
        wanted = names or [
            name for name in (*FEATURES, PROJECTION) if not (HISTORIES / f"{name}.json").exists()
        ]
        for name in wanted:
            await (_record_projection(on) if name == PROJECTION else _record(on, name))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
