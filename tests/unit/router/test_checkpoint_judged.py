"""A stored checkpoint judged on outcomes that it never saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.data import packing
from router.data.outcomes import Calls
from router.evaluate import speed
from router.evaluate.calls import judge_calls
from router.evaluate.checkpoint import judge_checkpoint, read, write
from router.statistics import model
from schema.errors import Refused
from tests.unit.router.statistics.test_success import world

PRICES = {"a": (0.1, 0.1), "b": (1.0, 1.0), "c": (10.0, 10.0)}


@pytest.fixture(autouse=True)
def _few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "REPEATS", 4)


def outcomes(queries: int = 240) -> tuple[Calls, "np.typing.NDArray[np.float64]"]:
    table, categories, _, ok = world(queries, 3)
    tokens = np.random.default_rng(4).lognormal(5, 0.3, ok.shape)
    ids = tuple(f"q{i}" for i in range(queries))
    return Calls(ids, ids, categories, ("a", "b", "c"), ok, tokens / 50, tokens, tokens), table


def test_a_checkpoint_is_judged_on_all_queries_of_a_folder(tmp_path: Path) -> None:
    calls, table = outcomes()
    learned, _ = model.fit(calls.only(np.arange(160)), table[:160])
    (tmp_path / "checkpoint").write_bytes(packing.pack(learned))
    held = read(tmp_path / "checkpoint")
    found = judge_checkpoint(held, calls.only(np.arange(160, 240)), table[160:], PRICES)
    assert (found["queries_judged"], found["models_never_met"]) == (80, 0)
    for key in ("brier", "aiq", "apgr", "cost_saved", "quality_minus_best_single", "decision_p50_ms_cached"):
        value = found[key]
        assert value is not None and np.isfinite(value), key
    assert found["coverage_marginal"] == pytest.approx(0.9, abs=0.1)
    assert found["ece_unseen_category"] is None


def test_what_is_learned_from_a_folder_is_kept_for_another(tmp_path: Path) -> None:
    calls, table = outcomes()
    write(tmp_path / "kept", calls.only(np.arange(160)), table[:160], PRICES.get)
    held = read(tmp_path / "kept")
    found = judge_checkpoint(held, calls.only(np.arange(160, 240)), table[160:], PRICES)
    assert found["cost_saved"] is not None and found["models_never_met"] == 0
    write(tmp_path / "some", calls, table, lambda name: None if name == "c" else PRICES[name])
    assert read(tmp_path / "some").models == ("a", "b")
    with pytest.raises(Refused, match="at least 50"):
        write(tmp_path / "kept", calls.only(np.arange(4)), table[:4])
    with pytest.raises(Refused, match="cannot be written"):
        write(tmp_path, calls.only(np.arange(160)), table[:160])


def test_models_and_categories_never_met_are_taken_for_typical() -> None:
    calls, table = outcomes()
    learned, _ = model.fit(calls.only(np.arange(160)), table[:160])
    strange = replace(calls, models=("a", "x", "y"), categories=np.full(240, "never seen"))
    found = judge_checkpoint(learned, strange, table, PRICES)
    assert found["models_never_met"] == 2
    assert found["ece_unseen_category"] == found["ece"]
    # Two of three have no price: nothing can be said of cost.
    assert found.get("aiq") is None


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"nothing")
    with pytest.raises(Refused, match="is no checkpoint"):
        read(tmp_path / "checkpoint")
    with pytest.raises(Refused, match="is no checkpoint"):
        read(tmp_path / "missing")


@pytest.mark.parametrize("gaps", [0.2, 0.8])
def test_outcomes_with_gaps_are_judged_where_they_are_known_or_not_at_all(gaps: float) -> None:
    calls, table = outcomes(200)
    calls.ok[np.random.default_rng(0).random(calls.ok.shape) < gaps] = np.nan
    calls.ok[:, 2] = np.nan  # never asked
    found = judge_calls(calls, table, PRICES)
    assert all(value is None or np.isfinite(value) for value in found.values())
    assert found["models"] == 2
    assert (found["quality_minus_best_single"] is None) == (gaps > 0.5)
    assert judge_calls(calls.only(np.arange(4)), table[:4], PRICES) == {}
