"""The neural router: what a mixture of experts says of a step and its candidates (S2-02..07, S4-01..04).

A challenger. It starts as the shrunk rates of `router.statistics.histories` and learns what they do not say;
a new model is told of by its history alone. `router.statistics.ensemble` decides on outcomes held out
whether it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Floats, Ints
from router.data.odds import logistic
from router.data.outcomes import Calls
from router.data.packing import pack, unpack
from router.network.training import OnEpoch, TrainedWeights, TrainingConfig, Weights, train
from router.statistics import histories
from router.statistics.expectation import reasoning_budget, tolerated
from router.statistics.histories import NetworkInput, PastOutcomes, Small
from schema.chance import point
from schema.language.catalogue import MASTERS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from router.network.net import Committee, MoERouter, NetworkOutput, Targets

FOLDS: Final = 4
"""Parts of the past, and members: each member is held to what the others learn from."""
MIN_STEPS: Final = 20
_TIME_WORTH: Final = 0.05
"""Success that a value one standard deviation longer (seconds, tokens) is worth less."""
_SHARPNESS: Final = 0.1
_MAX_WEIGHT: Final = 10.0
"""Largest weight of one outcome: a single rare choice must not outweigh all others."""


@dataclass(frozen=True)
class NetworkShape:
    """Widths of the network."""

    embedding: int = 512
    """Width of a task's and of a candidate's embedding."""
    attention: int = 64
    heads: int = 8
    rank: int = 8
    """Number of abilities that a model has and a task asks for."""
    masters: int = len(MASTERS)
    memory: int = 6
    """Past outcomes that are recalled for a task."""
    memory_width: int = 32
    orders: int = 8
    dropout: float = 0.5


SHAPE: Final = NetworkShape()
PLAN: Final = TrainingConfig()


@dataclass(frozen=True, eq=False)
class Neural:
    shape: NetworkShape
    past: PastOutcomes
    members: tuple[Weights, ...]
    """Weights by name."""


@dataclass(frozen=True)
class NetworkPrediction:
    """Predictions for N steps and K candidates, in the order of the request."""

    success: Floats
    """(N, K) chances."""
    masters: Floats
    agents: Floats
    """(N, 5) as in MASTERS, (N, K): chances that sum to 1."""
    confidence: Floats
    """(N,): the chance that whom `agents` would choose succeeds."""
    seconds: Floats
    input_tokens: Floats
    output_tokens: Floats
    """(N, K): about the median."""
    order_sensitivity: Floats
    """(N,): the standard deviation of success over orders of what was recalled; 0 is best."""
    budget_tokens: Ints
    """(N,): tokens of reasoning recommended to the likeliest of `agents`."""


@dataclass(frozen=True)
class _Progress:
    """Between two epochs of a fit."""

    finished: tuple[Weights, ...]
    epochs: int
    """Number of finished epochs."""
    current: NDArray[np.uint8]
    """The state of the one that is not; empty before its first epoch."""


_NOTHING: Final = np.zeros(0, dtype=np.uint8)


def fit(
    calls: Calls,
    rows: Floats,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
    resume: bytes | None = None,
    *,
    chances: Floats | None = None,
    shape: NetworkShape | None = None,
    plan: TrainingConfig | None = None,
) -> tuple[Neural, Floats]:
    """And (Q, M) chances of success for its own steps by members that did not learn from them.

    `rows` (Q, D): of `features.rows(calls.texts)`; `chances` (Q, M): by which a model was asked,
    where not all were. `on_epoch` is told a state from which `resume` goes on, with the same data, seed,
    shape and plan. Raises ValueError below LEAST_STEPS, and where the loss keeps being no number."""
    shape, plan = shape or SHAPE, plan or PLAN
    if (count := int(np.isfinite(calls.ok).any(1).sum())) < MIN_STEPS:
        raise ValueError(f"found outcomes of {count} steps; expected at least {MIN_STEPS} to learn from.")
    from router.network.net import built
    from router.network.training import load

    lesson = _lesson(calls, rows, chances, shape)
    done = unpack(_Progress, resume) if resume else _Progress((), 0, _NOTHING)
    seen = np.zeros(calls.ok.shape)
    finished, epochs = done.finished, done.epochs
    for number, held in enumerate(lesson.parts):
        net = built(shape, seed * 100 + number)
        if number < len(done.finished):
            load(net, finished[number])
        else:
            before = _Progress(finished, epochs, done.current if number == len(done.finished) else _NOTHING)
            trained = _member(net, lesson, number, replace(plan, seed=seed * 100 + number), before, on_epoch)
            finished, epochs = (*finished, trained.weights), epochs + len(trained.curve)
        seen[held] = _forward(net, lesson.given.only(held)).expected.numpy()
    return Neural(shape, histories.learn(calls, rows), finished), seen


def predict(
    neural: Neural,
    rows: Floats,
    categories: Sequence[str],
    candidates: Sequence[str] | Sequence[Sequence[str]],
) -> NetworkPrediction:
    """For N steps (`rows` of `features.rows`) and K candidates, or each step's own, which are then filled up
    to the most: with a chance of 0 in `agents`, NaN elsewhere. All of it in one forward."""
    same = [name for name in candidates if isinstance(name, str)]
    names = [same] if same else [name for name in candidates if not isinstance(name, str)]
    kinds = np.array(categories, dtype=np.str_)
    given = histories.given(neural.past, rows, kinds, names, neural.shape.memory)
    said = _forward(_committee(neural), given)
    success = np.where(given.asked, _floats(said.expected), np.nan)
    scaled = _floats(said.values) * neural.past.scale[:, 1] + neural.past.scale[:, 0]
    values = np.where(given.asked[:, :, None], np.exp(scaled), np.nan)
    agents = _floats(said.agents)
    likeliest = agents.argmax(1)[:, None]
    failure = 1 - np.take_along_axis(success, likeliest, 1)[:, 0]
    expected = np.take_along_axis(values[:, :, 2], likeliest, 1)[:, 0]
    return NetworkPrediction(
        success,
        _floats(said.masters),
        agents,
        _floats(said.confidence),
        values[:, :, 0],
        values[:, :, 1],
        values[:, :, 2],
        _floats(said.order_sensitivity),
        reasoning_budget(expected, tolerated(failure)),
    )


def cost_usd(told: NetworkPrediction, prices: Floats) -> Floats:
    """(N, K): US dollars, at (K, 2) US dollars for a million tokens in and out.

    No head of its own: a price that changed would have to be learned again."""
    usd: Floats = (told.input_tokens * prices[:, 0] + told.output_tokens * prices[:, 1]) / 1e6
    return usd


@dataclass(frozen=True)
class _Lesson:
    """Q steps to learn from; each was given a past without its own part."""

    parts: tuple[Ints, ...]
    given: NetworkInput
    ok: Floats
    values: Small
    wanted: Small
    weight: Small
    master: Ints
    """Index of each step's master, as in `net.Targets`."""

    def known(self, at: Ints) -> Targets:
        import torch

        from router.network.net import Targets

        told = (self.ok.astype(np.float32), self.values, self.wanted, self.weight, self.master)
        return Targets(*(torch.from_numpy(one[at]) for one in told))


def _lesson(calls: Calls, rows: Floats, chances: Floats | None, shape: NetworkShape) -> _Lesson:
    # By the hash of their ids, so that a newly known step moves few others.
    order = np.argsort([point(id) for id in calls.queries], kind="stable")
    parts = tuple(np.array_split(order, FOLDS))
    told = []
    scaled = np.zeros((*calls.ok.shape, 3))
    for part in parts:
        rest = np.setdiff1d(order, part)
        past = histories.learn(calls.only(rest), rows[rest])
        kinds = calls.categories[part]
        told.append((part, histories.given(past, rows[part], kinds, [calls.models], shape.memory)))
        logs = np.log(np.stack([calls.seconds, calls.input_tokens, calls.output_tokens], 2)[part])
        scaled[part] = (logs - past.scale[:, 0]) / past.scale[:, 1]
    wanted, weight = _routing(calls, scaled, chances)
    master = np.array([_master(category) for category in calls.categories], dtype=np.int64)
    return _Lesson(
        parts, histories.together(told), calls.ok, scaled.astype(np.float32), wanted, weight, master
    )


def _routing(calls: Calls, scaled: Floats, chances: Floats | None) -> tuple[Small, Small]:
    """((Q, M) whom to have given it, of steps where several are known; (Q, M) inverse chances of others)."""
    known = np.isfinite(calls.ok)
    longer = np.nan_to_num(scaled[:, :, 0]) + np.nan_to_num(scaled[:, :, 2])
    utility = (np.nan_to_num(calls.ok) - _TIME_WORTH * longer) / _SHARPNESS
    utility = np.where(known, utility - np.where(known, utility, -np.inf).max(1, keepdims=True), -np.inf)
    wanted = np.exp(utility) / np.maximum(np.exp(utility).sum(1, keepdims=True), 1e-9)
    alone = known.sum(1, keepdims=True) == 1
    inverse = 1.0 if chances is None else 1 / np.maximum(chances, 1 / _MAX_WEIGHT)
    weight = np.where(known & alone, inverse, 0.0)
    return np.where(alone, 0.0, wanted).astype(np.float32), weight.astype(np.float32)


def _master(category: str) -> int:
    """Return the index of the master that leads the role in a category; the coordinator by default."""
    role = category.split("/")[0]
    return next((k for k, master in enumerate(MASTERS) if k and role in master.leads), 0)


def _member(
    net: MoERouter,
    lesson: _Lesson,
    number: int,
    plan: TrainingConfig,
    before: _Progress,
    on_epoch: OnEpoch | None,
) -> TrainedWeights:
    """Held to its own part, learned from the others."""
    from router.network import net as network_net

    held = lesson.parts[number]
    at = np.setdiff1d(np.arange(len(lesson.ok)), held)
    told, ok = lesson.given.only(held), lesson.ok[held]

    def loss(at: Ints) -> Tensor:
        return network_net.loss(net(lesson.given.only(at)), lesson.known(at))

    def validated() -> float:
        p = np.clip(net(told).expected.numpy(), 1e-4, 1 - 1e-4)
        return -float(np.nanmean(ok * np.log(p) + (1 - ok) * np.log(1 - p)))

    def tell(epoch: int, state: bytes, row: dict[str, float]) -> None:
        if on_epoch is not None:
            now = replace(before, current=np.frombuffer(state, dtype=np.uint8))
            place = before.epochs + epoch
            on_epoch(place, pack(now), row | {"epoch": place, "member": number})

    _begin(net, lesson.given.skipped[at], lesson.ok[at])
    # A batch comes from one part: its steps share histories, which are encoded once.
    groups = [part for other, part in enumerate(lesson.parts) if other != number]
    state = before.current.tobytes() if len(before.current) else None
    return train(net, loss, groups, validated, plan, tell if on_epoch else None, state)


def _begin(net: MoERouter, skipped: Small, ok: Floats) -> None:
    """Start the output layers at the rates of the past, which descent would take long to find."""
    import torch

    known = np.isfinite(ok)
    weights = logistic(skipped[known].astype(np.float64), ok[known])
    with torch.no_grad():
        net.past.copy_(torch.from_numpy(np.append(weights[1:], weights[0])))


@lru_cache(maxsize=2)
def _committee(neural: Neural) -> Committee:
    """Weights become a network once: by identity, which a checkpoint that serves keeps."""
    from router.network.net import Committee, built
    from router.network.training import load

    members = [built(neural.shape, 0) for _ in neural.members]
    for net, weights in zip(members, neural.members, strict=True):
        load(net, weights)
    return Committee(members).eval()


def _forward(net: nn.Module, given: NetworkInput) -> NetworkOutput:
    import torch

    # Dropout is for learning alone, and a network is built to learn.
    net.eval()
    with torch.inference_mode():
        said: NetworkOutput = net(given)
    return said


def _floats(values: Tensor) -> Floats:
    return np.asarray(values.numpy(), dtype=np.float64)
