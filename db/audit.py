"""The audit log: who did what."""

from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.log import audit_log


async def append(
    connection: AsyncConnection, tenant: str, actor: str, action: str, subject: str, **detail: Any
) -> None:
    await connection.execute(
        insert(audit_log).values(tenant_id=tenant, actor=actor, action=action, subject=subject, detail=detail)
    )
