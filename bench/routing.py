"""Routed runs against fixed choices, end to end on the simulator: `python -m bench.routing [--json]`.

A history of runs is made (each model by name, and routed by rules), the platform learns from it by its own
workflow, the checkpoint is promoted, and runs of new tasks are routed by it. The same tasks are given to each
model by name, so every comparison is paired by task; what rules, chance and the best choice in hindsight
would have come to follows from those runs, since the simulator answers a request always alike.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import text

from db.engine import transaction
from db.router import checkpoints
from router.data.metrics import interval
from router.serve import rules
from schema.language.catalogue import ROUTABLE_MODELS
from schema.temporal.learning import LearnRequest
from schema.temporal.queues import QUEUE_LEARNING
from tests.support.stack import SERVERS, Stack, stack

SEED: Final = 20261121
AT_ONCE: Final = 40
ROUTED: Final = "work-routed"

_SUBJECTS: Final = {
    "enterprise": (
        "invoice matching",
        "payroll export",
        "contract archive",
        "compliance report of a Bank",
        "customer onboarding for Acme Ltd",
        "CRM import",
    ),
    "algorithms": (
        "shortest path in a weighted graph",
        "an algorithm that merges sorted lists",
        "dynamic programming over intervals",
        "hash ring with virtual nodes",
        "search in a trie",
    ),
    "backend": (
        "a REST endpoint for orders",
        "rate limit of an HTTP API",
        "job queue on a database",
        "auth by signed tokens",
        "cache in front of a server",
    ),
    "general": (
        "text statistics of letters",
        "colour conversion",
        "calendar of a small club",
        "unit conversion for cooks",
        "word games",
        "a diary with tags",
    ),
}
_WAYS: Final = (
    "in Python",
    "in TypeScript",
    "in Go",
    "with few lines",
    "for beginners to read",
    "with types",
)
_NEEDS: Final = (
    "It has to survive wrong input.",
    "Say what it costs in time.",
    "It runs on a small machine.",
    "Names matter more than speed.",
    "It is called a million times a day.",
    "Leave out what is not needed.",
    "It replaces an older one.",
    "Two people will maintain it.",
)
_VERDICT: Final = {
    "type": "object",
    "required": ["quality", "found_issues"],
    "additionalProperties": False,
    "properties": {
        "quality": {"type": "number", "minimum": 0, "maximum": 1},
        "found_issues": {"type": "boolean"},
    },
}


@dataclass(frozen=True)
class Work:
    """What a run's first step came to."""

    model: str
    quality: float
    usd: float
    seconds: float


def tasks(count: int, seed: int) -> list[str]:
    """Different ones; another seed gives others of the same kind."""
    draw = random.Random(seed)
    every = [
        f"Write {subject} {way}, variant {number}. {need}"
        for subjects in _SUBJECTS.values()
        for subject in subjects
        for way in _WAYS
        for need in _NEEDS
        for number in range(1, 4)
    ]
    return draw.sample(every, count)


def definition(name: str, model: str | dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "input": {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}},
        "agents": {
            "coder": {"role": "coder", "model": model},
            "reviewer": {"role": "reviewer", "model": "anthropic/claude-3.5-sonnet"},
        },
        "steps": {
            "work": {"kind": "agent", "agent": "coder", "prompt": "${input.task}"},
            "review": {
                "kind": "agent",
                "agent": "reviewer",
                "output_schema": _VERDICT,
                "prompt": "Review this work.\n\n${steps.work.output}",
            },
        },
    }


def fixed(model: str) -> str:
    return "work-" + model.replace("/", "-").replace(".", "-")


async def run_all(on: Stack, name: str, given: Sequence[str], mark: str) -> None:
    """Every task once, AT_ONCE at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, task: str) -> None:
        async with places:
            handle = await on.start(name, {"task": task}, f"{mark}-{name}-{number}")
            await asyncio.wait_for(handle.result(), 300)

    await asyncio.gather(*(one(number, task) for number, task in enumerate(given)))


_CAME_TO: Final = text("""
SELECT run.temporal_workflow_id, coalesce(work.requested_model, work.model_id), review.quality_score,
    coalesce(work.cost_usd, 0), work.latency_ms / 1000.0
FROM collaborations AS run
JOIN agent_executions AS work
    ON work.collaboration_id = run.id AND work.path = 'work' AND work.status = 'completed'
JOIN agent_executions AS review
    ON review.collaboration_id = run.id AND review.path = 'review' AND review.status = 'completed'
WHERE starts_with(run.temporal_workflow_id, :mark)
""")


async def came_to(on: Stack, name: str, count: int, mark: str) -> list[Work]:
    """In the order of the tasks."""
    async with on.engine.connect() as connection:
        rows = await connection.execute(_CAME_TO, {"mark": f"{mark}-{name}-"})
        found = {row[0]: Work(row[1], float(row[2]), float(row[3]), float(row[4])) for row in rows}
    return [found[f"{mark}-{name}-{number}"] for number in range(count)]


async def learn(on: Stack) -> dict[str, Any]:
    """By the platform's own workflow; returns what judging said, and puts the checkpoint to work."""
    await on.client.execute_workflow(
        "facilitair.learn",
        LearnRequest(tenant="default", by="bench"),
        id="bench-learn",
        task_queue=QUEUE_LEARNING,
    )
    async with transaction(on.engine) as connection:
        [training] = await connection.execute(
            text("SELECT status, reason, figures, data FROM trainings ORDER BY started_at DESC LIMIT 1")
        )
        if training.status != "registered":
            raise SystemExit(f"nothing was learned: {training.status}, {training.reason}")
        [challenger] = await checkpoints.serving(connection, "default", simulated=True)
        for _ in ("share", "all"):
            await checkpoints.promote(connection, "default", challenger.number, "bench")
    return {"figures": training.figures, "data": training.data}


async def decides(on: Stack, given: Sequence[str]) -> None:
    """Until the worker has loaded the checkpoint, rules decide. One that rises by evidence has been loaded
    since it was in shadow."""
    policy = text("SELECT policy FROM routing_decisions ORDER BY created_at DESC LIMIT 1")
    for number, task in enumerate(given):
        handle = await on.start(ROUTED, {"task": task}, f"warm-{number}")
        await asyncio.wait_for(handle.result(), 300)
        async with on.engine.connect() as connection:
            if str(await connection.scalar(policy)).startswith("checkpoint-"):
                return
    raise SystemExit("the checkpoint never decided")


_BY: Final = text("""
SELECT decision.policy, count(*) FROM routing_decisions AS decision
JOIN collaborations AS run ON run.id = decision.collaboration_id
WHERE starts_with(run.temporal_workflow_id, 'new-') GROUP BY 1
""")


def compare(routed: Sequence[Work], by_model: dict[str, list[Work]], given: Sequence[str]) -> dict[str, Any]:
    """Each arm's means, and the routed runs' differences to it with 95 % intervals (bootstrap over tasks)."""
    names = list(by_model)
    values = {
        what: np.array([[getattr(one, what) for one in by_model[name]] for name in names]).T
        for what in ("quality", "usd", "seconds")
    }
    every = np.arange(len(given))
    arms: dict[str, Any] = {name: {w: v[:, i] for w, v in values.items()} for i, name in enumerate(names)}
    # As rules would have drawn: each model by its chance.
    chances = np.array(
        [[rules.choose(task, "coder", names, "").candidates[name] for name in names] for task in given]
    )
    arms["rules"] = {what: (value * chances).sum(1) for what, value in values.items()}
    arms["random"] = {what: value.mean(1) for what, value in values.items()}
    best = values["quality"].argmax(1)
    arms["oracle"] = {what: value[every, best] for what, value in values.items()}
    ours = {w: np.array([getattr(one, w) for one in routed]) for w in values}
    found: dict[str, Any] = {"routed": {w: float(v.mean()) for w, v in ours.items()}}
    for name, arm in arms.items():
        found[name] = {w: float(v.mean()) for w, v in arm.items()}
        for what in values:
            gain = ours[what] - arm[what]
            low, high = interval(lambda drawn, gain=gain: float(gain[drawn].mean()), len(gain))  # type: ignore[misc]
            found[name][f"routed_{what}_minus"] = [float(gain.mean()), low, high]
    single = max(names, key=lambda name: found[name]["quality"])
    found["best_single"] = single
    found["usd_saved_against_best_single"] = 1 - found["routed"]["usd"] / found[single]["usd"]
    found["choices"] = {name: sum(one.model == name for one in routed) for name in names}
    return found


async def measure(*, short: bool) -> dict[str, Any]:
    history, shown = (60, 40) if short else (500, 200)
    async with stack((*SERVERS, "worker", "projector")) as on:
        await on.store(definition(ROUTED, {"among": list(ROUTABLE_MODELS)}))
        for model in ROUTABLE_MODELS:
            await on.store(definition(fixed(model), model))
        past, new = tasks(history, SEED), tasks(history + shown, SEED + 1)
        new = [task for task in new if task not in set(past)][:shown]
        began = time.monotonic()
        _say(f"a history of {2 * history} runs")
        await run_all(on, ROUTED, past, "past")
        each = history // len(ROUTABLE_MODELS)
        for number, model in enumerate(ROUTABLE_MODELS):
            await run_all(on, fixed(model), past[number * each : (number + 1) * each], "past")
        _say("learning")
        learned = await learn(on)
        _say("waiting until it decides")
        await decides(on, past)
        _say(f"{shown} new tasks, routed and by each model")
        await run_all(on, ROUTED, new, "new")
        for model in ROUTABLE_MODELS:
            await run_all(on, fixed(model), new, "new")
        by_model = {model: await came_to(on, fixed(model), len(new), "new") for model in ROUTABLE_MODELS}
        found = compare(await came_to(on, ROUTED, len(new), "new"), by_model, new)
        async with on.engine.connect() as connection:
            found["decided_by"] = {row[0]: row[1] for row in await connection.execute(_BY)}
        return found | {"learned": learned, "seconds": round(time.monotonic() - began)}


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.routing", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small form of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found = asyncio.run(measure(short=arguments.short))
    if arguments.json:
        print(json.dumps(found, default=str))
        return
    print(f"{'arm':32} quality      usd  seconds")
    for name, arm in found.items():
        if isinstance(arm, dict) and "quality" in arm:
            print(f"{name:32} {arm['quality']:.3f} {arm['usd']:10.6f} {arm['seconds']:6.2f}")
    single = found["best_single"]
    print(f"routed minus {single}: {found[single]['routed_quality_minus']}")
    print(f"saved: {found['usd_saved_against_best_single']:.1%}; choices: {found['choices']}")


if __name__ == "__main__":
    main()
