"""Today's workflow code replays yesterday's histories: open runs survive a new release."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from tests.replay.record import FEATURES, HISTORIES, PROJECTION
from workflows.collaboration import FAILURE_TYPES, Collaboration
from workflows.projection import Projection


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
async def test_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    replayer = Replayer(workflows=[Collaboration, Projection], workflow_failure_exception_types=FAILURE_TYPES)
    await replayer.replay_workflow(history)


def test_every_feature_has_a_history() -> None:
    assert {path.stem for path in HISTORIES.glob("*.json")} >= {*FEATURES, PROJECTION}


def test_the_names_in_histories_are_the_names_for_ever() -> None:
    """Literals, not constants: renaming an activity would leave open runs without it."""
    scheduled: set[str] = set()
    for path in HISTORIES.glob("*.json"):
        for event in json.loads(path.read_text())["events"]:
            if details := event.get("activityTaskScheduledEventAttributes"):
                scheduled.add(details["activityType"]["name"])
    assert scheduled - {"recorded_own"} == {"agent", "tool", "route", "recall", "project"}
