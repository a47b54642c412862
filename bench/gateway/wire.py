"""What the gateway adds to a call: time, processor and memory. Run: python -m bench.gateway.wire"""

import argparse
import asyncio
import gc
import json
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx

from gateway.client import Gateway, warm_up
from gateway.destinations import Destinations
from gateway.request import Completion, Message, ModelRequest
from gateway.translate import outgoing
from schema.settings import Settings
from tests.support.providers import only_simulated, running_simulator

MODEL: Final = "openai/gpt-4o-mini"
PROMPT: Final = (Message("system", "You are a programmer."), Message("user", "Build a rate limiter."))
# The time that a quick model takes; the calls wait for it and not for the processor.
FIRST_TOKEN_SECONDS: Final = 0.2
TOKENS_PER_SECOND: Final = 50.0
TOKENS: Final = 20
WARM_UP_CALLS: Final = 2_000

Call = Callable[[], Awaitable[None]]


async def overhead(simulator_url: str, calls: int = 1_000, concurrent: int = 50) -> dict[str, float]:
    """What the gateway adds to bare calls of aiohttp, which are made in turn with its own in the same run.

    `calls` of each kind; the processor's time per call is taken in a run of each kind by itself.
    """
    await _script(simulator_url, 4 * calls + 2 * concurrent)
    gateway = Gateway(only_simulated(simulator_url))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        bare, ours = _bare_call(session, simulator_url), _gateway_call(gateway)
        await asyncio.gather(bare(), ours())
        found: dict[str, list[float]] = {"bare": [], "gateway": []}

        async def slot(number: int) -> None:
            # Beginning all at once they would stay in step, and wait for each other.
            await asyncio.sleep(number / concurrent * (FIRST_TOKEN_SECONDS + TOKENS / TOKENS_PER_SECOND))
            for turn in range(2 * (calls // concurrent)):
                kind, call = ("bare", bare) if (turn + number) % 2 else ("gateway", ours)
                began = time.perf_counter()
                await call()
                found[kind].append((time.perf_counter() - began) * 1000)

        # Many threads' worth of garbage from the imports would be looked through in the middle of it.
        gc.collect()
        gc.freeze()
        await asyncio.gather(*(slot(number) for number in range(concurrent)))
        cpu = {
            name: await _cpu_ms(call, calls, concurrent) for name, call in (("bare", bare), ("gateway", ours))
        }
        gc.unfreeze()
    await gateway.close()
    return {
        "overhead_p50_ms": _percentile(found["gateway"], 50) - _percentile(found["bare"], 50),
        "overhead_p99_ms": _percentile(found["gateway"], 99) - _percentile(found["bare"], 99),
        "bare_p50_ms": _percentile(found["bare"], 50),
        "bare_p99_ms": _percentile(found["bare"], 99),
        "cpu_ms_per_call": cpu["gateway"],
        "bare_cpu_ms_per_call": cpu["bare"],
        "overhead_calls": float(len(found["gateway"])),
    }


async def growth(simulator_url: str, calls: int = 10_000, concurrent: int = 50) -> dict[str, float]:
    """What streamed calls leave in memory, by 10,000 of them."""
    async with httpx.AsyncClient(base_url=simulator_url) as control:
        (await control.delete("/_simulator/faults")).raise_for_status()
    gateway = Gateway(only_simulated(simulator_url))
    call = _gateway_call(gateway)
    await _many(call, WARM_UP_CALLS, concurrent)
    before = _resident_kib()
    await _many(call, calls, concurrent)
    after = _resident_kib()
    await gateway.close()
    return {"rss_growth_kib_per_10k": (after - before) * 10_000 / calls, "growth_calls": float(calls)}


async def _script(simulator_url: str, times: int) -> None:
    rule = {
        "kind": "pace",
        "times": times,
        "text": " ".join(["word"] * TOKENS),
        "tokens_per_second": TOKENS_PER_SECOND,
        "delay_seconds": FIRST_TOKEN_SECONDS,
    }
    async with httpx.AsyncClient(base_url=simulator_url) as control:
        (await control.delete("/_simulator/faults")).raise_for_status()
        (await control.post("/_simulator/faults", json=[rule])).raise_for_status()


def _bare_call(session: aiohttp.ClientSession, simulator_url: str) -> Call:
    """A call that knows what to send and reads the lines of what comes."""
    settings = Settings.model_validate({"simulator_url": simulator_url, "openai_api_key": ""})
    wanted = outgoing(ModelRequest(MODEL, PROMPT), Destinations(settings).find(MODEL, {}, "default"))

    async def call() -> None:
        async with session.post(wanted.url, data=wanted.body, headers=wanted.headers) as response:
            async for line in response.content:
                if line.startswith(b"data: [DONE]"):
                    break

    return call


def _gateway_call(gateway: Gateway) -> Call:
    async def call() -> None:
        async for piece in gateway.stream(ModelRequest(MODEL, PROMPT)):
            ended = isinstance(piece, Completion)
        assert ended

    return call


async def _cpu_ms(call: Call, calls: int, concurrent: int) -> float:
    began = time.process_time()
    await _many(call, calls, concurrent)
    return (time.process_time() - began) * 1000 / calls


async def _many(call: Call, calls: int, concurrent: int) -> None:
    async def slot() -> None:
        for _ in range(calls // concurrent):
            await call()

    await asyncio.gather(*(slot() for _ in range(concurrent)))


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _resident_kib() -> float:
    gc.collect()
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


async def _measure(calls: int, growth_calls: int) -> dict[str, Any]:
    with running_simulator() as url:
        return {**await overhead(url, calls), **await growth(url, growth_calls)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.gateway.wire")
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--growth-calls", type=int, default=10_000)
    arguments = parser.parse_args()
    warm_up()
    try:
        import uvloop

        run: Callable[..., dict[str, Any]] = uvloop.run
    except ImportError:
        run = asyncio.run
    figures = run(_measure(arguments.calls, arguments.growth_calls))
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
