"""The network on generated outcomes: shapes and sums, one forward for all, new models, and going on."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from router.data import metrics
from router.data.arrays import Floats
from router.data.outcomes import Calls
from router.data.packing import pack, unpack
from router.evaluate.network import judge_neural
from router.network import adapter
from router.network.adapter import NetworkShape, Neural
from router.network.training import TrainingConfig
from router.statistics import histories, shrinkage, success
from schema.language.catalogue import MASTERS

SMALL = NetworkShape(
    embedding=16, attention=16, heads=2, rank=3, memory=3, memory_width=8, orders=4, dropout=0.1
)
PLAN = TrainingConfig(epochs=3, batch=32, learning_rate=3e-3, warm_up=5, patience=3)
MODELS = tuple(f"m{i}" for i in range(5))
KINDS = ("coder/backend", "reviewer/general", "architect/algorithms")


@cache
def world(queries: int = 160, seed: int = 0) -> tuple[Calls, Floats, Floats]:
    """(calls, rows, truth): topics differ in difficulty, kinds in who is good at them."""
    rng = np.random.default_rng(seed)
    chances = np.random.default_rng(7)
    kind, topic = rng.integers(0, 3, queries), rng.integers(0, 6, queries)
    places = chances.normal(size=(6, histories.TEXT))
    rows = places[topic] + 0.3 * rng.normal(size=(queries, histories.TEXT))
    logit = (
        np.linspace(-0.5, 1.5, 5)
        + chances.normal(size=(3, 5))[kind]
        + chances.normal(size=(6, 1))[topic] * 1.5
    )
    truth = 1 / (1 + np.exp(-logit))
    ok = (rng.random(truth.shape) < truth).astype(np.float64)
    seconds = np.exp(np.linspace(0, 2, 5) + 0.5 * kind[:, None] + 0.1 * rng.normal(size=ok.shape))
    ids = tuple(f"{seed}-{i}" for i in range(queries))
    calls = Calls(
        ids, ids, np.array([KINDS[k] for k in kind]), MODELS, ok, seconds, 100 * seconds, 20 * seconds
    )
    return calls, rows, truth


@cache
def fitted() -> tuple[Neural, Floats]:
    calls, rows, _ = world()
    return adapter.fit(calls, rows, shape=SMALL, plan=PLAN)


def asked(count: int, seed: int = 1) -> tuple[Floats, list[str]]:
    calls, rows, _ = world(seed=seed)
    return rows[:count], calls.categories[:count].tolist()


def test_it_says_five_masters_and_each_candidate_in_chances_that_add_up() -> None:
    told = adapter.predict(fitted()[0], *asked(7), ("m1", "m4", "m0"))
    assert told.masters.shape == (7, len(MASTERS)) == (7, 5)
    np.testing.assert_allclose(told.masters.sum(1), 1, atol=1e-6)
    assert told.agents.shape == told.success.shape == (7, 3)
    np.testing.assert_allclose(told.agents.sum(1), 1, atol=1e-6)
    for chances in (told.success, told.confidence):
        assert ((chances > 0) & (chances < 1)).all()
    assert (told.order_sensitivity >= 0).all()
    assert (told.budget_tokens >= 256).all()


def test_the_embedding_of_a_task_has_512_numbers() -> None:
    import torch

    from router.network.net import built

    calls, rows, _ = world()
    past = histories.learn(calls, rows)
    given = histories.given(past, rows[:2], calls.categories[:2], [MODELS], NetworkShape().memory)
    with torch.inference_mode():
        said = built(NetworkShape(), 0).eval()(given)
    assert said.embedding.shape == (2, 512)
    assert said.masters.shape == (2, 5)


def test_it_knows_more_than_rates_where_texts_tell() -> None:
    learned, seen = fitted()
    calls, rows, truth = world(seed=1)
    told = adapter.predict(learned, rows, calls.categories.tolist(), MODELS)
    past, _, _ = world()
    category = success.places(past.categories, KINDS)
    at = success.places(calls.categories, KINDS)
    plain = shrinkage.hierarchical(category, past.ok, at, weight=10.0)
    assert ((told.success - truth) ** 2).mean() < 0.7 * ((plain - truth) ** 2).mean()
    # What its members say of their own steps must not have seen them.
    assert metrics.brier(seen, past.ok) == pytest.approx(metrics.brier(told.success, calls.ok), abs=0.03)


def test_it_knows_how_long_models_take_and_what_that_costs() -> None:
    calls, rows, _ = world(seed=1)
    told = adapter.predict(fitted()[0], rows, calls.categories.tolist(), MODELS)
    assert np.abs(np.log(told.seconds / calls.seconds)).mean() < 0.25
    assert np.abs(np.log(told.output_tokens / calls.output_tokens)).mean() < 0.25
    usd = adapter.cost_usd(told, np.tile([1.0, 10.0], (5, 1)))
    np.testing.assert_allclose(usd, (told.input_tokens + 10 * told.output_tokens) / 1e6)


def counted(learned: Neural) -> tuple[Any, list[int]]:
    """(the network that answers, how many steps each of its forwards held)."""
    net = adapter._committee(learned)
    sizes: list[int] = []
    hook = net.register_forward_hook(lambda _, given, __: sizes.append(len(given[0].rows)))
    return hook, sizes


def test_candidates_come_in_the_order_asked_for_and_order_changes_nothing() -> None:
    learned, _ = fitted()
    one = adapter.predict(learned, *asked(5), MODELS)
    other = adapter.predict(learned, *asked(5), MODELS[::-1])
    np.testing.assert_allclose(one.success, other.success[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(one.agents, other.agents[:, ::-1], atol=1e-5)


def test_a_fit_that_was_stopped_comes_to_the_same_weights() -> None:
    calls, rows, _ = world()
    states: list[bytes] = []
    curve: list[dict[str, float]] = []

    def tell(epoch: int, state: bytes, row: dict[str, float]) -> None:
        # Of `curve` as it is then: a resumed fit goes on where the list ends.
        assert epoch == len(curve) == row["epoch"]
        states.append(state)
        curve.append(row)

    whole, seen = adapter.fit(calls, rows, 0, tell, shape=SMALL, plan=PLAN)
    assert [row["member"] for row in curve] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    # In the middle of the second member, and at the end of the third.
    for stopped in (4, 8):
        known = curve[: stopped + 1]
        before, curve = curve, known
        resumed, same = adapter.fit(calls, rows, 0, tell, states[stopped], shape=SMALL, plan=PLAN)
        assert curve == before
        np.testing.assert_allclose(same, seen, atol=1e-6)
        for one, other in zip(whole.members, resumed.members, strict=True):
            for name, weight in one.items():
                np.testing.assert_allclose(other[name], weight, atol=1e-6)


def test_a_checkpoint_says_the_same_after_it_was_packed() -> None:
    learned, _ = fitted()
    again = unpack(Neural, pack(learned))
    one, other = (adapter.predict(each, *asked(4), MODELS) for each in (learned, again))
    np.testing.assert_array_equal(one.success, other.success)
    np.testing.assert_array_equal(one.budget_tokens, other.budget_tokens)


def test_it_learns_where_mostly_one_model_is_known_of_a_step() -> None:
    calls, rows, _ = world(queries=400)
    rng = np.random.default_rng(0)
    alone = np.full(calls.ok.shape, np.nan)
    at = np.arange(400), rng.integers(0, 5, 400)
    alone[at] = calls.ok[at]
    few = replace(calls, ok=alone, seconds=np.where(np.isnan(alone), np.nan, calls.seconds))
    learned, seen = adapter.fit(few, rows, chances=np.full(alone.shape, 0.2), shape=SMALL, plan=PLAN)
    assert np.isfinite(seen).all()
    told = adapter.predict(learned, *asked(100), MODELS)
    their = world(seed=1)[2][:100]
    middle = np.nanmean(alone)
    assert ((told.success - their) ** 2).mean() < 0.95 * ((middle - their) ** 2).mean()


def test_the_weight_of_a_lone_choice_is_its_inverse_chance_and_is_bounded() -> None:
    calls, _, _ = world()
    ok = np.full((3, 5), np.nan)
    ok[[0, 1], [1, 2]] = 1.0
    ok[2, :2] = 1.0, 0.0
    three = replace(calls.only(np.arange(3)), ok=ok)
    wanted, weight = adapter._routing(
        three, np.zeros((3, 5, 3)), np.array([[0.5] * 5, [0.01] * 5, [0.5] * 5])
    )
    assert weight.tolist() == [[0, 2, 0, 0, 0], [0, 0, 10, 0, 0], [0, 0, 0, 0, 0]]
    assert wanted[:2].sum() == 0
    assert wanted[2, 0] > 0.99
    assert wanted[2].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("category", "master"),
    [
        ("architect/backend", "design"),
        ("coder/general", "development"),
        ("tester/general", "quality"),
        ("documenter/general", "documentation"),
        ("my own/general", "coordinator"),
        ("", "coordinator"),
    ],
)
def test_a_step_belongs_to_the_master_that_leads_its_role(category: str, master: str) -> None:
    assert MASTERS[adapter._master(category)].name == master


def test_too_little_is_refused_and_so_are_rows_of_something_else() -> None:
    calls, rows, _ = world()
    with pytest.raises(ValueError, match="found outcomes of 10 steps; expected at least 20"):
        adapter.fit(calls.only(np.arange(10)), rows[:10], shape=SMALL, plan=PLAN)
    with pytest.raises(ValueError, match="found rows of 3 numbers"):
        adapter.predict(fitted()[0], np.ones((1, 3)), ["coder/backend"], MODELS)


def test_judging_says_whether_the_network_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, rows, _ = world()
    monkeypatch.setattr(adapter, "SHAPE", SMALL)
    monkeypatch.setattr(adapter, "PLAN", PLAN)
    found = judge_neural(calls, rows)
    for key in ("neural_brier", "memory_brier", "ensemble_brier", "neural_ece", "neural_f1"):
        value = found[key]
        assert value is not None and 0 < value < 1
    assert found["neural_serves"] in (0.0, 1.0)
    if not found["neural_serves"]:
        assert found["ensemble_brier"] == pytest.approx(found["memory_brier"], abs=1e-9)
    assert found["neural_aiq"] is None
    assert (found["neural_samples_per_s"] or 0) > 100
