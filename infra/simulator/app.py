"""The HTTP face: OpenAI's chat completions, plus the controls of the simulator under /_simulator."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.simulator.answers import answer_text, count_input_tokens, split_tokens
from infra.simulator.faults import Fault, FaultPlan, RuleError
from infra.simulator.ledger import Call, Ledger
from infra.simulator.skills import SKILL_TABLE, traits_of

MARK: Final = {"x-facilitair-simulated": "true"}
FINGERPRINT: Final = "facilitair-simulator"
CALL_HEADER: Final = "x-facilitair-call"
TOKENS_PER_CHUNK: Final = 8
# What is due is sent at most this often, so thousands of streams do not mean a wake-up per token.
TICK_SECONDS: Final = 0.05
LONGEST_SILENCE_SECONDS: Final = 3600.0


class DropError(Exception):
    """Raised into the server to break a connection on purpose."""


@dataclass(slots=True)
class Simulator:
    """The state of one server, all of it in memory."""

    seed: int
    speed: float
    faults: FaultPlan
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer on its way out."""

    id: str
    created: int
    model: str
    tokens: list[str]
    finish_reason: str
    input_tokens: int
    include_usage: bool
    fault: Fault | None
    call: Call

    def usage(self) -> dict[str, int]:
        made = len(self.tokens)
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": made,
            "total_tokens": self.input_tokens + made,
        }

    def head(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


def make_app(seed: int = 0, speed: float = 1.0) -> Starlette:
    """The server; `speed` divides every delay, 0 and infinity mean none at all."""
    simulator = Simulator(seed, speed, FaultPlan(), Ledger())

    async def complete(request: Request) -> Response:
        return await _complete(simulator, request)

    async def calls(request: Request) -> Response:
        if request.method == "DELETE":
            simulator.ledger.clear()
            return JSONResponse({"cleared": True}, headers=MARK)
        return JSONResponse(simulator.ledger.as_json(request.query_params.get("key")), headers=MARK)

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            simulator.faults.clear()
            return JSONResponse({"cleared": True}, headers=MARK)
        try:
            added = simulator.faults.add(await request.json())
        except (RuleError, json.JSONDecodeError) as error:
            return _refusal(400, "bad_rule", str(error))
        return JSONResponse({"added": added}, headers=MARK)

    async def models(_request: Request) -> Response:
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "facilitair-simulator"}
            for name in SKILL_TABLE
        ]
        return JSONResponse({"object": "list", "data": rows}, headers=MARK)

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "simulated": True}, headers=MARK)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/_simulator/calls", calls, methods=["GET", "DELETE"]),
            Route("/_simulator/faults", faults, methods=["POST", "DELETE"]),
        ]
    )


async def _complete(simulator: Simulator, request: Request) -> Response:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return _refusal(400, "invalid_json", "The body is not JSON.")
    problem = _problem(body)
    if problem:
        return _refusal(400, "invalid_request_error", problem)
    model, messages = body["model"], body["messages"]
    call = simulator.ledger.begin(model, request.headers.get(CALL_HEADER, ""), str(body.get("user") or ""))
    fault = simulator.faults.take(model, "\n".join(str(m.get("content")) for m in messages))
    if fault is not None:
        call.fault = fault.kind
    if fault is not None and fault.kind in ("rate_limit", "server_error", "refuse"):
        simulator.ledger.end(call, "refused", 0, 0)
        return _scripted_refusal(fault)
    reply = _reply(simulator, body, call, fault)
    if body.get("stream"):
        # The booking happens where the stream ends, however it ends.
        return StreamingResponse(
            _stream(simulator, reply),
            media_type="text/event-stream",
            headers={**MARK, "cache-control": "no-cache"},
        )
    return await _whole(simulator, reply)


def _problem(body: object) -> str:
    if not isinstance(body, Mapping) or not isinstance(body.get("model"), str) or not body["model"]:
        return "model is missing."
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, Mapping) for m in messages):
        return "messages must be a non-empty list of objects."
    return ""


def _reply(simulator: Simulator, body: Mapping[str, object], call: Call, fault: Fault | None) -> Reply:
    messages = body["messages"]
    assert isinstance(messages, list)
    text = answer_text(simulator.seed, call.model, messages, body.get("response_format"))
    if fault is not None and fault.kind == "bad_json":
        text = text[: max(1, len(text) // 2)]
    if fault is not None and (fault.kind == "answer" or (fault.kind == "pace" and fault.text)):
        text = fault.text
    tokens = split_tokens(text)
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    cut = isinstance(most, int) and len(tokens) > most
    options = body.get("stream_options")
    return Reply(
        id=f"chatcmpl-simulated-{time.time_ns():x}-{call.number}",
        created=int(time.time()),
        model=call.model,
        tokens=tokens[:most] if cut and isinstance(most, int) else tokens,
        finish_reason="length" if cut else "stop",
        input_tokens=count_input_tokens(messages),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        fault=fault,
        call=call,
    )


async def _whole(simulator: Simulator, reply: Reply) -> Response:
    sent = 0
    try:
        async for _, upto in _paced(simulator.speed, reply):
            sent = upto
    except DropError:
        simulator.ledger.end(reply.call, "broken", reply.input_tokens, sent)
        raise
    finally:
        simulator.ledger.end(reply.call, "finished", reply.input_tokens, len(reply.tokens))
    message = {"role": "assistant", "content": "".join(reply.tokens), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    body = reply.head("chat.completion") | {"choices": [choice], "usage": reply.usage()}
    return JSONResponse(body, headers=MARK)


async def _stream(simulator: Simulator, reply: Reply) -> AsyncIterator[str]:
    """The answer as server-sent events; what left before an end of any kind is billed."""
    sent = 0
    paced = reply.fault is not None and reply.fault.kind == "pace"
    size = 1 if paced else TOKENS_PER_CHUNK
    try:
        yield _event(reply, {"role": "assistant", "content": "", "refusal": None})
        async for start, upto in _paced(simulator.speed, reply):
            # Counted before it leaves: once handed over it may reach the caller, and then it was billed.
            sent = upto
            if paced:
                reply.call.sent_at += [time.time()] * (upto - start)
            yield "".join(
                _event(reply, {"content": "".join(reply.tokens[i : min(i + size, upto)])})
                for i in range(start, upto, size)
            )
        if reply.fault is not None and reply.fault.kind == "end_early":
            simulator.ledger.end(reply.call, "broken", reply.input_tokens, sent)
            yield "data: [DONE]\n\n"
            return
        # A caller that has read the finish may hang up at once; the answer is complete all the same.
        simulator.ledger.end(reply.call, "finished", reply.input_tokens, sent)
        closing = _event(reply, {}, reply.finish_reason)
        if reply.include_usage:
            chunk = reply.head("chat.completion.chunk") | {"choices": [], "usage": reply.usage()}
            closing += f"data: {json.dumps(chunk)}\n\n"
        yield closing + "data: [DONE]\n\n"
    except DropError:
        simulator.ledger.end(reply.call, "broken", reply.input_tokens, sent)
        raise
    finally:
        simulator.ledger.end(reply.call, "abandoned", reply.input_tokens, sent)


async def _paced(speed: float, reply: Reply) -> AsyncIterator[tuple[int, int]]:
    """(first, end) of the tokens that are due, as time passes; the scripted fault happens in here."""
    traits, fault, count = traits_of(reply.model), reply.fault, len(reply.tokens)
    instant = speed == 0 or speed == float("inf")
    start = time.monotonic() + (0.0 if instant else traits.first_token_ms / 1000 / speed)
    per_second = traits.tokens_per_second * (1.0 if instant else speed)
    stop_at = _breaking_point(fault, count)
    tick = TICK_SECONDS if speed <= 1 else TICK_SECONDS / speed
    if fault is not None and fault.kind == "slow":
        start += fault.delay_seconds
    if fault is not None and fault.kind == "pace":
        instant, tick, per_second = False, 0.0, fault.tokens_per_second
        start = time.monotonic() + fault.delay_seconds
    sent = 0
    while True:
        now = time.monotonic()
        if now < start:
            await asyncio.sleep(start - now)
            continue
        due = count if instant else min(count, int((now - start) * per_second) + 1)
        due = due if stop_at is None else min(due, stop_at)
        if due > sent:
            yield sent, due
            sent = due
        if stop_at is not None and sent >= stop_at:
            await _break(fault)
        if sent >= count:
            return
        await asyncio.sleep(max(tick, start + sent / per_second - time.monotonic() + 1e-4))


def _breaking_point(fault: Fault | None, count: int) -> int | None:
    if fault is None or fault.kind not in ("drop_mid_stream", "timeout"):
        return None
    usual = 0 if fault.kind == "timeout" else count // 2
    return min(count, usual if fault.after_tokens is None else fault.after_tokens)


async def _break(fault: Fault | None) -> None:
    if fault is not None and fault.kind == "timeout":
        await asyncio.sleep(LONGEST_SILENCE_SECONDS)
    # Let what was written leave before the connection goes.
    await asyncio.sleep(0.01)
    raise DropError


def _event(reply: Reply, delta: Mapping[str, object], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = reply.head("chat.completion.chunk") | {"choices": [choice]}
    if reply.include_usage:
        chunk["usage"] = None
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _scripted_refusal(fault: Fault) -> Response:
    match fault.kind:
        case "rate_limit":
            response = _refusal(429, "rate_limit_exceeded", "Rate limit reached (scripted).")
            response.headers["retry-after"] = f"{fault.retry_after_seconds:g}"
            return response
        case "server_error":
            return _refusal(500, "server_error", "The server had an error (scripted).")
        case _:
            return _refusal(fault.status, fault.error_code, f"Refused with {fault.error_code} (scripted).")


def _refusal(status: int, code: str, message: str) -> Response:
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "requests"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=MARK)
