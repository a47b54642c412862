"""A small model that was really learned, from made-up outcomes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.router import checkpoints, trainings
from router.checkpoints import storage
from router.checkpoints.storage import Checkpoint
from router.data import features
from router.data.arrays import Floats
from router.data.encoder import WIDTH
from router.data.outcomes import Calls
from router.statistics import model

MODELS = ("a/cheap", "a/good", "b/other")
PRICES = {"a/cheap": (0.1, 0.4), "a/good": (3.0, 15.0), "b/other": (1.0, 4.0)}
TOPICS = ("sort a list of numbers", "write an http server", "prove a theorem about graphs")
DOMAINS = ("algorithms", "backend", "general")


def embed(texts: Sequence[str]) -> Floats:
    """What a text is made of; the first word stands for its meaning."""
    rows = []
    for text in texts:
        meaning = np.random.default_rng(len(text.split()[0])).standard_normal(WIDTH)
        rows.append(np.append(meaning / np.linalg.norm(meaning), features.letters(text)))
    return np.array(rows)


def learned(
    better: str = "a/good",
    seed: int = 0,
    models: tuple[str, ...] = MODELS,
    embedding: Callable[[Sequence[str]], Floats] = embed,
) -> Checkpoint:
    """60 steps of three categories at which one of the models is right nearly always."""
    rng = np.random.default_rng(seed)
    texts = tuple(f"{TOPICS[i % 3]} number {i}" for i in range(60))
    shape = (60, len(models))
    chance = np.where(np.array(models) == better, 0.95, 0.35)
    calls = Calls(
        tuple(map(str, range(60))),
        texts,
        np.array([f"coder/{DOMAINS[i % 3]}" for i in range(60)]),
        models,
        (rng.random(shape) < chance).astype(float),
        rng.lognormal(1, 0.3, shape),
        rng.lognormal(5, 0.2, shape),
        rng.lognormal(6, 0.3, shape),
    )
    found, _ = model.fit(calls, embedding(texts), seed)
    return storage.of(found)


async def put_to_work(
    engine: AsyncEngine,
    found: Checkpoint,
    state: str = "all",
    tenant: str = "default",
    *,
    simulated: bool = True,
) -> checkpoints.CheckpointSummary:
    """Register a checkpoint, and promote it to a state; the simulator answers in most tests."""
    content, sha256 = storage.pack(found)
    training = uuid4()
    async with transaction(engine) as connection:
        await trainings.start(
            connection, training, tenant, datetime.now(UTC), 0, "test", {}, simulated=simulated
        )
        done = await checkpoints.register(connection, tenant, training, 1, content, sha256, {}, "test")
        await trainings.end(connection, tenant, training, "registered", "better", "test")
        assert done.number is not None
        while done.state != state:
            done = await checkpoints.promote(connection, tenant, done.number or 0, "test")
    return done
