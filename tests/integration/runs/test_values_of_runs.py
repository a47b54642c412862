"""What expressions come to in real runs, and what a run says whose last steps were all skipped."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from tests.support.api_client import door
from tests.support.stack import Stack

NEVER = {
    "r": {"kind": "switch", "cases": [{"when": "input.r", "then": "a"}], "else": "b"},
    "b": {"kind": "transform", "value": "B", "needs": ["r:b"]},
    "d": {"kind": "transform", "value": "D", "needs": ["b"]},
}
NUMBERS = {"properties": {"n": {"type": "number"}, "m": {"type": "number", "default": 3}}}
CASES: list[tuple[dict[str, Any], dict[str, Any], Any, str]] = [
    (
        {"steps": {"t": {"kind": "transform", "value": "${timestamp(input.b) - timestamp(input.a)}"}}},
        {"a": "2026-01-01T00:00:00Z", "b": "2026-01-15T06:13:27Z"},
        "1232007s",
        "",
    ),
    (
        {
            "steps": {
                "t": {"kind": "transform", "value": "${input.n}"},
                "u": {"kind": "transform", "value": {"n": "${steps.t.output}"}},
            }
        },
        {"n": 2**64},
        {"n": 2**64},
        "",
    ),
    (
        {"input": NUMBERS, "steps": {"t": {"kind": "transform", "value": "${input.n / 2 + input.m}"}}},
        {"n": 1},
        3.5,
        "",
    ),
    ({"steps": NEVER}, {"r": True}, None, "no_output"),
    ({"steps": NEVER}, {"r": False}, "D", ""),
    ({"steps": NEVER, "output": {"d": "${steps[?'d'].?output.orValue(null)}"}}, {"r": True}, {"d": None}, ""),
]


@pytest.mark.parametrize("chain", ["quick", "off"])
@pytest.mark.parametrize(("document", "given", "output", "sub_state"), CASES)
async def test_what_a_run_comes_to(
    platform: Stack, document: dict[str, Any], given: dict[str, Any], output: Any, sub_state: str, chain: str
) -> None:
    name = f"values-{uuid.uuid4().hex[:8]}"
    await platform.store({**document, "name": name, "defaults": {"chain": chain}})
    handle = await platform.start(name, given, name)
    assert await asyncio.wait_for(handle.result(), 60) == output
    async with door(platform.settings) as http:
        run = await _run(http, name)
    assert (run["status"], run["sub_state"], run["output"]) == ("completed", sub_state, output)


async def _run(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/collaborations/{id}", params={"include": "output"})
    return dict(answer.raise_for_status().json())
