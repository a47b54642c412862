"""What runs came to, as Prometheus reads it."""

import asyncio
import re
import uuid

import httpx

from db.runs.figures import MAX_LABELS, OTHER, RunFigures, _label
from tests.support.api_client import door
from tests.support.stack import Stack

_LINE = re.compile(r"(?P<name>[a-z_]+)(?P<labels>\{[^}]*\})? (?P<value>[0-9.e+-]+)")


async def read(http: httpx.AsyncClient) -> dict[str, float]:
    text = (await http.get("/metrics")).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = [_LINE.fullmatch(line) for line in lines]
    assert all(found), text
    return {f"{one['name']}{one['labels'] or ''}": float(one["value"]) for one in found if one}


async def test_runs_steps_errors_tokens_and_cost_are_counted(platform: Stack) -> None:
    name = f"counted-{uuid.uuid4().hex[:8]}"
    steps = {"ask": {"kind": "agent", "agent": "a", "prompt": "Write a loop."}}
    agents = {"a": {"model": "openai/gpt-4o-mini"}}
    await platform.store({"name": name, "agents": agents, "steps": steps})
    failing = {
        "kind": "tool",
        "tool": "http",
        "args": {"url": "http://127.0.0.1:9"},
        "retry": {"max_attempts": 1},
    }
    await platform.store({"name": f"{name}-bad", "steps": {"fetch": failing}})
    async with door(platform.settings) as http:
        await read(http)  # from here on is counted
        await (await platform.start(name, {}, name)).result()
        await platform.start(f"{name}-bad", {}, f"{name}-bad")
        wanted = {
            'facilitair_runs_total{status="completed"}',
            'facilitair_runs_total{status="failed"}',
            'facilitair_steps_total{status="completed"}',
            'facilitair_steps_total{status="failed"}',
            'facilitair_errors_total{code="tool_not_allowed"}',
            "facilitair_run_seconds_sum",
            'facilitair_cost_usd_total{model="openai/gpt-4o-mini"}',
            'facilitair_tokens_total{model="openai/gpt-4o-mini",direction="input"}',
            'facilitair_tokens_total{model="openai/gpt-4o-mini",direction="output"}',
        }
        async with asyncio.timeout(30):
            while missing := {one for one in wanted if not (found := await read(http)).get(one)}:
                await asyncio.sleep(0.2)
                assert missing
    assert found["facilitair_run_seconds_count"] >= 2


def test_names_beyond_the_most_are_counted_together() -> None:
    figures = RunFigures()
    for number in range(MAX_LABELS + 3):
        figures.errors[_label(figures.errors, f"e{number}")] += 1
    assert (len(figures.errors), figures.errors[OTHER]) == (MAX_LABELS + 1, 3)
