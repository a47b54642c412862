"""Stages of a checkpoint: shadow, share, all; rolled back from any of them. Pure decisions."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from router.statistics.offpolicy import WORSE, PolicyValue

State = Literal["shadow", "share", "all", "rolled_back"]

MIN_OUTCOMES: Final = 200
"""Outcomes in a state before it can be left upwards."""


@dataclass(frozen=True)
class Rollout:
    state: State = "shadow"
    outcomes: int = 0
    """Since it is in this state."""
    reason: str = ""
    """Why it is in this state."""


@dataclass(frozen=True)
class Evidence:
    outcomes: int
    """New ones, since the last."""
    gain: PolicyValue
    """Success of the checkpoint minus success of what served before, over all outcomes in this state."""
    quarantined: tuple[str, ...] = ()
    """Models that it relies on and that broke: no reason against the checkpoint, but to wait."""


def advance(rollout: Rollout, evidence: Evidence) -> Rollout:
    """The next state; a rolled back checkpoint stays so, its successor starts in shadow."""
    outcomes = rollout.outcomes + evidence.outcomes
    gain = evidence.gain
    said = f"gain {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    if rollout.state == "rolled_back":
        return rollout
    # In shadow it does no harm yet.
    if rollout.state != "shadow" and gain.high < 0:
        return Rollout("rolled_back", 0, f"worse: {said}")
    stays = replace(rollout, outcomes=outcomes)
    if outcomes < MIN_OUTCOMES or evidence.quarantined or gain.low <= -WORSE:
        return stays
    if rollout.state == "shadow":
        return Rollout("share", 0, said)
    if rollout.state == "share":
        return Rollout("all", 0, said)
    return stays


def roll_back(rollout: Rollout, reason: str) -> Rollout:
    """By command."""
    return Rollout("rolled_back", 0, reason)
