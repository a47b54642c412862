"""What a checkpoint holds: learned, packed, read again, asked."""

from dataclasses import replace

import numpy as np
import pytest

from router.data import features, packing
from router.data.arrays import Floats
from router.data.outcomes import Calls
from router.statistics import choose, model, success
from router.statistics.model import FittedModel

STEPS, NAMES = 480, ("cheap", "strong", "odd")
PRICES = {"cheap": (0.1, 0.4), "strong": (5.0, 15.0), "odd": (1.0, 3.0)}
RATES = {"easy": (0.98, 0.95, 0.9), "hard": (0.4, 0.9, 0.3)}


def calls(seed: int = 0, *, one_each: bool = False) -> Calls:
    """Easy steps that every model can do and hard ones that only the strong one can; with `one_each` only
    one model was asked, by chance."""
    rng = np.random.default_rng(seed)
    category = np.array(["easy", "hard"])[rng.integers(2, size=STEPS)]
    ok = (rng.random((STEPS, 3)) < np.array([RATES[name] for name in category])).astype(float)
    asked = rng.integers(3, size=STEPS)[:, None] == np.arange(3) if one_each else np.full((STEPS, 3), True)
    seconds = np.exp(rng.normal(0.5, 0.3, (STEPS, 3)))
    tokens = np.exp(rng.normal(6.0, 0.3, (STEPS, 3)))
    return Calls(
        tuple(map(str, range(STEPS))),
        tuple(f"{name} step {i}" for i, name in enumerate(category)),
        category,
        NAMES,
        *(np.where(asked, values, np.nan) for values in (ok, seconds, tokens, tokens)),
    )


def texts(count: int, seed: int) -> Floats:
    """Rows of texts that say nothing: what is known comes from the category."""
    told = np.random.default_rng(seed).normal(size=(count, success.MEANING))
    told /= np.linalg.norm(told, axis=1, keepdims=True)
    return np.hstack([told, np.array([features.letters(f"step {seed} {i}") for i in range(count)])])


@pytest.fixture(scope="module")
def rows() -> Floats:
    return texts(STEPS, 1)


@pytest.fixture(scope="module")
def learned(rows: Floats) -> FittedModel:
    return model.fit(calls(), rows, prices=PRICES)[0]


def test_what_is_packed_is_what_was_learned(learned: FittedModel, rows: Floats) -> None:
    again = packing.unpack(FittedModel, packing.pack(learned))
    asked = rows[:2], ["a", "b"], ["easy", "never seen"], [*NAMES, "new"]
    told, kept = model.predict(learned, *asked), model.predict(again, *asked)
    np.testing.assert_array_equal(told.success, kept.success)
    assert told.seconds is not None and kept.seconds is not None
    np.testing.assert_array_equal(told.seconds.high, kept.seconds.high)
    assert (again.models, again.incumbent, again.economy) == (NAMES, "strong", learned.economy)


@pytest.mark.parametrize("broken", [b"", b"PK nothing", packing.pack(replace(calls(), models=()))])
def test_bytes_that_are_no_model_are_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match="no FittedModel"):
        packing.unpack(FittedModel, broken)


def test_bytes_that_were_cut_or_changed_are_refused(learned: FittedModel) -> None:
    whole = packing.pack(learned)
    for broken in (whole[: len(whole) // 2], whole[:200] + b"\0" * 50 + whole[250:]):
        with pytest.raises(ValueError, match="no FittedModel"):
            packing.unpack(FittedModel, broken)


def test_predictions_tell_how_little_is_known(learned: FittedModel) -> None:
    told = model.predict(learned, texts(2, 4), ["a", "b"], ["easy", "hard"], [*NAMES, "new"])
    assert told.success[0, :3] == pytest.approx(RATES["easy"], abs=0.1)
    assert told.success[1, :3] == pytest.approx(RATES["hard"], abs=0.15)
    assert (told.doubt[:, 3] > 2 * told.doubt[:, :3].max(1)).all(), "nobody knows the new one"
    strange = model.predict(learned, texts(1, 5), ["a"], ["never seen"], NAMES)
    assert strange.novelty[0] > told.novelty.max()
    assert (strange.doubt > told.doubt[0, :3]).all()


def test_economy_takes_the_cheap_one_where_it_is_as_good(learned: FittedModel) -> None:
    assert learned.incumbent == "strong"
    told = model.predict(learned, texts(2, 6), ["a", "b"], ["easy", "hard"], NAMES)
    usd = np.tile([PRICES[name][1] * 400 / 1e6 for name in NAMES], (2, 1))
    choice = choose.choose(told.scores, usd, learned.economy)
    assert [NAMES[place] for place in choice] == ["cheap", "strong"]


def test_steps_that_only_one_model_did_do_not_say_whom_to_choose() -> None:
    given = calls()
    ok = given.ok.copy()
    ok[given.categories == "easy", 1:] = np.nan
    category = np.array([0 if name == "easy" else 1 for name in given.categories])
    assert (given.categories[model.contested(ok, category)] == "hard").all()
    ok[:, 1:] = np.nan
    assert len(model.contested(ok, category)) == STEPS, "where nothing is contested all of them have to do"


def test_one_outcome_for_each_step_is_enough_to_learn_from(rows: Floats) -> None:
    found, _ = model.fit(calls(2, one_each=True), rows, prices=PRICES)
    assert found.incumbent == "strong"
    told = model.predict(found, texts(2, 4), ["a", "b"], ["easy", "hard"], NAMES)
    assert told.success[1].argmax() == 1


def test_an_outcome_weighs_the_more_the_rarer_its_model_is_asked() -> None:
    rng = np.random.default_rng(3)
    truth, asked = np.array([0.5, 0.7]), np.where(rng.random(4000) < 0.1, 1, 0)
    ok = np.full((4000, 2), np.nan)
    ok[np.arange(4000), asked] = rng.random(4000) < truth[asked]
    wrong = np.full((4000, 2), 0.2)
    whole = model.completed(ok, wrong, np.zeros(4000, dtype=np.int64))
    assert whole.mean(0) == pytest.approx(truth, abs=0.06), "right although the predictions are not"


def test_too_few_outcomes_are_refused(rows: Floats) -> None:
    few = calls()
    ok = np.full_like(few.ok, np.nan)
    ok[:10] = few.ok[:10]
    with pytest.raises(ValueError, match="found 30 outcomes; expected at least 50"):
        model.fit(replace(few, ok=ok), rows)
