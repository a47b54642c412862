"""POST /v1/chat/completions, from the request to what was billed."""

import asyncio
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.types import Receive, Scope, Send

from infra.simulator.answers import count_input_tokens
from infra.simulator.faults import REFUSALS, FaultPlan, FaultRule
from infra.simulator.ledger import Ledger, SimulatedCall
from infra.simulator.limits import Rejection, SimulatedLimits
from infra.simulator.pacing import AnswerTiming, DropError, GoneError, Ticker, pace_of, while_listened
from infra.simulator.reply import compose, most_tokens
from infra.simulator.skills import traits_of
from infra.simulator.streams import stream
from infra.simulator.wire import Reply, error_body, respond, start, write

CALL_HEADER: Final = b"x-facilitair-call"
REQUEST_ID_HEADER: Final = b"x-client-request-id"
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
MAX_NAME: Final = 512
NO_JSON: Final = b"<html><body>502 Bad Gateway (scripted)</body></html>"


class BadRequestError(Exception):
    """Raised for a request that cannot be served."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Simulator:
    """The state of one server, all of it in memory."""

    seed: int
    speed: float
    faults: FaultPlan
    ledger: Ledger = field(default_factory=Ledger)
    limits: SimulatedLimits = field(default_factory=SimulatedLimits)
    ticker: Ticker = field(default_factory=Ticker)


async def complete(simulator: Simulator, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request; whatever comes of it stands in the ledger."""
    try:
        body = _checked(await _read(receive))
    except BadRequestError as error:
        await respond(send, 400, error_body(400, error.code, str(error)))
        return
    headers = dict(scope["headers"])
    call = simulator.ledger.begin(
        str(body["model"]),
        _name(headers, CALL_HEADER),
        str(body.get("user") or "")[:MAX_NAME],
        _name(headers, REQUEST_ID_HEADER),
    )
    call.stream = body.get("stream") is True
    messages = body["messages"]
    assert isinstance(messages, list)
    input_tokens = count_input_tokens(messages, body.get("tools"))
    admitted = simulator.limits.ask(call.model, input_tokens + (most_tokens(body) or 0), call.began_at)
    if isinstance(admitted, Rejection):
        await _reject(simulator, call, admitted, send)
        return
    try:
        left = simulator.limits.headers(call.model, call.began_at) if admitted else {}
        await _answer(simulator, body, call, input_tokens, left, receive, send)
    except GoneError:
        pass
    finally:
        # Nothing to book where the answer booked itself.
        simulator.ledger.end(call, "abandoned")
        if admitted:
            admitted.correct(call.input_tokens + call.output_tokens)


async def _answer(
    simulator: Simulator,
    body: Mapping[str, object],
    call: SimulatedCall,
    input_tokens: int,
    headers: Mapping[str, str],
    receive: Receive,
    send: Send,
) -> None:
    fault = simulator.faults.take(call.model, _said(body), call.stream)
    if fault is not None:
        call.fault = fault.kind
        if fault.kind in REFUSALS:
            simulator.ledger.end(call, "refused")
            await _refuse(fault, headers, send)
            return
        if fault.kind == "slow_first_byte":
            async with while_listened(receive):
                await asyncio.sleep(fault.delay_seconds)
    reply = compose(simulator.seed, body, call, input_tokens, fault)
    draw = random.Random(f"{simulator.seed}/timing/{call.model}/{call.number}")
    pace = pace_of(simulator.speed, simulator.ticker, traits_of(call.model), draw, fault, len(reply.tokens))
    if call.stream:
        async with while_listened(receive):
            await stream(simulator.ledger, reply, pace, headers, send)
    elif fault is not None and fault.kind == "timeout":
        async with while_listened(receive):
            await _whole(simulator.ledger, reply, pace, headers, send)
    else:
        # A provider makes an answer in one piece to its end, listened to or not.
        await _whole(simulator.ledger, reply, pace, headers, send)


async def _whole(
    ledger: Ledger, reply: Reply, pace: AnswerTiming, headers: Mapping[str, str], send: Send
) -> None:
    """The answer in one piece. It is billed as it is made, also where it does not arrive."""
    made, call, fault = 0, reply.call, reply.fault
    body, cut = reply.whole(), False
    try:
        await pace.take_break(made)
        while made < len(reply.tokens):
            made = await pace.until(len(reply.tokens))
            await pace.take_break(made)
        if fault is not None and fault.kind == "broken_body":
            ledger.end(call, "broken", reply.input_tokens, made)
            cut = fault.variant == "cut"
            body = body if cut else NO_JSON
        ledger.end(call, "finished", reply.input_tokens, made)
    except DropError:
        ledger.end(call, "broken", reply.input_tokens, made)
        cut = True
    finally:
        ledger.end(call, "abandoned", reply.input_tokens, made)
    await (_cut(send, body, headers) if cut else respond(send, 200, body, headers))


async def _cut(send: Send, body: bytes, headers: Mapping[str, str]) -> None:
    length = {"content-type": "application/json", "content-length": str(len(body))}
    await start(send, 200, {**length, **headers})
    await write(send, body[: len(body) // 2], more=True)
    await asyncio.sleep(0.01)
    raise DropError


async def _reject(simulator: Simulator, call: SimulatedCall, rejection: Rejection, send: Send) -> None:
    call.fault, call.rejected = "limit", True
    simulator.ledger.end(call, "refused")
    headers = dict(rejection.headers)
    if not math.isinf(rejection.wait_seconds):
        headers["retry-after"] = str(math.ceil(rejection.wait_seconds))
        headers["retry-after-ms"] = str(math.ceil(rejection.wait_seconds * 1000))
    body = error_body(429, "rate_limit_exceeded", rejection.message, rejection.kind)
    await respond(send, 429, body, headers)


async def _refuse(fault: FaultRule, headers: Mapping[str, str], send: Send) -> None:
    match fault.kind:
        case "rate_limit":
            status, code, message = 429, "rate_limit_exceeded", "Rate limit reached (scripted)."
        case "server_error":
            status, code, message = 500, "server_error", "The server had an error (scripted)."
        case "overloaded":
            status, code, message = fault.status, "overloaded", "The model is overloaded (scripted)."
        case _:
            status, code = fault.status, fault.error_code
            message = f"Refused with {fault.error_code} (scripted)."
    if fault.retry_after_seconds is not None:
        headers = {**headers, "retry-after": f"{fault.retry_after_seconds:g}"}
    await respond(send, status, error_body(status, code, message), headers)


async def _read(receive: Receive) -> object:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequestError("invalid_json", "The body did not arrive in full.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise BadRequestError("request_too_large", f"The body is longer than {MAX_BODY_BYTES} bytes.")
        if not message.get("more_body"):
            break
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise BadRequestError("invalid_json", "The body is not JSON.") from None


def _checked(body: object) -> Mapping[str, object]:
    if not isinstance(body, Mapping) or not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequestError("invalid_request_error", "model is missing.")
    if len(body["model"]) > MAX_NAME:
        raise BadRequestError("model_not_found", f"model is longer than {MAX_NAME} characters.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, Mapping) for m in messages):
        raise BadRequestError("invalid_request_error", "messages must be a non-empty list of objects.")
    return body


def _said(body: Mapping[str, object]) -> str:
    messages = body["messages"]
    assert isinstance(messages, list)
    return "\n".join(str(m.get("content")) for m in messages)


def _name(headers: Mapping[bytes, bytes], header: bytes) -> str:
    return headers.get(header, b"").decode("latin-1")[:MAX_NAME]
