"""Scripted faults and the ledger that judges what was called."""

import pytest

from infra.simulator.faults import FaultPlan, RuleError, parse_rule
from infra.simulator.ledger import Ledger, Tally


def test_a_rule_is_used_up_and_the_next_one_follows() -> None:
    plan = FaultPlan()
    assert plan.add([{"kind": "rate_limit", "times": 2}, {"kind": "server_error"}]) == 2
    kinds = [fault.kind if (fault := plan.take("m", "")) else None for _ in range(4)]
    assert kinds == ["rate_limit", "rate_limit", "server_error", None]


def test_a_rule_waits_for_its_model_and_words() -> None:
    plan = FaultPlan()
    plan.add({"rules": [{"kind": "timeout", "match": {"model": "a", "contains": "review"}}]})
    assert plan.take("b", "review") is None
    assert plan.take("a", "write") is None
    assert plan.take("a", "please review") is not None
    plan.add({"kind": "slow"})
    plan.clear()
    assert plan.take("a", "") is None


def test_an_answer_can_be_dictated() -> None:
    assert parse_rule({"kind": "answer", "text": "[1"}).text == "[1"


@pytest.mark.parametrize(
    "document",
    [
        "timeout",
        {"kind": "explode"},
        {"kind": "slow", "times": -1},
        {"kind": "slow", "times": "2"},
        {"kind": "answer", "text": 3},
        {"kind": "slow", "match": ["a"]},
        {"kind": "slow", "match": {"model": 3}},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(document: object) -> None:
    with pytest.raises(RuleError):
        parse_rule(document)


def test_rules_are_taken_over_all_or_none_and_bounded() -> None:
    plan = FaultPlan()
    with pytest.raises(RuleError):
        plan.add([{"kind": "slow"}, {"kind": "explode"}])
    with pytest.raises(RuleError):
        plan.add("slow")
    with pytest.raises(RuleError):
        plan.add([{"kind": "slow"}] * 1001)
    assert plan.rules == []


def test_calls_are_summed_by_model_key_and_user_once() -> None:
    ledger = Ledger()
    first = ledger.begin("a", "run/code/0", "ann")
    second = ledger.begin("a", "run/review/0", "")
    ledger.end(first, "finished", 10, 20)
    ledger.end(first, "abandoned", 10, 20)
    ledger.end(second, "abandoned", 5, 3)

    assert ledger.total == Tally(2, finished=1, abandoned=1, input_tokens=15, output_tokens=23)
    assert ledger.by_model == {"a": ledger.total}
    assert ledger.by_user == {"ann": Tally(1, finished=1, input_tokens=10, output_tokens=20)}
    one = ledger.as_json("run/code/0")
    assert isinstance(one["by_key"], dict)
    assert list(one["by_key"]) == ["run/code/0"]
    both = ledger.as_json("run/")
    assert isinstance(both["by_key"], dict)
    assert list(both["by_key"]) == ["run/code/0", "run/review/0"]


def test_the_ledger_forgets_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.simulator.ledger.MOST_KEYS", 3)
    ledger = Ledger()
    for number in range(5):
        ledger.begin("a", f"run/{number}", "")
    assert list(ledger.by_key) == ["run/2", "run/3", "run/4"]
    ledger.clear()
    assert ledger.as_json()["total"] == {
        "calls": 0, "finished": 0, "refused": 0, "broken": 0, "abandoned": 0, "open": 0,
        "input_tokens": 0, "output_tokens": 0,
    }  # fmt: skip
