"""Reading an answer off the wire: one shape, whether a provider speaks OpenAI's or litellm translates."""

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Piece:
    """One event of a streamed answer; empty fields were not in it."""

    text: str = ""
    finish_reason: str = ""
    model: str = ""
    response_id: str = ""
    fingerprint: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


class BrokenEventError(Exception):
    """A provider reported an error in the middle of its answer."""

    def __init__(self, message: str, status_code: int | None) -> None:
        super().__init__(message)
        self.status_code = status_code


async def read_events(response: Any) -> AsyncGenerator[Piece, None]:
    """Pieces from an HTTP response of server-sent events.

    The SDK would build a dozen objects for each event; with hundreds of streams that fills a processor.
    """
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            # Comments keep connections alive; every provider sends one line of data per event.
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _piece(json.loads(data))


async def read_translated(wrapper: Any) -> AsyncGenerator[Piece, None]:
    """Pieces from litellm's wrapper, for providers whose wire it translates."""
    async for chunk in wrapper:
        yield _translated(chunk, wrapper)


def _piece(event: Mapping[str, Any]) -> Piece:
    error = event.get("error")
    if error:
        told = error if isinstance(error, Mapping) else {"message": str(error)}
        status = told.get("code", told.get("status"))
        raise BrokenEventError(str(told.get("message", "")), status if isinstance(status, int) else None)
    choices = event.get("choices") or [{}]
    usage = event.get("usage") or {}
    return Piece(
        text=(choices[0].get("delta") or {}).get("content") or "",
        finish_reason=choices[0].get("finish_reason") or "",
        model=event.get("model") or "",
        response_id=event.get("id") or "",
        fingerprint=event.get("system_fingerprint") or "",
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
    )


def _translated(chunk: Any, wrapper: Any) -> Piece:
    choice = chunk.choices[0] if chunk.choices else None
    usage: Any = getattr(chunk, "usage", None)
    # The wrapper invents a finish and a usage where the provider sent none; its own notes tell the truth.
    finished = choice.finish_reason if choice is not None and wrapper.received_finish_reason else None
    counted = usage is not None and any(getattr(kept, "usage", None) for kept in wrapper.chunks)
    return Piece(
        text=(choice.delta.content or "") if choice is not None else "",
        finish_reason=finished or "",
        model=chunk.model or "",
        response_id=chunk.id or "",
        input_tokens=usage.prompt_tokens if counted else None,
        output_tokens=usage.completion_tokens if counted else None,
    )
