"""Encode what agents say: the plainest of the streams.

Every text is sent twice: as the named event `agent_output`, and without a name, because an EventSource hands
named events to `addEventListener` only and unnamed ones to `onmessage`.
"""

import json
from typing import Any, Final

from api.dialects.frames import CatchUp, Dialect, DialectFrame, as_sse, failure
from schema.live import LiveEvent, RunEnded, StepEnded, TokensCame


def _blocks_of(run: str, event: LiveEvent) -> list[DialectFrame]:
    match event:
        case TokensCame() if event.text:
            named = _block("agent_output", agent=event.agent, content=event.text)
            return [named, DialectFrame(named.data)]
        case StepEnded(kind="agent"):
            # Superseded and failed: what the agent said in this attempt is to be forgotten.
            return [
                _block(
                    "agent_done",
                    agent=event.agent,
                    step=event.path,
                    status=event.status,
                    model=event.model,
                    cost_usd=event.cost_usd,
                    simulated=event.simulated,
                )
            ]
        case RunEnded(status="completed"):
            return [
                _block(
                    "done",
                    status=event.status,
                    cost_usd=event.cost_usd,
                    simulated=event.simulated,
                    output=event.output,
                )
            ]
        case RunEnded():
            return _refused(event.error_code or event.status, failure(event))
        case _:
            return []


def started(id: str, run: str, warnings: list[str]) -> DialectFrame:
    """Return the first block, sent at once so that a client that is cut off finds its run instead of starting
    another."""
    return _block("started", id=id, run_id=run, warnings=warnings)


def _joined(past: CatchUp) -> list[DialectFrame]:
    return []


def _refused(code: str, message: str) -> list[DialectFrame]:
    return [_block("error", code=code, message=message)]


def _block(name: str, **data: Any) -> DialectFrame:
    return DialectFrame(json.dumps(data, ensure_ascii=False, separators=(",", ":")), name)


SEED: Final = Dialect("seed", _blocks_of, _joined, _refused, as_sse)
