"""A watcher is told everything once and in order, however transactions commit and connections break."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from db.live.fold import Follower, FollowerView, tell
from schema.errors import Refused
from schema.live import (
    PlacedEvent,
    RunBegan,
    RunEnded,
    StepBegan,
    StepEnded,
    StreamPosition,
    TokensCame,
    key_of,
    parse_place,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class LogTransaction:
    """One transaction: when it took its number, when it became visible, and what it wrote."""

    begins: int
    commits: int
    claims: str = ""
    abandons: str = ""
    says: tuple[str, int, int] | None = None
    event: tuple[str, dict[str, Any]] | None = None
    xid: int = 0


class Log:
    """Postgres as a watcher meets it: a run whose executions overlap and commit in any order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.written: list[LogTransaction] = []
        start = self.write(0, event=("CollaborationStarted", _started()))
        ends = [self.execution(start, _id(n), f"step{n}") for n in range(chance.randint(1, 6))]
        facts = {"status": "completed", "sub_state": "", "error_code": None, "cost_usd": "0"}
        self.over = self.write(
            max(ends), event=("CollaborationFinished", facts | {"quality": None, "latency_ms": 1})
        )
        for xid, one in enumerate(sorted(self.written, key=lambda one: one.begins), 1):
            one.xid = xid

    def write(self, after: int, **what: Any) -> int:
        """Begin some time after a moment; the moment when it is visible."""
        begins = after + self.chance.randint(1, 8)
        commits = begins + self.chance.randint(0, 20)
        self.written.append(LogTransaction(begins, commits, **what))
        return commits

    def execution(self, after: int, id: str, path: str) -> int:
        now = self.write(after, claims=id)
        count = 0
        for _ in range(self.chance.randint(0, 5)):
            more = self.chance.randint(1, 4)
            now = self.write(now, says=(id, count, more))
            count += more
        if self.chance.random() < 0.3:  # its worker died, and another took over
            return self.execution(self.write(now, abandons=id), _id(int(id[:12], 16) + 1000), path)
        facts = {
            "execution_id": id,
            "path": path,
            "step": path,
            "kind": "agent",
            "attempt": 1,
            "agent": "a",
            "model": "m",
            "input_tokens": 1,
            "output_tokens": count,
            "cost_usd": "0.1",
            "latency_ms": 5,
            "simulated": True,
        }
        return self.write(now, event=("StepFinished", facts))

    def snapshot(self, now: int, follower: Follower) -> tuple[FollowerView, dict[tuple[str, int], Any]]:
        visible = [one for one in self.written if one.commits <= now]
        running = [one.xid for one in self.written if one.begins <= now < one.commits]
        xmin = min(running, default=1 + max((o.xid for o in self.written if o.begins <= now), default=0))
        events = [
            SimpleNamespace(
                xid=one.xid,
                seq=one.xid,
                type=one.event[0],
                payload=one.event[1],
                created_at=AT,
                settled=one.xid < xmin,
            )
            for one in sorted(visible, key=lambda one: one.xid)
            if one.event and one.xid > follower.place.xid
        ]
        done = {one.event[1].get("execution_id", "") for one in visible if one.event}
        gone = {one.abandons for one in visible}
        under_way = [
            SimpleNamespace(
                execution=one.claims,
                path=f"step{int(one.claims[:12], 16) % 1000}",
                step="s",
                kind="agent",
                attempt=1,
                agent="a",
                model="m",
                started_at=AT,
                status=self.state(one.claims, done, gone),
            )
            for one in visible
            if one.claims and (one.claims in follower.open or one.claims not in done | gone)
        ]
        said: dict[tuple[str, int], Any] = {}
        for id in {one.says[0] for one in visible if one.says}:
            told = follower.told(id)
            upto = sum(one.says[2] for one in visible if one.says and one.says[0] == id)
            if upto > told:
                text = "".join(f"{n}," for n in range(told, upto))
                said[id, told] = SimpleNamespace(text=text, count=upto - told, at=AT)
        return FollowerView(events, under_way), said

    def state(self, id: str, done: set[str], gone: set[str]) -> str:
        return "abandoned" if id in gone else "completed" if id in done else "running"


def _id(number: int) -> str:
    return f"{number:012x}{0:020x}"


def _started() -> dict[str, Any]:
    return {"temporal_workflow_id": "w", "collaboration_id": "r", "name": "n", "version": 1, "task": "t"}


def reconnect(log: Log, place: str, told: list[PlacedEvent]) -> Follower:
    """What another API process makes of a place."""
    follower = Follower("run", parse_place(place) if place else StreamPosition())
    begun = {live.event.execution: live.event for live in told if isinstance(live.event, StepBegan)}
    follower.open = {id: began for id, began in begun.items() if key_of(id) in follower.place.open}
    return follower


@pytest.mark.parametrize("seed", range(300))
def test_everything_is_told_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    log = Log(chance)
    told: list[PlacedEvent] = []
    follower, now = Follower("run"), 0
    while not follower.ended:
        now += chance.randint(1, 10)
        lives = tell(follower, *log.snapshot(now, follower))
        if lives and chance.random() < 0.4:  # cut somewhere in the middle of what was sent
            lives = lives[: chance.randint(0, len(lives) - 1)]
            told += lives
            follower = reconnect(log, told[-1].place if told else "", told)
        else:
            told += lives
        assert now < log.over + 1_000

    events = [live.event for live in told]
    assert isinstance(events[0], RunBegan) and isinstance(events[-1], RunEnded)
    assert sum(isinstance(event, RunBegan | RunEnded) for event in events) == 2
    claimed = {one.claims for one in log.written if one.claims}
    abandoned = {one.abandons for one in log.written if one.abandons}
    for id in claimed:
        mine = [event for event in events if getattr(event, "execution", "") == id]
        if not mine:
            assert id in abandoned  # it began and was given up before anybody looked
            continue
        assert isinstance(mine[0], StepBegan) and isinstance(mine[-1], StepEnded)
        assert mine[-1].status == ("superseded" if id in abandoned else "completed")
        said = mine[1:-1]
        assert all(isinstance(event, TokensCame) for event in said)
        count = sum(one.says[2] for one in log.written if one.says and one.says[0] == id)
        if id not in abandoned:
            assert "".join(e.text for e in said if isinstance(e, TokensCame)) == "".join(
                f"{n}," for n in range(count)
            )


def test_a_place_is_read_as_it_was_written() -> None:
    place = StreamPosition(0x1F, 7, {9, 12}, {"0123456789ab": 0, "ba9876543210": 500})
    assert parse_place(str(place)) == place
    assert parse_place("0.0") == StreamPosition()


@pytest.mark.parametrize(
    "text", ["", "1", "1.2.3", "1.2~abc:1", "1.2+", "g.1", "1.2\n", "1.2" + "~0123456789ab:1" * 9999]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_place(text)
    assert refused.value.code == "stream_place_invalid"
