"""The loop on a small regression: it goes on exactly as it would have, and survives what is no number."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from router.data.arrays import Ints
from router.network.training import TrainedWeights, TrainingConfig, TrainingState, train

if TYPE_CHECKING:
    from torch import Tensor, nn

PLAN = TrainingConfig(epochs=6, batch=8, patience=6, warm_up=10, learning_rate=0.01)
GROUPS = [np.arange(0, 20), np.arange(20, 40)]


class Line:
    """A network with dropout, and what it is to learn."""

    def __init__(self, broken: frozenset[int] = frozenset(), noise: float = 0.0) -> None:
        import torch

        from router.network.net import Dropout

        chances = torch.Generator().manual_seed(3)
        self.x = torch.randn(50, 4, generator=chances)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5, 0.0])
        self.y = self.y + noise * torch.randn(50, generator=chances)
        self.y[list(broken)] = float("nan")
        self.net: nn.Module = torch.nn.Sequential(Dropout(0.2), torch.nn.Linear(4, 1))
        with torch.no_grad():
            for weight in self.net.parameters():
                weight.zero_()
        self.batches: list[list[int]] = []

    def loss(self, at: Ints) -> "Tensor":
        self.batches.append(at.tolist())
        squares: Tensor = (self.net(self.x[at])[:, 0] - self.y[at]) ** 2
        return squares.mean()

    def validated(self) -> float:
        return float(self.loss(np.arange(40, 50)).detach())

    def train(
        self,
        plan: TrainingConfig = PLAN,
        on_epoch: Callable[..., None] | None = None,
        resume: bytes | None = None,
    ) -> TrainedWeights:
        return train(self.net, self.loss, GROUPS, self.validated, plan, on_epoch, resume)


def test_a_training_that_was_stopped_goes_on_with_the_same_curve() -> None:
    whole = Line().train()
    states: list[bytes] = []
    Line().train(replace(PLAN, epochs=3), lambda epoch, state, row: states.append(state))
    resumed = Line().train(resume=states[-1])
    assert len(whole.curve) == 6
    for one, other in zip(whole.curve, resumed.curve, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-6)
        assert one.validated == pytest.approx(other.validated, abs=1e-6)
    for name, weight in whole.weights.items():
        np.testing.assert_allclose(resumed.weights[name], weight, atol=1e-6)


def test_it_is_the_same_from_a_seed_whatever_else_draws() -> None:
    import torch

    one = Line().train()
    torch.manual_seed(99)
    assert Line().train().curve == one.curve
    assert Line().train(replace(PLAN, seed=1)).curve != one.curve


def test_each_epoch_tells_its_number_state_and_row() -> None:
    from router.data.packing import unpack

    told: list[tuple[int, int, dict[str, float]]] = []
    curve = (
        Line()
        .train(
            on_epoch=lambda epoch, state, row: told.append(
                (epoch, len(unpack(TrainingState, state).curve), row)
            )
        )
        .curve
    )
    assert [(epoch, length) for epoch, length, _ in told] == [(n, n + 1) for n in range(6)]
    assert [row["validated"] for *_, row in told] == [row.validated for row in curve]
    assert curve[0].learning_rate < curve[-1].learning_rate == PLAN.learning_rate


def test_every_place_is_seen_once_an_epoch_and_batches_keep_to_their_group() -> None:
    line = Line()
    line.train(replace(PLAN, epochs=1))
    batches = line.batches[:-1]
    assert sorted(place for batch in batches for place in batch) == list(range(40))
    assert all(len({place < 20 for place in batch}) == 1 and len(batch) <= 8 for batch in batches)


def test_a_batch_that_is_no_number_is_skipped_and_counted() -> None:
    trained = Line(broken=frozenset({7})).train(replace(PLAN, epochs=3))
    assert [row.skipped for row in trained.curve] == [1, 2, 3]
    assert all(np.isfinite(weight).all() for weight in trained.weights.values())
    assert trained.curve[-1].validated < trained.curve[0].validated


def test_too_many_of_them_stop_it() -> None:
    with pytest.raises(ValueError, match="found no number for the loss of 5 batches"):
        Line(broken=frozenset({7})).train(replace(PLAN, epochs=6))


def test_it_stops_where_validation_gets_no_better_and_keeps_the_best() -> None:
    line = Line(noise=3.0)
    trained = line.train(replace(PLAN, epochs=200, patience=3, learning_rate=0.3))
    best = min(trained.curve, key=lambda row: row.validated)
    assert len(trained.curve) == best.epoch + 4 < 200
    assert line.validated() == pytest.approx(best.validated)


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no TrainingState"):
        Line().train(resume=b"broken")
