"""One call of a model: its span, and its tokens as they come."""

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from activities.spans import span
from gateway.client import Gateway
from gateway.destinations import Destination
from gateway.request import Completion, ModelRequest
from schema import telemetry

Say = Callable[[int, str], Awaitable[None]]
"""Takes what the model says: how many pieces came before, and the next one."""


async def call(
    gateway: Gateway, to: Destination, asked: ModelRequest, attempt: int, say: Say, *, capture_content: bool
) -> Completion:
    """Call the model and return its completion. Raises ProviderError."""
    with span(
        f"{telemetry.CHAT} {asked.model}",
        None,
        {
            telemetry.OPERATION: telemetry.CHAT,
            telemetry.PROVIDER: to.provider,
            telemetry.REQUEST_MODEL: asked.model,
            telemetry.ATTEMPT: attempt,
        },
        kind="client",
    ) as current:
        if capture_content:
            shown = [{"role": message.role, "content": message.content} for message in asked.messages]
            current.set_attribute(telemetry.INPUT_MESSAGES, json.dumps(shown))
        completion = await _stream(gateway, asked, say)
        current.set_attributes(
            {
                telemetry.RESPONSE_MODEL: completion.model,
                telemetry.RESPONSE_ID: completion.response_id,
                telemetry.FINISH_REASONS: [completion.finish_reason],
                telemetry.INPUT_TOKENS: completion.input_tokens,
                telemetry.OUTPUT_TOKENS: completion.output_tokens,
                telemetry.COST_USD: float(completion.cost_usd),
                telemetry.SIMULATED: completion.simulated,
            }
        )
        if completion.first_token_ms is not None:
            current.set_attribute(telemetry.TIME_TO_FIRST_CHUNK, completion.first_token_ms / 1000)
        if capture_content:
            current.set_attribute(telemetry.OUTPUT_MESSAGES, completion.text)
        return completion


async def _stream(gateway: Gateway, asked: ModelRequest, say: Say) -> Completion:
    seq = 0
    async with aclosing(gateway.stream(asked)) as answer:
        async for item in answer:
            if isinstance(item, Completion):
                return item
            await say(seq, item)
            seq += 1
    raise AssertionError("the gateway's stream ends with a Completion")
