"""What the way from the provider to a watcher adds, token by token, by the provider's own clock."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Final

import httpx

from bench.streaming.client import opened
from tests.support.stack import Stack

MODEL: Final = "openai/gpt-4o-mini"
DEFINITION: Final[dict[str, Any]] = {
    "name": "bench-speak",
    "agents": {"a": {"role": "coder", "model": MODEL}},
    "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "Speak, number ${input.number}."}},
    "input": {"type": "object", "properties": {"number": {"type": "string"}}},
}


@dataclass(frozen=True)
class TimedRun:
    """One run as its provider sent it and a watcher got it; Unix seconds."""

    asked_at: float
    sent_at: list[float]
    heard_at: list[float]

    @property
    def complete(self) -> bool:
        return len(self.sent_at) == len(self.heard_at) > 0

    @property
    def first_added(self) -> float:
        return self.heard_at[0] - self.sent_at[0]

    @property
    def first_total(self) -> float:
        return self.heard_at[0] - self.asked_at

    def gaps_added(self, since: float = 0.0, until: float = inf) -> list[float]:
        """By how much longer a watcher waited for each token than the provider had let them wait, of those
        sent between two moments."""
        within = [
            heard - sent
            for heard, sent in zip(self.heard_at, self.sent_at, strict=True)
            if since <= sent <= until
        ]
        return [max(0.0, after - before) for before, after in pairwise(within)]

    def longest_gap(self) -> float:
        gaps = (after - before for before, after in pairwise(self.heard_at))
        return max(gaps, default=0.0)


def together(heard: list[TimedRun]) -> tuple[float, float]:
    """From when to when all of them speak."""
    return max(one.sent_at[0] for one in heard), min(one.sent_at[-1] for one in heard)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def pace(on: Stack, *, times: int, tokens: int, per_second: float, first_after: float) -> None:
    """Script the provider: so many answers of so many tokens, each at its own moment."""
    rule = {
        "kind": "pace",
        "times": times,
        "text": " ".join(["word"] * tokens),
        "tokens_per_second": per_second,
        "delay_seconds": first_after,
        "match": {"model": MODEL},
    }
    async with httpx.AsyncClient(base_url=on.settings.simulator_url) as control:
        await control.delete("/_simulator/faults")
        await control.delete("/_simulator/calls")
        (await control.post("/_simulator/faults", json=[rule])).raise_for_status()


async def speak(on: Stack, api: httpx.AsyncClient, id: str) -> tuple[float, list[float]]:
    """Start a run and watch it; (when it was asked for, when each of its words was heard)."""
    asked_at = time.time()
    body = {"definition": "bench-speak", "input": {"number": id}, "id": id}
    (await api.post("/v1/collaborations", json=body)).raise_for_status()
    heard: list[float] = []
    async with opened(str(api.base_url), f"/v1/collaborations/{id}/stream") as stream:
        async for frame in stream:
            if b'"TEXT_MESSAGE_CONTENT"' in frame.data:
                heard += [frame.at] * frame.data.count(b"word")
    return asked_at, heard


async def sent(on: Stack) -> dict[str, list[float]]:
    """Run → when the provider sent each token, by its own books."""
    calls = (await on.provider_calls())["recent"]
    runs = await on.names_of(call["key"].split("/")[0] for call in calls)
    return {runs[call["key"].split("/")[0]]: call["sent_at"] for call in calls}


async def many(
    on: Stack,
    api: httpx.AsyncClient,
    prefix: str,
    *,
    runs: int,
    at_a_time: int,
    tokens: int,
    per_second: float,
    first_after: float,
) -> list[TimedRun]:
    """Runs that speak at the same time, each watched by one client."""
    await pace(on, times=runs, tokens=tokens, per_second=per_second, first_after=first_after)
    slots = asyncio.Semaphore(at_a_time)

    async def one(id: str) -> tuple[float, list[float]]:
        async with slots:
            return await speak(on, api, id)

    ids = [f"{prefix}-{number}" for number in range(runs)]
    heard = await asyncio.gather(*(one(id) for id in ids))
    by_run = await sent(on)
    return [TimedRun(asked, by_run.get(id, []), got) for id, (asked, got) in zip(ids, heard, strict=True)]


@dataclass(frozen=True)
class Crowd:
    watchers: int
    """Who were told the whole of one run, each the same."""
    added_p95: float
    """Seconds behind the provider, over all tokens and watchers."""


async def crowd(on: Stack, api: httpx.AsyncClient, *, watchers: int, tokens: int, per_second: float) -> Crowd:
    """So many clients watch one run."""
    id = "bench-crowd"
    await pace(on, times=1, tokens=tokens, per_second=per_second, first_after=3.0)
    body = {"definition": "bench-speak", "input": {"number": id}, "id": id}
    (await api.post("/v1/collaborations", json=body)).raise_for_status()

    async def watch() -> list[float]:
        heard: list[float] = []
        async with opened(str(api.base_url), f"/v1/collaborations/{id}/stream") as stream:
            async for frame in stream:
                if b'"TEXT_MESSAGE_CONTENT"' in frame.data:
                    heard += [frame.at] * frame.data.count(b"word")
        return heard

    got = await asyncio.gather(*(watch() for _ in range(watchers)))
    sent_at = (await sent(on))[id]
    whole = [heard for heard in got if len(heard) == len(sent_at)]
    late = [at - left for heard in whole for at, left in zip(heard, sent_at, strict=True)]
    return Crowd(len(whole), percentile(late, 0.95))
