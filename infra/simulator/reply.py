"""Answer a call: with the model's answer, or the one that a script wants."""

import time
from collections.abc import Mapping, Sequence

from infra.simulator.answers import answer_text, split_tokens
from infra.simulator.faults import FaultRule, ScriptedToolCall
from infra.simulator.ledger import SimulatedCall
from infra.simulator.prompt import read_prompt
from infra.simulator.tools import calls_for
from infra.simulator.wire import Reply, ToolUse


def compose(
    seed: int, body: Mapping[str, object], call: SimulatedCall, input_tokens: int, fault: FaultRule | None
) -> Reply:
    """The whole answer, before the first of it leaves."""
    text, calls = _scripted(fault) or _own(seed, body, call.model)
    if fault is not None and fault.kind == "bad_json":
        text = text[: max(1, len(text) // 2)]
    tokens, tools = split_tokens(text), []
    for number, each in enumerate(calls):
        begins = len(tokens)
        tokens += [each.name, *split_tokens(each.arguments)]
        tools.append(ToolUse(f"call_simulated_{call.number}_{number}", begins, len(tokens)))
    finish_reason, end = "tool_calls" if tools else "stop", len(tokens)
    if fault is not None and fault.kind == "refusal":
        finish_reason, end = "content_filter", min(end, fault.after_tokens or 0)
    most = most_tokens(body)
    if most is not None and end > most:
        finish_reason, end = "length", most
    options = body.get("stream_options")
    asked = not call.stream or (isinstance(options, Mapping) and options.get("include_usage") is True)
    call.finish_reason = finish_reason
    return Reply(
        call=call,
        created=int(time.time()),
        tokens=tokens[:end],
        tools=tuple(ToolUse(t.id, t.start, min(t.end, end)) for t in tools if t.start < end),
        finish_reason=finish_reason,
        input_tokens=input_tokens,
        include_usage=asked and (fault is None or fault.kind != "no_usage"),
        fault=fault,
    )


def most_tokens(body: Mapping[str, object]) -> int | None:
    """The longest answer that the caller allows."""
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    return most if isinstance(most, int) and not isinstance(most, bool) and most > 0 else None


def _scripted(fault: FaultRule | None) -> tuple[str, Sequence[ScriptedToolCall]] | None:
    if fault is None or fault.kind not in ("answer", "tool_call", "pace"):
        return None
    return None if fault.kind == "pace" and not fault.text else (fault.text, fault.tool_calls)


def _own(seed: int, body: Mapping[str, object], model: str) -> tuple[str, Sequence[ScriptedToolCall]]:
    messages, response_format = body["messages"], body.get("response_format")
    assert isinstance(messages, list)
    calls = calls_for(body, read_prompt(seed, model, messages, response_format)) if body.get("tools") else ()
    return ("", calls) if calls else (answer_text(seed, model, messages, response_format), ())
