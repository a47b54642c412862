"""Let some time pass."""

import asyncio


async def pause(seconds: float) -> dict[str, float]:
    """Come back after `seconds`, at most one: the arguments were checked before."""
    await asyncio.sleep(seconds)
    return {"seconds": seconds}
