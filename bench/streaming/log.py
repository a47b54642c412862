"""How many tokens a second the log takes and hands on to watchers, in one process."""

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from activities.agent.tokens import TokenLog
from api.live.readers import Hub
from db.definitions import definitions
from db.engine import transaction
from db.runs import collaborations, executions
from db.runs.collaborations import Run
from db.runs.executions import Assignment, AttemptOutcome
from db.wakeups import Bell
from schema.live import TokensCame
from schema.rules.validate import validate
from schema.temporal.runs import ENGINE
from schema.temporal.steps import StepRequest
from tests.support.stack import Stack

_ASK = {
    "name": "bench-log",
    "agents": {"a": {"role": "coder"}},
    "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "p"}},
}
_WORKER = Assignment("agent", "a", "coder", "openai/gpt-4o-mini")
_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Throughput:
    rows_per_s: float
    """Rows persisted and delivered to a watcher, from the first append to the last delivery."""
    delivered: bool
    """Whether every watcher was told every character, in order."""


async def throughput(on: Stack, *, runs: int, rows: int, size: int) -> Throughput:
    """`runs` agents say `rows` rows of `size` tokens each, as fast as the log takes them."""
    url = on.settings.database_url
    bell, hub = Bell(url), Hub(url)
    log = TokenLog(url, bell)
    try:
        begun = [await _begin(on) for _ in range(runs)]
        heard = [asyncio.create_task(_hear(hub, UUID(request.collaboration))) for request, _ in begun]
        while hub.watchers < runs:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        said = await asyncio.gather(*(_speak(log, on, *one, rows, size) for one in begun))
        got = await asyncio.gather(*heard)
        return Throughput(runs * rows / (time.monotonic() - began), said == got)
    finally:
        await log.close()
        await bell.close()
        await hub.close()


async def _begin(on: Stack) -> tuple[StepRequest, executions.Claim]:
    id = uuid.uuid4()
    async with transaction(on.engine) as connection:
        version, _ = await definitions.save(connection, "default", validate(_ASK).definition, "bench")
        run = Run(
            id=id,
            temporal_workflow_id=f"log-{id}",
            tenant="default",
            input={},
            task="t",
            traceparent=_TRACEPARENT,
            parent_span_id=None,
            started_at=datetime.now(UTC),
            version_id=version.id,
            name=version.name,
            version=version.number,
            sha256=version.sha256,
            engine=ENGINE,
        )
        await collaborations.create(connection, run, None, None)
        request = StepRequest(str(id), "default", "ask", _TRACEPARENT)
        return request, await executions.claim(connection, request, _WORKER)


async def _speak(
    log: TokenLog, on: Stack, request: StepRequest, claim: executions.Claim, rows: int, size: int
) -> str:
    text = "token " * size
    for seq in range(rows):
        await log.append(request.tenant, request.collaboration, claim.execution, seq, text, [])
        if seq % 50 == 49:
            await asyncio.sleep(0)  # as a provider's answer would let others speak
    await log.flush()
    async with transaction(on.engine) as connection:
        await executions.complete(connection, request, _WORKER, claim, AttemptOutcome("done", model="m"))
    return text * rows


async def _hear(hub: Hub, run: UUID) -> str:
    heard: list[str] = []
    async with hub.watch(run) as watcher:
        async for lives in watcher:
            for live in lives:
                if isinstance(live.event, TokensCame):
                    heard.append(live.event.text)
                elif type(live.event).__name__ == "StepEnded":
                    return "".join(heard)
    return "".join(heard)
