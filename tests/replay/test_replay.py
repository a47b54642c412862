"""Today's workflow code replays yesterday's histories: open runs survive a new release."""

import base64
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from tests.replay.features import FEATURES
from tests.replay.record import HISTORIES, PROJECTION
from workflows.collaboration import FAILURE_TYPES, Collaboration
from workflows.upkeep import Projection


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
async def test_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    replayer = Replayer(workflows=[Collaboration, Projection], workflow_failure_exception_types=FAILURE_TYPES)
    await replayer.replay_workflow(history)


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
def test_nothing_in_a_history_is_sealed(path: Path) -> None:
    """A sealed payload cannot be read here, and the run would only replay as one that fails."""
    assert base64.b64encode(b"binary/encrypted").decode() not in path.read_text()


def test_every_feature_has_a_history() -> None:
    assert {path.stem for path in HISTORIES.glob("*.json")} >= {*FEATURES, PROJECTION}


def test_the_names_in_histories_are_the_names_for_ever() -> None:
    """Literals, not constants: renaming an activity would leave open runs without it."""
    ordinary: set[str] = set()
    local: set[str] = set()
    for path in HISTORIES.glob("*.json"):
        for event in json.loads(path.read_text())["events"]:
            if details := event.get("activityTaskScheduledEventAttributes"):
                ordinary.add(details["activityType"]["name"])
            elif details := event.get("markerRecordedEventAttributes"):
                [call] = details["details"]["data"]["payloads"]
                local.add(json.loads(base64.b64decode(call["data"]))["activity_type"])
    assert ordinary - {"recorded_own"} == {
        "agent",
        "tool",
        "route",
        "recall",
        "project",
        "chain",
        "compensate",
    }
    assert local == {
        "pin",
        "begin_call",
        "end_call",
        "finish",
        "segment",
        "open",
        "end_item",
        "close",
        "caught",
        "begin_wait",
        "end_wait",
        "ask",
        "record_decision",
        "remind",
        "expire",
        "withdraw",
        "ask_budget",
        "ask_route",
        "begin_child",
        "end_child",
        "fail_child",
        "compensations",
        "steer",
    }
