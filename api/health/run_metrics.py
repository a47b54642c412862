"""Runs as Prometheus reads them: how many ended and how, how long they took, and what they cost."""

import asyncio
from collections.abc import Iterator

from sqlalchemy.ext.asyncio import AsyncEngine

from api.http.prometheus import head, label, metric
from db.engine import transaction
from db.runs import figures as runs_figures
from db.runs.figures import RunFigures


class RunMetrics:
    """Run metrics of one process since its first scrape. Every process counts all runs: scrape one of
    them."""

    def __init__(self) -> None:
        self._figures: dict[str, RunFigures] = {}
        self._turn = asyncio.Lock()

    async def exposition(self, engine: AsyncEngine, tenant: str) -> str:
        """Return the metrics as text; raises what Postgres raises."""
        async with self._turn, transaction(engine) as connection:
            figures = self._figures.setdefault(tenant, RunFigures())
            await runs_figures.add_new(connection, tenant, figures)
        return "\n".join(_lines(figures)) + "\n"


def _lines(figures: RunFigures) -> Iterator[str]:
    yield from metric(
        "facilitair_runs_total",
        "counter",
        "Runs that ended.",
        [(label(status=status), count) for status, count in sorted(figures.runs.items())],
    )
    yield from head("facilitair_run_seconds", "summary", "How long runs took from start to end.")
    yield f"facilitair_run_seconds_sum {figures.run_seconds:.9g}"
    yield f"facilitair_run_seconds_count {figures.runs.total()}"
    yield from metric(
        "facilitair_steps_total",
        "counter",
        "Attempts at steps that ended.",
        [(label(status=status), count) for status, count in sorted(figures.steps.items())],
    )
    yield from metric(
        "facilitair_errors_total",
        "counter",
        "Failed runs and attempts, by error code.",
        [(label(code=code), count) for code, count in sorted(figures.errors.items())],
    )
    yield from metric(
        "facilitair_cost_usd_total",
        "counter",
        "Dollars, by the model that answered.",
        [(label(model=model), round(usd, 6)) for model, usd in sorted(figures.cost_usd.items())],
    )
    yield from metric(
        "facilitair_tokens_total",
        "counter",
        "Tokens, by the model that answered.",
        [
            (label(model=model, direction=direction), count)
            for (model, direction), count in sorted(figures.tokens.items())
        ],
    )
