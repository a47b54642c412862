"""Shared limits, the cache and single flight over several processes. Run: python -m bench.gateway.traffic

The judge is the simulator: when calls arrived there, and how many.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Final
from uuid import uuid4

import httpx
from sqlalchemy import text

from activities.agent.activity import AgentActivity
from activities.agent.single_flight import Flights
from activities.agent.tokens import TokenLog
from db.engine import async_engine, transaction
from db.runs import executions
from db.runs.executions import Assignment
from db.wakeups import Bell
from gateway.client import Gateway, warm_up
from gateway.limits.access import Traffic
from gateway.limits.window import WindowPace
from gateway.request import Completion, Message, ModelRequest
from schema.errors import ProviderError
from schema.settings import Settings
from schema.temporal.steps import StepRequest
from tests.support.providers import running_simulator
from tests.support.runs import begin, means_of
from tests.support.stack import stack

PROCESSES: Final = 4
BY_REQUESTS: Final = "openai/gpt-4o-mini"
"""Without a key: the simulator answers, under its own name's limits."""
BY_TOKENS: Final = "openai/gpt-4o"
WAITING: Final = 30
"""Calls of each process that wait on each account at any time."""
ASKING: Final = {
    "agents": {"a": {"model": BY_REQUESTS}},
    "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "Name a colour.", "cache": {"ttl": "1h"}}},
}


@dataclass(frozen=True)
class Load:
    """What one process does."""

    database_url: str
    simulator_url: str
    pace: WindowPace
    seconds: float
    limits: str
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Minutes:
    """How an account's limit was kept, in every sliding minute."""

    limit: int
    most: int
    violations: int
    """Minutes, each beginning with an arrival, that hold more than the limit."""
    used: float
    """Smallest share of the limit in a minute after the first one, while calls waited."""
    arrivals: int


async def limits(
    database_url: str,
    simulator_url: str,
    *,
    seconds: float = 200,
    requests: int = 600,
    tokens: int = 30_000,
    pace: WindowPace | None = None,
) -> dict[str, Any]:
    """Four processes ask for more than two accounts are allowed. With another `pace` a minute is shorter."""
    pace = pace or WindowPace()
    load = Load(database_url, simulator_url, pace, seconds, f"simulator={requests}/,openai=/{tokens}")
    async with httpx.AsyncClient(base_url=simulator_url, timeout=60) as control:
        (await control.delete("/_simulator/calls")).raise_for_status()
        made = sum(await _processes("load", [load] * PROCESSES))
        found = await _arrivals(control)
    window = pace.window / 1000
    kept = {
        "requests": _minutes([(at, 1) for at, model, _ in found if model == BY_REQUESTS], requests, window),
        "tokens": _minutes([(at, used) for at, model, used in found if model != BY_REQUESTS], tokens, window),
    }
    return {
        "rate_limit_violations": sum(one.violations for one in kept.values()),
        "rate_limit_used": round(min(one.used for one in kept.values()), 4),
        "rate_limit_window_seconds": window,
        "rate_limit_processes": PROCESSES,
        "rate_limit_calls": made,
        "rate_limit_accounts": {name: asdict(one) for name, one in kept.items()},
    }


async def limits_short(database_url: str, simulator_url: str) -> dict[str, Any]:
    """The same with minutes of six seconds, of which the margin takes a greater part: less can be used."""
    pace = WindowPace(window=6_000, margin=600, slot=100, spread=800, share=150)
    return await limits(database_url, simulator_url, seconds=19, requests=100, tokens=6_000, pace=pace)


async def cache(
    database_url: str, simulator_url: str, *, stored: int = 2_000, steps: int = 100
) -> dict[str, Any]:
    """How long a hit takes, and how often the provider is asked by equal steps of two processes."""
    return {**await _hits(database_url, stored), **await _single(database_url, simulator_url, steps)}


async def _hits(database_url: str, stored: int) -> dict[str, Any]:
    engine = async_engine(database_url)
    flights = Flights(engine)
    request = await begin(engine, ASKING)
    fill = """
        WITH made AS (
            INSERT INTO agent_executions (id, tenant_id, collaboration_id, path, step_id, kind, attempt,
                agent_name, model_id, provider, status, output, started_at, completed_at)
            SELECT gen_random_uuid(), 'default', CAST(:run AS uuid), 'm[' || n || '].ask', 'ask', 'agent', 1,
                'a', 'm', 'simulator', 'completed', CAST(:output AS json), now(), now()
            FROM generate_series(1, :stored) n
            RETURNING id, path
        )
        INSERT INTO step_cache (key, execution_id) SELECT path, id FROM made
    """
    output = json.dumps("A few words of an answer. " * 40)
    async with transaction(engine) as connection:
        values = {"run": request.collaboration, "output": output, "stored": stored}
        await connection.execute(text(fill), values)
        claim = await executions.claim(connection, request, Assignment("agent", "a"))
    times = []
    until = asyncio.get_running_loop().time() + 600
    for number in [1] * 50 + list(range(1, stored + 1)):
        began = time.perf_counter()
        found = await flights.take("default", f"m[{number}].ask", 3600, claim.execution, until, 60)
        times.append((time.perf_counter() - began) * 1000)
        assert found is not None
    await flights.close()
    await engine.dispose()
    cuts = statistics.quantiles(times[50:], n=100, method="inclusive")
    return {
        "cache_hit_ms": round(cuts[98], 3),
        "cache_hit_p50_ms": round(cuts[49], 3),
        "cache_stored": stored,
    }


async def _single(database_url: str, simulator_url: str, steps: int) -> dict[str, Any]:
    engine = async_engine(database_url)
    # Another prompt each time: what an earlier measurement left must not be found.
    asked = json.loads(json.dumps(ASKING).replace("colour", f"colour, {uuid4().hex}"))
    runs = [(await begin(engine, asked)).collaboration for _ in range(steps)]
    await engine.dispose()
    load = Load(database_url, simulator_url, WindowPace(), 60, "")
    async with httpx.AsyncClient(base_url=simulator_url, timeout=60) as control:
        slow = {"kind": "slow", "delay_seconds": 1.0}
        (await control.delete("/_simulator/calls")).raise_for_status()
        (await control.post("/_simulator/faults", json=[slow])).raise_for_status()
        done = await _processes("steps", [replace(load, runs=tuple(runs[part::2])) for part in range(2)])
        calls = (await control.get("/_simulator/calls")).json()["total"]["calls"]
        (await control.delete("/_simulator/faults")).raise_for_status()
    assert sum(done) == steps, f"{sum(done)} of {steps} steps completed"
    return {"single_flight_calls": calls, "single_flight_steps": steps}


async def _processes(what: str, loads: Sequence[Load]) -> list[int]:
    """What each of them prints in the end; they begin when all are ready."""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.gateway.traffic",
            "--as",
            what,
            json.dumps(asdict(load)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for load in loads
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n", "a process of the benchmark did not start"
        ended = await asyncio.gather(*(process.communicate(b"go\n") for process in started))
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                process.kill()
    assert all(process.returncode == 0 for process in started), "a process of the benchmark failed"
    return [int(out) for out, _ in ended]


async def _ready() -> None:
    """Until all others are, too."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _load(load: Load) -> int:
    """Ask for more than is allowed, until the time is up."""
    settings = Settings.model_validate(
        {
            "simulator_url": load.simulator_url,
            "provider_limits": load.limits,
            "openai_api_key": "",
            "anthropic_api_key": "",
            "openrouter_api_key": "",
            "deepseek_api_key": "",
            "ollama_host": "",
        }
    )
    by_tokens = settings.model_copy(
        update={"openai_api_key": "bench", "openai_base_url": f"{load.simulator_url}/v1"}
    )
    traffic = Traffic(load.database_url, load.pace)
    gateways = {BY_REQUESTS: Gateway(settings), BY_TOKENS: Gateway(by_tokens)}
    await asyncio.to_thread(warm_up)
    loop, made = asyncio.get_running_loop(), 0
    await _ready()
    end = loop.time() + load.seconds

    async def ask(gateway: Gateway, model: str, number: int) -> None:
        nonlocal made
        request = ModelRequest(
            model, [Message("user", f"Write a few words about the number {number}.")], max_output_tokens=60
        )
        to, most = gateway.destination(model), gateway.worst_case(request).tokens
        while True:
            try:
                async with traffic.passage(to, tokens=most, until=end, tenant=f"t{number % 3}") as passage:
                    async for piece in gateway.stream(request):
                        if isinstance(piece, Completion):
                            passage.used(piece.usage)
                made += 1
            except ProviderError as error:
                if loop.time() + (error.retry_after_seconds or 0) >= end:
                    return
                raise

    await asyncio.gather(
        *(ask(gateway, model, n) for model, gateway in gateways.items() for n in range(WAITING))
    )
    await traffic.close()
    for gateway in gateways.values():
        await gateway.close()
    return made


async def _steps(load: Load) -> int:
    """All steps at once."""
    bell = Bell(load.database_url)
    engine = async_engine(load.database_url, pool_size=20, bell=bell)
    log = TokenLog(load.database_url, bell)
    async with means_of(engine, load.simulator_url, log) as means:
        agents = AgentActivity(means)
        await asyncio.to_thread(warm_up)
        await _ready()
        results = await asyncio.gather(
            *(agents.agent(StepRequest(run, "default", "ask", _TRACEPARENT)) for run in load.runs)
        )
    await log.close()
    await bell.close()
    await engine.dispose()
    return sum(result.status == "completed" for result in results)


_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _arrivals(control: httpx.AsyncClient) -> list[tuple[float, str, int]]:
    found: list[tuple[float, str, int]] = []
    while True:
        since = repr(found[-1][0]) if found else "0"
        page = (await control.get("/_simulator/arrivals", params={"since": since})).json()
        if not page:
            return found
        found += [(at, model, used) for at, model, used in page]


def _minutes(found: list[tuple[float, int]], limit: int, window: float) -> Minutes:
    """Judge every sliding minute; those that calls still waited in for what was used."""
    found = sorted(found)
    times, sums = [at for at, _ in found], [0, *accumulate(amount for _, amount in found)]
    held = [sums[bisect_left(times, at + window)] - sums[start] for start, at in enumerate(times)]
    # The emptiest minutes begin right after an arrival and end right before one.
    later = [
        sums[bisect_left(times, at + window)] - sums[bisect_right(times, at)]
        for at in times
        if times[0] + window <= at <= times[-1] - window
    ]
    used = min(later, default=0) / limit
    return Minutes(limit, max(held, default=0), sum(one > limit for one in held), round(used, 4), len(found))


async def _measure(*, short: bool, only: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with stack(("temporal", "postgres", "migrate")) as here:
        url = here.settings.database_url
        with running_simulator() as simulator_url:
            if only != "cache":
                measure = limits_short if short else limits
                found |= await measure(url, simulator_url)
            if only != "limits":
                found |= await cache(url, simulator_url)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="minutes of six seconds; no figures to quote")
    parser.add_argument("--only", choices=("limits", "cache"), default="")
    parser.add_argument("--as", dest="what", choices=("load", "steps"), help=argparse.SUPPRESS)
    parser.add_argument("load", nargs="?", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what:
        given = json.loads(arguments.load)
        load = Load(**given | {"pace": WindowPace(**given["pace"]), "runs": tuple(given["runs"])})
        print(asyncio.run(_load(load) if arguments.what == "load" else _steps(load)))
        return
    print(json.dumps(asyncio.run(_measure(short=arguments.short, only=arguments.only)), indent=2))


if __name__ == "__main__":
    main()
