"""Checkpoints in Postgres: what is kept, who serves, and how one comes to serve and ceases to."""

import asyncio
import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.router import checkpoints, quarantines, trainings
from db.router.checkpoints import CheckpointSummary, State
from router.checkpoints import storage
from schema.errors import FacilitairError, Refused
from tests.support.runs import rows

UNTIL = datetime(2026, 11, 20, tzinfo=UTC)


async def training(engine: AsyncEngine, tenant: str = "default") -> uuid.UUID:
    id = uuid.uuid4()
    async with transaction(engine) as connection:
        await trainings.start(
            connection, id, tenant, UNTIL, 7, "user:ann", {"held_out": 0.2}, simulated=False
        )
    return id


async def registered(
    engine: AsyncEngine, tenant: str = "default", content: bytes = b"weights"
) -> CheckpointSummary:
    id = await training(engine, tenant)
    async with transaction(engine) as connection:
        sha256 = hashlib.sha256(content).hexdigest()
        return await checkpoints.register(connection, tenant, id, 3, content, sha256, {"seed": 7}, "user:ann")


async def move(engine: AsyncEngine, number: int, state: State, tenant: str = "default") -> CheckpointSummary:
    async with transaction(engine) as connection:
        return await checkpoints.move(connection, tenant, number, state, "because", "user:ann")


async def states(engine: AsyncEngine, tenant: str = "default") -> dict[int | None, str | None]:
    async with transaction(engine) as connection:
        return {one.number: one.state for one in await checkpoints.page(connection, tenant)}


async def to_all(engine: AsyncEngine) -> int:
    found = await registered(engine)
    assert found.number is not None
    for state in ("share", "all"):
        await move(engine, found.number, state)
    return found.number


async def test_of_epochs_the_last_three_stay_and_milestones_for_ever(engine: AsyncEngine) -> None:
    id = await training(engine)
    for epoch in (1, 2, 3, 4, 5, 5):
        content = f"epoch {epoch}".encode()
        async with transaction(engine) as connection:
            sha256 = hashlib.sha256(content).hexdigest()
            await checkpoints.save_training(connection, "default", id, epoch, content, sha256, {})
            if epoch in (1, 4, 5):
                await checkpoints.save_milestone(connection, "default", id, epoch, content, sha256, {})
    async with transaction(engine) as connection:
        kept = [(one.kind, one.epoch) for one in await checkpoints.of_training(connection, id)]
        last = await checkpoints.last_of_training(connection, id, "training")
        assert last is not None
        assert await checkpoints.content(connection, last.id) == b"epoch 5"
        assert await checkpoints.last_of_training(connection, uuid.uuid4(), "training") is None
    assert kept == [
        ("milestone", 1),
        ("milestone", 4),
        ("milestone", 5),
        ("training", 3),
        ("training", 4),
        ("training", 5),
    ]


async def test_a_save_that_breaks_off_leaves_what_was_there(engine: AsyncEngine) -> None:
    id = await training(engine)
    async with transaction(engine) as connection:
        await checkpoints.save_training(connection, "default", id, 1, b"old", "sum", {})
    connection = await engine.connect()
    await connection.begin()
    await checkpoints.save_training(connection, "default", id, 1, b"new", "sum", {})
    await connection.invalidate()
    await connection.close()
    async with transaction(engine) as connection:
        last = await checkpoints.last_of_training(connection, id, "training")
        assert last is not None and await checkpoints.content(connection, last.id) == b"old"


async def test_it_is_registered_once_under_the_next_number_in_shadow(engine: AsyncEngine) -> None:
    first = await registered(engine)
    assert (first.number, first.state, first.epoch, first.bytes) == (1, "shadow", 3, 7)
    assert (first.manifest, first.trained_until, first.outcomes) == ({"seed": 7}, UNTIL, 0)
    async with transaction(engine) as connection:
        again = await checkpoints.register(
            connection, "default", first.training, 3, b"weights", first.sha256, {}, "user:ann"
        )
    assert again == first
    assert (await registered(engine, "another")).number == 1
    second = await registered(engine)
    assert second.number == 2
    assert await states(engine) == {2: "shadow", 1: "rolled_back"}
    async with transaction(engine) as connection:
        replaced = await checkpoints.find(connection, "default", 1)
    assert replaced.state_reason == "2 took its place before it served all"


async def test_it_comes_to_serve_step_by_step_and_retires_who_served(engine: AsyncEngine) -> None:
    first = await to_all(engine)
    second = await registered(engine)
    assert second.number == 2
    async with transaction(engine) as connection:
        found = await checkpoints.serving(connection, "default", simulated=False)
        assert [(one.number, one.state) for one in found] == [(first, "all"), (2, "shadow")]
        assert found[1].sha256 == hashlib.sha256(b"weights").hexdigest()
        assert found[1].id == second.id
        assert await checkpoints.tenants(connection) == ["default"]
        await checkpoints.note_outcomes(connection, second.id, 120)
    shared = await move(engine, 2, "share")
    assert (shared.outcomes, shared.state_reason) == (0, "because")
    await move(engine, 2, "all")
    assert await states(engine) == {2: "all", 1: "retired"}
    said = await rows(
        engine,
        "SELECT action, subject, detail ->> 'before' FROM audit_log"
        " WHERE action LIKE 'checkpoint.%' ORDER BY id",
    )
    assert said[-3:] == [
        ("checkpoint.share", "2", "shadow"),
        ("checkpoint.retired", "1", "all"),
        ("checkpoint.all", "2", "share"),
    ]


async def test_rolled_back_the_one_before_serves_again(engine: AsyncEngine) -> None:
    for _ in range(3):
        await to_all(engine)
    assert await states(engine) == {3: "all", 2: "retired", 1: "retired"}

    async def back() -> dict[int | None, str | None]:
        async with transaction(engine) as connection:
            await checkpoints.roll_back(connection, "default", "looks bad", "user:ann", simulated=False)
        return await states(engine)

    assert await back() == {3: "rolled_back", 2: "all", 1: "retired"}
    assert await back() == {3: "rolled_back", 2: "rolled_back", 1: "all"}
    await registered(engine)
    assert await back() == {4: "shadow", 3: "rolled_back", 2: "rolled_back", 1: "rolled_back"}
    assert (await back())[4] == "rolled_back"
    with pytest.raises(Refused, match="rules do already") as caught:
        await back()
    assert caught.value.code == "checkpoint_state"


async def test_a_challenger_that_is_rolled_back_changes_nothing_for_who_serves(engine: AsyncEngine) -> None:
    await to_all(engine)
    await to_all(engine)
    await registered(engine)
    async with transaction(engine) as connection:
        assert (await checkpoints.promote(connection, "default", 3, "user:ann")).state == "share"
    await move(engine, 3, "rolled_back")
    assert await states(engine) == {3: "rolled_back", 2: "all", 1: "retired"}


@pytest.mark.parametrize(
    ("way", "to"),
    [((), "all"), (("rolled_back",), "shadow"), (("rolled_back",), "share"), (("share",), "shadow")],
)
async def test_there_is_no_other_way(engine: AsyncEngine, way: tuple[State, ...], to: State) -> None:
    await registered(engine)
    for state in way:
        await move(engine, 1, state)
    with pytest.raises(Refused) as caught:
        await move(engine, 1, to)
    assert caught.value.code == "checkpoint_state"
    with pytest.raises(FacilitairError, match="found no checkpoint 9"):
        await move(engine, 9, "share")
    with pytest.raises(FacilitairError, match="found no checkpoint 1;"):
        await move(engine, 1, "share", tenant="another")


async def test_two_at_once_take_their_turns(engine: AsyncEngine) -> None:
    await asyncio.gather(*(registered(engine) for _ in range(6)))
    found = await states(engine)
    assert sorted(number or 0 for number in found) == [1, 2, 3, 4, 5, 6]
    assert [number for number, state in found.items() if state == "shadow"] == [6]
    await asyncio.gather(*(move(engine, 6, "share") for _ in range(4)))
    assert (await states(engine))[6] == "share"


async def test_the_database_itself_holds_that_one_serves(engine: AsyncEngine) -> None:
    await to_all(engine)
    with pytest.raises(IntegrityError):
        await rows(
            engine,
            "INSERT INTO checkpoints (id, training_id, kind, number, content, sha256, bytes, state)"
            " SELECT gen_random_uuid(), training_id, kind, 9, content, sha256, bytes, 'all' FROM checkpoints"
            " RETURNING id",
        )


async def test_bytes_that_changed_are_refused(engine: AsyncEngine) -> None:
    found = await registered(engine)
    async with transaction(engine) as connection:
        storage.check(await checkpoints.content(connection, found.id), found.sha256)
        with pytest.raises(Refused, match="that are no Checkpoint") as caught:
            storage.unpack(await checkpoints.content(connection, found.id), found.sha256)
        assert caught.value.code == "checkpoint_broken"
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE checkpoints SET content = :content"), {"content": b"Weights"})
    async with transaction(engine) as connection:
        with pytest.raises(Refused, match=r"found bytes of sha256 .*; expected") as caught:
            storage.check(await checkpoints.content(connection, found.id), found.sha256)
    assert caught.value.code == "checkpoint_broken"


async def test_who_fails_again_soon_rests_twice_as_long(engine: AsyncEngine) -> None:
    async def add() -> timedelta:
        async with transaction(engine) as connection:
            found = await quarantines.add(
                connection, "default", "p/bad", "2 of 9 steps went well", simulated=False
            )
        return found.until - found.since

    async def end() -> None:
        async with transaction(engine) as connection:
            await connection.execute(
                text("UPDATE quarantines SET since = since - (until - now()), until = now()")
            )

    assert await add() == quarantines.FIRST
    assert await add() == quarantines.FIRST, "it rests already"
    async with transaction(engine) as connection:
        assert await quarantines.of_tenant(connection, "default", simulated=False) == ["p/bad"]
        assert await quarantines.of_tenant(connection, "another", simulated=False) == []
    await end()
    async with transaction(engine) as connection:
        assert await quarantines.active(connection, "default", simulated=False) == []
        assert [one.model for one in await quarantines.every(connection, "default", simulated=False)] == [
            "p/bad"
        ]
    assert await add() == pytest.approx(2 * quarantines.FIRST, abs=timedelta(seconds=5))
    async with transaction(engine) as connection:
        assert await quarantines.lift(connection, "default", "p/bad", "user:ann", simulated=False)
        assert not await quarantines.lift(connection, "default", "p/bad", "user:ann", simulated=False)
        assert await quarantines.of_tenant(connection, "default", simulated=False) == []


async def test_a_training_tells_how_it_went(engine: AsyncEngine) -> None:
    id = await training(engine)
    async with transaction(engine) as connection:
        again = await trainings.start(
            connection, id, "default", UNTIL + timedelta(days=1), 9, "user:bob", {}, simulated=False
        )
        assert (again.seed, again.until, again.started_by, again.status) == (7, UNTIL, "user:ann", "running")
        await trainings.note_data(connection, id, {"outcomes": 100})
        await trainings.note_data(connection, id, {"network": "has no say"})
        for epoch in (1, 2, 3, 2):
            await trainings.note_epoch(connection, id, {"epoch": epoch, "loss": 1 / epoch})
        await trainings.note_figures(connection, id, {"brier": 0.1}, "good")
        await trainings.end(connection, "default", id, "registered", "good", "user:ann")
        done = await trainings.end(connection, "default", id, "failed", "late", "user:ann")
    assert (done.status, done.reason, done.figures) == ("registered", "good", {"brier": 0.1})
    assert done.data == {"outcomes": 100, "network": "has no say"}
    assert [one["epoch"] for one in done.curve] == [1, 2], "what followed is made anew"
    newer = await training(engine)
    async with transaction(engine) as connection:
        first = await trainings.page(connection, "default", limit=1)
        assert [one.id for one in first] == [newer]
        after = first[-1].started_at, first[-1].id
        assert [one.id for one in await trainings.page(connection, "default", after=after)] == [id]
        with pytest.raises(FacilitairError, match="found no training"):
            await trainings.find(connection, "another", id)
