"""A request in a provider's own words, by way of litellm; and its answers back in OpenAI's."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway import litellm_door
from gateway.destinations import Destination, Kind
from gateway.failures import NotSendable
from gateway.messages import wire_messages, wire_response_format
from gateway.request import ModelRequest, ToolSpec

# Who litellm knows the words of; the others speak OpenAI's.
DIALECTS: Final[Mapping[Kind, str]] = {
    "anthropic": "anthropic",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
}


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request, ready to be sent, and how to read what comes of it."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    event: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None
    """Makes one of OpenAI's events of the provider's. None: they are OpenAI's."""
    whole: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
    """The same for an answer in one piece."""


def outgoing(request: ModelRequest, destination: Destination) -> OutgoingRequest:
    """Raises NotSendable. Needs litellm imported, and calls nothing."""
    try:
        return _outgoing(request, destination)
    except Exception as error:
        # litellm refuses what it cannot translate by exceptions of many kinds.
        raise NotSendable(str(getattr(error, "message", "") or error or type(error).__name__)) from None


def wire_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools as OpenAI takes them. Copies: litellm changes what it is given."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(json.dumps(tool.parameters)),
            },
        }
        for tool in tools
    ]


def _outgoing(request: ModelRequest, destination: Destination) -> OutgoingRequest:
    dialect, model = DIALECTS.get(destination.kind, "openai"), destination.wire_model
    config = litellm_door.provider_config(dialect, model)
    key, base = destination.api_key or None, destination.base_url
    about = {"custom_llm_provider": dialect, "api_base": base}
    messages = wire_messages(request.messages, request.response_schema, destination.structure)
    options = config.map_openai_params(_options(request, destination), {}, model, True)
    json_mode = bool(options.pop("json_mode", False))
    headers = config.validate_environment({}, model, messages, options, about, key, base)
    if dialect == "anthropic":
        url = f"{base.rstrip('/').removesuffix('/v1')}/v1/messages"
    else:
        url = config.get_complete_url(base, key, model, options, about, request.stream)
    content = config.transform_request(model, messages, options, about, headers)
    if request.call_id:
        headers["X-Client-Request-Id"] = request.call_id
    if destination.simulated and request.call_key:
        headers["x-facilitair-call"] = request.call_key
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    if dialect != "anthropic":
        return OutgoingRequest(url, headers, body)
    events = _AnthropicEvents(litellm_door.anthropic_events(json_mode=json_mode))
    return OutgoingRequest(url, headers, body, events, _anthropic_whole(config, json_mode))


def _options(request: ModelRequest, destination: Destination) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if request.stream:
        options["stream"] = True
        if destination.speaks_openai:
            options["stream_options"] = {"include_usage": True}
    if request.response_schema is not None:
        wanted = wire_response_format(request.response_schema, destination.structure)
        options["response_format"] = json.loads(json.dumps(wanted))
    if request.max_output_tokens is not None:
        options["max_tokens"] = request.max_output_tokens
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.tools:
        options["tools"] = wire_tools(request.tools)
        # Where litellm makes a tool of the schema, that one is called anyway.
        if not request.may_call and (destination.speaks_openai or request.response_schema is None):
            options["tool_choice"] = "none"
    return options


class _AnthropicEvents:
    """Anthropic's events as OpenAI's. Text goes past litellm, which takes ten times as long for it."""

    def __init__(self, events: Any) -> None:
        self._events = events

    def __call__(self, event: dict[str, Any]) -> Mapping[str, Any] | None:
        kind = event.get("type")
        if kind == "content_block_delta" and event["delta"].get("type") == "text_delta":
            return {"choices": [{"delta": {"content": event["delta"]["text"]}}]}
        if kind == "ping":
            return None
        if kind == "error":
            return {"error": event.get("error") or "it reported an error without a reason"}
        chunk = self._events.chunk_parser(event)
        if kind == "message_start":
            # Its count of the output is only the beginning of it.
            begun = event["message"]
            usage = {**(begun.get("usage") or {}), "output_tokens": None}
            return {"id": begun.get("id"), "model": begun.get("model"), "usage": usage}
        told = _openai_event(chunk, chunk.choices[0].delta, "delta")
        if kind == "message_delta":
            told["usage"] = event.get("usage")
            _keep_reason(told, event["delta"].get("stop_reason"))
        return told


def _anthropic_whole(config: Any, json_mode: bool) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    def translate(body: dict[str, Any]) -> Mapping[str, Any]:
        if body.get("error"):
            return body
        response, empty = litellm_door.empty_response()
        read = config.transform_parsed_response(body, response, empty, json_mode=json_mode)
        whole = _openai_event(read, read.choices[0].message, "message")
        _keep_reason(whole, body.get("stop_reason"))
        return {**whole, "id": body.get("id"), "model": body.get("model"), "usage": body.get("usage")}

    return translate


def _keep_reason(told: dict[str, Any], reason: object) -> None:
    """Let Anthropic's own reason stand: litellm takes some of them for a good end. Of tools it knows better:
    one of them may only carry the answer's JSON."""
    if reason != "tool_use":
        told["choices"][0]["finish_reason"] = reason


def _openai_event(chunk: Any, said: Any, name: str) -> dict[str, Any]:
    calls = [
        {
            "index": getattr(call, "index", None),
            "id": call.id,
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in said.tool_calls or ()
    ]
    told = {
        "content": said.content,
        "tool_calls": calls,
        "reasoning_content": getattr(said, "reasoning_content", None),
    }
    return {"choices": [{name: told, "finish_reason": chunk.choices[0].finish_reason}]}
