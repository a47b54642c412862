"""Watchers whose connection breaks all the time, while the API and the worker are killed: is anything lost,
told twice or told out of order? Judged by what Postgres holds in the end."""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import httpx
from sqlalchemy import text

from bench.streaming.client import Frame, opened
from bench.streaming.latency import MODEL
from tests.support.stack import Stack

CHAIN: Final[dict[str, Any]] = {
    "name": "bench-cut",
    "agents": {"a": {"role": "coder", "model": MODEL}},
    "steps": {
        "one": {"kind": "agent", "agent": "a", "prompt": "Speak once.", "retry": {"max_attempts": 20}},
        "two": {"kind": "agent", "agent": "a", "prompt": "Speak too.", "retry": {"max_attempts": 20}},
        "three": {
            "kind": "agent",
            "agent": "a",
            "prompt": "Say more of ${steps.one.output} ${steps.two.output}.",
            "retry": {"max_attempts": 20},
        },
    },
}
_RETURN_SECONDS: Final = (0.0, 0.3)


@dataclass
class Verdict:
    disconnects: int = 0
    kills: int = 0
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0


class Client:
    """One who watches a run to its end, whatever happens to the connection."""

    def __init__(self, url: str, run: str, chance: random.Random) -> None:
        self.url, self.run, self.chance = url, run, chance
        self.frames: list[Frame] = []
        self.cuts = 0

    async def watch(self, enough: "asyncio.Event") -> None:
        while not (self.frames and _kind(self.frames[-1]) in ("RUN_FINISHED", "RUN_ERROR")):
            patience = 60.0 if enough.is_set() else self.chance.uniform(0.02, 3.0)
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(patience):
                    await self._read()
            await asyncio.sleep(self.chance.uniform(*_RETURN_SECONDS))

    async def _read(self) -> None:
        last = next((frame.id for frame in reversed(self.frames) if frame.id), "")
        path = f"/v1/collaborations/{self.run}/stream"
        async with opened(self.url, path, last) as stream:
            try:
                async for frame in stream:
                    self.frames.append(frame)
            except BaseException:
                self.cuts += 1
                stream.cut()
                raise


def _kind(frame: Frame) -> str:
    return str(frame.json()["type"])


async def disconnects(
    on: Stack, api: httpx.AsyncClient, *, wanted: int, runs_at_a_time: int, kills: int, seed: int
) -> Verdict:
    """Go on until connections were cut so often, the kills of API and worker included."""
    chance = random.Random(seed)
    verdict = Verdict()
    rule = {
        "kind": "pace",
        "times": 1_000_000,
        "text": "word " * 60,
        "tokens_per_second": 40,
        "delay_seconds": 0.1,
        "match": {"model": MODEL},
    }
    async with httpx.AsyncClient(base_url=on.settings.simulator_url) as control:
        await control.delete("/_simulator/faults")
        (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    enough = asyncio.Event()
    killing = asyncio.create_task(_kill(on, chance, kills, verdict))
    lanes = [_lane(on, api, lane, wanted, verdict, enough, chance) for lane in range(runs_at_a_time)]
    await asyncio.gather(*lanes)
    await killing
    return verdict


async def _kill(on: Stack, chance: random.Random, kills: int, verdict: Verdict) -> None:
    for number in range(kills):
        await asyncio.sleep(chance.uniform(2.0, 6.0))
        name = "api" if number % 2 == 0 else "worker"
        await asyncio.to_thread(on.supervisor.kill, name)
        verdict.kills += 1


async def _lane(
    on: Stack,
    api: httpx.AsyncClient,
    lane: int,
    wanted: int,
    verdict: Verdict,
    enough: asyncio.Event,
    chance: random.Random,
) -> None:
    """One run after the other, each with two watchers, until it was enough."""
    number = 0
    while not enough.is_set():
        run = f"bench-cut-{lane}-{number}"
        number += 1
        await on.start("bench-cut", {}, run)
        await _known(on, run)
        clients = [Client(str(api.base_url), run, random.Random(chance.random())) for _ in range(2)]
        await asyncio.gather(*(client.watch(enough) for client in clients))
        truth = await _truth(on, run)
        for client in clients:
            verdict.disconnects += client.cuts
            _judge(client.frames, truth, verdict)
        if verdict.disconnects >= wanted:
            enough.set()


async def _known(on: Stack, run: str) -> None:
    query = text("SELECT 1 FROM collaborations WHERE temporal_workflow_id = :run")
    while True:
        async with on.engine.connect() as connection:
            if (await connection.execute(query, {"run": run})).first():
                return
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Truth:
    said: dict[str, str]
    """Completed execution → all its tokens."""
    partly: dict[str, str]
    """Execution of an attempt that was given up or failed → what of its tokens is kept."""
    attempts: Counter[str]
    """At each step: a stream tells of each attempt's beginning and end."""


_SAID = text("""
    SELECT e.id, e.status, e.path, coalesce(string_agg(t.token, '' ORDER BY t.seq), '') AS said
    FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
    LEFT JOIN token_stream t ON t.execution_id = e.id
    WHERE c.temporal_workflow_id = :run GROUP BY e.id, e.status, e.path
""")


async def _truth(on: Stack, run: str) -> Truth:
    async with on.engine.connect() as connection:
        rows: list[tuple[UUID, str, str, str]] = [
            tuple(row) for row in await connection.execute(_SAID, {"run": run})
        ]
    return Truth(
        {str(id): said for id, status, _, said in rows if status == "completed"},
        {str(id): said for id, status, _, said in rows if status != "completed"},
        Counter(path for _, _, path, _ in rows),
    )


def _judge(frames: list[Frame], truth: Truth, verdict: Verdict) -> None:
    """Compare what one watcher was told with what there was to tell."""
    events = [frame.json() for frame in frames]
    kinds = Counter(event["type"] for event in events)
    verdict.events += len(events)
    verdict.lost += (kinds["RUN_STARTED"] == 0) + (kinds["RUN_FINISHED"] + kinds["RUN_ERROR"] == 0)
    verdict.duplicated += max(0, kinds["RUN_STARTED"] - 1) + max(0, kinds["RUN_FINISHED"] - 1)
    verdict.reordered += events[0]["type"] != "RUN_STARTED"
    heard: dict[str, list[str]] = {}
    marks: dict[str, list[str]] = {}
    for event in events:
        if id := event.get("messageId"):
            marks.setdefault(id, []).append(event["type"].removeprefix("TEXT_MESSAGE_"))
            if "delta" in event:
                heard.setdefault(id, []).append(event["delta"])
    for id, said in truth.said.items():
        got, order = "".join(heard.get(id, [])), marks.get(id, [])
        verdict.lost += order.count("START") == 0 or order.count("END") == 0 or len(got) < len(said)
        verdict.duplicated += order.count("START") > 1 or order.count("END") > 1 or len(got) > len(said)
        in_order = order[:1] == ["START"] and order[-1:] == ["END"]
        verdict.reordered += bool(order) and (not in_order or (len(got) == len(said) and got != said))
    for id, said in truth.partly.items():
        got = "".join(heard.get(id, []))
        verdict.duplicated += len(got) > len(said)
        verdict.reordered += not said.startswith(got) and len(got) <= len(said)
    verdict.lost += len(heard.keys() - truth.said.keys() - truth.partly.keys())
    steps = Counter(event["stepName"] for event in events if event["type"] == "STEP_FINISHED")
    verdict.lost += len({"one", "two", "three"} - steps.keys())
    verdict.duplicated += sum(max(0, count - truth.attempts[step]) for step, count in steps.items())
    verdict.duplicated += len(frames) - len({(frame.id, frame.data) for frame in frames})
