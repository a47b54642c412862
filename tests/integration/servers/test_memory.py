"""Similar past work: embedded in Postgres, copied to Weaviate, found in either."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.routing.recall import RecallActivity
from activities.upkeep.projections import Copy, MemoryCopy, VectorCopy
from db.engine import transaction
from db.outbox import Position
from db.runs import forgetting, vectors
from memory import collections, projection, verify
from memory.client import WeaviateMemory
from memory.projection import MemoryObject, apply
from memory.recall import Hit, cosine_of, find_similar_collaboration, similar
from router.data.encoder import ENCODER, encode
from schema.errors import Unavailable
from schema.settings import Settings
from schema.temporal.steps import RecallResult, StepRequest
from tests.support.event_log import Work, begin, catch_up, end, run
from tests.support.providers import SIMULATOR

GOOD = Work("code", "coder", "model/a", quality=0.95)
POOR = Work("code", "coder", "model/a", quality=0.5)
SORT = "Write a Python function that sorts a list of numbers"
SORT_AGAIN = "Write a Python function which sorts numbers in a list"
POEM = "Compose a poem about the sea in autumn"


@pytest.fixture
async def memory(weaviate: None, settings: Settings) -> AsyncIterator[WeaviateMemory]:
    """Collections of the test's own."""
    made = WeaviateMemory(settings, prefix=f"Test{uuid.uuid4().hex}")
    await collections.ensure(made)
    yield made
    await empty(made)
    await made.close()


async def empty(memory: WeaviateMemory) -> None:
    client = await memory.client()
    await client.collections.delete(memory.collaborations)
    await client.collections.delete(memory.projections)


def away() -> WeaviateMemory:
    return WeaviateMemory(Settings(weaviate_url="http://127.0.0.1:1", weaviate_grpc_url="127.0.0.1:2"))


def item(task: str, tenant: str = "default", quality: float | None = 0.95, **facts: Any) -> MemoryObject:
    usual: dict[str, Any] = {
        "collaboration": uuid.uuid4(),
        "tenant": tenant,
        "name": "pair",
        "task": task,
        "final_output": "done",
        "quality_score": quality,
        "cost_usd": 0.0015,
        "encoder": ENCODER,
        "embedding": encode([task])[0],
        "simulated": False,
    }
    return MemoryObject(**(usual | facts))


async def both(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    await catch_up(engine, VectorCopy(engine, encode))
    await catch_up(engine, MemoryCopy(engine, memory, encode))


async def recall(engine: AsyncEngine, memory: WeaviateMemory, request: StepRequest) -> RecallResult:
    return await ActivityEnvironment().run(RecallActivity(engine, memory, encode, SIMULATOR).recall, request)


async def hints(engine: AsyncEngine, request: StepRequest) -> list[dict[str, Any]]:
    async with transaction(engine) as connection:
        return await vectors.recalled(connection, request)


# -- the copies ------------------------------------------------------------------------------------


async def store(memory: WeaviateMemory, item: MemoryObject) -> None:
    await apply(memory, [item], Position(1, 1))


async def test_weaviate_holds_what_the_log_says(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    await run(engine, SORT, GOOD, output={"code": "sorted(x)"})
    await run(engine, POEM, tenant="other")
    await end(engine, await begin(engine, "failed task"), status="failed")
    await begin(engine, "still running")
    await both(engine, memory)
    assert await verify.check(engine, memory, ENCODER, encode) == []
    held = await verify.actual(memory)
    assert sorted((tenant, kept["task"]) for (tenant, _), kept in held.items()) == [
        ("default", SORT),
        ("other", POEM),
    ]


async def test_copying_twice_changes_nothing(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    await run(engine, SORT, GOOD)
    await both(engine, memory)
    once = await verify.actual(memory)
    client = await memory.client()
    await client.collections.delete(memory.projections)
    await catch_up(engine, MemoryCopy(engine, memory, encode))
    assert verify.differences(once, await verify.actual(memory)) == []


@pytest.mark.parametrize("what", ["everything", "the collaborations"])
async def test_an_emptied_weaviate_rebuilds_itself(
    what: str, engine: AsyncEngine, memory: WeaviateMemory
) -> None:
    await run(engine, SORT, GOOD)
    await both(engine, memory)
    once = await verify.actual(memory)
    client = await memory.client()
    await client.collections.delete(memory.collaborations)
    if what == "everything":
        await client.collections.delete(memory.projections)
    assert await projection.position(memory) == Position()
    await catch_up(engine, MemoryCopy(engine, memory, encode))
    assert verify.differences(once, await verify.actual(memory)) == []


async def test_an_object_that_weaviate_refuses_is_left_out_alone(
    engine: AsyncEngine, memory: WeaviateMemory
) -> None:
    def cut(tasks: Sequence[str]) -> list[list[float]]:
        return [
            vector[: 100 if task == "poison" else None]
            for task, vector in zip(tasks, encode(tasks), strict=True)
        ]

    await run(engine, SORT, GOOD)
    await catch_up(engine, copy := MemoryCopy(engine, memory, cut))
    for task in (POEM, "poison", SORT_AGAIN):
        await run(engine, task, GOOD)
    await catch_up(engine, copy)
    held = await verify.actual(memory)
    assert {kept["task"] for kept in held.values()} == {SORT, POEM, SORT_AGAIN}


async def test_weaviate_does_not_wait_for_the_vectors(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    await run(engine, SORT, GOOD)
    await catch_up(engine, MemoryCopy(engine, memory, encode))
    assert await verify.check(engine, memory, ENCODER, encode) == []


async def test_a_difference_names_its_object() -> None:
    kept = item(SORT)
    want = verify.expected([kept])
    poorer = {key: {**value, "quality_score": 0.1} for key, value in want.items()}
    assert verify.differences(want, {}) == [f"('default', {kept.collaboration!r}): missing"]
    assert verify.differences({}, want) == [f"('default', {kept.collaboration!r}): extra"]
    assert verify.differences(want, poorer) == [f"('default', {kept.collaboration!r}): quality_score differs"]


async def test_vectors_go_on_from_where_they_are(engine: AsyncEngine) -> None:
    asked: list[str] = []

    def counting(texts: Sequence[str]) -> list[list[float]]:
        asked.extend(texts)
        return encode(texts)

    copy: Copy = VectorCopy(engine, counting)
    first = await run(engine, SORT)
    await catch_up(engine, copy)
    await end(engine, await begin(engine, "failed"), status="failed")
    second = await run(engine, POEM)
    await catch_up(engine, VectorCopy(engine, counting))
    assert asked == [SORT, POEM]
    async with engine.begin() as connection:
        rows = await connection.execute(text("SELECT collaboration_id::text FROM task_vectors"))
        assert {row[0] for row in rows} == {first, second}
        await connection.execute(text("DELETE FROM task_vectors"))
    await catch_up(engine, VectorCopy(engine, counting))
    assert asked == [SORT, POEM, SORT, POEM]


async def test_a_weaviate_that_is_away_is_unavailable() -> None:
    memory = away()
    with pytest.raises(Unavailable) as error:
        await projection.position(memory)
    assert error.value.code == "memory_unavailable"
    await memory.close()


async def test_a_weaviate_that_dies_in_mid_answer_is_away() -> None:
    """What is connected already meets errors of the transport, which the client hands on as they are."""
    meta = b'{"version": "1.35.2", "hostname": "here", "modules": {}}'
    answers = {
        b"openid": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"/meta": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (len(meta), meta),
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        writer.write(next((said for part, said in answers.items() if part in asked), b""))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        memory = WeaviateMemory(Settings(weaviate_url=f"http://127.0.0.1:{port}"))
        for _ in range(2):
            with pytest.raises(Unavailable, match="RemoteProtocolError") as error:
                await projection.position(memory)
            assert error.value.code == "memory_unavailable"
        await memory.close()


# -- finding it again ------------------------------------------------------------------------------


async def test_certainty_is_not_cosine() -> None:
    assert cosine_of(0.85) == pytest.approx(0.70)


async def test_only_close_and_good_work_is_given_back(memory: WeaviateMemory) -> None:
    await store(memory, item(SORT, quality=0.95, final_output="the good one"))
    await store(memory, item(POEM, quality=0.9, final_output="not above 0.9"))
    close, far, poor = encode([SORT_AGAIN, "Repair the brakes of a bicycle", POEM])
    assert await find_similar_collaboration(memory, "default", close, ENCODER) == "the good one"
    assert await find_similar_collaboration(memory, "default", far, ENCODER) is None
    assert await find_similar_collaboration(memory, "default", poor, ENCODER) is None
    assert await find_similar_collaboration(memory, "default", close, ENCODER, threshold=0.9999) is None


async def test_what_is_forgotten_leaves_memory(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    made_up = Work("code", "coder", "openai/gpt-4")
    for simulated in (True, False):
        await run(engine, SORT, replace(made_up, simulated=simulated), output=str(simulated))
    await both(engine, memory)
    vector = encode([SORT])[0]
    for simulated in (True, False):
        [found] = await similar(memory, "default", vector, ENCODER, 5, 0.5, simulated=simulated)
        assert found.final_output == str(simulated)
    async with transaction(engine) as connection:
        assert await forgetting.runs(connection, "default") == 1
    await both(engine, memory)
    assert await similar(memory, "default", vector, ENCODER, 5, 0.5, simulated=True) == []
    assert await verify.check(engine, memory, ENCODER, encode) == []


async def test_storing_twice_keeps_one(memory: WeaviateMemory) -> None:
    kept = item(SORT)
    await store(memory, kept)
    await store(memory, kept)
    assert verify.differences(verify.expected([kept]), await verify.actual(memory)) == []


async def test_another_encoders_vectors_are_not_compared(memory: WeaviateMemory) -> None:
    await store(memory, item(SORT, encoder="some-other"))
    assert await similar(memory, "default", encode([SORT])[0], ENCODER, 5, 0.0, simulated=False) == []


async def test_nobody_finds_another_tenants_work(memory: WeaviateMemory) -> None:
    mine = item(SORT, tenant="mine")
    await store(memory, mine)
    await store(memory, item(POEM, tenant="theirs"))
    vector = encode([SORT])[0]
    [found] = await similar(memory, "mine", vector, ENCODER, 5, 0.5, simulated=False)
    assert found == Hit(mine.collaboration, found.cosine, SORT, "done", 0.95)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert await similar(memory, "theirs", vector, ENCODER, 5, 0.5, simulated=False) == []
    assert await similar(memory, "nobody", vector, ENCODER, 5, 0.5, simulated=False) == []


# -- the activity ----------------------------------------------------------------------------------


async def test_a_step_is_shown_similar_work_from_weaviate(
    engine: AsyncEngine, memory: WeaviateMemory
) -> None:
    past = await run(engine, SORT, GOOD, output="x" * 9_000)
    await run(engine, POEM, POOR)
    await run(engine, SORT, GOOD, tenant="other")
    await both(engine, memory)
    request = await begin(engine, SORT_AGAIN, recall=True)
    assert await recall(engine, memory, request) == RecallResult(1, "weaviate")
    [hint] = await hints(engine, request)
    assert hint == {
        "collaboration": past,
        "cosine": hint["cosine"],
        "task": SORT,
        "final_output": "x" * 4_000,
        "quality_score": 0.95,
    }
    assert 0.7 < hint["cosine"] < 1


async def test_the_first_hints_of_a_step_are_kept(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    request = await begin(engine, SORT, recall=True)
    await recall(engine, memory, request)
    await run(engine, SORT, GOOD)
    await both(engine, memory)
    await recall(engine, memory, request)
    assert await hints(engine, request) == []


async def test_a_run_is_no_hint_for_itself(engine: AsyncEngine, memory: WeaviateMemory) -> None:
    request = await begin(engine, SORT, recall=True)
    await end(engine, request)
    await both(engine, memory)
    # Weaviate had none, so Postgres was asked as well.
    assert await recall(engine, memory, request) == RecallResult(0, "pgvector")


async def test_postgres_answers_while_weaviate_is_away(engine: AsyncEngine) -> None:
    past = await run(engine, SORT, GOOD, output={"code": 1})
    await run(engine, SORT, GOOD, tenant="other")
    await catch_up(engine, VectorCopy(engine, encode))
    request = await begin(engine, SORT_AGAIN, recall=True)
    memory = away()
    assert await recall(engine, memory, request) == RecallResult(1, "pgvector")
    [hint] = await hints(engine, request)
    assert (hint["collaboration"], hint["final_output"]) == (past, '{\n  "code": 1\n}')
    await memory.close()


async def test_a_run_goes_on_without_hints(engine: AsyncEngine) -> None:
    def broken(_: Sequence[str]) -> list[list[float]]:
        raise RuntimeError("no encoder")

    request = await begin(engine, SORT, recall=True)
    memory = away()
    activity = RecallActivity(engine, memory, broken, SIMULATOR)
    assert await ActivityEnvironment().run(activity.recall, request) == RecallResult(0, "none")
    await memory.close()


async def test_tenants_are_found_behind_many_others_in_postgres(engine: AsyncEngine) -> None:
    """The index of pgvector looks at 40 neighbours and only then at the tenant."""
    await asyncio.gather(*(run(engine, SORT, tenant="crowd") for _ in range(60)))
    await run(engine, SORT_AGAIN, tenant="mine")
    await catch_up(engine, VectorCopy(engine, encode))
    async with transaction(engine) as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"))
        found = await vectors.nearest(connection, "mine", encode([SORT])[0], 1, 0.5, simulated=False)
    assert [kept.task for _, kept in found] == [SORT_AGAIN]
