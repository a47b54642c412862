"""What providers and servers send at the end of an answer, and what it means here: the tests' tables.

`python -m tests.provider_tables` writes them into docs/gateway.md, where a test compares them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.finish_reasons import MEANINGS, FinishReason, meaning_of
from gateway.request import Usage

PAGE: Final = Path(__file__).parents[1] / "docs" / "gateway.md"

FINISHES: Final[Mapping[str, Mapping[str, FinishReason | None]]] = {
    "OpenAI, Azure, Groq, Together, Fireworks": {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "content_filter",
    },
    "Anthropic": {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "tool_calls",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "refusal": "refusal",
        "pause_turn": "error",
    },
    "Google Gemini": {
        "STOP": "stop",
        "MAX_TOKENS": "length",
        "SAFETY": "content_filter",
        "RECITATION": "content_filter",
        "BLOCKLIST": "content_filter",
        "PROHIBITED_CONTENT": "content_filter",
        "SPII": "content_filter",
        "IMAGE_SAFETY": "content_filter",
        "MODEL_ARMOR": "content_filter",
        "OTHER": "error",
        "MALFORMED_FUNCTION_CALL": "error",
        "UNEXPECTED_TOOL_CALL": "error",
    },
    "Amazon Bedrock": {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "tool_calls",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "guardrail_intervened": "content_filter",
        "content_filtered": "content_filter",
        "malformed_model_output": "error",
        "malformed_tool_use": "error",
    },
    "OpenRouter": {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
        "error": "error",
    },
    "Mistral": {
        "stop": "stop",
        "length": "length",
        "model_length": "length",
        "tool_calls": "tool_calls",
        "error": "error",
    },
    "DeepSeek": {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
        "insufficient_system_resource": "error",
    },
    "Cohere": {
        "COMPLETE": "stop",
        "STOP_SEQUENCE": "stop",
        "TOOL_CALL": "tool_calls",
        "MAX_TOKENS": "length",
        "ERROR_TOXIC": "content_filter",
        "ERROR_LIMIT": "error",
        "TIMEOUT": "error",
        "ERROR": "error",
    },
    "Zhipu GLM": {
        "stop": "stop",
        "length": "length",
        "model_context_window_exceeded": "length",
        "tool_calls": "tool_calls",
        "sensitive": "content_filter",
        "network_error": "error",
    },
    "Alibaba DashScope": {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "null": None},
    "Moonshot Kimi": {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
    },
    "IBM watsonx": {
        "eos_token": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "token_limit": "length",
        "time_limit": "length",
        "cancelled": "error",
        "error": "error",
    },
    "vLLM, SGLang": {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "abort": "error",
        "error": "error",
    },
    "Text Generation Inference": {
        "stop": "stop",
        "eos_token": "stop",
        "stop_sequence": "stop",
        "length": "length",
    },
    "Ollama, llama.cpp, LM Studio": {"stop": "stop", "length": "length", "tool_calls": "tool_calls"},
}
"""provider → its word → ours; None: the answer goes on."""

CONSEQUENCES: Final[Mapping[FinishReason, tuple[str, str]]] = {
    "stop": ("the model had said what it wanted to say", "no"),
    "tool_calls": ("it wants tools called first", "no"),
    "length": ("it reached a limit: of `max_output_tokens`, or of its context", "no"),
    "content_filter": ("a filter ended it", "yes, as `provider_content_policy`"),
    "refusal": ("the model refused", "yes, as `provider_content_policy`"),
    "empty": ("it ended well, and without a word or a call", "yes, as `provider_answer_empty`"),
    "error": (
        "it broke off: half an answer never completes a step",
        "yes, as `provider_stream_cut`, or the code of the error that came with it",
    ),
}


@dataclass(frozen=True)
class Shape:
    """What one provider or server says of its tokens."""

    who: str
    events: Sequence[Mapping[str, Any]]
    """All of an answer that tell anything."""
    usage: Usage
    """What is booked; guesses are 1,000 of input and 100 of output."""
    note: str = ""


def _openai(into: Any, out: Any, **more: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": into, "completion_tokens": out, **more}}


SHAPES: Final = (
    Shape(
        "OpenAI, Azure", [_openai(
            100, 40, total_tokens=140, prompt_tokens_details={"cached_tokens": 64, "audio_tokens": 0},
            completion_tokens_details={"reasoning_tokens": 30, "accepted_prediction_tokens": 0},
        )],
        Usage(100, 40, 64), "reasoning is part of the output",
    ),
    Shape(
        "OpenAI Responses, Azure Responses",
        [{"usage": {
            "input_tokens": 100, "output_tokens": 40, "total_tokens": 140,
            "input_tokens_details": {"cached_tokens": 64}, "output_tokens_details": {"reasoning_tokens": 9},
        }}],
        Usage(100, 40, 64),
    ),
    Shape(
        "Anthropic",
        [
            {"usage": {"input_tokens": 11, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
                       "output_tokens": None}},
            {"usage": {"output_tokens": 5}},
        ],
        Usage(131, 5, 100), "input read from and written to the cache stands beside the rest",
    ),
    Shape(
        "xAI",
        [_openai(100, 10, total_tokens=500, completion_tokens_details={"reasoning_tokens": 390})],
        Usage(100, 400), "reasoning stands beside the output; the total tells",
    ),
    Shape(
        "Gemini, OpenAI-compatible", [_openai(100, 10, total_tokens=500)],
        Usage(100, 400, contradictory=True), "thoughts are in the total alone",
    ),
    Shape(
        "Gemini, Vertex AI",
        [{"usageMetadata": {
            "promptTokenCount": 100, "candidatesTokenCount": 10, "thoughtsTokenCount": 390,
            "totalTokenCount": 500, "cachedContentTokenCount": 60,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
        }}],
        Usage(100, 400, 60),
    ),
    Shape(
        "DeepSeek",
        [_openai(100, 40, total_tokens=140, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36,
                 completion_tokens_details={"reasoning_tokens": 30})],
        Usage(100, 40, 64),
    ),
    Shape(
        "Amazon Bedrock Converse",
        [{"usage": {"inputTokens": 11, "outputTokens": 5, "totalTokens": 136, "cacheReadInputTokens": 100,
                    "cacheWriteInputTokens": 20}}],
        Usage(131, 5, 100),
    ),
    Shape(
        "Cohere",
        [{"usage": {"billed_units": {"input_tokens": 11.0, "output_tokens": 5.0},
                    "tokens": {"input_tokens": 98.0, "output_tokens": 7.0}}}],
        Usage(11, 5), "floats; what is billed counts",
    ),
    Shape("Mistral", [_openai(11, 5, total_tokens=16)], Usage(11, 5)),
    Shape(
        "Groq", [
            {"x_groq": {"id": "req_1", "usage": {"prompt_tokens": 11, "completion_tokens": 5,
                                                 "total_tokens": 16, "prompt_time": 0.0021}}},
        ],
        Usage(11, 5), "in a field of its own",
    ),
    Shape(
        "Moonshot Kimi",
        [{"choices": [{"usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16,
                                 "cached_tokens": 8}}]}],
        Usage(11, 5, 8), "within the choice",
    ),
    Shape(
        "OpenRouter",
        [_openai(11, 5, total_tokens=16, cost=0.00014, prompt_tokens_details={"cached_tokens": 8},
                 completion_tokens_details={"reasoning_tokens": 0}, cost_details={"upstream": None})],
        Usage(11, 5, 8),
    ),
    Shape(
        "Perplexity",
        [_openai(11, 5, total_tokens=16, search_context_size="low", citation_tokens=900,
                 num_search_queries=3)],
        Usage(11, 5),
    ),
    Shape(
        "Together, Fireworks, DeepInfra",
        [_openai(11, 5, total_tokens=16, prompt_tokens_details=None, estimated_cost=1e-06)],
        Usage(11, 5),
    ),
    Shape(
        "Alibaba DashScope, Qwen",
        [_openai(11, 45, total_tokens=56,
                 completion_tokens_details={"reasoning_tokens": 40, "text_tokens": 5},
                 prompt_tokens_details={"cached_tokens": 0})],
        Usage(11, 45),
    ),
    Shape(
        "Zhipu GLM", [_openai(11, 5, total_tokens=16, prompt_tokens_details={"cached_tokens": 8})],
        Usage(11, 5, 8),
    ),
    Shape(
        "MiniMax", [{"usage": {"total_tokens": 116, "total_characters": 0}}],
        Usage(16, 100, assumed=True), "a total alone: how it divides is an estimate",
    ),
    Shape(
        "IBM watsonx", [{"usage": {"input_token_count": 11, "generated_token_count": 5}}], Usage(11, 5)
    ),
    Shape(
        "SambaNova, Cerebras",
        [_openai(11, 5, total_tokens=16, total_latency=0.2, completion_tokens_per_sec=321.5,
                 time_info={"queue_time": 0.1})],
        Usage(11, 5),
    ),
    Shape(
        "vLLM", [_openai(11, 0, total_tokens=11), _openai(11, 3, total_tokens=14),
                 _openai(11, 5, total_tokens=16, prompt_tokens_details=None)],
        Usage(11, 5), "with every event, growing",
    ),
    Shape(
        "SGLang", [_openai(11, 45, total_tokens=56, prompt_tokens_details=None, reasoning_tokens=40)],
        Usage(11, 45),
    ),
    Shape(
        "llama.cpp",
        [{"timings": {"prompt_n": 3, "cache_n": 8, "predicted_n": 5, "predicted_ms": 83.1}}],
        Usage(11, 5, 8), "in its timings, where it was not asked for more",
    ),
    Shape(
        "Ollama", [{"usage": {"prompt_eval_count": 11, "eval_count": 5}}], Usage(11, 5),
    ),
    Shape("Ollama, LM Studio, OpenAI-compatible", [_openai(11, 5, total_tokens=16)], Usage(11, 5)),
    Shape(
        "LiteLLM proxy",
        [_openai(131, 5, total_tokens=136, cache_read_input_tokens=100, cache_creation_input_tokens=20)],
        Usage(131, 5, 100), "what was cached is part of the input",
    ),
    Shape(
        "Gateways that end with zeros", [_openai(11, 5, total_tokens=16), _openai(0, 0, total_tokens=0)],
        Usage(11, 5), "the larger figures count",
    ),
    Shape("Gateways that count in texts", [_openai("11", "5", total_tokens="16")], Usage(11, 5)),
    Shape("Gateways that send a list", [{"usage": [_openai(11, 5)["usage"]]}], Usage(11, 5)),
    Shape(
        "Figures that contradict each other", [_openai(11, 5, total_tokens=12)],
        Usage(11, 5, contradictory=True), "the larger is booked and marked",
    ),
    Shape(
        "Reasoning above output, without a total", [_openai(11, 5, reasoning_tokens=40)], Usage(11, 45),
    ),
    Shape("Only the output", [_openai(None, 5)], Usage(1_000, 5, assumed=True)),
    Shape("Only the input", [_openai(11, None)], Usage(11, 100, assumed=True)),
    Shape("Zeros alone", [_openai(0, 0, total_tokens=0)], Usage(1_000, 100, assumed=True)),
    Shape(
        "Many local servers", [{"usage": None}], Usage(1_000, 100, assumed=True),
        "nothing: an estimate is booked",
    ),
)  # fmt: skip


def finish_table() -> str:
    """The table of finish reasons, in Markdown."""
    rows = ["| ours | is | providers' words | `fallback` is asked |", "|---|---|---|---|"]
    for reason in MEANINGS:
        words = sorted(
            {word for known in FINISHES.values() for word, ours in known.items() if ours == reason}
        )
        said = ", ".join(f"`{word}`" for word in words) or "none: no text and no tool call came"
        what, elsewhere = CONSEQUENCES[reason]
        rows.append(f"| `{reason}` | **{meaning_of(reason)}**: {what} | {said} | {elsewhere} |")
    return "\n".join(rows)


def provider_table() -> str:
    """The same by provider."""
    rows = ["| provider | its words |", "|---|---|"]
    for provider, words in FINISHES.items():
        said = ", ".join(
            f"`{word}`" if word == ours else f"`{word}` → {f'`{ours}`' if ours else 'goes on'}"
            for word, ours in words.items()
        )
        rows.append(f"| {provider} | {said} |")
    return "\n".join(rows)


def usage_table() -> str:
    """The table of usage shapes, in Markdown."""
    rows = ["| from | it sends | booked in / out / cached | |", "|---|---|---|---|"]
    for shape in SHAPES:
        sent = "<br>".join(f"`{json.dumps(_short(event))}`" for event in shape.events)
        usage = shape.usage
        booked = f"{usage.input_tokens:,} / {usage.output_tokens:,} / {usage.cached_input_tokens:,}"
        marks = [
            *(["**assumed**"] if usage.assumed else []),
            *(["**larger**"] if usage.contradictory else []),
        ]
        rows.append(f"| {shape.who} | {sent} | {booked} | {'; '.join([*marks, shape.note]).strip('; ')} |")
    return "\n".join(rows)


def _short(event: Mapping[str, Any]) -> Any:
    """An event without the names around its account where they are the common ones."""
    return event["usage"] if list(event) == ["usage"] and isinstance(event["usage"], dict) else event


TABLES: Final = {"finish": finish_table, "providers": provider_table, "usage": usage_table}


def written(page: str) -> str:
    """The page with the tables as they are now, between their marks."""
    for name, table in TABLES.items():
        before, opening, rest = page.partition(f"<!-- {name}: ")
        mark, newline, inside = rest.partition("\n")
        _, closing, after = inside.partition(f"<!-- end of {name} -->")
        assert closing, f"the page has no place for {name}"
        page = f"{before}{opening}{mark}{newline}\n{table()}\n\n{closing}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
