"""Intervals that move with what came since they were learned."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest

from db.router.outcomes import OutcomeRow
from router.checkpoints.storage import Checkpoint
from router.data.dataset import category_of, text_of
from router.statistics import interval_drift, model
from tests.support.learned import MODELS, embed, learned


@pytest.fixture(scope="module")
def known() -> Checkpoint:
    return learned()


def row(number: int, seconds: float) -> OutcomeRow:
    return OutcomeRow(
        uuid4(),
        uuid4(),
        datetime.now(UTC),
        "d",
        "work",
        "work",
        "coder",
        "coder",
        f"sort a list of numbers, number {number}",
        "",
        "a/good",
        "a/good",
        seconds,
        150,
        400,
        0.001,
        None,
        "",
        None,
    )


def rows(count: int, slower: float) -> list[OutcomeRow]:
    rng = np.random.default_rng(5)
    return [row(i, float(slower * rng.lognormal(1, 0.3))) for i in range(count)]


def test_intervals_follow_a_model_that_grew_slow(known: Checkpoint) -> None:
    came = rows(300, 4.0)
    table = embed([text_of(one) for one in came])
    # In two goes, kept as JSON between them, as it is done every minute.
    first = interval_drift.follow(known, {}, came[:150], table[:150])
    second = interval_drift.follow(known, json.loads(json.dumps(first.as_json())), came[150:], table[150:])
    asked = table[:1], [text_of(came[0])], [category_of(came[0])], MODELS
    before, after = model.predict(known, *asked), model.predict(known, *asked, moved=second.moved)
    assert before.seconds is not None and after.seconds is not None
    good = MODELS.index("a/good")
    assert 3 < after.seconds.expected[0, good] / before.seconds.expected[0, good] < 5
    assert sum(second.held["seconds"][-100:]) >= 85, "coverage came back"
    assert sum(second.held["seconds"][:10]) < 5, "and had gone"


def test_what_was_not_counted_moves_nothing(known: Checkpoint) -> None:
    came = [replace(one, seconds=None) for one in rows(5, 4.0)]
    found = interval_drift.follow(known, {}, came, embed([text_of(one) for one in came]))
    assert found.held["seconds"] == []
    assert len(found.held["output_tokens"]) == 5
