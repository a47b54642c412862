"""Learning in four activities: collect, train, judge, register. Rows and weights stay in Postgres."""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.heartbeats import heartbeats
from activities.routing import prices as routing_prices
from db.engine import transaction
from db.router import checkpoints, outcomes, trainings
from db.router.checkpoints import CheckpointSummary
from db.router.outcomes import OutcomeRow
from router.checkpoints import fitting, storage
from router.checkpoints.fitting import Effort
from router.checkpoints.storage import Checkpoint
from router.data import dataset, features
from router.rollout import judge
from router.statistics import model
from router.statistics.choose import PricePair
from router.statistics.model import MIN_OUTCOMES
from schema.temporal.learning import (
    CollectedOutcomes,
    DueTenants,
    LearnStep,
    TrainingEnd,
    TrainingOutcome,
    TrainingRun,
    TrainingVerdict,
)

MAX_ROWS: Final = 100_000
"""The newest; older ones say less of models that their providers keep changing."""
MIN_MODELS: Final = 2
SAVED_SECONDS: Final = 60.0
NEW_OUTCOMES: Final = 100
"""Steps since a tenant last learned, before a night is worth it."""


@dataclass(frozen=True)
class Collection:
    rows: list[OutcomeRow]
    """The newest that can be learned from, in the order in which they ended."""
    refused: Counter[str]
    """reason → rows."""
    by_another: int
    """Rows that another model answered than was asked, as its provider says."""

    @property
    def models(self) -> list[str]:
        return sorted({row.model for row in self.rows})


class LearnActivity:
    def __init__(self, engine: AsyncEngine, effort: Effort | None = None) -> None:
        self._engine = engine
        self._effort = effort or Effort()

    @activity.defn(name="due_to_learn")
    async def due_to_learn(self) -> DueTenants:
        async with transaction(self._engine) as connection:
            found = await trainings.due(connection, NEW_OUTCOMES)
        return DueTenants(
            [tenant for tenant, simulated in found if not simulated],
            [tenant for tenant, simulated in found if simulated],
        )

    @activity.defn(name="collect_outcomes")
    async def collect_outcomes(self, step: LearnStep) -> CollectedOutcomes:
        """Open the training, and see what there is. Again, it counts again."""
        until = _moment(step.until)
        async with heartbeats():
            arguments = {
                "held_out": dataset.HELD_OUT,
                "most_steps": dataset.MAX_STEPS,
                "most_rows": MAX_ROWS,
                "network": asdict(self._effort),
            }
            async with transaction(self._engine) as connection:
                await trainings.start(
                    connection,
                    UUID(step.training),
                    step.tenant,
                    until,
                    step.seed,
                    step.by,
                    arguments,
                    simulated=step.simulated,
                )
            found = await self._collect(step)
            rows, held_out = dataset.split(found.rows)
            data = {
                "outcomes": len(found.rows),
                "held_out": len(held_out),
                "models": found.models,
                "refused": dict(sorted(found.refused.items())),
                "by_another": found.by_another,
                "sources": dict(sorted(Counter(row.source for row in found.rows).items())),
            }
            async with transaction(self._engine) as connection:
                await trainings.note_data(connection, UUID(step.training), data)
        refused = sum(found.refused.values())
        return CollectedOutcomes(len(found.rows), refused, len(found.models), _too_little(rows, found))

    @activity.defn(name="train_router")
    async def train_router(self, step: LearnStep) -> TrainingRun:
        """Learn. Another attempt goes on at the last epoch that one before it has kept."""
        async with heartbeats():
            found = await self._collect(step)
            rows, _ = dataset.split(found.rows)
            prices = await self._prices(step.tenant, found.models)
            calls = await asyncio.to_thread(dataset.to_calls, dataset.thinned(rows))
            table = await asyncio.to_thread(features.rows, calls.texts)
            keeper = TrainingStore(self._engine, step)
            fitted = await keeper.fitted()
            if fitted is None:
                learned, _ = await asyncio.to_thread(model.fit, calls, table, step.seed, prices)
                fitted = storage.of(learned)
                await keeper.keep_milestone(0, fitted)
            if len(calls.queries) < self._effort.least_steps:
                return TrainingRun(len(calls.queries), 0)
            some = np.arange(min(len(calls.queries), self._effort.most_steps))
            began, state = await keeper.last_epoch()
            try:
                whole, reason = await asyncio.to_thread(
                    fitting.with_network,
                    fitted,
                    calls.only(some),
                    table[some],
                    step.seed,
                    self._effort.plan,
                    keeper.on_epoch,
                    state,
                )
            finally:
                keeper.stop()
            ended, _ = await keeper.last_epoch()
            if whole.neural is not None:
                await keeper.keep_milestone(ended, whole)
            async with transaction(self._engine) as connection:
                await trainings.note_data(connection, UUID(step.training), {"network": reason})
        return TrainingRun(len(calls.queries), ended, began)

    @activity.defn(name="judge_training")
    async def judge_training(self, step: LearnStep) -> TrainingVerdict:
        """Judge a checkpoint on what it has not learned from; judging again gives the same verdict."""
        async with heartbeats():
            async with transaction(self._engine) as connection:
                best = await _best(connection, step)
                content = await checkpoints.content(connection, best.id)
            learned = storage.unpack(content, best.sha256)
            found = await self._collect(step)
            _, held_out = dataset.split(found.rows)
            prices = await self._prices(step.tenant, found.models)
            verdict = await asyncio.to_thread(
                judge.judge, learned, held_out, prices, datetime.now(UTC), _moment(step.until)
            )
            async with transaction(self._engine) as connection:
                figures = verdict.figures | {"curves": verdict.curves}
                await trainings.note_figures(connection, UUID(step.training), figures, verdict.reason)
        return TrainingVerdict(verdict.may_enter, verdict.reason)

    @activity.defn(name="register_checkpoint")
    async def register_checkpoint(self, step: LearnStep) -> TrainingOutcome:
        """Put the training's best to work in shadow, once."""
        id = UUID(step.training)
        async with transaction(self._engine) as connection:
            training = await trainings.find(connection, step.tenant, id)
            best = await _best(connection, step)
            content = await checkpoints.content(connection, best.id)
            storage.check(content, best.sha256)
            figures = {key: value for key, value in training.figures.items() if key != "curves"}
            manifest = storage.manifest(step.seed, training.arguments, training.data, figures)
            done = await checkpoints.register(
                connection, step.tenant, id, best.epoch, content, best.sha256, manifest, step.by
            )
            await trainings.end(connection, step.tenant, id, "registered", training.reason, step.by)
        return TrainingOutcome(step.training, "registered", training.reason, done.number)

    @activity.defn(name="end_training")
    async def end_training(self, end: TrainingEnd) -> None:
        """Close a training without a checkpoint, and say why."""
        step = end.training
        async with transaction(self._engine) as connection:
            # It may have failed before it was opened.
            await trainings.start(
                connection,
                UUID(step.training),
                step.tenant,
                _moment(step.until),
                step.seed,
                step.by,
                {},
                simulated=step.simulated,
            )
            await trainings.end(connection, step.tenant, UUID(step.training), end.status, end.reason, step.by)

    async def _collect(self, step: LearnStep) -> Collection:
        now = datetime.now(UTC)
        kept: deque[OutcomeRow] = deque(maxlen=MAX_ROWS)
        refused: Counter[str] = Counter()
        by_another = 0
        rows = outcomes.every(self._engine, step.tenant, _moment(step.until), simulated=step.simulated)
        async for page in rows:
            good, wrong = dataset.validate(page, now)
            refused += wrong
            kept.extend(good)
            by_another += sum(row.answered_by not in ("", row.model) for row in good)
        return Collection(list(kept), refused, by_another)

    async def _prices(self, tenant: str, models: list[str]) -> Mapping[str, PricePair]:
        async with transaction(self._engine) as connection:
            own = await routing_prices.own(connection, tenant)
        return await routing_prices.general(models) | own


class TrainingStore:
    """Stores a training's progress, also from the thread that it runs in."""

    def __init__(self, engine: AsyncEngine, step: LearnStep) -> None:
        self._engine, self._step, self._loop = engine, step, asyncio.get_running_loop()
        self._id = UUID(step.training)
        self._over = threading.Event()

    def stop(self) -> None:
        """A thread cannot be cancelled: it ends at its next epoch."""
        self._over.set()

    async def fitted(self) -> Checkpoint | None:
        """Without a network, where an attempt before this one got so far."""
        async with transaction(self._engine) as connection:
            for one in await checkpoints.of_training(connection, self._id):
                if (one.kind, one.epoch) == ("milestone", 0):
                    return storage.unpack(await checkpoints.content(connection, one.id), one.sha256)
        return None

    async def last_epoch(self) -> tuple[int, bytes | None]:
        """(the epoch, the state after it); nothing where there was none, or what was kept is broken."""
        async with transaction(self._engine) as connection:
            last = await checkpoints.last_of_training(connection, self._id, "training")
            if last is None:
                return 0, None
            content = await checkpoints.content(connection, last.id)
        storage.check(content, last.sha256)
        return last.epoch, content

    async def keep_milestone(self, epoch: int, found: Checkpoint) -> None:
        content, sha256 = await asyncio.to_thread(storage.pack, found)
        async with transaction(self._engine) as connection:
            await checkpoints.save_milestone(
                connection, self._step.tenant, self._id, epoch, content, sha256, {"code": storage.code()}
            )

    def on_epoch(self, epoch: int, state: bytes, row: dict[str, float]) -> None:
        """Run in the training's thread; return when the epoch is stored."""
        if self._over.is_set():
            raise RuntimeError("the training was cancelled")
        kept = asyncio.run_coroutine_threadsafe(self._keep_epoch(epoch, state, row), self._loop)
        kept.result(SAVED_SECONDS)  # the loop may have ended, and would never answer

    async def _keep_epoch(self, epoch: int, state: bytes, row: dict[str, float]) -> None:
        # One transaction: who goes on finds the state and its point of the curve, or neither.
        async with transaction(self._engine) as connection:
            await checkpoints.save_training(
                connection, self._step.tenant, self._id, epoch + 1, state, storage.sha256_of(state), {}
            )
            await trainings.note_epoch(connection, self._id, {**row, "epoch": epoch + 1})


def _too_little(rows: list[OutcomeRow], found: Collection) -> str:
    """Return why there is too little to learn from; empty if there is enough."""
    if len(rows) < MIN_OUTCOMES:
        told = ", ".join(f"{count} {reason}" for reason, count in found.refused.most_common(3))
        return (
            f"found {len(rows)} outcomes to learn from, beside those held out; expected {MIN_OUTCOMES}."
            + (f" Refused: {told}." if told else "")
            + " Steps whose answers are reviewed, checked by a schema, or told of by people have outcomes."
        )
    if len(models := {row.model for row in rows}) < MIN_MODELS:
        alone = ", ".join(sorted(models))
        return f"found outcomes of {alone} alone; expected {MIN_MODELS} models to choose from."
    # The same step asked again and again teaches one thing.
    cells = {(dataset.text_of(row), dataset.category_of(row), row.model) for row in rows}
    if len(cells) < MIN_OUTCOMES:
        return f"found outcomes of {len(cells)} different steps and models; expected {MIN_OUTCOMES}."
    return ""


async def _best(connection: AsyncConnection, step: LearnStep) -> CheckpointSummary:
    """Return the best checkpoint of the training."""
    best = await checkpoints.last_of_training(connection, UUID(step.training), "milestone")
    assert best is not None, "what was not trained is neither judged nor registered"
    return best


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
