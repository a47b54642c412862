"""Acts of people that another server carries out: in the audit log before they are done, and after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from api.state import ApiState
from db import audit
from schema.errors import FacilitairError


@asynccontextmanager
async def audited(
    state: ApiState, tenant: str, actor: str, action: str, subject: str, **detail: Any
) -> AsyncIterator[None]:
    """Write down who wants to do what, let it be done, and write down what came of it.

    Temporal does it, so it cannot be one transaction with the row. A process that is killed in between leaves
    a row whose `state` is `wanted`, and no other of its `act`: whether it was done, Temporal knows.
    """
    act = str(uuid4())

    async def note(what: str, **more: Any) -> None:
        async with state.transaction() as connection:
            noted = {**detail, "act": act, "state": what, **more}
            await audit.append(connection, tenant, actor, action, subject, **noted)

    await note("wanted")
    try:
        yield
    except FacilitairError as error:
        await note("refused", code=error.code)
        raise
    except Exception as error:
        await note("failed", code=type(error).__name__)
        raise
    await note("done")
