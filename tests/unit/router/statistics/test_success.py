"""P(success) and what it is judged by, on generated outcomes whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from router.data import features, metrics
from router.data.arrays import Floats
from router.data.encoder import WIDTH
from router.data.outcomes import Calls, split
from router.evaluate.calls import cold, judge_calls, unseen
from router.statistics import shrinkage, similarity, success


def world(
    queries: int = 360, models: int = 8, told: float = 3.0, seed: int = 0
) -> tuple[Floats, "np.typing.NDArray[np.str_]", Floats, Floats]:
    """(rows, categories, truth, ok); `told`: how much the rows say of difficulty, in logits."""
    rng = np.random.default_rng(seed)
    kind, topic = rng.integers(0, 4, queries), rng.integers(0, 12, queries)
    meaning = rng.normal(size=(12, WIDTH))[topic] + 0.3 * rng.normal(size=(queries, WIDTH))
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    letters = rng.normal(size=(queries, features.LETTERS))
    hard = rng.normal(size=12)
    logit = (
        np.linspace(-0.5, 2, models)[None]
        + rng.normal(size=(4, models))[kind] * 0.5
        + np.array([0.8, 0.0, -0.8, 0.3])[kind][:, None]
        + told / 2 * hard[topic][:, None]
    )
    truth = 1 / (1 + np.exp(-logit))
    ok = (rng.random(truth.shape) < truth).astype(np.float64)
    return np.hstack([meaning, letters]), np.array([f"kind{k}" for k in kind]), truth, ok


def shrunk(categories: "np.typing.NDArray[np.str_]", ok: Floats, at: "np.typing.NDArray[np.str_]") -> Floats:
    names = tuple(sorted(set(categories.tolist())))
    return shrinkage.hierarchical(
        success.places(categories, names), ok, success.places(at, names), weight=10.0
    )


def test_success_learns_from_texts_how_hard_queries_are() -> None:
    table, categories, truth, ok = world()
    learned, seen = success.fit(table[:240], categories[:240], ok[:240])
    told = learned.predict(table[240:], categories[240:])
    baseline = shrunk(categories[:240], ok[:240], categories[240:])
    assert ((told - truth[240:]) ** 2).mean() < 0.6 * ((baseline - truth[240:]) ** 2).mean()
    assert metrics.ece(told, ok[240:]) < 0.06
    # What is chosen by must not have seen its own outcomes: those who had would be far better here.
    assert metrics.brier(seen, ok[:240]) == pytest.approx(metrics.brier(told, ok[240:]), abs=0.03)


def test_success_is_not_worse_than_shrunk_rates_where_texts_say_nothing() -> None:
    table, categories, truth, ok = world(told=0.0, seed=3)
    learned, _ = success.fit(table[:240], categories[:240], ok[:240])
    told = learned.predict(table[240:], categories[240:])
    baseline = shrunk(categories[:240], ok[:240], categories[240:])
    assert ((told - truth[240:]) ** 2).mean() < ((baseline - truth[240:]) ** 2).mean() + 0.003


def test_a_query_that_was_asked_before_is_known_by_what_came_of_it() -> None:
    rng = np.random.default_rng(7)
    table, categories, _, _ = world(told=0.0, seed=5)
    # What a model comes to at a query comes again, and half of the queries are hard for all.
    logit = 0.5 + 2.0 * rng.normal(size=(360, 1)) + 1.5 * rng.normal(size=(360, 8))
    truth = 1 / (1 + np.exp(-logit))
    asked = rng.random(truth.shape) < 0.5
    learned, _ = success.fit(table, categories, np.where(asked, rng.random(truth.shape) < truth, np.nan))
    told = learned.predict(table, categories)
    plain = replace(learned, again=success.RepeatVariance(0.0, 0.0, 1.0)).predict(table, categories)
    for part in (asked, ~asked):
        assert ((told - truth)[part] ** 2).mean() < 0.8 * ((plain - truth)[part] ** 2).mean()
    new = world(told=0.0, seed=6)
    assert (
        learned.predict(*new[:2])
        == replace(learned, again=success.RepeatVariance(9.0, 9.0, 1.0)).predict(*new[:2])
    ).all()


def test_what_does_not_come_again_moves_nothing() -> None:
    """Asked once to ten times, each time it is only chance: the means tell, and move next to nothing."""
    rng = np.random.default_rng(10)
    table, categories, _, _ = world(told=0.0, seed=11)
    times = rng.integers(1, 11, size=(360, 8)).astype(float)
    ok = rng.binomial(times.astype(int), 0.7) / times
    learned, _ = success.fit(table, categories, ok, times=times)
    assert learned.again.own < 0.2 * learned.again.chance
    assert np.abs(learned.predict(table, categories) - 0.7).max() < 0.15
    # Where it does come again, the same means move a lot.
    truth = rng.random((360, 8))
    ok = rng.binomial(times.astype(int), truth) / times
    told = success.fit(table, categories, ok, times=times)[0].predict(table, categories)
    assert np.corrcoef(told[times > 5], truth[times > 5])[0, 1] > 0.85


def test_one_outcome_does_not_outweigh_all_that_is_known() -> None:
    """Of a model that is right at nine of ten, one failure at the very query says something, not all."""
    rng = np.random.default_rng(8)
    table, categories, _, _ = world(queries=240, told=0.0, seed=9)
    ok = (rng.random((240, 8)) < 0.9).astype(float)
    learned, _ = success.fit(table, categories, ok)
    told = learned.predict(table, categories)[ok == 0]
    assert 0.4 < np.median(told) < 0.9


def test_fits_are_the_same_from_the_same_seed() -> None:
    table, categories, _, ok = world(queries=120)
    one, other = (success.fit(table, categories, ok, seed=5)[1] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_gaps_and_fractions_are_taken() -> None:
    table, categories, truth, ok = world()
    gaps = np.where(np.random.default_rng(1).random(ok.shape) < 0.5, np.nan, 0.5 + 0.8 * (ok - 0.5))
    gaps[:, 0] = np.nan  # a model that was never asked
    told = success.fit(table[:240], categories[:240], gaps[:240])[0].predict(table[240:], categories[240:])
    assert np.isfinite(told).all()
    expected = 0.5 + 0.8 * (truth[240:, 1:] - 0.5)
    assert np.abs(told[:, 1:].mean(0) - expected.mean(0)).max() < 0.1


def test_a_strange_category_is_less_sure_and_says_so() -> None:
    table, categories, _, ok = world(told=0.0)
    learned, _ = success.fit(table[:300], categories[:300], ok[:300])
    known = learned.predict(table[300:], categories[300:])
    strange = np.full(60, "never seen")
    assert learned.predict(table[300:], strange).std() < known.std()
    _, novel = learned.told(table[300:], strange)
    assert novel.min() > learned.told(table[300:], categories[300:])[1].max()


def test_a_new_model_is_known_by_twenty_outcomes() -> None:
    table, categories, truth, ok = world(models=14)
    rng = np.random.default_rng(2)
    errors, plain = [], []
    # Abilities rise with the place: each group left out has models of all abilities, as the prior assumes.
    for left in (np.arange(k, 14, 3) for k in range(3)):
        learned, _ = success.fit(table[:240], categories[:240], np.delete(ok[:240], left, 1))
        # One draw of 20 says little: many are needed to tell a better estimate from a worse one.
        for model in np.repeat(left, 6):
            few = np.full(240, np.nan)
            at = rng.permutation(240)[:20]
            few[at] = ok[at, model]
            told = success.with_model(learned, few).predict(table[240:], categories[240:])
            assert told.shape == (120, 15 - len(left))
            errors.append(abs(told[:, -1].mean() - truth[240:, model].mean()))
            plain.append(abs(np.nanmean(few) - truth[240:, model].mean()))
    assert np.mean(errors) < 0.9 * np.mean(plain)


def test_a_decision_looks_at_the_newest_queries_of_each_category_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    category = np.array([0] * 6 + [1] * 3 + [0])
    assert similarity.newest(category, 5).tolist() == [4, 5, 8, 9]
    assert similarity.newest(category, 10).tolist() == list(range(10))
    table, categories, _, ok = world()
    newest = similarity.newest
    monkeypatch.setattr(similarity, "newest", lambda category: newest(category, 60))
    learned, seen = success.fit(table[:240], categories[:240], ok[:240])
    assert 50 <= len(learned.rows) == len(learned.kept) <= 60 and seen.shape == (240, 8)
    # Rates are learned from all of them all the same.
    found = shrinkage.learn(success.places(categories[:240], learned.categories), ok[:240], 4)
    np.testing.assert_array_equal(learned.rates.by_category, found.by_category)
    added = success.with_model(learned, np.full(len(learned.rows), np.nan))
    told = added.predict(table[240:], categories[240:])
    assert told.shape == added.scores(told, categories[240:]).shape == (120, 9)
    some = success.only_models(added, np.array([8, 2])).predict(table[240:], categories[240:])
    np.testing.assert_allclose(some[:, 1] > 0, True)


def test_what_is_chosen_by_lies_between_the_chances_and_the_rates() -> None:
    table, categories, _, ok = world()
    learned, seen = success.fit(table[:240], categories[:240], ok[:240])
    told = learned.predict(table[240:], categories[240:])
    category = success.places(categories[240:], learned.categories)
    expected = (told + learned.rates.at(category) + learned.plain[category]) / 3
    np.testing.assert_allclose(learned.scores(told, categories[240:]), expected)
    own = success.seen_scores(seen, categories[:240], ok[:240])
    assert metrics.brier(own, ok[:240]) == pytest.approx(metrics.brier(expected, ok[240:]), abs=0.03)


def test_rates_where_no_cell_has_two_outcomes_are_still_rates() -> None:
    ok = np.where(np.eye(6) > 0, 1.0, np.nan)
    found = shrinkage.learn(np.arange(6), ok, 6)
    assert np.isfinite(found.by_category).all() and found.noise == 1
    # The last category was never asked, and no other tells how queries of one differ.
    assert np.isfinite(shrinkage.learn(np.arange(6), ok, 7).by_category).all()


def test_rates_of_few_outcomes_are_pulled_to_what_models_have_in_common() -> None:
    rng = np.random.default_rng(0)
    rates = np.clip(rng.normal(0.6, 0.15, 20)[None] + np.array([0.2, 0.0, -0.2])[:, None], 0.05, 0.95)
    category = np.repeat([0, 1, 2], [100, 100, 6])
    ok = (rng.random((206, 20)) < rates[category]).astype(np.float64)
    found = shrinkage.learn(category, ok, 3)
    raw = np.array([ok[category == k].mean(0) for k in range(3)])
    assert np.abs(found.by_category[2] - rates[2]).mean() < 0.8 * np.abs(raw[2] - rates[2]).mean()
    assert np.abs(found.by_category[0] - raw[0]).mean() < 0.05
    np.testing.assert_array_equal(found.at(np.array([shrinkage.UNSEEN]))[0], found.overall)


def test_hierarchical_shrinkage_is_what_its_weight_says() -> None:
    ok = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, np.nan]])
    found = shrinkage.hierarchical(np.array([0, 0, 1, 1]), ok, np.array([0, 1, -1]), weight=2.0)
    top = shrinkage.overall(ok)
    expected = np.array([(2 + 2 * top[0]) / 4, (1 + 2 * top[0]) / 4, top[0]])
    np.testing.assert_allclose(found[:, 0], expected)
    assert found[1, 1] == pytest.approx((1 + 2 * top[1]) / 3)


def calls(models: tuple[str, ...], queries: int = 300) -> Calls:
    _, categories, _, ok = world(queries, len(models), told=0.0)
    tokens = np.full(ok.shape, 100.0)
    ids = tuple(f"q{i}" for i in range(queries))
    return Calls(ids, ids, categories, models, ok, tokens / 100, tokens, tokens)


def test_judging_says_none_where_there_are_no_prices() -> None:
    table, unpriced = world(120, 3, told=0.0)[0], calls(("a", "b", "c"), 120)
    plain = judge_calls(unpriced, table)
    assert (plain["aiq"], plain["cost_saved"], plain["apgr"]) == (None, None, None)
    assert plain["models_in_pool"] == 3
    gain, low, high = (plain[f"quality_minus_best_single{end}"] for end in ("", "_low", "_high"))
    assert gain is not None and low is not None and high is not None and low <= gain <= high


def test_judging_prices_what_the_best_single_costs() -> None:
    table, known = world(120, 3, told=0.0)[0], calls(("a", "b", "c-FC"), 120)
    # 100 tokens in and 100 out at these prices, per 1,000 calls.
    usd_per_1k = (0.02, 0.2, 2.0)
    priced = judge_calls(known, table, {"a": (0.1, 0.1), "b": (1.0, 1.0), "c": (10.0, 10.0)})
    single = known.ok[split(known.queries)[0]].mean(0).argmax()
    assert priced["baseline_best_single_usd_per_1k"] == pytest.approx(usd_per_1k[single])
    aiq, oracle = priced["aiq"], priced["baseline_oracle_aiq"]
    assert aiq is not None and oracle is not None and aiq < oracle


def test_judging_says_none_where_there_is_too_little() -> None:
    known = calls(("a", "b"), 60)
    same = replace(known, categories=np.full(60, "one"))
    table = world(60, 2)[0]
    assert unseen(same, table, np.arange(2), 0)["ece_unseen_category"] is None
    assert cold(known, table, np.arange(40), np.arange(40, 60), 0)["cold_model_brier_at_20"] is None


def test_features_are_alike_for_alike_texts() -> None:
    said = ("find the weather in Paris", "find the weather in Rome", "integrate x squared")
    letters = np.array([features.letters(text) for text in said])
    table = np.hstack([np.zeros((3, WIDTH)), letters])
    unit = features.unit(table, 1.0)
    alike = unit @ unit.T
    assert alike[0, 1] > 0.5 > alike[0, 2]
    assert features.letters("").shape == (features.LETTERS,)


def test_each_distinct_text_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def encode(texts: list[str], tokens: int, layers: int) -> list[list[float]]:
        asked.extend(texts)
        assert (tokens, layers) == (features.TOKENS, features.LAYERS)
        return [[float(len(text))] * WIDTH for text in texts]

    monkeypatch.setattr(features, "encode", encode)
    table = features.rows(["a", "bb", "a"])
    assert asked == ["a", "bb"]
    assert table[:, 0].tolist() == [1, 2, 1]
    assert features.rows([]).shape == (0, WIDTH + features.LETTERS)
