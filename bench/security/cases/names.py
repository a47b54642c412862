"""Hostile starts and calls under names that are not the caller's: what is sent, and what must come of it."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from bench.security.cases.playing import HttpCase, TemporalCase

OWN_WORKFLOW: Final = "facilitair.projection.vectors"
"""It runs on every platform, and belongs to nobody's tenant."""
_RESERVED_IDS: Final = (
    OWN_WORKFLOW,
    "facilitair.close-ended",
    "facilitair.learn.default",
    "FACILITAIR.anything",
    "facilitair",
    "daily-2027-01-01T09:00:00Z",
    "facilitair.trials-2027-01-01T09:00:00Z",
)
_RESERVED_NAMES: Final = ("facilitair", "facilitair-learn", "facilitair_trials")
_STEPS: Final[dict[str, Any]] = {"a": {"kind": "transform", "value": "${input}"}}
_FAILING: Final[dict[str, Any]] = {
    "a": {"kind": "tool", "tool": "json.parse", "args": {"text": "{"}, "retry": {"max_attempts": 1}}
}


@dataclass(frozen=True)
class Victim:
    """Runs of somebody else's, and the definition that they are of."""

    definition: str
    completed: str
    failed: str
    uuid: str
    """Of the completed one."""


Case = HttpCase | TemporalCase


async def prepare(http: httpx.AsyncClient) -> Victim:
    """Make what the cases are about on a running platform."""
    mark = uuid.uuid4().hex[:8]
    victim = Victim(f"names-{mark}", f"names-{mark}.done", f"names-{mark}.failed", "")
    for name, steps in ((victim.definition, _STEPS), (f"{victim.definition}-failing", _FAILING)):
        (await http.post("/v1/definitions", json={"name": name, "steps": steps})).raise_for_status()
    starts = ((victim.definition, victim.completed), (f"{victim.definition}-failing", victim.failed))
    for name, id in starts:
        start = {"definition": name, "input": {"secret": mark}, "id": id}
        (await http.post("/v1/collaborations", json=start)).raise_for_status()
    done = await _ended(http, victim.completed)
    await _ended(http, victim.failed)
    return Victim(victim.definition, victim.completed, victim.failed, done["run_id"])


async def _ended(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            run: dict[str, Any] = (await http.get(f"/v1/collaborations/{id}")).json()
            if run["status"] != "running":
                return run
            await asyncio.sleep(0.05)


def cases(victim: Victim) -> list[Case]:
    """Every case, in the order in which they may be played."""
    return [
        *_ids_at_every_door(victim),
        *_names_at_every_door(),
        *_own_workflows(),
        *_keys(victim),
        *_past_the_api(victim),
    ]


def _ids_at_every_door(victim: Victim) -> Iterator[Case]:
    uuids = (victim.uuid, victim.uuid.upper(), str(uuid.uuid4()))
    for id in (*_RESERVED_IDS, *uuids):
        start = {"definition": victim.definition, "id": id}
        yield HttpCase(f"start as {id}", "POST", "/v1/collaborations", 422, "id_reserved", start)
        query = {"task": "x", "definition": victim.definition, "id": id}
        yield HttpCase(f"stream as {id}", "GET", "/stream/collaborate", 422, "id_reserved", query=query)
        fork = {"from": ["a"], "id": id}
        path = f"/v1/collaborations/{victim.completed}/fork"
        yield HttpCase(f"fork as {id}", "POST", path, 422, "id_reserved", fork)
        path = f"/v1/collaborations/{victim.failed}/rerun"
        yield HttpCase(f"rerun as {id}", "POST", path, 422, "id_reserved", {"id": id})


def _names_at_every_door() -> Iterator[Case]:
    short = [{"agent": "coder"}]
    for name in _RESERVED_NAMES:
        document = {"name": name, "steps": _STEPS}
        for path in ("/v1/definitions", "/v1/definitions/validate"):
            yield HttpCase(f"{path} as {name}", "POST", path, 422, "definition_invalid", document)
            yield HttpCase(
                f"{path} as {name}, short", "POST", path, 422, "definition_invalid", short, {"name": name}
            )
        for ref in (name, f"{name}@1", f"{name}@stable"):
            start = {"definition": ref}
            yield HttpCase(f"start {ref}", "POST", "/v1/collaborations", 422, "name_reserved", start)
        query = {"task": "x", "definition": name}
        yield HttpCase(f"stream {name}", "GET", "/stream/collaborate", 422, "name_reserved", query=query)
        timed = {"name": name, "every": "1h"}
        yield HttpCase(f"schedule {name}", "POST", "/v1/schedules", 422, "name_reserved", timed)
        yield HttpCase(f"webhook {name}", "POST", "/v1/webhooks", 422, "name_reserved", {"name": name})


def _own_workflows() -> Iterator[Case]:
    calls: tuple[tuple[str, str, Any], ...] = (
        ("GET", "", None),
        ("POST", "/cancel", None),
        ("POST", "/stop", None),
        ("POST", "/pause", {}),
        ("POST", "/resume", {}),
        ("POST", "/feedback", {"text": "x"}),
        ("POST", "/adjust", {"changes": {"temperature": 0}}),
        ("POST", "/fork", {"from": ["a"]}),
        ("POST", "/rerun", {}),
        ("GET", "/stream", None),
        ("GET", "/events", None),
        ("GET", "/trace", None),
        ("GET", "/steps/a", None),
        ("GET", "/steps/a/details", None),
    )
    for method, part, body in calls:
        path = f"/v1/collaborations/{OWN_WORKFLOW}{part}"
        yield HttpCase(f"{method} {path}", method, path, 404, "collaboration_unknown", body)


def _keys(victim: Victim) -> Iterator[Case]:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    start = {"definition": victim.definition, "input": {"number": 1}}
    path = "/v1/collaborations"
    yield HttpCase("a key for the first time", "POST", path, 202, "", start, headers=headers)
    others = {
        "input": {**start, "input": {"number": 2}},
        "version": {**start, "definition": f"{victim.definition}@1"},
        "definition": {**start, "definition": f"{victim.definition}-failing"},
    }
    for what, other in others.items():
        name = f"a key again with another {what}"
        yield HttpCase(name, "POST", path, 422, "idempotency_key_reused", other, headers=headers)
    long = {"Idempotency-Key": "k" * 10_000}
    yield HttpCase("a key of 10,000 characters", "POST", path, 422, "request_invalid", start, headers=long)
    taken = {**start, "id": victim.completed}
    yield HttpCase("an id of another request", "POST", path, 409, "collaboration_exists", taken)


def _past_the_api(victim: Victim) -> Iterator[Case]:
    mark = uuid.uuid4().hex[:8]
    for id in (f"facilitair.learn.{mark}", f"facilitair-{mark}", f"Facilitair.{mark}"):
        yield TemporalCase(f"Temporal starts {id}", victim.definition, id, "id_reserved")
    yield TemporalCase("Temporal starts another's UUID", victim.definition, victim.uuid, "id_reserved")
    for name in (*_RESERVED_NAMES, "facilitair.learn", "facilitair.projection"):
        yield TemporalCase(f"Temporal starts a {name}", name, f"names-{uuid.uuid4().hex}", "name_reserved")
