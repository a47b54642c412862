"""How soon a run obeys: no model call begins after a pause, and what a person says is in the next prompt."""

import asyncio
import random
import time
from typing import Any, Final

import httpx

from bench.streaming.latency import MODEL
from tests.support.stack import Stack

STEPS: Final = 40
CHAIN: Final[dict[str, Any]] = {
    "name": "bench-chain",
    "agents": {"a": {"role": "coder", "model": MODEL}},
    "steps": {
        f"s{n}": {
            "kind": "agent",
            "agent": "a",
            "prompt": f"Step {n}.",
            **({"needs": [f"s{n - 1}"]} if n else {}),
        }
        for n in range(STEPS)
    },
}
_QUIET_SECONDS: Final = 0.8
_SAID: Final = "Mind the gap, please."


async def pauses(on: Stack, api: httpx.AsyncClient, *, trials: int, seed: int) -> list[float]:
    """Seconds from asking for a pause to the beginning of the last model call before all is quiet."""
    chance = random.Random(seed)
    rule = {
        "kind": "pace",
        "times": 100_000,
        "text": "ok " * 3,
        "tokens_per_second": 200,
        "delay_seconds": 0.02,
    }
    async with httpx.AsyncClient(base_url=on.settings.simulator_url) as control:
        await control.delete("/_simulator/faults")
        (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    return [await _pause(on, api, f"bench-pause-{n}", chance) for n in range(trials)]


async def _pause(on: Stack, api: httpx.AsyncClient, id: str, chance: random.Random) -> float:
    await _start(api, id)
    await _begun(on, api, id, chance.randint(1, 8))
    await asyncio.sleep(chance.random() * 0.1)
    asked_at = time.time()
    (await api.post(f"/v1/collaborations/{id}/pause")).raise_for_status()
    await asyncio.sleep(_QUIET_SECONDS)
    last = max(await _calls(on, api, id))
    (await api.post(f"/v1/collaborations/{id}/cancel")).raise_for_status()
    return max(0.0, last - asked_at)


async def told(on: Stack, api: httpx.AsyncClient, *, trials: int) -> int:
    """How often what a person said stood in the very next prompt: the provider answers HEARD to it."""
    heard = 0
    for number in range(trials):
        id = f"bench-tell-{number}"
        await _start(api, id)
        await _begun(on, api, id, 3)
        (await api.post(f"/v1/collaborations/{id}/pause")).raise_for_status()
        await asyncio.sleep(_QUIET_SECONDS)
        done = len(await _calls(on, api, id))
        rule = {"kind": "answer", "times": 1, "text": "HEARD", "match": {"contains": _SAID}}
        async with httpx.AsyncClient(base_url=on.settings.simulator_url) as control:
            rules = [rule, {"kind": "pace", "times": 100_000, "text": "ok", "delay_seconds": 0.02}]
            await control.delete("/_simulator/faults")
            (await control.post("/_simulator/faults", json=rules)).raise_for_status()
        said = await api.post(f"/v1/collaborations/{id}/feedback", json={"text": _SAID})
        said.raise_for_status()
        (await api.post(f"/v1/collaborations/{id}/resume")).raise_for_status()
        await _begun(on, api, id, done + 2)
        answer = await api.get(f"/v1/collaborations/{id}/steps/s{done}")
        heard += answer.status_code == 200 and answer.json()["output"] == "HEARD"
        (await api.post(f"/v1/collaborations/{id}/cancel")).raise_for_status()
    return heard


async def _start(api: httpx.AsyncClient, id: str) -> None:
    body = {"definition": "bench-chain", "input": {}, "id": id}
    (await api.post("/v1/collaborations", json=body)).raise_for_status()


async def _begun(on: Stack, api: httpx.AsyncClient, id: str, count: int) -> None:
    """Wait until so many calls have begun."""
    while len(await _calls(on, api, id)) < count:
        await asyncio.sleep(0.02)


async def _calls(on: Stack, api: httpx.AsyncClient, id: str) -> list[float]:
    """When each of a run's model calls began, by the provider's books."""
    run = (await api.get(f"/v1/collaborations/{id}")).json().get("run_id")
    if not run:
        return []
    async with httpx.AsyncClient(base_url=on.settings.simulator_url) as control:
        found = (await control.get("/_simulator/calls", params={"key": f"{run}/"})).json()
    return [call["began_at"] for call in found["recent"]]
