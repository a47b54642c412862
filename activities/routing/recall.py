"""Find similar past work for a step: in Weaviate, else in Postgres, else none. It never fails a run."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.routing import simulated as routing_simulated
from activities.runs.context import facts_of
from activities.spans import span
from db.definitions import catalogue
from db.engine import transaction
from db.runs import vectors
from db.runs.collaborations import Run
from gateway.destinations import Destinations
from memory import recall as weaviate
from memory.client import WeaviateMemory
from memory.projection import Encode
from router.data.encoder import ENCODER
from schema import telemetry
from schema.language.steps import AgentStep, Recall
from schema.language.templates import as_text
from schema.temporal.steps import RecallResult, StepRequest

WEAVIATE_TIMEOUT_SECONDS: Final = 2.0
MAX_OUTPUT_CHARACTERS: Final = 4_000

Hit = dict[str, Any]


@dataclass(frozen=True)
class RecallSearch:
    """A step's search for past work, of real runs or of simulated ones like itself."""

    run: Run
    wanted: Recall
    simulated: bool


class RecallActivity:
    def __init__(
        self,
        engine: AsyncEngine,
        memory: WeaviateMemory,
        encode: Encode,
        destinations: Destinations,
        is_loaded: Callable[[], bool] = lambda: True,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._encode = encode
        self._to = destinations
        self._is_loaded = is_loaded

    @activity.defn(name="recall")
    async def recall(self, request: StepRequest) -> RecallResult:
        """Keep the hints for a step. Asked again, it may find newer ones; the first are what counts."""
        with span(
            f"{telemetry.RETRIEVAL} {request.step}",
            request,
            {
                telemetry.OPERATION: telemetry.RETRIEVAL,
                telemetry.STEP: request.step,
                telemetry.ITERATION: request.iteration,
            },
        ) as current:
            async with transaction(self._engine) as connection:
                run, found = await facts_of(connection, request.collaboration)
                known = await catalogue.of_tenant(connection, run.tenant)
            step = found.steps[request.step]
            assert isinstance(step, AgentStep), "only agents recall"
            agent = found.definition.agents[step.agent]
            search = RecallSearch(
                run,
                step.recall if isinstance(step.recall, Recall) else Recall(),
                routing_simulated.is_simulated(self._to, agent, known, run.tenant),
            )
            source, hits = await self._search(search)
            async with transaction(self._engine) as connection:
                await vectors.record_recall(connection, request, source, hits)
            current.set_attributes({telemetry.SOURCE: source, telemetry.HITS: len(hits)})
            return RecallResult(len(hits), source)

    async def _search(self, asked: RecallSearch) -> tuple[str, list[Hit]]:
        run, wanted = asked.run, asked.wanted
        if not self._is_loaded():
            return "none", []  # a hint is not worth waiting for torch
        try:
            [embedding] = await asyncio.to_thread(self._encode, [run.task])
        except Exception:
            activity.logger.exception("Encoder failed, step continues without hints")
            return "none", []
        sources: list[tuple[str, Callable[[RecallSearch, list[float]], Awaitable[list[Hit]]]]] = [
            ("weaviate", self._from_weaviate),
            ("pgvector", self._from_postgres),
        ]
        answered = "none"
        for source, search in sources:
            try:
                found = await search(asked, embedding)
            except Exception as error:
                # Whatever it was: a hint is not worth a run.
                activity.logger.warning(
                    "Recall source did not answer", extra={"source": source, "error": str(error)}
                )
            else:
                hits = [hit for hit in found if hit["collaboration"] != str(run.id)][: wanted.limit]
                answered = source
                if hits:
                    return source, hits
                # Weaviate may have only just arrived: Postgres knows what it has still to learn.
        return answered, []

    async def _from_weaviate(self, asked: RecallSearch, embedding: list[float]) -> list[Hit]:
        wanted = asked.wanted
        # One more than wanted, for the run itself may be among them.
        async with asyncio.timeout(WEAVIATE_TIMEOUT_SECONDS):
            found = await weaviate.similar(
                self._memory,
                asked.run.tenant,
                embedding,
                ENCODER,
                wanted.limit + 1,
                wanted.threshold,
                simulated=asked.simulated,
            )
        return [
            _hit(hit.collaboration, hit.cosine, hit.task, hit.final_output, hit.quality_score)
            for hit in found
        ]

    async def _from_postgres(self, asked: RecallSearch, embedding: list[float]) -> list[Hit]:
        wanted = asked.wanted
        async with transaction(self._engine) as connection:
            found = await vectors.nearest(
                connection,
                asked.run.tenant,
                embedding,
                wanted.limit + 1,
                wanted.threshold,
                simulated=asked.simulated,
            )
        return [
            _hit(kept.collaboration, cosine, kept.task, as_text(kept.final_output), kept.quality_score)
            for cosine, kept in found
        ]


def _hit(collaboration: UUID, cosine: float, task: str, output: str, quality: float | None) -> Hit:
    return {
        "collaboration": str(collaboration),
        "cosine": round(cosine, 6),
        "task": task[:MAX_OUTPUT_CHARACTERS],
        "final_output": output[:MAX_OUTPUT_CHARACTERS],
        "quality_score": quality,
    }
