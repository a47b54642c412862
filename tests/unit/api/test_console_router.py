"""The router's page and its plots, as HTML."""

import re
from typing import Any

import pytest

from api.console import plots, router
from api.console.plots import Axis, Series

_AT = "2026-11-21T18:00:00+00:00"


def _checkpoint(number: int, state: str, reason: str = "registered") -> dict[str, Any]:
    return {
        "number": number,
        "state": state,
        "state_reason": reason,
        "state_since": _AT,
        "outcomes": 12,
        "trained_until": _AT,
        "manifest": {"figures": {"brier": 0.12}},
    }


def _status(**more: Any) -> dict[str, Any]:
    none: dict[str, Any] = {
        "simulated": False,
        "serving": None,
        "challenger": None,
        "fresh_seconds": None,
        "quarantines": [],
        "trainings": [],
    }
    return none | more


def test_without_a_checkpoint_the_page_says_that_rules_decide() -> None:
    page = router.page(_status(), [], None)
    assert "Rules decide." in page
    assert 'data-do="train"' in page
    assert 'data-do="rollback"' not in page


def test_the_page_shows_who_decides_and_what_can_be_done() -> None:
    serving, challenger = _checkpoint(3, "all"), _checkpoint(4, "share", "<b>gain</b>")
    page = router.page(
        _status(
            serving=serving,
            challenger=challenger,
            fresh_seconds=7200.0,
            quarantines=[{"model": "a/<b>", "reason": "fails", "since": _AT, "until": _AT}],
        ),
        [challenger, serving, _checkpoint(2, "rolled_back")],
        None,
    )
    assert "Roll back checkpoint 3?" in page
    assert 'data-do="promote" data-number="4"' in page
    assert "<li aria-current=step>decides a share</li>" in page
    assert "2.0 h ago" in page
    assert "a/&lt;b&gt;" in page
    assert "<b>gain</b>" not in page
    assert page.count("0.120") == 3


def test_a_checkpoint_that_serves_all_cannot_be_promoted_further() -> None:
    page = router.page(_status(serving=_checkpoint(3, "all"), fresh_seconds=1.0), [], None)
    assert 'data-do="promote"' not in page


def test_curves_of_the_last_training_are_drawn_and_what_is_missing_is_said() -> None:
    curves = {
        "calibration": [
            {"from": 0.4, "to": 0.5, "predicted": 0.45, "ok": 0.5, "count": 10},
            {"from": 0.8, "to": 0.9, "predicted": 0.85, "ok": 0.8, "count": 90},
        ],
        "cost_quality": [
            {"name": "a/one", "usd": 0.01, "ok": 0.9},
            {"name": "router at 0", "usd": 0.008, "ok": 0.91},
            {"name": "router at 9", "usd": 0.001, "ok": 0.85},
        ],
    }
    curve = [{"epoch": at, "member": at // 3, "loss": 1 / (at + 1), "validated": 0.5} for at in range(6)]
    page = router.page(_status(), [], {"figures": {"curves": curves}, "curve": curve})
    assert page.count('<svg class="figure"') == 3
    assert "said 0.85, was 0.80, of 90" in page
    # Two members, each with two losses.
    assert page.count('class="line a" d="M') - page.count('class="line a" d="M0 4H20"') == 2 + 1 + 1
    bare = router.page(_status(), [], {"figures": {}, "curve": []})
    assert bare.count("no data in the last training") == 3


@pytest.mark.parametrize(
    "values", [(0.0, 1.0), (0.82, 0.906), (3e-6, 0.004), (5.0, 5.0), (0.0, 0.0), (-2, 3)]
)
def test_axes_hold_all_values_between_round_numbers(values: tuple[float, float]) -> None:
    found = plots.axis("x", values)
    assert found.low <= min(values) <= max(values) <= found.high
    assert found.low < found.high
    shown = plots.plot("t", found, found, [Series("s", [(value, value) for value in values])])
    labels = re.findall(r">(-?[\d.]+)</text>", shown)
    assert len(set(labels)) >= 3
    places = [float(place) for place in re.findall(r'x="(-?[\d.]+)"', shown)]
    assert all(0 <= place <= 440 for place in places)


def test_what_others_wrote_stays_text_in_a_plot() -> None:
    series = Series("<i>", [(0, 0), (1, 1)], marks=True, labels=["<script>", "b"], names=["<x>", "y"])
    shown = plots.plot("<t>", Axis("<a>", 0, 1), Axis("b", 0, 1), [series, Series("other", [(0, 1)])])
    assert not re.search(r"<(i|script|x|a|t)>", shown)
