"""Weaviate's collections: collaborations, one shard per tenant, and the projection's place in the log."""

from memory.client import WeaviateMemory, answering


async def ensure(memory: WeaviateMemory) -> None:
    """Create what is missing. A new `Collaboration` starts the projection from the beginning, and one of a
    release that did not tell simulated runs from real ones is made anew."""
    client = await memory.client()
    from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances

    with answering():
        if await client.collections.exists(memory.collaborations):
            known = await client.collections.use(memory.collaborations).config.get(simple=True)
            if "simulated" not in {found.name for found in known.properties}:
                await client.collections.delete(memory.collaborations)
        if not await client.collections.exists(memory.collaborations):
            # Before the collection it belongs to: a crash between the two must not keep the old place.
            await client.collections.delete(memory.projections)
            await client.collections.create(
                memory.collaborations,
                description="Completed collaborations, found again by their task.",
                properties=[
                    Property(name="task", data_type=DataType.TEXT),
                    Property(name="final_output", data_type=DataType.TEXT),
                    Property(name="quality_score", data_type=DataType.NUMBER),
                    Property(name="cost_usd", data_type=DataType.NUMBER),
                    Property(name="name", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                    Property(name="encoder", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                    Property(name="collaboration_id", data_type=DataType.UUID),
                    Property(name="simulated", data_type=DataType.BOOL),
                ],
                vector_config=Configure.Vectors.self_provided(
                    vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)
                ),
                multi_tenancy_config=Configure.multi_tenancy(
                    enabled=True, auto_tenant_creation=True, auto_tenant_activation=True
                ),
            )
        if not await client.collections.exists(memory.projections):
            await client.collections.create(
                memory.projections,
                description="How far a projection has come in the event log.",
                properties=[
                    # Text, because Weaviate's JSON holds integers as floats.
                    Property(name="xid", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                    Property(name="seq", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                ],
                vector_config=Configure.Vectors.self_provided(),
            )
