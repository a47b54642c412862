"""The name under which callers stand in the audit log."""

import asyncio
from typing import TYPE_CHECKING

from db import api_keys

if TYPE_CHECKING:
    from api.state import ApiState


class KeyName:
    """The name of the API key: read from Postgres once a process, never made of the key itself."""

    def __init__(self) -> None:
        self._name = ""
        self._reading = asyncio.Lock()

    async def of(self, state: "ApiState", tenant: str) -> str:
        """Return `key:<name>`, and `local` where no key is set."""
        key = state.settings.api_key
        if not key:
            return "local"
        async with self._reading:
            if not self._name:
                async with state.transaction() as connection:
                    self._name = await api_keys.name_of(connection, tenant, key)
        return f"key:{self._name}"
