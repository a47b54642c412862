"""Collaborations of three steps on the simulator's hidden skills, as an environment to learn in."""

import itertools
import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from bench.research.ppo import Floats
from gateway.prices import listed_price
from infra.simulator.answers import HOLES, WRITABLE_FLAWS
from infra.simulator.review import PENALTY
from infra.simulator.skills import SKILL_TABLE, domain_of, drawn

MODELS: Final = tuple(SKILL_TABLE)
ROLES: Final = ("architect", "coder", "reviewer")
COST_WEIGHT: Final = 1.0
"""Quality that one US dollar is worth."""
SECONDS_WEIGHT: Final = 0.005
"""Quality that one second is worth."""
FAULTS: Final = 3
"""That code could have, as in the simulator."""
BEST: Final = 0.97

_SUBJECTS: Final = {
    "enterprise": "payroll rules of a customer of Siemens",
    "algorithms": "a sort algorithm of low complexity",
    "backend": "a REST API with a queue",
    "general": "a small text adventure",
}
_LANGUAGES: Final = {"python": "in Python", "typescript": "in TypeScript", "unknown": "in any language"}
_SIZES: Final = {
    "low": (250, ""),
    "medium": (600, " It must be scalable."),
    "high": (1_400, " It must be scalable, distributed, parallel, fault tolerant and real-time."),
}
"""Complexity → (tokens of an answer, what the task says of it)."""
Kind = tuple[str, str, str]
"""Of a task: its subject, language and size."""
KINDS: Final[list[Kind]] = list(itertools.product(_SUBJECTS, _LANGUAGES, _SIZES))
TASKS: Final = [
    f"Write {_SUBJECTS[subject]} {_LANGUAGES[language]}.{_SIZES[size][1]}"
    for subject, language, size in KINDS
]
INPUT_TOKENS: Final = 400
"""Of a prompt besides what was written before."""


def _seen(kind: Kind) -> list[float]:
    parts = zip(kind, (list(_SUBJECTS), list(_LANGUAGES), list(_SIZES)), strict=True)
    return [float(name == one) for one, names in parts for name in names]


class Collaborations:
    """An environment of three steps. What each model would do at a step depends on the key alone, so that two
    policies meet the same luck."""

    actions = len(MODELS)
    width = len(_SUBJECTS) + len(_LANGUAGES) + len(_SIZES) + len(ROLES) + 2 * len(MODELS)

    def reset(self, key: int) -> Floats:
        self._key = key
        self._chosen: list[int] = []
        self.kind = KINDS[random.Random(f"task/{key}").randrange(len(KINDS))]
        self._domain = domain_of(TASKS[KINDS.index(self.kind)])
        self._written = 0.0
        self._holes = 0.0
        self._faults: list[Any] = []
        self.quality = self.usd = self.seconds = 0.0
        return self._observed()

    def step(self, action: int) -> tuple[Floats, float, bool]:
        model, at = MODELS[action], len(self._chosen)
        traits = SKILL_TABLE[model]
        draw = random.Random(f"{self._key}/{at}/{model}")
        tokens = _SIZES[self.kind[2]][0] * drawn(draw, traits.verbosity, traits.verbosity_spread)
        first, per_second = traits.timing(draw)
        seconds = first + tokens / per_second
        usd = usd_of(model, INPUT_TOKENS + self._written, tokens)
        self._written += tokens
        skill = traits.skill[self._domain]
        reward = -COST_WEIGHT * usd - SECONDS_WEIGHT * seconds
        if at == 0:
            self._holes = HOLES if draw.random() > skill else 0.0
        elif at == 1:
            count = sum(draw.random() > skill - self._holes for _ in range(FAULTS))
            self._faults = draw.sample(WRITABLE_FLAWS, count)
        else:
            # What a review finds is repaired.
            rate = traits.finding_rate
            left = [one for one in self._faults if draw.random() > rate(self._domain, one.severity)]
            self.quality = max(0.05, BEST - sum(PENALTY[one.severity] for one in left))
            reward += self.quality
        self.usd, self.seconds = self.usd + usd, self.seconds + seconds
        self._chosen.append(action)
        return self._observed(), reward, at == len(ROLES) - 1

    def _observed(self) -> Floats:
        found = np.zeros(self.width, dtype=np.float32)
        about = _seen(self.kind)
        found[: len(about)] = about
        at = len(self._chosen)
        if at < len(ROLES):
            found[len(about) + at] = 1
        for place, action in enumerate(self._chosen[:2]):
            found[len(about) + len(ROLES) + place * len(MODELS) + action] = 1
        return found


def usd_of(model: str, read: float, written: float) -> float:
    price = listed_price(model)
    assert price is not None
    return (read * float(price.input_usd) + written * float(price.output_usd)) / 1e6


def expected(kind: Kind, chain: Sequence[str]) -> float:
    """The mean reward of three models on a kind of task: what nobody who learns is told."""
    domain = domain_of(TASKS[KINDS.index(kind)])
    architect, coder, reviewer = (SKILL_TABLE[model] for model in chain)
    faults = FAULTS * min(1.0, 1 - coder.skill[domain] + HOLES * (1 - architect.skill[domain]))
    each = np.mean(
        [PENALTY[one.severity] * (1 - reviewer.finding_rate(domain, one.severity)) for one in WRITABLE_FLAWS]
    )
    reward, written = BEST - faults * float(each), 0.0
    for model in chain:
        traits, tokens = SKILL_TABLE[model], _SIZES[kind[2]][0] * SKILL_TABLE[model].verbosity
        reward -= COST_WEIGHT * usd_of(model, INPUT_TOKENS + written, tokens)
        reward -= SECONDS_WEIGHT * (traits.first_token_ms / 1000 + tokens / traits.tokens_per_second)
        written += tokens
    return reward
