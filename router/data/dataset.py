"""Turn rows of outcomes into what is learned from and judged on. Pure: SQL is in db/router/outcomes.py."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Final
from uuid import UUID

import numpy as np

from db.router.outcomes import OutcomeRow
from router.data import question
from router.data.arrays import Floats
from router.data.logged_choices import LoggedChoices
from router.data.outcomes import Calls, means, numbers
from schema.chance import point

HELD_OUT: Final = 0.2
"""Share of the collaborations that are judged on, not learned from."""
MAX_STEPS: Final = 4_000
"""Distinct steps that are learned from: a fit's time grows with their cube, and a minute is enough."""
MAX_SECONDS: Final = 86_400.0
MAX_TOKENS: Final = 10_000_000
MAX_USD: Final = 10_000.0
_CLOCKS: Final = timedelta(minutes=1)
"""Clocks of two machines may differ by."""


@dataclass(frozen=True)
class Log:
    """N decisions that were drawn by chance, and what came of them."""

    rows: tuple[OutcomeRow, ...]
    models: tuple[str, ...]
    logged: LoggedChoices


def validate(rows: Sequence[OutcomeRow], now: datetime) -> tuple[list[OutcomeRow], Counter[str]]:
    """Return the rows that can be learned from, in their order, and how many were refused for which reason
    (S2-50)."""
    kept: list[OutcomeRow] = []
    refused: Counter[str] = Counter()
    seen: set[UUID] = set()
    for row in rows:
        if reason := _fault(row, now, seen):
            refused[reason] += 1
        else:
            seen.add(row.id)
            kept.append(row)
    return kept, refused


def _fault(row: OutcomeRow, now: datetime, seen: set[UUID]) -> str | None:
    """The first thing that is wrong with a row."""
    if row.id in seen:
        return "duplicate"
    if row.at > now + _CLOCKS:
        return "future"
    if not row.model.strip():
        return "model_empty"
    if not row.task.strip() and not row.prompt.strip():
        return "text_empty"
    if row.ok is None:
        return "ok_unknown"
    if not 0 <= row.ok <= 1:  # NaN is neither
        return "ok_wrong"
    limits = (
        ("seconds_wrong", row.seconds, MAX_SECONDS),
        ("tokens_wrong", row.input_tokens, MAX_TOKENS),
        ("tokens_wrong", row.output_tokens, MAX_TOKENS),
        ("usd_wrong", row.usd, MAX_USD),
    )
    for name, value, most in limits:
        if value is not None and not (isfinite(value) and 0 <= value <= most):
            return name
    return None


def split(
    rows: Sequence[OutcomeRow], held_out: float = HELD_OUT
) -> tuple[list[OutcomeRow], list[OutcomeRow]]:
    """(to learn from, to judge on), by the hash of the collaboration: all steps of a run on one side."""
    learned: list[OutcomeRow] = []
    judged: list[OutcomeRow] = []
    for row in rows:
        (judged if point(str(row.collaboration)) < held_out else learned).append(row)
    return learned, judged


def text_of(row: OutcomeRow) -> str:
    return question.text(row.task, row.prompt)


def category_of(row: OutcomeRow) -> str:
    return _category(row.role, row.agent, row.task)


# Steps of one run share its task, and maps ask the same of many items.
_category = lru_cache(maxsize=65_536)(question.category)


def thinned(rows: Sequence[OutcomeRow], most: int = MAX_STEPS) -> list[OutcomeRow]:
    """So few that at most `most` distinct steps are left, in their order: each model's newest go first, so
    that one that is seldom asked keeps what is known of it."""
    if len(rows) <= most:
        return list(rows)
    rank: Counter[str] = Counter()
    order: list[tuple[int, int]] = []
    for place in range(len(rows) - 1, -1, -1):
        order.append((rank[rows[place].model], place))
        rank[rows[place].model] += 1
    steps: set[tuple[str, str, str]] = set()
    kept: list[int] = []
    for _, place in sorted(order, key=lambda one: (one[0], -one[1])):
        row = rows[place]
        step = row.role or row.agent, row.task, row.prompt
        if step in steps or len(steps) < most:
            steps.add(step)
            kept.append(place)
    return [rows[place] for place in sorted(kept)]


def to_calls(rows: Sequence[OutcomeRow]) -> Calls:
    """Equal text and category are one step, with the mean of how well a model did there, and what it took the
    last time; in the order of the steps' ids, models by name. `rows` in the order in which they ended."""
    steps = [(text_of(row), category_of(row)) for row in rows]
    ids = {step: hashlib.sha256("\n".join(step).encode()).hexdigest()[:24] for step in dict.fromkeys(steps)}
    distinct = sorted(ids, key=lambda step: ids[step])
    models = tuple(sorted({row.model for row in rows}))
    place = {step: i for i, step in enumerate(distinct)}
    column = {name: j for j, name in enumerate(models)}
    at = (
        np.array([place[step] for step in steps], dtype=np.int64),
        np.array([column[row.model] for row in rows], dtype=np.int64),
    )
    shape = len(distinct), len(models)

    ok, times = means(at, numbers([row.ok for row in rows]), shape)

    def last(values: Sequence[float | None]) -> Floats:
        # Means would vary less than what intervals have to hold. What took no time or said nothing has no
        # logarithm, and is no call.
        found = np.full(shape, np.nan)
        for step, column, value in zip(*at, values, strict=True):
            if value:
                found[step, column] = value
        return found

    return Calls(
        tuple(ids[step] for step in distinct),
        tuple(text for text, _ in distinct),
        np.array([category for _, category in distinct], dtype=np.str_),
        models,
        ok,
        last([row.seconds for row in rows]),
        last([row.input_tokens for row in rows]),
        last([row.output_tokens for row in rows]),
        times,
    )


def to_log(rows: Sequence[OutcomeRow]) -> Log | None:
    """The decisions among them whose model was drawn by the chances that they name and whose end is known."""
    drawn = [row for row in rows if tells(row)]
    if not drawn:
        return None
    models = tuple(sorted({name for row in drawn for name in candidates_of(row)}))
    categories = {name: k for k, name in enumerate(sorted({category_of(row) for row in drawn}))}
    logged = LoggedChoices(
        np.array([models.index(row.model) for row in drawn], dtype=np.int64),
        matrix([candidates_of(row) for row in drawn], models),
        np.array([row.ok for row in drawn], dtype=np.float64),
        np.array([categories[category_of(row)] for row in drawn], dtype=np.int64),
    )
    return Log(tuple(drawn), models, logged)


def candidates_of(row: OutcomeRow) -> dict[str, float]:
    """model → the chance that it had."""
    return row.decision.candidates if row.decision else {}


def matrix(chances: Sequence[dict[str, float]], models: Sequence[str]) -> Floats:
    """(N, M); 0 for who was no candidate."""
    column = {name: j for j, name in enumerate(models)}
    found = np.zeros((len(chances), len(models)))
    for i, one in enumerate(chances):
        for name, chance in one.items():
            if name in column:
                found[i, column[name]] = chance
    return found


def tells(row: OutcomeRow) -> bool:
    """Tell whether a row's model was drawn with known chances and its end is known."""
    chances = candidates_of(row)
    sound = chances.get(row.model, 0.0) > 0 and abs(sum(chances.values()) - 1) < 1e-5
    return sound and row.by_router and row.ok is not None
