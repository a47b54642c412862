"""Outcomes from a folder, and the table of a folder that holds only some."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from cli.main import app
from router.data.outcomes import load, split
from router.evaluate.report import KEYS, evaluate
from schema.errors import Refused


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")


def outcome(model: str, qid: str, ok: bool, seconds: float | None = 1.0) -> dict[str, Any]:
    return {"model": model, "qid": qid, "ok": ok, "in_tok": 10.0, "out_tok": 0.0, "latency_s": seconds}


def test_calls_are_arrays_with_gaps(tmp_path: Path) -> None:
    asked = {"category": "sums", "question": "One?", "func_names": "add", "func_json": "[]"}
    write(tmp_path, "tool_call_queries", [{"qid": qid} | asked for qid in ("b", "a")])
    write(
        tmp_path,
        "tool_call_outcomes",
        [outcome("m2", "a", ok=True), outcome("m1", "b", ok=False, seconds=None)],
    )
    calls = load(tmp_path).calls
    assert calls is not None
    assert (calls.queries, calls.models, calls.texts[0]) == (("b", "a"), ("m1", "m2"), "One?\nadd")
    np.testing.assert_equal(calls.ok, [[0, np.nan], [np.nan, 1]])
    np.testing.assert_equal(calls.seconds, [[np.nan, np.nan], [np.nan, 1]])
    # Nothing was counted, which is not nothing.
    assert np.isnan(calls.output_tokens).all()
    assert calls.only(np.array([1])).queries == ("a",)


def test_ids_may_be_numbers_calls_repeated_and_values_missing(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"category": None, "question": "One?", "func_names": None, "func_json": None}
    write(tmp_path, "tool_call_queries", [{"qid": qid} | asked for qid in (7, 8, 7)])
    rows = [outcome("m", "7", ok) | {"qid": 7} for ok in (True, False, True)]
    write(tmp_path, "tool_call_outcomes", [*rows, rows[0] | {"ok": None, "latency_s": float("nan")}])
    trials = [("a", 1, True), ("a", 1, None), ("b", 1, False)]
    write(
        tmp_path,
        "agent_task_trials",
        [
            {
                "submission": who,
                "task_id": task,
                "trial": 1,
                "resolved": resolved,
                "instruction": None,
                "agent_s": None,
            }
            for who, task, resolved in trials
        ],
    )
    review = {"judge": "j", "tool": "t", "issue": 3, "found": 1}
    write(tmp_path, "code_reviews", [{"pr": 5, **review}, {"pr": 5, **review, "found": None}])
    found = load(tmp_path)
    assert found.calls and found.trials and found.reviews
    assert (found.calls.queries, found.calls.texts) == (("7", "8"), ("One?\n", "One?\n"))
    np.testing.assert_allclose(found.calls.ok, np.array([[2 / 3], [np.nan]]))
    np.testing.assert_allclose(found.calls.seconds, np.array([[1], [np.nan]]))
    assert (found.trials.tasks, found.trials.texts, found.trials.ok.tolist()) == (("1",), ("",), [1, 0])
    assert (found.reviews.pulls, found.reviews.found.tolist()) == (("5",), [[1]])


def test_a_split_depends_on_ids_alone() -> None:
    ids = [f"query_{i}" for i in range(2_000)]
    learned, judged = split(ids)
    assert len(learned) + len(judged) == 2_000 and 500 < len(judged) < 700
    other = [ids[i] for i in reversed(range(2_000))]
    assert {other[i] for i in split(other)[1]} == {ids[i] for i in judged}


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="expected at least one"):
        load(tmp_path)
    write(tmp_path, "code_reviews", [{"judge": "j", "pr": "1", "tool": "t", "issue": "i"}])
    with pytest.raises(Refused, match="without found"):
        load(tmp_path)
    (tmp_path / "code_reviews.parquet").write_text("no parquet")
    with pytest.raises(Refused, match="cannot be read"):
        load(tmp_path)


def test_the_table_is_whole_where_data_are_not(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = [
        {
            "judge": judge,
            "pr": f"pr{i // 3}",
            "tool": tool,
            "issue": f"issue{i}",
            "found": int(chance.random() < skill),
        }
        for i in range(90)
        for tool, skill in (("keen", 0.8), ("lazy", 0.3), ("middling", 0.5))
        for judge in ("one", "two")
    ]
    write(tmp_path, "code_reviews", rows)
    found = evaluate(tmp_path)
    assert set(KEYS) <= set(found)
    recall = found["reviewer_pair_recall"]
    assert recall is not None and 0.7 < recall < 1
    assert found["aiq"] is None and found["known_task_after_1"] is None
    said = CliRunner().invoke(app, ["router", "evaluate", "--data", str(tmp_path)])
    assert said.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in said.stdout.splitlines() if line.strip())
    assert shown["reviewer_pair_recall"].strip() == f"{recall:.4f}"
    assert shown["aiq"].strip() == "no data"


def test_a_checkpoint_is_judged_or_made_and_not_both(tmp_path: Path) -> None:
    both = ["--checkpoint", str(tmp_path / "a"), "--save", str(tmp_path / "b")]
    said = CliRunner().invoke(app, ["router", "evaluate", "--data", str(tmp_path), *both])
    assert (said.exit_code, "--checkpoint and --save" in said.stderr) == (2, True)
