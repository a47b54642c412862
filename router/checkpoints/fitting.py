"""The network beside a fitted model: trained epoch by epoch, and kept only where it tells something more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from router.checkpoints import storage
from router.checkpoints.storage import Checkpoint
from router.data import metrics
from router.data.arrays import Floats
from router.data.outcomes import Calls
from router.network import adapter
from router.network.training import OnEpoch, TrainingConfig
from router.statistics import ensemble, success

_WEIGHTS: Final = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Effort:
    """The size that makes a network worth training, and the length of its training."""

    least_steps: int = 500
    """Distinct ones; below that plain rates know as much."""
    most_steps: int = 1_000
    """With more, a night on two processors is too short."""
    plan: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=15, patience=4))


def with_network(
    fitted: Checkpoint,
    calls: Calls,
    rows: Floats,
    seed: int,
    plan: TrainingConfig,
    on_epoch: OnEpoch,
    resume: bytes | None,
) -> tuple[Checkpoint, str]:
    """The model with a network, or as it was where the network does not help on steps that neither had seen;
    and why. With `resume`, a state that `on_epoch` was told, it goes on from there."""
    found, seen = adapter.fit(calls, rows, seed, on_epoch, resume, plan=plan)
    # Its chances for its own steps are not kept with a model, and come out the same again.
    _, plain = success.fit(rows, calls.categories, calls.ok, seed, calls.times)
    told = ensemble.fit(plain, seen, calls.ok, seed=seed)
    if not told.serves:
        return fitted, f"the network {told.reason}"
    briers = [metrics.brier((1 - weight) * plain + weight * seen, calls.ok) for weight in _WEIGHTS]
    weight = _WEIGHTS[int(np.argmin(briers))]
    return storage.of(fitted, found, weight), f"the network {told.reason}; its weight is {weight:g}"
