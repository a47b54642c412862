"""Live streams, measured on real servers: `python -m bench.streaming [--short] [--json]`.

Everything runs on this machine: provider, worker, Postgres, API and all watchers share its processors.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

from httpx import AsyncClient

from bench.streaming import hands, latency
from bench.streaming.client import door
from bench.streaming.disconnects import CHAIN, disconnects
from bench.streaming.latency import percentile, together
from bench.streaming.log import throughput
from tests.support.stack import SERVERS, Stack, stack


@dataclass(frozen=True)
class Size:
    disconnects: int
    lanes: int
    kills: int
    alone: int
    at_once: int
    tokens: int
    watchers: int
    rows: int
    pauses: int


FULL = Size(1_000, 20, 8, 40, 200, 300, 500, 4_000, 30)
SHORT = Size(60, 5, 2, 5, 20, 60, 50, 500, 4)


@dataclass(frozen=True)
class Report:
    disconnects: int
    kills: int
    events: int
    events_lost: int
    events_duplicated: int
    events_reordered: int
    ttft_added_p50_ms: float
    ttft_added_p95_ms: float
    ttft_total_p95_ms: float
    """From the request to the first token at a watcher, the provider's own 200 ms included."""
    intertoken_added_p50_ms: float
    intertoken_added_p95_ms: float
    """Of one run at a time."""
    intertoken_added_p95_ms_at_200: float
    """While all of them speak, ten tokens a second each."""
    runs_at_once: int
    tokens_per_s_at_200: float
    """What watchers got then, all together."""
    longest_gap_s_at_200: float
    incomplete_at_200: int
    pause_p50_ms: float
    pause_p95_ms: float
    feedback_in_next_prompt: str
    watchers: int
    watchers_added_p95_ms: float
    tokens_per_s: float
    chunks_per_s: float
    """Of 16 tokens each."""
    log_exact: bool
    history_events_per_token: float
    seconds: float


async def measure(size: Size, seed: int) -> Report:
    began = time.monotonic()
    async with stack((*SERVERS, "worker", "api")) as on, door(on) as api:
        for definition in (latency.DEFINITION, hands.CHAIN, CHAIN):
            await on.store(definition)
        _say("warm up")
        await latency.many(on, api, "warm", runs=6, at_a_time=2, tokens=20, per_second=50, first_after=0.2)
        _say("one at a time")
        alone = await latency.many(
            on, api, "alone", runs=size.alone, at_a_time=1, tokens=40, per_second=50, first_after=0.2
        )
        few, many = await _history(on, "alone-0"), await _longer(on, api)
        _say(f"{size.at_once} at once")
        at_once = await latency.many(
            on,
            api,
            "crowd",
            runs=size.at_once,
            at_a_time=size.at_once,
            tokens=size.tokens,
            per_second=10,
            first_after=8.0,
        )
        _say(f"{size.watchers} watchers of one run")
        crowd = await latency.crowd(on, api, watchers=size.watchers, tokens=100, per_second=20)
        _say("the log by itself")
        single = await throughput(on, runs=20, rows=size.rows, size=1)
        chunks = await throughput(on, runs=20, rows=size.rows // 4, size=16)
        _say("pauses and feedback")
        paused = await hands.pauses(on, api, trials=size.pauses, seed=seed)
        told = await hands.told(on, api, trials=max(2, size.pauses // 5))
        _say("disconnects")
        cut = await disconnects(
            on, api, wanted=size.disconnects, runs_at_a_time=size.lanes, kills=size.kills, seed=seed
        )
    whole = [one for one in at_once if one.complete]
    since, until = together(whole)
    spoken = sum(since <= at <= until for one in whole for at in one.heard_at)
    return Report(
        cut.disconnects,
        cut.kills,
        cut.events,
        cut.lost,
        cut.duplicated,
        cut.reordered,
        _ms([one.first_added for one in alone], 0.5),
        _ms([one.first_added for one in alone], 0.95),
        _ms([one.first_total for one in alone], 0.95),
        _ms([gap for one in alone for gap in one.gaps_added()], 0.5),
        _ms([gap for one in alone for gap in one.gaps_added()], 0.95),
        _ms([gap for one in whole for gap in one.gaps_added(since, until)], 0.95),
        len(whole),
        round(spoken / (until - since), 1),
        round(max(one.longest_gap() for one in whole), 3),
        len(at_once) - len(whole),
        _ms(paused, 0.5),
        _ms(paused, 0.95),
        f"{told} of {max(2, size.pauses // 5)}",
        crowd.watchers,
        round(crowd.added_p95 * 1000, 1),
        round(single.rows_per_s),
        round(chunks.rows_per_s),
        single.delivered and chunks.delivered,
        round((many - few) / 360, 4),
        round(time.monotonic() - began, 1),
    )


async def _longer(on: Stack, api: AsyncClient) -> int:
    """Events in the history of a run that says 400 tokens instead of 40."""
    await latency.many(on, api, "longer", runs=1, at_a_time=1, tokens=400, per_second=400, first_after=0.2)
    return await _history(on, "longer-0")


async def _history(on: Stack, id: str) -> int:
    return len((await on.client.get_workflow_handle(id).fetch_history()).events)


def _ms(values: list[float], share: float) -> float:
    return round(percentile(values, share) * 1000, 1)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.streaming", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small form of everything")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    report = asyncio.run(measure(SHORT if arguments.short else FULL, arguments.seed))
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        for name, value in asdict(report).items():
            print(f"{name:34} {value}")
    return int(report.events_lost + report.events_duplicated + report.events_reordered > 0)


if __name__ == "__main__":
    sys.exit(main())
