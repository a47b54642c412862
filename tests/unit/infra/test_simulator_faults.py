"""Scripted faults and the ledger that judges what was called."""

import json
import re
from pathlib import Path

import pytest

from infra.simulator.faults import KINDS, FaultPlan, RuleError, parse_rule
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
        {"kind": "slow", "match": {"stream": "yes"}},
        {"kind": "slow", "match": {"models": "a"}},
        {"kind": "slow", "delay": 3},
        {"kind": "slow", "delay_seconds": float("nan")},
        {"kind": "slow", "chance": 1.5},
        {"kind": "slow", "variant": "crlf"},
        {"kind": "malformed_sse", "variant": "upside_down"},
        {"kind": "malformed_sse", "match": {"stream": False}},
        {"kind": "broken_body", "match": {"stream": True}},
        {"kind": "overloaded", "status": 200},
        {"kind": "tool_call"},
        {"kind": "tool_call", "tool_calls": [{"arguments": {}}]},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(document: object) -> None:
    with pytest.raises(RuleError):
        parse_rule(document)


def test_every_kind_has_an_example_in_its_document() -> None:
    text = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()
    examples = [json.loads(found) for found in re.findall(r'`(\{"kind".*?\})` \|', text)]
    assert [parse_rule(example).kind for example in examples] == list(KINDS)
    for blocks in re.findall(r"```json\n(.*?)```", text, re.S):
        assert FaultPlan().add(json.loads(blocks)) > 0


def test_a_rule_can_hold_for_ever_and_by_chance() -> None:
    def drawn() -> list[bool]:
        plan = FaultPlan(seed=3)
        plan.add([{"kind": "server_error", "times": None, "chance": 0.2}])
        return [plan.take("m", "") is not None for _ in range(2000)]

    assert drawn() == drawn()
    assert 340 < sum(drawn()) < 460


def test_a_rule_can_wait_for_a_way_of_answering() -> None:
    plan = FaultPlan()
    plan.add(
        [{"kind": "slow", "match": {"stream": False}}, {"kind": "malformed_sse"}, {"kind": "broken_body"}]
    )
    kinds = [fault.kind if (fault := plan.take("m", "", stream)) else None for stream in (True, False, False)]
    assert kinds == ["malformed_sse", "slow", "broken_body"]
    assert plan.take("m", "", True) is None


def test_what_a_rule_leaves_out_follows_from_its_kind() -> None:
    assert parse_rule({"kind": "rate_limit"}).retry_after_seconds == 1.0
    assert parse_rule({"kind": "overloaded"}).retry_after_seconds is None
    assert parse_rule({"kind": "overloaded"}).status == 503
    assert parse_rule({"kind": "malformed_sse"}).variant == "invalid_json"
    assert parse_rule({"kind": "broken_body"}).variant == "cut"


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
    monkeypatch.setattr("infra.simulator.ledger.MAX_KEYS", 3)
    ledger = Ledger()
    for number in range(5):
        ledger.begin("a", f"run/{number}", "")
    assert list(ledger.by_key) == ["run/2", "run/3", "run/4"]
    ledger.clear()
    assert ledger.as_json()["total"] == {
        "calls": 0,
        "finished": 0,
        "refused": 0,
        "broken": 0,
        "abandoned": 0,
        "open": 0,
        "rejected": 0,
        "input_tokens": 0,
        "output_tokens": 0,
    }


def test_a_call_is_found_by_its_id_and_by_the_callers() -> None:
    ledger = Ledger()
    first = ledger.begin("a", request_id="mine")
    second = ledger.begin("a", request_id="mine")
    assert ledger.find(first.id) is first
    assert ledger.find("mine") is second
    for name in ("", "theirs", "chatcmpl-simulated-1", f"{first.id}0", "-²", "x-" + "9" * 30):
        assert ledger.find(name) is None


def test_calls_are_paged_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.simulator.ledger.MAX_CALLS", 4)
    ledger = Ledger()
    for number in range(6):
        ledger.begin("a", request_id=f"r{number}")

    def numbers(since: int | None = None, limit: int | None = None) -> list[object]:
        recent = ledger.as_json(since=since, limit=limit)["recent"]
        assert isinstance(recent, list)
        return [call["number"] for call in recent]

    assert numbers() == [3, 4, 5, 6]
    assert numbers(limit=2) == [5, 6]
    assert numbers(since=0, limit=2) == [3, 4]
    assert numbers(since=4) == [5, 6]
    assert numbers(since=6) == []
    assert numbers(limit=0) == []
    # What is forgotten is no longer found either.
    assert ledger.find("r1") is None
    assert list(ledger.by_request_id) == ["r2", "r3", "r4", "r5"]


def test_what_was_open_when_the_books_were_cleared_leaves_no_trace() -> None:
    ledger = Ledger()
    call = ledger.begin("a")
    ledger.clear()
    ledger.end(call, "finished", 1, 1)
    assert ledger.total == Tally()
    assert ledger.as_json()["recent"] == []
    ledger.begin("b")
    assert ledger.total == Tally(1, open=1)


def test_arrivals_are_those_that_were_let_in() -> None:
    ledger = Ledger()
    first, second, third = (ledger.begin(model) for model in "abc")
    second.rejected = True
    ledger.end(first, "finished", 10, 5)
    assert ledger.arrivals(0.0, 10) == [(first.began_at, "a", 15), (third.began_at, "c", 0)]
    assert ledger.arrivals(0.0, 1) == [(first.began_at, "a", 15)]
    assert ledger.arrivals(third.began_at, 10) == []
