"""Hostile definitions, schedules, webhooks and lists that would multiply or grow: what must come of each."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from bench.security.cases.playing import HttpCase

_DAY: Final = {"every": "1d"}


@dataclass(frozen=True)
class Prey:
    """Stored definitions that the cases refer to."""

    leaf: str
    """Waits for a day."""
    wide: str
    """Runs 10,000 leaves, as many as one start may lead to."""
    long: str
    """Executes up to 200,001 steps less one."""
    run: str
    """A run's id."""


async def prepare(http: httpx.AsyncClient) -> Prey:
    """Store what the cases refer to on a running platform."""
    mark = uuid.uuid4().hex[:8]
    prey = Prey(f"bounds-{mark}-leaf", f"bounds-{mark}-wide", f"bounds-{mark}-long", f"bounds-{mark}")
    documents = {
        prey.leaf: {"rest": {"kind": "wait", "for": "1d"}},
        prey.wide: {"all": _map(10_000, one=_ref(prey.leaf))},
        prey.long: {"turns": _loop(99_999, {"a": {"kind": "transform", "value": 1}})},
    }
    for name, steps in documents.items():
        (await http.post("/v1/definitions", json={"name": name, "steps": steps})).raise_for_status()
    start = {"definition": prey.leaf, "id": prey.run}
    (await http.post("/v1/collaborations", json=start)).raise_for_status()
    return prey


def cases(prey: Prey) -> list[HttpCase]:
    """Return the cases. None of them may start, store or list more than its limit."""
    return [*_definitions(prey), *_schedules(prey), *_webhooks(prey), *_lists(prey)]


def _definitions(prey: Prey) -> Iterator[HttpCase]:
    for name, code, steps in (*_alone(), *_through_refs(prey)):
        document = {"name": f"hostile-{uuid.uuid4().hex[:8]}", "steps": steps}
        for path in ("/v1/definitions", "/v1/definitions/validate"):
            yield HttpCase(f"{name}, {path}", "POST", path, 422, code, document)


def _alone() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What one document multiplies by itself."""
    sub, planned = {"one": _ref("any")}, {"one": {"kind": "collaboration", "definition": "${input.plan}"}}
    quick = {"one": {"kind": "transform", "value": 1}}
    yield "a map of maps of sub-collaborations", "too_large_tree", {"m": _map(200, n=_map(51, **sub))}
    yield "a loop of maps of sub-collaborations", "too_large_tree", {"l": _loop(500, {"m": _map(21, **sub)})}
    yield "a map of loops of planned definitions", "too_large_tree", {"m": _map(101, l=_loop(100, planned))}
    yield "a loop of 10,001 planned definitions", "too_large_tree", {"l": _loop(10_001, planned)}
    yield (
        "a map of many sub-collaborations",
        "too_large_tree",
        {"m": _map(2_000, **{f"s{n}": _ref("any") for n in range(6)})},
    )
    yield (
        "many maps of sub-collaborations",
        "too_large_tree",
        {f"m{n}": _map(1_000, **{f"s{n}": _ref("any")}) for n in range(11)},
    )
    yield "a map of maps of maps", "too_large_run", {"a": _map(100, b=_map(100, c=_map(100, **quick)))}
    yield "a map of loops", "too_large_run", {"a": _map(10_000, b=_loop(100_000, quick))}


def _through_refs(prey: Prey) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What multiplies through what is stored."""
    wide, long = prey.wide, prey.long
    yield "a sub-collaboration that is full", "too_large_tree", {"a": _ref(wide)}
    yield "the same by its number", "too_large_tree", {"a": _ref(f"{wide}@1")}
    yield "the same twice", "too_large_tree", {"a": _ref(wide), "b": _ref(wide)}
    yield "a map of full ones", "too_large_tree", {"m": _map(10_000, a=_ref(wide))}
    yield "a map of maps of full ones", "too_large_tree", {"m": _map(99, n=_map(99, a=_ref(wide)))}
    yield "a loop of full ones", "too_large_tree", {"l": _loop(10_000, {"a": _ref(wide)})}
    yield "a map of ten long ones", "too_large_tree", {"m": _map(21, a=_ref(long))}
    yield "a loop of long ones", "too_large_tree", {"l": _loop(5_000, {"a": _ref(long)})}
    yield "a full one that may be skipped", "too_large_tree", {"a": {**_ref(wide), "when": "false"}}


def _schedules(prey: Prey) -> Iterator[HttpCase]:
    def case(name: str, code: str = "schedule_invalid", **body: Any) -> HttpCase:
        return HttpCase(name, "POST", "/v1/schedules", 422, code, {"name": prey.leaf, **body})

    for every in ("1s", "2s", "9s", "0s", "9.9s", "367d"):
        yield case(f"a schedule every {every}", every=every, overlap="allow_all")
    yield case("a rhythm without a unit", "request_invalid", every="1")
    for cron in ("* * * * * *", "*/1 * * * * * *", "@every 1s", "@hourly", "0/1 * * * * ? *"):
        yield case(f"the cron expression {cron}", cron=cron)
    yield case("two rhythms at once", "request_invalid", every="1d", cron="* * * * *")
    yield case("no rhythm", "request_invalid")
    yield case("a catch-up of a second", catch_up="1s", **_DAY)
    yield case("an overlap that there is not", "request_invalid", overlap="allow_twice", **_DAY)


def _webhooks(prey: Prey) -> Iterator[HttpCase]:
    many = {f"f{n}": "${input.a}" for n in range(51)}
    body = {"name": prey.leaf, "input": many}
    yield HttpCase("a webhook of 51 expressions", "POST", "/v1/webhooks", 422, "request_invalid", body)
    body = {"name": prey.leaf, "input": "${range(100000000)}"}
    yield HttpCase("a webhook that counts", "POST", "/v1/webhooks", 422, "request_invalid", body)
    yield HttpCase("a call of no webhook", "POST", "/hooks/none", 404, "webhook_unknown", {})


def _lists(prey: Prey) -> Iterator[HttpCase]:
    run = f"/v1/collaborations/{prey.run}"
    for path in (
        run,
        f"{run}/trace",
        f"{run}/events",
        "/v1/collaborations",
        "/v1/definitions",
        "/v1/schedules",
        "/v1/webhooks",
        "/v1/limits",
        "/v1/tasks",
    ):
        for limit in ("1001", "0", "-1", "1e9", "99999999999999999999"):
            query = {"limit": limit}
            yield HttpCase(f"{limit} of {path}", "GET", path, 422, "request_invalid", query=query)
    for path in (run, f"{run}/trace", "/v1/collaborations"):
        for after in ("x", "eA", "MTIz", "AHwA", "2026-01-01|a"):
            yield HttpCase(f"{path} behind {after}", "GET", path, 422, "cursor_wrong", query={"after": after})


def _ref(name: str) -> dict[str, Any]:
    return {"kind": "collaboration", "ref": name}


def _map(width: int, **steps: Any) -> dict[str, Any]:
    return {"kind": "map", "over": "input.list", "max_items": width, "body": {"steps": steps}}


def _loop(times: int, steps: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "loop", "max_iterations": times, "body": {"steps": steps}}
