"""The world of the money measurement: definitions, runs drawn at random, and the budgets that they share."""

import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from db.definitions import definitions
from db.engine import transaction
from db.money import limits, spending
from db.money.limits import EACH, SpendingLimit
from schema.language.definition import Budget, Definition
from schema.rules.validate import validate
from schema.tables.runs import collaborations
from schema.temporal.runs import ENGINE
from tests.support.runs import TRACEPARENT

STRONG, CHEAP = "openai/gpt-4", "openai/gpt-4o-mini"
TENANTS: Final = ("north", "south", "east")
USERS: Final = tuple(f"user{number}" for number in range(12))
EXPECTED_USD: Final = {STRONG: 0.0035, CHEAP: 0.00005}
"""What a call comes to, about; only the sizes of budgets are drawn by it."""
ITEMS: Final = 4

Scope = tuple[str, str, str, str]
"""(tenant, scope, subject, kind of period)"""


def _definition(name: str, model: str, *, agent: dict[str, Any] | None = None, **step: Any) -> dict[str, Any]:
    shape = {"model": model, "max_output_tokens": 60}
    if agent is None or agent.get("stream", True):
        shape |= {"first_token_timeout": "2s", "stall_timeout": "2s"}
    asked = {"kind": "agent", "agent": "a", "prompt": "Say what ${input.n} is good for."} | step
    return {
        "name": name,
        "agents": {"a": shape | (agent or {})},
        "steps": {"ask": asked},
        "defaults": {"timeout": "8s"},
    }


def documents() -> dict[str, dict[str, Any]]:
    checks = {"max": 2, "expect": [{"that": "size(output) % 3 != 0", "message": "Say more."}]}
    wide = _definition("wide", STRONG)
    asked = wide["steps"]["ask"] | {"budget": {"usd": 0.03}}
    body = {"kind": "map", "over": "input.items", "max_items": ITEMS, "body": {"steps": {"ask": asked}}}
    found = [
        _definition("plain", STRONG),
        _definition("cheap", CHEAP),
        _definition("fallback", STRONG, agent={"fallback": [CHEAP]}),
        _definition("checked", STRONG, reflect=checks),
        _definition("whole", STRONG, agent={"stream": False}),
        _definition("thrifty", STRONG)
        | {"budget": {"usd": 0.009, "on_exceed": "degrade", "degrade_to": CHEAP}},
        wide | {"steps": {"m": body}},
        {"name": "around", "steps": {"t": {"kind": "transform", "value": 1}}, "budget": {"usd": 1000.0}},
    ]
    return {one["name"]: one for one in found}


WEIGHTS: Final = {
    "plain": 40,
    "cheap": 6,
    "fallback": 15,
    "checked": 12,
    "whole": 10,
    "thrifty": 12,
    "wide": 5,
}


@dataclass
class World:
    """What was drawn."""

    units: list[dict[str, Any]] = field(default_factory=list)
    """Arguments of StepRequest, in the order in which they begin."""
    scopes: dict[str, list[Scope]] = field(default_factory=dict)
    """Run → what limits its calls. A map's step has its own budget."""
    allowed: dict[Scope, Decimal] = field(default_factory=dict)
    runs: int = 0
    demand: dict[Scope, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    id: uuid.UUID
    tenant: str
    name: str
    user: str | None
    parent: "_Run | None" = None


async def make(engine: AsyncEngine, runs: int, chance: random.Random) -> World:
    """Draw it and store it."""
    world, drawn = World(), _draw(runs, chance)
    for one in drawn:
        if one.name != "around":
            _add(world, one)
    world.runs = runs
    _mix(world.units, chance)
    await _store(engine, drawn)
    await _limit(engine, world, drawn, chance)
    return world


def _draw(runs: int, chance: random.Random) -> list[_Run]:
    """Families of runs that spend from the runs around them, and runs by themselves."""
    drawn: list[_Run] = []
    count = 0
    while count < runs:
        tenant = chance.choice(TENANTS)
        size = min(chance.choice((1, 1, 1, 1, 40, 120)), runs - count)
        head = mid = None
        if size > 1:
            head = _Run(uuid.uuid4(), tenant, "around", chance.choice(USERS))
            mid = _Run(uuid.uuid4(), tenant, "around", None, head)
            drawn += [head, mid]
        for _ in range(size):
            name = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            user = None if head else chance.choice(USERS)
            drawn.append(_Run(uuid.uuid4(), tenant, name, user, chance.choice((head, mid))))
        count += size
    return drawn


def _mix(units: list[dict[str, Any]], chance: random.Random) -> None:
    """Kin begin near each other, but not one behind the other."""
    order = sorted(range(len(units)), key=lambda number: number + chance.random() * 400)
    units[:] = [units[number] for number in order]


def _lineage(run: _Run) -> list[_Run]:
    return [run, *(_lineage(run.parent) if run.parent else [])]


def _add(world: World, run: _Run) -> None:
    line = _lineage(run)
    user = next(one.user for one in line if one.user)
    scopes: list[Scope] = [(run.tenant, "tenant", "", "day"), (run.tenant, "user", user, "month")]
    scopes += [(run.tenant, "definition", name, "total") for name in sorted({one.name for one in line})]
    scopes += [(run.tenant, "run", str(one.id), "") for one in line if one.name in ("around", "thrifty")]
    if run.name == "wide":
        scopes.append((run.tenant, "step", f"{run.id}/ask", ""))
    world.scopes[str(run.id)] = scopes
    frames = [f"m[{index}]" for index in range(ITEMS)] if run.name == "wide" else [""]
    request = {"collaboration": str(run.id), "tenant": run.tenant, "step": "ask", "traceparent": TRACEPARENT}
    world.units += [request | {"frame": frame} for frame in frames]
    expected = EXPECTED_USD[CHEAP if run.name == "cheap" else STRONG] * len(frames)
    for scope in scopes:
        world.demand[scope] = world.demand.get(scope, 0) + expected


async def _store(engine: AsyncEngine, drawn: list[_Run]) -> None:
    async with transaction(engine) as connection:
        versions = {}
        for tenant in TENANTS:
            for name, document in documents().items():
                stored, _ = await definitions.save(connection, tenant, _valid(document), "bench")
                versions[tenant, name] = stored.id
        rows = [
            {
                "id": run.id,
                "tenant_id": run.tenant,
                "workflow_id": versions[run.tenant, run.name],
                "temporal_workflow_id": f"wf-{run.id}",
                "task": "t",
                "input": {"n": str(number), "items": list(range(ITEMS))},
                "status": "running",
                "requested_by": run.user,
                "traceparent": TRACEPARENT,
                "engine": ENGINE,
                "parent_id": run.parent.id if run.parent else None,
                "parent_path": "t" if run.parent else None,
                "started_at": datetime.now(UTC),
            }
            for number, run in enumerate(drawn)
        ]
        # Those around come first, as they were drawn.
        for at in range(0, len(rows), 500):
            await connection.execute(insert(collaborations), rows[at : at + 500])


async def _limit(engine: AsyncEngine, world: World, drawn: list[_Run], chance: random.Random) -> None:
    """Budgets that are mostly too small for what is asked of them."""
    names = {str(run.id): run.name for run in drawn}
    for scope, demand in sorted(world.demand.items()):
        tenant, kind, subject, _ = scope
        share = chance.choice((0.5, 0.7, 0.9, 1.5))
        match kind:
            case "tenant":
                share = (0.5, 0.75, 5.0)[TENANTS.index(tenant)]
            case "definition":
                share = 0.8 if subject in ("fallback", "wide") else 100.0
            case "user":
                share = 0.6 if subject == USERS[0] else 1.0
        usd = max(Decimal(f"{demand * share:.6f}"), Decimal("0.02"))
        if kind == "step":
            usd = Decimal("0.03")
        elif kind == "run" and names[subject] == "thrifty":
            usd = Decimal("0.009")
        world.allowed[scope] = usd
    # A month's limit of each user is one number for all that have no limit of their own.
    for tenant in TENANTS:
        users = [scope for scope in world.allowed if scope[:2] == (tenant, "user") and scope[2] != USERS[0]]
        usual = sum(world.demand[scope] for scope in users) / max(len(users), 1) * 0.9
        world.allowed |= dict.fromkeys(users, Decimal(f"{max(usual, 0.02):.6f}"))
    async with transaction(engine) as connection:
        for (tenant, kind, subject, period), usd in world.allowed.items():
            if kind == "run":
                budget = Budget(usd=float(usd))
                await spending.open(connection, uuid.UUID(subject), tenant, budget)
            elif kind in ("tenant", "definition") or subject == USERS[0]:
                limit = SpendingLimit(kind, subject, period, usd, None)  # type: ignore[arg-type]
                await limits.put(connection, tenant, limit, "bench")
            elif kind == "user":
                await limits.put(connection, tenant, SpendingLimit("user", EACH, "month", usd, None), "bench")


def _valid(document: dict[str, Any]) -> Definition:
    return validate(document).definition
