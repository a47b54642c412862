"""An answer as server-sent events, and the ways in which a script lets them go wrong."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.types import Send

from infra.simulator.ledger import Ledger
from infra.simulator.pacing import AnswerTiming, DropError
from infra.simulator.wire import DONE, TOKENS_PER_CHUNK, Reply, encoded, error_of, start, write

HEADERS: Final = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
# Odd on purpose: no event ends where a packet does.
ODD_BYTES: Final = 7
NOISE: Final = ": keep-alive\n\nretry: 3000\n: another\n"


async def stream(
    ledger: Ledger, reply: Reply, pace: AnswerTiming, headers: Mapping[str, str], send: Send
) -> None:
    """Send the answer as it is due; what left before an end of any kind is billed."""
    sent, count, call, fault = 0, len(reply.tokens), reply.call, reply.fault
    one_by_one = fault is not None and fault.kind == "pace"
    size = 1 if one_by_one else TOKENS_PER_CHUNK
    if one_by_one:
        call.sent_at = []
    writer = _Writer(send, fault.variant if fault is not None else "")
    try:
        await start(send, 200, {**HEADERS, **headers})
        await writer.events([reply.opening()])
        while True:
            if await pace.take_break(sent):
                await writer.go_wrong(reply)
            if sent >= count:
                break
            begin, sent = sent, await pace.until(sent + 1)
            # Counted before it leaves: once handed over it may reach the caller, and then it was billed.
            if one_by_one:
                call.sent_at += [time.time()] * (sent - begin)  # type: ignore[operator]
            await writer.events(reply.events(begin, sent, size))
        if fault is not None and fault.kind == "end_early":
            ledger.end(call, "broken", reply.input_tokens, sent)
            await writer.finish([])
            return
        # A caller that has read the finish may hang up at once; the answer is complete all the same.
        ledger.end(call, "finished", reply.input_tokens, sent)
        await writer.finish(reply.closing())
    except EndedError:
        ledger.end(call, "broken", reply.input_tokens, sent)
        await write(send, b"")
    except DropError:
        ledger.end(call, "broken", reply.input_tokens, sent)
        raise
    finally:
        ledger.end(call, "abandoned", reply.input_tokens, sent)


class EndedError(Exception):
    """The stream ends here in good order, though the answer is not complete."""


@dataclass(slots=True)
class _Writer:
    """Events on their way into packets, in the manner that a script wants."""

    send: Send
    variant: str
    held: list[str] = field(default_factory=list)

    async def events(self, events: list[str]) -> None:
        if self.variant == "joined":
            self.held += events
            if len(self.held) < 2:
                return
            events, self.held = self.held, []
        elif self.variant == "comments":
            events = [NOISE + event for event in events]
        text = "".join(events)
        data = encoded(text.replace("\n", "\r\n") if self.variant == "crlf" else text)
        if self.variant != "split":
            await write(self.send, data, more=True)
            return
        for first in range(0, len(data), ODD_BYTES):
            await write(self.send, data[first : first + ODD_BYTES], more=True)
            # Packets written at one go would be put together again.
            await asyncio.sleep(0)

    async def go_wrong(self, reply: Reply) -> None:
        """The broken event itself, of the variants that have one."""
        match self.variant:
            case "invalid_json":
                half = reply.opening().strip()
                await write(self.send, encoded(half[: len(half) * 2 // 3] + "\n\n"), more=True)
            case "error":
                error = error_of(500, "server_error", "The server had an error in mid-stream (scripted).")
                await write(self.send, encoded(f"data: {json.dumps({'error': error})}\n\n"), more=True)
                raise EndedError

    async def finish(self, events: list[str]) -> None:
        await self.events([*events, DONE])
        if self.held:
            await write(self.send, encoded("".join(self.held)), more=True)
        await write(self.send, b"")
