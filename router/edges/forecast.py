"""Forecast the effect of edges that too few runs have tried, from well-tried edges of the same tenant.

Agents attend to each other as `router.edges.attention` has it; what is learned is what the message that
passes along an edge says of the edge's effect. Nothing is foreseen unless that beats the mean effect on edges
left out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from db.router import edges, tried_edges
from db.router.edges import EdgeKey
from router.data.arrays import Floats, Ints
from router.data.encoder import WIDTH
from router.data.features import rows
from router.data.question import PROMPT_CHARACTERS
from router.edges import topology
from router.edges.attention import NODE_DIM, messages_passed
from router.edges.topology import Effect
from router.statistics.offpolicy import PolicyValue
from schema.language.definition import Definition
from schema.language.dependencies import walk
from schema.language.steps import AgentStep

MIN_EDGES: Final = 8
"""Known edges of a tenant, before anything is learned from them."""
MAX_EDGES: Final = 100
"""Known edges that are learned from, those with the most runs, and new ones that are foreseen at a time: to
read what 400 agents do takes some three seconds."""
_SURE: Final = 2.33
"""Standard errors by which the network must beat the mean: where nothing can be learned it passes 3
times in 100 with nine known edges, and once with eighteen."""
_LENGTH: Final = 4.0
"""Length of an agent's row: shorter ones attend to all alike."""
_SPREAD: Final = 0.05
"""Spread of true effects: keeps an edge with thousands of runs from deciding alone."""
_MISFIT: Final = 0.01
"""Error assumed of effects that seem to be forecast without any."""
_STRENGTHS: Final = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_NINETY: Final = 1.645

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EdgeForecast:
    """Forecast effects of E edges, and how much better than the mean they were on edges left out."""

    effects: tuple[PolicyValue, ...]
    """(E,) with 90 % intervals."""
    gain: float
    """Standard errors by which the squared error on known edges, each left out, is below the mean's."""

    @property
    def holds(self) -> bool:
        return self.gain >= _SURE


def foresee(agents: Floats, ends: Ints, effect: Floats, error: Floats) -> EdgeForecast:
    """From what is known of some edges, all of them.

    `agents` (N, 384) rows of what they do; `ends` (2, E) senders and receivers; `effect` (E,), NaN where it
    is not known; `error` (E,) standard errors of those. Deterministic; milliseconds. Raises ValueError where
    fewer than `MIN_EDGES` are known.
    """
    known = np.isfinite(effect)
    if known.sum() < MIN_EDGES:
        raise ValueError(
            f"found {known.sum()} known edges; expected at least {MIN_EDGES}: wait for more runs."
        )
    table = messages_passed(_nodes(agents), ends).astype(np.float64)
    table -= table[known].mean(0)
    table /= max(np.linalg.norm(table[known], axis=1).mean(), 1e-9)
    table = np.c_[np.ones(len(table)), table]
    told, seen, noise = table[known], effect[known], error[known] ** 2
    weight = 1 / (noise + _SPREAD**2)
    weight /= weight.mean()
    tried = [_Readout.of(told, seen, weight, strength) for strength in _STRENGTHS]
    best = min(tried, key=lambda one: float(weight @ (seen - one.left_out) ** 2))
    without = (weight @ seen - weight * seen) / (weight.sum() - weight)
    better = weight * ((seen - without) ** 2 - (seen - best.left_out) ** 2)
    gain = float(better.mean() / (better.std(ddof=1) / math.sqrt(len(better)) + 1e-12))
    return EdgeForecast(tuple(best.values(table, noise, seen - best.left_out)), gain)


def _nodes(agents: Floats) -> NDArray[np.float32]:
    """(N, 256): what is special about each, as long for all."""
    nodes = (agents - agents.mean(0)) @ _projection()
    nodes *= _LENGTH / np.maximum(np.linalg.norm(nodes, axis=1, keepdims=True), 1e-9)
    return np.asarray(nodes, dtype=np.float32)


@cache
def _projection() -> Floats:
    """(384, 256), the same for ever."""
    return np.random.default_rng(0).normal(0, NODE_DIM**-0.5, (WIDTH, NODE_DIM))


@dataclass(frozen=True)
class _Readout:
    """Ridge regression from K known edges' messages."""

    told: Floats
    weight: Floats
    factors: Floats
    inverse: Floats
    left_out: Floats
    """(K,) what the others say of each; exact, by the hat matrix."""

    @staticmethod
    def of(told: Floats, effect: Floats, weight: Floats, strength: float) -> _Readout:
        penalty = np.full(told.shape[1], strength)
        penalty[0] = 1e-9  # the mean is free
        inverse: Floats = np.linalg.inv(told.T @ (told * weight[:, None]) + np.diag(penalty)).astype(float)
        factors = inverse @ (told.T @ (weight * effect))
        own = weight * _quadratic(told, inverse)
        return _Readout(told, weight, factors, inverse, effect - (effect - told @ factors) / (1 - own))

    def values(self, table: Floats, noise: Floats, missed: Floats) -> list[PolicyValue]:
        """(E,) of the true effect: without the `noise` (K,) of known ones' evidence in what is `missed`."""
        spread = float(np.average(missed**2, weights=self.weight))
        own = _quadratic(self.told, self.inverse)
        unsure = spread * own / (1 - self.weight * own)
        misfit = max(float(np.average(missed**2 - noise - unsure, weights=self.weight)), _MISFIT**2)
        around = _NINETY * np.sqrt(misfit + spread * _quadratic(table, self.inverse))
        means = table @ self.factors
        return [
            PolicyValue(float(mean), float(mean - half), float(mean + half))
            for mean, half in zip(means, around, strict=True)
        ]


def _quadratic(table: Floats, inverse: Floats) -> Floats:
    return np.asarray(((table @ inverse) * table).sum(1))


class Foresight:
    """The last forecast of each tenant, kept until its evidence changes."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, bool], tuple[object, dict[EdgeKey, PolicyValue]]] = {}
        """(tenant, whether of simulated runs) → what was foreseen, and from what."""
        self.told: dict[str, str] = {}
        """Tenant → result of learning."""

    async def of(
        self,
        connection: AsyncConnection,
        tenant: str,
        found: Mapping[EdgeKey, Effect],
        new: Collection[EdgeKey],
        *,
        simulated: bool,
    ) -> dict[EdgeKey, PolicyValue]:
        """Effects of a tenant's `new` edges in real runs, or in simulated ones; none where that cannot be
        learned.

        `found` is the evidence just read; that of other edges is read where something is learned. Only reads.
        """
        asked = sorted(new, key=_name)[:MAX_EDGES]
        tried = await tried_edges.tried(
            connection, tenant, 2 * topology.MIN_RUNS, MAX_EDGES, simulated=simulated
        )
        stored = {one.key: (one.runs, one.effect) for one in tried}
        stored |= {key: (one.runs, one.value.mean) for key, one in found.items() if one.is_known}
        if not asked or len(stored) < MIN_EDGES:
            self._last.pop((tenant, simulated), None)
            return {}
        evidence = (tuple(asked), frozenset((key, *_coarse(*one)) for key, one in stored.items()))
        last = self._last.get((tenant, simulated))
        if last is None or last[0] != evidence:
            last = evidence, await self._learn(connection, tenant, found, list(stored), asked)
            self._last[tenant, simulated] = last
        return last[1]

    async def _learn(
        self,
        connection: AsyncConnection,
        tenant: str,
        found: Mapping[EdgeKey, Effect],
        tried: Sequence[EdgeKey],
        asked: Sequence[EdgeKey],
    ) -> dict[EdgeKey, PolicyValue]:
        known: dict[EdgeKey, PolicyValue] = {}
        for key in tried:
            effect = found.get(key) or topology.effect(await edges.evidence(connection, key))
            if effect.is_known:
                known[key] = effect.value
        names = {key.definition for key in (*known, *asked)}
        agents = {
            (definition, step): text
            for definition, source in (await tried_edges.sources(connection, tenant, sorted(names))).items()
            for step, text in agents_of(source).items()
        }
        known = {key: value for key, value in known.items() if _both(key) <= agents.keys()}
        new = [key for key in asked if key not in known and _both(key) <= agents.keys()]
        if len(known) < MIN_EDGES or not new:
            said, foreseen = (
                f"{len(known)} edges are known, of {MIN_EDGES} that it takes",
                dict[EdgeKey, PolicyValue](),
            )
        else:
            said, foreseen = await asyncio.to_thread(_foresee, agents, known, new)
        self.told[tenant] = said
        _log.info("Edge effects forecast", extra={"tenant": tenant, "outcome": said})
        return foreseen


def agents_of(source: str) -> dict[str, str]:
    """Step → what its agent does: the role, or the agent's name, and the beginning of the prompt."""
    definition = Definition.model_validate(json.loads(source))
    found: dict[str, str] = {}
    for _, name, step, _ in walk(definition.steps):
        if isinstance(step, AgentStep):
            agent = definition.agents.get(step.agent)
            role = step.role or (agent.role if agent else None) or step.agent
            found[name] = f"{role}\n{step.prompt[:PROMPT_CHARACTERS]}"
    return found


def _foresee(
    agents: Mapping[tuple[str, str], str], known: Mapping[EdgeKey, PolicyValue], new: Sequence[EdgeKey]
) -> tuple[str, dict[EdgeKey, PolicyValue]]:
    every = [*sorted(known, key=_name), *new]
    places = {end: at for at, end in enumerate(sorted(set().union(*map(_both, every))))}
    senders = [places[key.definition, key.source] for key in every]
    receivers = [places[key.definition, key.target] for key in every]
    values = [known.get(key, PolicyValue(math.nan, math.nan, math.nan)) for key in every]
    effect = np.array([one.mean for one in values])
    error = np.array([(one.high - one.low) / 2 / _NINETY for one in values])
    meaning = rows([agents[end] for end in places])[:, :WIDTH]
    found = foresee(meaning, np.array([senders, receivers]), effect, error)
    said = f"the network beats the mean of {len(known)} known edges by {found.gain:.1f} standard errors"
    if not found.holds:
        return f"{said}, of {_SURE} that it takes: nothing is foreseen", {}
    foreseen = dict(zip(new, found.effects[len(known) :], strict=True))
    return f"{said}: {len(new)} new ones are foreseen", foreseen


def _both(key: EdgeKey) -> set[tuple[str, str]]:
    return {(key.definition, key.source), (key.definition, key.target)}


def _name(key: EdgeKey) -> tuple[str, str, str]:
    return key.definition, key.source, key.target


def _coarse(runs: int, effect: float | None) -> tuple[int, float]:
    """Evidence to a tenth of its runs and a hundredth of quality: less changes nothing worth learning."""
    return int(math.log(max(runs, 1), 1.1)), round(effect or 0.0, 2)
