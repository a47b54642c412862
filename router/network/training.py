"""The training loop: plain, deterministic from a seed, and able to go on where it was stopped.

Nothing is drawn from torch's own chance: what an epoch draws follows from the seed and its number, so a state
needs no more than weights and moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Ints
from router.data.packing import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = dict[str, NDArray[np.float32]]
OnEpoch = Callable[[int, bytes, dict[str, float]], None]
"""Told the number of an epoch that ended, the state to go on from, and its row of the curve."""

_WORST: Final = 5
"""Batches whose loss was no number, before training stops."""
_FREE: Final = ("past", "trust")
"""Weights that go past the network: decay would draw them away from what is known."""


@dataclass(frozen=True)
class TrainingConfig:
    epochs: int = 40
    batch: int = 64
    learning_rate: float = 3e-4
    warm_up: int = 30
    """Batches in which the learning rate rises to that."""
    weight_decay: float = 1.0
    clip: float = 1.0
    """The longest gradient."""
    patience: int = 6
    """Epochs without a better validation before it stops."""
    seed: int = 0


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of the training curve."""

    epoch: int
    loss: float
    validated: float
    learning_rate: float
    skipped: int
    """Batches so far whose loss or gradient was no number."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training needs to resume."""

    weights: Weights
    best: Weights
    first: Weights
    second: Weights
    """Moments of AdamW, by weight."""
    steps: int
    skipped: int
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class TrainedWeights:
    weights: Weights
    """Weights of the epoch that validated best."""
    curve: tuple[CurvePoint, ...]


def train(
    net: nn.Module,
    loss: Callable[[Ints], Tensor],
    groups: Sequence[Ints],
    validated: Callable[[], float],
    plan: TrainingConfig,
    on_epoch: OnEpoch | None = None,
    resume: bytes | None = None,
) -> TrainedWeights:
    """`loss` of the places of a batch, which all come from one of `groups`; `validated`: lower is better.

    `net` ends with the best weights. With `resume`, a state that `on_epoch` was told, it goes on as if it had
    never stopped. Raises ValueError where the loss keeps being no number."""
    import torch

    from router.network.net import reseeded

    optimizer = _optimizer(net, plan)
    state = TrainingState(_weights(net), _weights(net), {}, {}, 0, 0, ())
    if resume is not None:
        state = unpack(TrainingState, resume)
        _restore(net, optimizer, state)
    with one_thread():
        while len(state.curve) < plan.epochs and not _is_over(state.curve, plan.patience):
            epoch = len(state.curve)
            reseeded(net, plan.seed * 10_000 + epoch)
            net.train()
            losses: list[float] = []
            for batch in _batches(groups, plan.batch, (plan.seed, epoch)):
                rate = plan.learning_rate * min(1.0, (state.steps + 1) / plan.warm_up)
                for one in optimizer.param_groups:
                    one["lr"] = rate
                optimizer.zero_grad()
                found = loss(batch)
                if torch.isfinite(found):
                    found.backward()  # type: ignore[no-untyped-call]
                # A gradient can be no number where the loss is one.
                length = torch.nn.utils.clip_grad_norm_(net.parameters(), plan.clip)
                if not torch.isfinite(found) or not torch.isfinite(length):
                    state = _skipped(state)
                    continue
                optimizer.step()
                losses.append(float(found.detach()))
                state = replace(state, steps=state.steps + 1)
            net.eval()
            with torch.no_grad():
                now = validated()
            now = now if np.isfinite(now) else float("inf")
            better = now < min((row.validated for row in state.curve), default=np.inf)
            mean = float(np.mean(losses)) if losses else float("nan")
            row = CurvePoint(epoch, mean, now, optimizer.param_groups[0]["lr"], state.skipped)
            state = replace(state, curve=(*state.curve, row), best=_weights(net) if better else state.best)
            if on_epoch is not None:
                on_epoch(epoch, pack(_with_moments(state, net, optimizer)), asdict(row))
    load(net, state.best)
    return TrainedWeights(state.best, state.curve)


def _is_over(curve: Sequence[CurvePoint], patience: int) -> bool:
    """Tell whether the best epoch of the curve is `patience` epochs ago."""
    best = min(curve, key=lambda row: row.validated, default=None)
    return best is not None and len(curve) - 1 - best.epoch >= patience


def _batches(groups: Sequence[Ints], size: int, seed: tuple[int, int]) -> Iterator[Ints]:
    rng = np.random.default_rng(seed)
    found = [
        part
        for group in groups
        if len(group)
        for part in np.array_split(rng.permutation(group), -(-len(group) // size))
    ]
    for place in rng.permutation(len(found)):
        yield found[place]


def _skipped(state: TrainingState) -> TrainingState:
    if state.skipped + 1 >= _WORST:
        raise ValueError(
            f"found no number for the loss of {_WORST} batches; expected finite inputs and a lower learning "
            "rate. Look for infinite values in what is learned from."
        )
    return replace(state, skipped=state.skipped + 1)


def _optimizer(net: nn.Module, plan: TrainingConfig) -> Any:
    import torch

    kept = [weight for name, weight in net.named_parameters() if name not in _FREE]
    free = [weight for name, weight in net.named_parameters() if name in _FREE]
    groups: list[dict[str, Any]] = [
        {"params": kept},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], plan.learning_rate, weight_decay=plan.weight_decay
    )


def _with_moments(state: TrainingState, net: nn.Module, optimizer: Any) -> TrainingState:
    first, second = {}, {}
    for name, weight in net.named_parameters():
        if held := optimizer.state.get(weight):
            first[name], second[name] = held["exp_avg"].numpy().copy(), held["exp_avg_sq"].numpy().copy()
    return replace(state, weights=_weights(net), first=first, second=second)


def _restore(net: nn.Module, optimizer: Any, state: TrainingState) -> None:
    import torch

    load(net, state.weights)
    for name, weight in net.named_parameters():
        if name in state.first:
            optimizer.state[weight] = {
                "step": torch.tensor(float(state.steps)),
                "exp_avg": torch.tensor(state.first[name]),
                "exp_avg_sq": torch.tensor(state.second[name]),
            }


def _weights(net: nn.Module) -> Weights:
    return {name: weight.detach().numpy().copy() for name, weight in net.named_parameters()}


def load(net: nn.Module, weights: Weights) -> None:
    """Raises where they are of another shape."""
    import torch

    net.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: sums in another order would be other sums."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
