"""Learn from the outcome of every choice: Thompson over models, shrunk from all to category, and a breaker.

Only counts per model and category are kept, so the state is small, and the same outcomes in the same order
come to the same state. Nothing is forgotten with time: on real outcomes a decay of 0.9995 a step cost 0.8
points while nothing changed. A sequential test notices what does change instead.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from router.data.arrays import Floats
from router.data.exploration import FLOOR

_TYPICAL_VARIANCE: Final = 0.17
"""p(1-p) of a task of usual difficulty: there an effect counts as it stands."""


@dataclass(frozen=True)
class BanditConfig:
    """Chosen on random pools of 14 of the 60 models, see docs/router-log.md; flat around these values."""

    ability_sd: float = 0.12
    """Spread of models, in chance of success on a task of usual difficulty."""
    category_sd: float = 0.15
    """Spread of categories."""
    special_sd: float = 0.10
    """Spread of one model in one category around the sum of both."""
    boldness: float = 0.35
    """Thompson's standard deviations for a model that is known well; 1 would be plain Thompson."""
    fresh: float = 60.0
    """Outcomes, shared by the candidates, at which boldness is halfway from 1: bad luck in a few tries is no
    verdict. Shared, because among many there is another good one, and to be fair to each costs the more."""
    draws: int = 100
    floor: float = FLOOR
    """Least chance of everyone in contention."""
    contends: int = 2
    """Draws that one must win for that: a floor for a model that is lucky once cost a point of the first
    5,000."""
    explore: float = 0.01
    """Shared by the others: with many models a floor for each would cost points."""
    alarm: float = 6.5
    """Log likelihood ratio at which a model counts as broken."""
    broken_odds: float = 8.0
    """A broken model's odds of success are this many times less."""
    rest: int = 250
    """Outcomes until a model that was taken out is probed; doubled whenever the probes fail."""
    probe: float = 0.01
    """Chance of a model that is probed."""
    back: float = 3.0
    """Log likelihood ratio of its probes at which a model is let back."""


@dataclass(frozen=True)
class BanditChoice:
    model: str
    chances: dict[str, float]
    """Exact chance of every candidate; the choice was drawn from them."""
    expected: float
    """Chance of success of the chosen one."""


@dataclass(frozen=True)
class Effects:
    """Ability of M models in C categories, estimated from counts: mean and standard deviation."""

    mean: Floats
    """(M, C) chance of success."""
    sd: Floats
    """(M, C) how uncertain that is."""


def effects(calls: Floats, right: Floats, settings: BanditConfig = BanditConfig()) -> Effects:
    """Random effects by their closed form: `calls` (M, C) outcomes, of which `right` were successes.

    An effect is worth p(1-p) of its category, as on the logit scale: where all succeed nobody can differ.
    """
    overall = (right.sum() + 1.4) / (calls.sum() + 2)
    share = (right.sum(0) + 4 * overall) / (calls.sum(0) + 4)
    variance = np.clip(share * (1 - share), 0.02, 0.25)
    scale = variance / _TYPICAL_VARIANCE
    special = (settings.special_sd * scale) ** 2
    seen = right / np.maximum(calls, 1e-9)
    weight = calls / (variance + calls * special)
    ability, category = np.zeros(len(calls)), share - overall
    certainty = 1 / settings.ability_sd**2 + (weight * scale**2).sum(1)
    for _ in range(3):
        ability = (weight * scale * (seen - overall - category)).sum(1) / certainty
        left = weight * (seen - overall - scale * ability[:, None])
        category = left.sum(0) / (1 / settings.category_sd**2 + weight.sum(0))
        left = weight * (seen - category - scale * ability[:, None])
        overall = (left.sum() + 0.7) / (weight.sum() + 1)
    expected = overall + category + scale * ability[:, None]
    trust = calls * special / (calls * special + variance)
    spread = special * (1 - trust) + ((1 - trust) * scale) ** 2 / certainty[:, None]
    return Effects(np.clip(expected + trust * (seen - expected), 0.01, 0.99), np.sqrt(spread))


@dataclass
class Bandit:
    """State of a bandit. `choose` reads it, `learn` changes it."""

    models: list[str]
    seed: int = 0
    settings: BanditConfig = field(default_factory=BanditConfig)
    categories: list[str] = field(default_factory=list)
    calls: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """(M, C) outcomes."""
    right: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    evidence: Floats = field(default_factory=lambda: np.zeros(0))
    """(M,) log likelihood ratio: that it broke, or of one that is out, that it is well again."""
    out_until: Floats = field(default_factory=lambda: np.zeros(0))
    """(M,) the outcome from which it is probed; 0 where it takes part."""
    rest: Floats = field(default_factory=lambda: np.zeros(0))
    """(M,) how long it is left alone when it is taken out next, in `Settings.rest`."""
    outcomes: int = 0

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) < len(self.models):
            raise ValueError(f"found the models {self.models}; expected at least one, each once.")
        # A state from before some models were added, or none at all.
        shape = (len(self.models), len(self.categories))
        self.calls, self.right = _widened(self.calls, shape), _widened(self.right, shape)
        missing = len(self.models) - len(self.evidence)
        self.evidence, self.out_until = (
            np.pad(self.evidence, (0, missing)),
            np.pad(self.out_until, (0, missing)),
        )
        self.rest = np.pad(self.rest, (0, missing), constant_values=1)
        self._refit()

    def _refit(self) -> None:
        # A last column without outcomes stands for every category that was never seen.
        shape = (len(self.models), len(self.categories) + 1)
        self._effects = effects(_widened(self.calls, shape), _widened(self.right, shape), self.settings)

    def _column(self, category: str) -> int:
        return self.categories.index(category) if category in self.categories else len(self.categories)

    def expect(self, category: str) -> tuple[Floats, Floats]:
        """Each model's chance of success (M,), and how uncertain it is."""
        column = self._column(category)
        return self._effects.mean[:, column], self._effects.sd[:, column]

    @property
    def quarantined(self) -> tuple[str, ...]:
        return tuple(model for model, until in zip(self.models, self.out_until, strict=True) if until)

    def choose(self, category: str, candidates: Sequence[str], key: str) -> BanditChoice:
        """One of `candidates`, the same for the same state and key. Raises ValueError for an unknown one."""
        if unknown := [name for name in candidates if name not in self.models]:
            raise ValueError(f"found the candidates {unknown}; expected some of {self.models}.")
        names = list(dict.fromkeys(candidates))
        places = np.array([self.models.index(name) for name in names])
        mean, sd = (values[places] for values in self.expect(category))
        held = self.settings
        fresh = 1 / (1 + self.calls[places].sum(1) * len(names) / held.fresh)
        spread = sd * (held.boldness + (1 - held.boldness) * fresh)
        digest = hashlib.sha256(f"{self.seed}:{key}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8]))
        chances = self._chances(mean, spread, self.out_until[places], random)
        at = min(int(np.searchsorted(np.cumsum(chances), random.random())), len(names) - 1)
        return BanditChoice(names[at], dict(zip(names, chances.tolist(), strict=True)), float(mean[at]))

    def _chances(
        self, mean: Floats, spread: Floats, out_until: Floats, random: np.random.Generator
    ) -> Floats:
        held = self.settings
        takes_part = out_until == 0
        # When everyone is out, what fails is not one model.
        if not takes_part.any():
            takes_part[:] = True
        draws = mean + spread * random.standard_normal((held.draws, len(mean)))
        draws[:, ~takes_part] = -np.inf
        wins = np.bincount(draws.argmax(1), minlength=len(mean))
        contends = wins >= min(held.contends, wins.max())
        others = takes_part & ~contends
        won = np.where(contends, wins, 0) / wins[contends].sum()
        probed = ~takes_part & (out_until <= self.outcomes)
        chances = np.where(probed, min(held.probe, 0.1 / max(probed.sum(), 1)), 0.0)
        if others.any():
            chances[others] = held.explore / others.sum()
        left = 1 - chances.sum()
        floor = min(held.floor, 0.5 * left / contends.sum())
        chances[contends] = floor + (left - floor * contends.sum()) * won[contends]
        return chances

    def learn(self, model: str, category: str, ok: bool) -> None:
        """Take in whether `model` succeeded on a task of `category`. Well under a millisecond."""
        at = self.models.index(model)
        mean, sd = (values[at] for values in self.expect(category))
        self.outcomes += 1
        took_part = self.out_until[at] == 0
        self._watch(at, float(mean), float(sd), ok)
        # Probes tell whether a model is well; what it is worth when well is known from before.
        if not took_part:
            return
        if category not in self.categories:
            self.categories.append(category)
            shape = (len(self.models), len(self.categories))
            self.calls, self.right = _widened(self.calls, shape), _widened(self.right, shape)
        column = self._column(category)
        self.calls[at, column] += 1
        self.right[at, column] += ok
        self._refit()

    def _watch(self, at: int, mean: float, sd: float, ok: bool) -> None:
        """CUSUM of predicted against observed: out above `alarm`, back above `back`, else rest again."""
        held = self.settings
        # Who is chosen was guessed too high more often than too low: one deviation is granted.
        well = min(max(mean - sd, 0.02), 0.98)
        broken = well / (well + (1 - well) * held.broken_odds)
        ratio = float(np.log(broken / well) if ok else np.log((1 - broken) / (1 - well)))
        if self.out_until[at] == 0:
            self.evidence[at] = max(0.0, self.evidence[at] + ratio)
            if self.evidence[at] >= held.alarm:
                self._take_out(at)
            return
        self.evidence[at] -= ratio
        if self.evidence[at] >= held.back:
            self.out_until[at], self.evidence[at], self.rest[at] = 0, 0, 1
        elif self.evidence[at] <= -held.back:
            self._take_out(at)

    def _take_out(self, at: int) -> None:
        self.out_until[at] = self.outcomes + self.settings.rest * self.rest[at]
        self.evidence[at] = 0
        self.rest[at] *= 2

    def to_json(self) -> dict[str, Any]:
        """All of it, for `from_json`."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {
            "models": self.models,
            "categories": self.categories,
            "seed": self.seed,
            "outcomes": self.outcomes,
            "settings": asdict(self.settings),
            **arrays,
        }


def _widened(counts: Floats, shape: tuple[int, int]) -> Floats:
    wide = np.zeros(shape)
    wide[: counts.shape[0], : counts.shape[1]] = counts
    return wide


_ARRAYS: Final = ("calls", "right", "evidence", "out_until", "rest")


def from_json(document: Mapping[str, Any]) -> Bandit:
    """Restore a bandit from what `to_json` wrote."""
    arrays = {name: np.array(document[name], dtype=np.float64) for name in _ARRAYS}
    return Bandit(
        list(document["models"]),
        document["seed"],
        BanditConfig(**document["settings"]),
        list(document["categories"]),
        outcomes=document["outcomes"],
        **arrays,
    )
