"""Similar past work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from memory.client import WeaviateMemory, answering

REUSE_CERTAINTY: Final = 0.85
REUSE_QUALITY: Final = 0.9


def cosine_of(certainty: float) -> float:
    """Weaviate's certainty is (1 + cosine) / 2: 0.85 is a cosine of 0.70."""
    return 2 * certainty - 1


@dataclass(frozen=True)
class Hit:
    collaboration: UUID
    cosine: float
    task: str
    final_output: str
    quality_score: float | None


async def find_similar_collaboration(
    memory: WeaviateMemory,
    tenant: str,
    task_embedding: Sequence[float],
    encoder: str,
    threshold: float = REUSE_CERTAINTY,
    *,
    simulated: bool = False,
) -> str | None:
    """The output of the most similar good collaboration (S3-20), a real one or a simulated one; None when
    nothing is close and good.

    The threshold is a certainty. It finds candidates and proves nothing: one in four is another task.
    """
    hits = await _search(
        memory, tenant, task_embedding, encoder, 1, cosine_of(threshold), REUSE_QUALITY, simulated
    )
    return hits[0].final_output if hits else None


async def similar(
    memory: WeaviateMemory,
    tenant: str,
    embedding: Sequence[float],
    encoder: str,
    limit: int,
    min_cosine: float,
    *,
    simulated: bool,
) -> list[Hit]:
    """The nearest collaborations of a tenant, real ones or simulated ones, best first: hints, whatever their
    quality."""
    return await _search(memory, tenant, embedding, encoder, limit, min_cosine, None, simulated)


async def _search(
    memory: WeaviateMemory,
    tenant: str,
    embedding: Sequence[float],
    encoder: str,
    limit: int,
    min_cosine: float,
    above_quality: float | None,
    simulated: bool,
) -> list[Hit]:
    client = await memory.client()
    from weaviate.classes.query import Filter, MetadataQuery
    from weaviate.exceptions import WeaviateQueryError

    # Vectors of another encoder lie in another space: their distances mean nothing.
    filters = Filter.by_property("encoder").equal(encoder)
    filters = filters & Filter.by_property("simulated").equal(simulated)
    if above_quality is not None:
        filters = filters & Filter.by_property("quality_score").greater_than(above_quality)
    with answering():
        collection = client.collections.use(memory.collaborations)
        try:
            found = await collection.with_tenant(tenant).query.near_vector(
                list(embedding),
                distance=1 - min_cosine,
                limit=limit,
                filters=filters,
                return_metadata=MetadataQuery(distance=True),
            )
        except WeaviateQueryError:
            # A tenant comes into being with its first memory.
            if await client.collections.exists(memory.collaborations) and not await collection.tenants.exists(
                tenant
            ):
                return []
            raise
    return [_hit(item) for item in found.objects]


def _hit(item: Any) -> Hit:
    kept = item.properties
    return Hit(
        item.uuid, 1 - item.metadata.distance, kept["task"], kept["final_output"], kept["quality_score"]
    )
