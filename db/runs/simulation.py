"""Choose between real and simulated figures of a tenant, where the caller asks for neither."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ONLY: Final = text(
    "SELECT NOT EXISTS (SELECT 1 FROM model_calls WHERE tenant_id = :tenant AND NOT simulated)"
)


async def only(connection: AsyncConnection, tenant: str) -> bool:
    """Return whether no provider has ever been asked for a tenant."""
    return bool(await connection.scalar(_ONLY, {"tenant": tenant}))
