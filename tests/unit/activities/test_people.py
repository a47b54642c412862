"""When a decision is refused, and when several people's decisions settle a question."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schema.rules.people import MAX_ANSWER_BYTES, QuestionVerdict, refused, too_late, verdict
from schema.temporal.people import Decision, QuestionState

ASKED = QuestionState(
    actions=[
        {"id": "approve", "requires": [], "edits": None},
        {"id": "reject", "requires": ["reason"], "edits": None},
        {"id": "edit", "requires": [], "edits": "diff"},
    ],
    form={"type": "object", "properties": {"reason": {"type": "string", "maxLength": 10}}},
    assignees=["user:ada", "group:leads"],
    decided_by=["user:bob"],
)


def decision(action: str = "approve", actor: str = "user:ada", **more: Any) -> Decision:
    return Decision("approve", action, actor, **more)


@pytest.mark.parametrize(
    "fine",
    [
        decision(),
        decision("reject", form={"reason": "late"}),
        decision("edit", edited=["new"]),
        decision("edit"),
        decision(actor="user:eve", groups=["leads"]),
        decision(actor="user:eve", groups=["group:leads"]),
    ],
)
def test_a_decision_that_can_be_taken(fine: Decision) -> None:
    assert refused(ASKED, fine) is None


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        (decision("shrug"), "human_action_unknown", "approve, reject, edit"),
        (decision(actor="user:eve"), "human_not_assigned", "user:ada, group:leads"),
        (decision(actor=""), "human_not_assigned", "user:<name>"),
        (decision(actor="user:a\0", groups=["leads"]), "human_not_assigned", "user:<name>"),
        (decision(actor="user:" + "a" * 246, groups=["leads"]), "human_not_assigned", "at most 250"),
        (decision(actor="leads"), "human_not_assigned", "user:ada"),
        (decision(actor="user:eve", groups=["ada"]), "human_not_assigned", "user:ada"),
        (decision("reject"), "human_form_invalid", "requires reason"),
        (decision("reject", form={"reason": ""}), "human_form_invalid", "requires reason"),
        (decision(form={"reason": "x" * 11}), "human_form_invalid", "/reason: "),
        (decision(edited="new"), "human_form_invalid", "replaces nothing"),
        (decision("edit", edited="x" * MAX_ANSWER_BYTES), "human_form_invalid", "at most 262,144"),
    ],
)
def test_a_decision_that_is_refused(wrong: Decision, code: str, says: str) -> None:
    found = refused(ASKED, wrong)
    assert found is not None and found.code == code and says in found.message


AT = datetime(2026, 11, 30, 20, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "actor", "code", "says"),
    [
        (
            "decided",
            "user:ada",
            "human_already_decided",
            "user:bob decided 'reject' at 2026-11-30 20:05:00 UTC",
        ),
        ("open", "user:bob", "human_already_decided", "user:bob decided 'reject'"),
        ("expired", "user:bob", "human_already_decided", "user:bob decided 'reject'"),
        ("expired", "user:ada", "human_not_waiting", "'ship'"),
        ("cancelled", "user:ada", "human_not_waiting", "'ship'"),
    ],
)
def test_a_decision_that_comes_too_late_is_told_of_those_that_stand(
    status: str, actor: str, code: str, says: str
) -> None:
    found = too_late("ship", status, [("user:bob", "reject", AT)], actor)
    assert found is not None and found.code == code and says in found.message


def test_while_others_must_decide_nobody_is_late() -> None:
    assert too_late("ship", "open", [("user:bob", "reject", AT)], "user:ada") is None


def test_what_is_asked_again_is_decided_by_its_id_only() -> None:
    again = replace(ASKED, task="5f", again=True)
    found = refused(again, decision())
    assert found is not None and found.code == "human_question_unnamed" and "5f" in found.message
    assert refused(again, decision(task="5f")) is None


def test_where_nobody_is_named_everybody_may_decide() -> None:
    assert refused(QuestionState(ASKED.actions), decision(actor="key:12")) is None


USERS = ["user:a", "user:b", "user:c"]


def settle(made: str, approvals: int, assignees: list[str], actions: str = "ye") -> str:
    """Decisions of a, b, c … one letter each: what they come to, `none` for no agreement, `` for open."""
    decisions = [(f"user:{actor}", action) for actor, action in zip("abcdef", made, strict=False)]
    found = verdict(decisions, list(actions), approvals, assignees)
    return "" if found is None else found.action or "none"


@pytest.mark.parametrize(
    ("made", "approvals", "expected"),
    [
        ("y", 1, "y"),
        ("e", 1, "e"),
        ("", 2, ""),
        ("y", 2, ""),
        ("e", 2, ""),
        ("ye", 2, ""),
        ("yy", 2, "y"),
        ("ee", 2, "e"),
        ("yey", 2, "y"),
        ("yee", 2, "e"),
        ("e", 3, ""),
        ("yy", 3, ""),
        ("ye", 3, "none"),
        ("ey", 3, "none"),
        ("yye", 3, "none"),
        ("eee", 3, "e"),
    ],
)
def test_several_named_users(made: str, approvals: int, expected: str) -> None:
    assert settle(made, approvals, USERS) == expected


def test_three_ways_to_disagree() -> None:
    assert settle("yen", 2, USERS, "yen") == "none"
    assert settle("yn", 2, USERS, "yen") == ""


@pytest.mark.parametrize("assignees", [[], ["group:g"], ["user:a", "group:g"]])
def test_where_it_is_not_known_who_is_left_the_first_with_enough_wins(assignees: list[str]) -> None:
    assert settle("yeye", 3, assignees) == ""
    assert settle("yeyee", 3, assignees) == "e"


def test_those_who_decided_before_an_escalation_are_not_left() -> None:
    boss = ["user:boss", "user:chief"]
    assert verdict([("user:a", "y")], ["y", "e"], 2, boss) is None
    assert verdict([("user:a", "y"), ("user:boss", "e")], ["y", "e"], 3, boss) == QuestionVerdict(None)


def test_no_action_ever_counts_with_fewer_people_and_all_end_when_all_have_decided() -> None:
    for number, approvals in itertools.product((1, 2, 3, 4), (1, 2, 3, 4)):
        users = [f"user:{name}" for name in "abcd"[:number]]
        if approvals > number:
            continue  # refused at upload
        for made in itertools.product("yen", repeat=number):
            ends = [settle("".join(made[:so_far]), approvals, users, "yen") for so_far in range(number + 1)]
            assert ends[-1] != ""
            first = next(at for at, end in enumerate(ends) if end)
            if ends[first] == "none":
                # However the others decide, no action could have had enough.
                assert all(
                    max((*made[:first], *rest).count(action) for action in "yen") < approvals
                    for rest in itertools.product("yen", repeat=number - first)
                )
            else:
                assert made[:first].count(ends[first]) == approvals
