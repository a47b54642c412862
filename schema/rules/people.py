"""Decide when a person's decision is refused and a question is settled. Pure, and shared by workflow,
activity and API."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schema.errors import Refused
from schema.temporal.people import Decision, QuestionState

MAX_ANSWER_BYTES: Final = 256 * 1024
"""Bound on one person's form and edits: they go through Temporal's history."""
MAX_ACTOR: Final = 250

# What Postgres cannot hold, or a line of the audit log should not.
_NO_NAME: Final = re.compile(r"[\x00-\x1f\ud800-\udfff]")


def refused(asked: QuestionState, decision: Decision) -> Refused | None:
    """Return why the decision is refused, with its code; None if it is taken. `too_late` handles late
    ones."""
    if asked.again and not decision.task:
        return unnamed(asked.task, decision.path)
    action = next((one for one in asked.actions if one["id"] == decision.action), None)
    if action is None:
        known = ", ".join(one["id"] for one in asked.actions)
        return Refused(
            "human_action_unknown",
            f"found the action {decision.action[:80]!r}; expected one of {known}.",
        )
    if not 0 < len(decision.actor) <= MAX_ACTOR or _NO_NAME.search(decision.actor):
        return Refused(
            "human_not_assigned",
            f"found the actor {decision.actor[:80]!r}; expected user:<name>, at most {MAX_ACTOR} characters.",
        )
    if not may_decide(asked.assignees, decision.actor, decision.groups):
        return Refused(
            "human_not_assigned",
            f"found {decision.actor!r}; expected one of {', '.join(asked.assignees)}. "
            "Let one of them decide.",
        )
    if fault := _answer_fault(asked, decision, action["requires"], action["edits"]):
        return Refused("human_form_invalid", fault)
    return None


def not_waiting(path: str) -> Refused:
    return Refused(
        "human_not_waiting",
        f"nobody is asked at {path[:200]!r} any more; `facilitair tasks` lists what is open.",
    )


def unnamed(task: str, path: str) -> Refused:
    return Refused(
        "human_question_unnamed",
        f"the same was asked at {path[:200]!r} before, so a path does not tell which of them is decided; "
        f"expected the question's id. The one that is open now is {task}.",
    )


def too_late(
    path: str, status: str, decided: Sequence[tuple[str, str, datetime]], actor: str
) -> Refused | None:
    """Return why a decision comes too late, with the (actor, action, time) of those that stand, or None."""
    if status == "decided" or any(actor == one for one, _, _ in decided):
        made = ", ".join(
            f"{one} decided {action!r} at {at:%Y-%m-%d %H:%M:%S} UTC" for one, action, at in decided
        )
        return Refused("human_already_decided", f"{made}, and a decision stands.")
    return None if status == "open" else not_waiting(path)


def may_decide(assignees: Collection[str], actor: str, groups: Collection[str]) -> bool:
    """Tell whether the actor is among the assignees; without any, everybody is."""
    member_of = {f"group:{group.removeprefix('group:')}" for group in groups}
    return not assignees or actor in assignees or not member_of.isdisjoint(assignees)


def _answer_fault(
    asked: QuestionState, decision: Decision, requires: Sequence[str], edits: str | None
) -> str | None:
    size = len(json.dumps([decision.form, decision.edited]))
    if size > MAX_ANSWER_BYTES:
        return f"found {size:,} bytes; expected at most {MAX_ANSWER_BYTES:,}. Refer to large texts instead."
    if decision.edited is not None and edits is None:
        return f"the action {decision.action!r} replaces nothing; leave `edited` out or choose another."
    missing = [name for name in requires if decision.form.get(name) in (None, "")]
    if missing:
        return f"the action {decision.action!r} requires {', '.join(missing)}; fill them in."
    if asked.form is None:
        return None
    # Workflow code imports this module, and must not load CEL and pydantic with it.
    from schema.language.json_schemas import faults

    return faults(asked.form, decision.form) or None


@dataclass(frozen=True)
class QuestionVerdict:
    """The end of a question."""

    action: str | None
    """None: no action can reach the number of people that it needs."""


def verdict(
    decisions: Sequence[tuple[str, str]], actions: Collection[str], approvals: int, assignees: Collection[str]
) -> QuestionVerdict | None:
    """Return the verdict of (actor, action) decisions; None while others must decide.

    An action needs `approvals` people. If only users are named, the question ends as soon as those left
    cannot complete any action.
    """
    counts = {action: sum(1 for _, made in decisions if made == action) for action in actions}
    for action, count in counts.items():
        if count >= approvals:
            return QuestionVerdict(action)
    if not assignees or any(not one.startswith("user:") for one in assignees):
        return None
    left = len(set(assignees) - {actor for actor, _ in decisions})
    return QuestionVerdict(None) if max(counts.values()) + left < approvals else None
