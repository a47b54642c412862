"""A past run told again, from rows that the platform's own functions wrote; and its tokens in the archive."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.upkeep.archive import ArchiveActivity
from api.app import create_app
from api.live.playback import MAX_AT_ONCE, playback
from api.state import ApiState
from db.engine import transaction
from db.live import archive, tokens
from db.live.archive import ArchivedBatch
from db.live.reader import LiveSource
from db.live.tokens import Token
from db.raw import connect
from db.runs import executions
from db.runs.executions import Assignment, AttemptOutcome
from schema.errors import Refused
from schema.live import PlacedEvent, RunBegan, RunEnded, StepBegan, StepEnded, StreamPosition, TokensCame
from schema.settings import Settings
from schema.temporal.runs import Finish
from schema.temporal.steps import StepRequest
from schema.temporal.upkeep import ArchivePass
from tests.support.event_log import begin
from tests.support.lifecycle import journal
from tests.support.runs import rows

AGENT = Assignment("agent", "coder", "coder", "openai/gpt-4")
SOON = timedelta(milliseconds=3)
NEVER = datetime(2999, 1, 1, tzinfo=UTC)


class _State:
    """As much of the API's state as a playback needs."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    def transaction(self) -> Any:
        return transaction(self.engine)


async def play(engine: AsyncEngine, run: str, speed: float = 0, place: str = "") -> list[PlacedEvent]:
    telling = playback(cast("ApiState", _State(engine)), UUID(run), speed, place)
    return [live async for lives in telling for live in lives]


async def say(engine: AsyncEngine, execution: UUID, words: list[str], first: int = 0) -> None:
    """Words as the token log writes them, 3 ms apart."""
    at = datetime.now(UTC)
    said = [
        Token("run", execution, first + n, word, at + n * SOON, [], "default") for n, word in enumerate(words)
    ]
    async with await connect(str_url(engine)) as connection:
        await tokens.append(connection, said)


def str_url(engine: AsyncEngine) -> str:
    return engine.url.render_as_string(hide_password=False)


async def claim(engine: AsyncEngine, request: StepRequest) -> executions.Claim:
    async with transaction(engine) as connection:
        return await executions.claim(connection, request, AGENT)


async def complete(engine: AsyncEngine, request: StepRequest, begun: executions.Claim) -> None:
    outcome = AttemptOutcome("done", "openai/gpt-4", "openai", 10, 20, Decimal("0.0015"), 5, True)
    async with transaction(engine) as connection:
        await executions.complete(connection, request, AGENT, begun, outcome)


async def finish(engine: AsyncEngine, request: StepRequest) -> None:
    async with journal(engine) as writing:
        end = Finish(request.collaboration, request.tenant, request.traceparent, "completed")
        await writing.finish(end, "done")


@pytest.fixture
async def run(engine: AsyncEngine) -> str:
    """Two agents at once; the second one's worker died, its next attempt failed, and the third one spoke."""
    coder = await begin(engine, "merge lists")
    review = replace(coder, step="review")
    first, died = await claim(engine, coder), await claim(engine, review)
    await say(engine, first.execution, ["def ", "merge", "(a, b)", ":\n"])
    await say(engine, died.execution, ["Lo", "st"])
    failed = await claim(engine, review)
    await say(engine, failed.execution, ["Half"])
    async with transaction(engine) as connection:
        await executions.fail(connection, review, failed, "provider_failed", "it broke")
    last = await claim(engine, review)
    await say(engine, first.execution, ["    return", " 1"], 4)
    await say(engine, last.execution, [f"{n} " for n in range(40)])
    await complete(engine, coder, first)
    await complete(engine, review, last)
    await finish(engine, coder)
    return coder.collaboration


def story(lives: list[PlacedEvent]) -> list[str]:
    """What was told, in short; whatever was said of a step stands behind its end."""
    found: list[str] = []
    said: dict[str, str] = {}
    for live in lives:
        match live.event:
            case StepBegan() as began:
                found.append(f"{began.path} {began.attempt} begins")
            case TokensCame() as came:
                said[came.execution] = said.get(came.execution, "") + came.text
            case StepEnded() as ended:
                found.append(f"{ended.path} {ended.attempt} {ended.status}: {said.get(ended.execution, '')}")
            case event:
                found.append(type(event).__name__)
    return found


def words(lives: list[PlacedEvent]) -> list[tuple[str, int, int, str]]:
    return [
        (live.event.execution, live.event.first, live.event.count, live.event.text)
        for live in lives
        if isinstance(live.event, TokensCame)
    ]


async def test_everything_is_told_again_in_its_order(engine: AsyncEngine, run: str) -> None:
    lives = await play(engine, run)
    forty = "".join(f"{n} " for n in range(40))
    told = story(lives)
    assert told[0] == "RunBegan"
    assert told[-1] == "RunEnded"
    assert [one for one in told if one.startswith("code")] == [
        "code 1 begins",
        "code 1 completed: def merge(a, b):\n    return 1",
    ]
    assert [one for one in told if one.startswith("review")] == [
        "review 1 begins",
        "review 1 superseded: Lost",
        "review 2 begins",
        "review 2 failed: Half",
        "review 3 begins",
        f"review 3 completed: {forty}",
    ]
    assert [live.at for live in lives] == sorted(live.at for live in lives)
    began = lives[0].event
    assert isinstance(began, RunBegan)
    assert (began.run_id, began.task, began.kept) == (run, "merge lists", {})
    end = lives[-1].event
    assert isinstance(end, RunEnded)
    assert (end.status, end.cost_usd) == ("completed", 0.003)


async def test_a_reader_goes_on_behind_any_place(engine: AsyncEngine, run: str) -> None:
    whole = await play(engine, run, 1_000)
    count = int(whole[-1].place[1:])
    assert count == 10 + 49  # events, and every token
    for known in range(0, count + 1, 3):
        rest = await play(engine, run, place=f"p{known}")
        sizes = [live.event.count if isinstance(live.event, TokensCame) else 1 for live in rest]
        assert sum(sizes) == count - known
        for at, live in enumerate(rest):
            assert live.place == f"p{known + sum(sizes[: at + 1])}"
    for wrong in ("12.3", "p", "p-1", "q1"):
        with pytest.raises(Refused, match="of this playback"):
            await play(engine, run, place=wrong)


async def test_the_rhythm_is_that_of_the_run_and_long_pauses_are_cut(engine: AsyncEngine) -> None:
    request = await begin(engine, "slow")
    begun = await claim(engine, request)
    at = begun.started_at
    times = [at + timedelta(seconds=seconds) for seconds in (0.1, 0.2, 0.2, 3600.0, 3600.1)]
    async with await connect(str_url(engine)) as connection:
        await tokens.append(
            connection,
            [Token("", begun.execution, n, str(n), one, [], "default") for n, one in enumerate(times)],
        )
    await complete(engine, request, begun)
    await finish(engine, request)
    late = at + timedelta(hours=2)
    async with transaction(engine) as connection:
        query = (
            "UPDATE outbox SET created_at = :late WHERE aggregateid = :run AND type <> 'CollaborationStarted'"
        )
        await connection.execute(text(query), {"late": late, "run": request.collaboration})
    loop = asyncio.get_running_loop()
    began = loop.time()
    playing = playback(cast("ApiState", _State(engine)), UUID(request.collaboration), 20)
    heard = [(loop.time() - began, lives) async for lives in playing]
    # Nothing comes before its time: 0.1 s, 0.1 s, an hour cut to 5 s, 0.1 s, and two hours cut to 5 s, all of
    # it twenty times as fast.
    due = {0: 0.005, 1: 0.01, 3: 0.26, 4: 0.265}
    for seconds, lives in heard:
        for _, first, count, _ in words(lives):
            assert all(seconds > due[n] - 0.003 for n in range(first, first + count) if n in due)
    assert len(heard) >= 3
    assert 0.51 < heard[-1][0] < 10


async def test_of_a_running_one_what_there_is_so_far(engine: AsyncEngine) -> None:
    request = await begin(engine, "going on")
    begun = await claim(engine, request)
    async with await connect(str_url(engine)) as connection:
        said = Token("", begun.execution, 0, "so far", begun.started_at, [], "default")
        await tokens.append(connection, [said])
    lives = await play(engine, request.collaboration)
    assert [type(live.event) for live in lives] == [RunBegan, StepBegan, TokensCame]
    assert await play(engine, str(uuid.uuid4())) == []


async def move(engine: AsyncEngine, older_than: datetime, limit: int = 2) -> ArchivedBatch:
    """Batches as an archiving makes them, together."""
    behind, executions_moved, tokens_moved = archive.FIRST, 0, 0
    while True:
        async with transaction(engine) as connection:
            moved = await archive.archive(connection, older_than, limit, behind)
        executions_moved += moved.executions
        tokens_moved += moved.tokens
        if moved.behind is None:
            return ArchivedBatch(executions_moved, tokens_moved, None)
        behind = moved.behind


async def count(engine: AsyncEngine, table: str) -> int:
    [(found,)] = await rows(engine, f"SELECT count(*) FROM {table}")
    return int(found)


async def test_archived_tokens_are_told_like_all_others(engine: AsyncEngine, run: str) -> None:
    other = await begin(engine, "still running")
    speaking = await claim(engine, other)
    await say(engine, speaking.execution, ["alive"])
    before = await play(engine, run, 1_000)
    async with transaction(engine) as connection:
        assert await archive.waiting(connection, NEVER) == ArchivedBatch(4, 49, None)
        assert await archive.waiting(connection, datetime.now(UTC) - timedelta(days=1)) == ArchivedBatch(
            0, 0, None
        )
    assert await move(engine, NEVER) == ArchivedBatch(4, 49, None)
    assert await move(engine, NEVER) == ArchivedBatch(0, 0, None)
    assert await count(engine, "token_stream") == 1
    assert await count(engine, "token_archives") == 4
    after = await play(engine, run, 1_000)
    assert _tokens(after) == _tokens(before)
    assert story(after) == story(before)


async def watch(engine: AsyncEngine, run: str) -> list[PlacedEvent]:
    """All that a watcher is told who comes when the run is over."""
    source = LiveSource(str_url(engine))
    follower = await source.follower(UUID(run), StreamPosition())
    told = []
    while follower.behind:
        [lives] = await source.read([follower])
        told += lives
    await source.close()
    return told


async def test_who_watches_a_run_that_is_long_over_reads_the_archive(engine: AsyncEngine, run: str) -> None:
    before = await watch(engine, run)
    await move(engine, NEVER)
    after = await watch(engine, run)
    assert [live.event for live in after] == [live.event for live in before]
    assert [live.place for live in after] == [live.place for live in before]


def _tokens(lives: list[PlacedEvent]) -> list[Any]:
    """Whatever was told together, token by token and with the time of the last of them."""
    return [
        (live.at, one) for live in lives if isinstance(live.event, TokensCame) for one in [live.event.text]
    ]


async def test_a_batch_that_fails_moves_nothing(engine: AsyncEngine, run: str) -> None:
    before = await play(engine, run)

    class Killed:
        """A connection whose server dies at one of the statements."""

        def __init__(self, connection: AsyncConnection, at: int) -> None:
            self.connection, self.left = connection, at

        async def execute(self, *how: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise psycopg.OperationalError("killed")
            return await self.connection.execute(*how)

        def begin_nested(self) -> Any:
            return self.connection.begin_nested()

    statements = 2 + 4 * 3
    for at in range(1, statements + 1):
        with pytest.raises(psycopg.OperationalError):
            async with transaction(engine) as connection:
                await archive.archive(cast("AsyncConnection", Killed(connection, at)), NEVER, 100)
        assert (await count(engine, "token_stream"), await count(engine, "token_archives")) == (49, 0)
    assert await play(engine, run) == before
    assert await move(engine, NEVER) == ArchivedBatch(4, 49, None)
    assert await play(engine, run) == before


async def test_what_a_late_worker_still_writes_joins_the_archive(engine: AsyncEngine) -> None:
    request = await begin(engine, "late")
    begun = await claim(engine, request)
    await say(engine, begun.execution, ["one ", "two "])
    await complete(engine, request, begun)
    await finish(engine, request)
    assert await move(engine, NEVER) == ArchivedBatch(1, 2, None)
    # It writes its last batch once more, having heard no answer the first time.
    await say(engine, begun.execution, ["two ", "three"], 1)
    assert await move(engine, NEVER) == ArchivedBatch(1, 2, None)
    assert story(await play(engine, request.collaboration))[2] == "code 1 completed: one two three"


async def test_long_texts_shrink_are_read_in_pages_and_forgotten(engine: AsyncEngine) -> None:
    request = await begin(engine, "long")
    begun = await claim(engine, request)
    text_of = [f"word{n % 97} " for n in range(25_000)]
    await say(engine, begun.execution, text_of)
    await complete(engine, request, begun)
    await finish(engine, request)
    [(live_bytes,)] = await rows(engine, "SELECT sum(pg_column_size(t.*)) FROM token_stream t")
    lives = await play(engine, request.collaboration)
    assert await move(engine, NEVER) == ArchivedBatch(1, 25_000, None)
    [(archived_bytes,)] = await rows(engine, "SELECT sum(length(tokens)) FROM token_archives")
    assert archived_bytes * 10 < live_bytes
    assert await play(engine, request.collaboration) == lives
    assert max(one[2] for one in words(lives)) == MAX_AT_ONCE
    async with transaction(engine) as connection:
        page = await tokens.spoken(connection, begun.execution, 24_990)
        assert [one.text for one in page] == text_of[24_990:]
        assert len(await tokens.spoken(connection, begun.execution, 995, most=10)) == 10
    async with transaction(engine) as connection:
        assert await archive.forget(connection, datetime.now(UTC) - timedelta(days=1), 10) == 0
        assert await archive.forget(connection, NEVER, 10) == 1
    assert story(await play(engine, request.collaboration))[2] == "code 1 completed: "


async def test_the_daily_activity_and_the_api_archive_what_is_old(
    engine: AsyncEngine, run: str, postgres_url: str
) -> None:
    before = story(await play(engine, run))
    settings = Settings(database_url=postgres_url)
    environment = ActivityEnvironment()
    assert await environment.run(ArchiveActivity(engine, settings).archive_tokens) == ArchivePass(0, 0, 0)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
    ):
        young = await http.post("/v1/streams/archive", json={})
        # The last words are written 3 ms apart, ahead of the clock: until then they are too young.
        async with asyncio.timeout(5):
            while True:
                counted = await http.post("/v1/streams/archive", json={"older_than_days": 0, "dry_run": True})
                if counted.json()["executions"] == 4:
                    break
        moved = await http.post("/v1/streams/archive", json={"older_than_days": 0})
    facts = [
        (found["executions"], found["tokens"], found["more"])
        for found in (young.json(), counted.json(), moved.json())
    ]
    assert facts == [(0, 0, False), (4, 49, False), (4, 49, False)]
    assert story(await play(engine, run)) == before
    hurried = settings.model_copy(update={"tokens_archive_after_days": 0, "tokens_keep_days": 1e-9})
    assert await environment.run(ArchiveActivity(engine, hurried).archive_tokens) == ArchivePass(0, 0, 4)
