"""The exact cache: outputs that a tenant's steps may take again instead of paying for them again."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.runs.executions import AttemptOutcome
from schema.tables.runs import agent_executions as executions
from schema.tables.runs import step_cache


def key_of(parts: dict[str, Any]) -> str:
    """The key of an output: the sha256 of everything that decides it, as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# Built once: that takes longer than Postgres takes to answer it.
_FIND = (
    select(
        executions.c.id,
        executions.c.output,
        executions.c.model_id,
        executions.c.provider,
        executions.c.simulated,
        executions.c.finish_reason,
        executions.c.completed_at,
    )
    .join(step_cache, step_cache.c.execution_id == executions.c.id)
    .where(
        step_cache.c.tenant_id == bindparam("of_tenant"),
        step_cache.c.key == bindparam("of_key"),
        executions.c.tenant_id == bindparam("of_tenant"),
        executions.c.status == "completed",
    )
)


async def find(
    connection: AsyncConnection, tenant: str, key: str, max_age_seconds: float
) -> AttemptOutcome | None:
    """Return the outcome of an equal recent execution of the tenant, at no cost; None if there is none."""
    row = (await connection.execute(_FIND, {"of_tenant": tenant, "of_key": key})).first()
    if row is None or (datetime.now(UTC) - row.completed_at).total_seconds() > max_age_seconds:
        return None
    return AttemptOutcome(
        row.output,
        row.model_id,
        row.provider,
        simulated=row.simulated,
        reused_from=row.id,
        finish_reason=row.finish_reason,
    )


async def store(connection: AsyncConnection, tenant: str, key: str, execution: UUID) -> None:
    """Let the output of a completed execution be taken again; the latest one counts."""
    await connection.execute(
        upsert(step_cache)
        .values(tenant_id=tenant, key=key, execution_id=execution, stored_at=datetime.now(UTC))
        .on_conflict_do_update(
            index_elements=["tenant_id", "key"],
            set_={"execution_id": execution, "stored_at": datetime.now(UTC)},
        )
    )


async def forget(connection: AsyncConnection, older_than: datetime, limit: int) -> int:
    """Delete entries that were stored before a date, the oldest first; how many. The executions stay."""
    oldest = (
        select(step_cache.c.tenant_id, step_cache.c.key)
        .where(step_cache.c.stored_at < older_than)
        .order_by(step_cache.c.stored_at)
        .limit(limit)
    )
    return (
        await connection.execute(
            delete(step_cache).where(tuple_(step_cache.c.tenant_id, step_cache.c.key).in_(oldest))
        )
    ).rowcount
