"""The router as Prometheus reads it: counters since this process began, and how old the checkpoint is."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from api.http.prometheus import head, metric
from db.engine import transaction
from db.router import checkpoints, quarantines
from db.router import figures as router_figures
from db.router.figures import BUCKETS_MS, CountedTotal, RoutingFigures


class RouterMetrics:
    """Router metrics of one process. Every API process counts all decisions: scrape one, never sum them."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._figures: dict[str, RoutingFigures] = {}
        self._turn = asyncio.Lock()

    async def exposition(self, engine: AsyncEngine, tenant: str, *, simulated: bool) -> str:
        """Return the figures; who rests, and the checkpoint's age, are of real runs or of simulated ones."""
        async with self._turn, transaction(engine) as connection:
            figures = self._figures.setdefault(tenant, RoutingFigures(self._began))
            await router_figures.add_new(connection, tenant, figures)
            resting = len(await quarantines.of_tenant(connection, tenant, simulated=simulated))
            found = await checkpoints.serving(connection, tenant, simulated=simulated)
            serving = next((one for one in found if one.state == "all"), None)
            known = await checkpoints.find(connection, tenant, serving.number) if serving else None
        lines = list(_lines(figures))
        lines += metric("facilitair_router_quarantined", "gauge", "Models that rest.", [("", resting)])
        if known:
            age = (datetime.now(UTC) - known.trained_until).total_seconds()
            told = "Seconds since the newest outcome that the serving checkpoint knows."
            lines += metric(
                "facilitair_router_checkpoint_age_seconds",
                "gauge",
                told,
                [(f'{{checkpoint="{known.number}"}}', round(age, 1))],
            )
        return "\n".join(lines) + "\n"


def _lines(figures: RoutingFigures) -> Iterator[str]:
    made: dict[str, int] = {}
    for (policy, _), count in figures.decisions.items():
        made[policy] = made.get(policy, 0) + count
    fallbacks = sum(count for (_, fallback), count in figures.decisions.items() if fallback)
    yield from metric(
        "facilitair_router_decisions_total",
        "counter",
        "Decisions, by policy.",
        [(f'{{policy="{policy}"}}', count) for policy, count in sorted(made.items())],
    )
    yield from metric(
        "facilitair_router_fallbacks_total",
        "counter",
        "Decisions of rules in a broken checkpoint's place.",
        [("", fallbacks)],
    )
    name = "facilitair_router_decision_seconds"
    yield from head(name, "histogram", "How long a decision took, its text embedded already.")
    below = 0
    for end, count in zip(BUCKETS_MS, figures.slower, strict=False):
        below += count
        yield f'{name}_bucket{{le="{end / 1000:g}"}} {below}'
    yield f'{name}_bucket{{le="+Inf"}} {figures.milliseconds.count}'
    yield from _sum(name, figures.milliseconds, 1e-3)
    for what, told, found in (
        ("confidence", "Chance of success less what is not known of it.", figures.confidence),
        ("novelty", "How far a step is from what was learned from.", figures.novelty),
        ("order_sensitivity", "How far answers depend on the order of evidence.", figures.order_sensitivity),
    ):
        yield from head(f"facilitair_router_{what}", "summary", told)
        yield from _sum(f"facilitair_router_{what}", found, 1)


def _sum(name: str, found: CountedTotal, unit: float) -> Iterator[str]:
    yield f"{name}_sum {found.total * unit:.9g}"
    yield f"{name}_count {found.count}"
