"""The parts of the gateway that need no server: destinations, prices, failures, structure."""

from decimal import Decimal

import httpx
import pytest

from gateway.client import Gateway, Message, ModelRequest
from gateway.destinations import SUCCESSORS, Destination, answered_model, destination_of
from gateway.estimate import WorstCase, most_input_tokens
from gateway.failures import as_provider_error, scrub
from gateway.prices import PRICES, Price, listed_price, price_in_map
from gateway.structure import wire_messages, wire_response_format
from schema.catalogue import ROLE_DEFAULTS, ROUTABLE_MODELS
from schema.errors import ProviderError
from schema.settings import Settings

NO_KEYS = {
    "openai_api_key": "",
    "anthropic_api_key": "",
    "openrouter_api_key": "",
    "deepseek_api_key": "",
    "ollama_host": "",
    "simulator_url": "http://127.0.0.1:7900",
}
SECRET = "sk-or-v1-0123456789abcdef"


def _settings(**values: str) -> Settings:
    return Settings.model_validate(NO_KEYS | values)


@pytest.mark.parametrize(
    ("values", "model", "expected"),
    [
        ({}, "openai/gpt-4", ("simulator", "openai/gpt-4", "http://127.0.0.1:7900/v1", True)),
        ({}, "ollama/llama3.2", ("simulator", "ollama/llama3.2", "http://127.0.0.1:7900/v1", True)),
        ({"openai_api_key": SECRET}, "openai/gpt-4o-mini", ("openai", "gpt-4o-mini", None, False)),
        ({"openai_api_key": SECRET}, "openai/gpt-4", ("openai", "gpt-4.1", None, False)),
        (
            {"openai_api_key": SECRET},
            "anthropic/claude-3.5-sonnet",
            ("simulator", "anthropic/claude-3.5-sonnet", "http://127.0.0.1:7900/v1", True),
        ),
        (
            {"anthropic_api_key": SECRET},
            "anthropic/claude-3.5-sonnet",
            ("anthropic", "claude-sonnet-4-6", None, False),
        ),
        (
            {"deepseek_api_key": SECRET},
            "deepseek/deepseek-chat",
            ("deepseek", "deepseek-v4-flash", "https://api.deepseek.com/v1", False),
        ),
        (
            {"openrouter_api_key": SECRET},
            "qwen/qwen-2.5-coder",
            ("openrouter", "qwen/qwen-2.5-coder-32b-instruct", "https://openrouter.ai/api/v1", False),
        ),
        (
            {"openrouter_api_key": SECRET},
            "openrouter/mistral/large",
            ("openrouter", "mistral/large", "https://openrouter.ai/api/v1", False),
        ),
        (
            {"openrouter_api_key": SECRET},
            "ollama/llama3.2",
            ("simulator", "ollama/llama3.2", "http://127.0.0.1:7900/v1", True),
        ),
        (
            {"ollama_host": "http://127.0.0.1:11434/"},
            "ollama/llama3.2",
            ("ollama", "llama3.2", "http://127.0.0.1:11434/v1", False),
        ),
        (
            {"ollama_host": "gpu:11434"},
            "ollama/llama3.2",
            ("ollama", "llama3.2", "http://gpu:11434/v1", False),
        ),
    ],
)
def test_keys_decide_who_answers(
    values: dict[str, str], model: str, expected: tuple[str, str, str | None, bool]
) -> None:
    found = destination_of(_settings(**values), model)
    assert (found.provider, found.wire_model, found.base_url, found.simulated) == expected
    assert SECRET not in repr(found)


@pytest.mark.parametrize("model", ["gpt-4", "", "/x", "openai/"])
def test_an_id_without_provider_is_unknown(model: str) -> None:
    with pytest.raises(ProviderError) as caught:
        destination_of(_settings(), model)
    assert (caught.value.code, caught.value.retryable) == ("model_unknown", False)


@pytest.mark.parametrize(
    ("provider", "reported", "platform_id"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5"),
        ("openrouter", "qwen/qwen-2.5-coder-32b-instruct", "qwen/qwen-2.5-coder-32b-instruct"),
        ("simulator", "openai/gpt-4", "openai/gpt-4"),
        ("ollama", "llama3.2", "ollama/llama3.2"),
        ("openai", "", "openai/asked"),
    ],
)
def test_the_model_that_answered_has_a_platform_id(provider: str, reported: str, platform_id: str) -> None:
    destination = Destination(provider, "openai/asked", "asked", None, False)  # type: ignore[arg-type]
    assert answered_model(destination, reported) == platform_id


def test_every_model_of_the_catalogue_and_its_successor_has_a_price() -> None:
    models = {*ROUTABLE_MODELS, *(role.model for role in ROLE_DEFAULTS.values()), *SUCCESSORS.values()}
    assert models <= set(PRICES)


def test_cost_is_exact_to_the_micro_dollar() -> None:
    price = Price(Decimal("0.15"), Decimal("0.6"))
    assert price.cost_usd(1_000_000, 1_000_000) == Decimal("0.750000")
    assert price.cost_usd(3, 0) == Decimal("0.000000")
    assert price.cost_usd(10, 0) == Decimal("0.000002")
    assert str(price.cost_usd(12345, 678)) == "0.002259"


def test_ollama_is_free_and_the_map_is_the_second_source() -> None:
    assert listed_price("ollama/anything") == Price(Decimal(0), Decimal(0))
    assert listed_price("openai/other") is None
    costs: dict[str, dict[str, object]] = {
        "other": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07},
        "openrouter/a/b": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06},
        "per-second": {"input_cost_per_second": 1},
    }
    assert price_in_map(costs, "openai/other") == Price(Decimal("0.15"), Decimal("0.6"))
    assert price_in_map(costs, "a/b") == Price(Decimal(1), Decimal(2))
    assert price_in_map(costs, "x/per-second") is None
    assert price_in_map(costs, "x/unheard") is None


def _destination() -> Destination:
    return Destination("openrouter", "a/b", "a/b", None, False, api_key=SECRET)


def test_no_key_leaves_in_a_message() -> None:
    error = ValueError(f"Bearer {SECRET} was refused; so was sk-proj-abcdefgh and other-secret-of-ours")
    failure = as_provider_error(error, _destination(), streaming=False, secrets=("other-secret-of-ours",))
    assert "0123456789" not in failure.message
    assert "abcdefgh" not in failure.message
    assert "other-secret" not in failure.message
    assert len(scrub("x" * 10_000, ())) == 400


class _AnsweredError(Exception):
    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        super().__init__("no")
        self.status_code = status_code
        self.response = httpx.Response(status_code, headers=headers)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    failure = as_provider_error(_AnsweredError(429, headers), _destination(), streaming=False)
    assert (failure.code, failure.retry_after_seconds) == ("provider_rate_limited", seconds)


@pytest.mark.parametrize(
    ("error", "streaming", "code"),
    [
        (TimeoutError(), False, "provider_timeout"),
        (httpx.ReadTimeout("late"), True, "provider_timeout"),
        (httpx.ConnectError("nobody"), False, "provider_unavailable"),
        (httpx.RemoteProtocolError("cut"), True, "provider_stream_cut"),
        (ValueError("not JSON"), True, "provider_stream_cut"),
        (_AnsweredError(402, {}), False, "provider_auth"),
        (_AnsweredError(413, {}), False, "provider_context_too_long"),
        (_AnsweredError(422, {}), False, "provider_bad_request"),
        (_AnsweredError(529, {}), False, "provider_unavailable"),
        (_AnsweredError(504, {}), False, "provider_timeout"),
    ],
)
def test_failures_have_one_code(error: Exception, streaming: bool, code: str) -> None:
    assert as_provider_error(error, _destination(), streaming=streaming).code == code


def test_a_schema_goes_by_the_wire_or_in_words() -> None:
    schema = {"type": "object"}
    asked = [Message("system", "Be short."), Message("user", "Hi")]
    assert wire_messages(asked, schema, "schema") == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
    ]
    spoken = wire_messages(asked, schema, "object")
    assert spoken[0]["content"].startswith("Be short.")
    assert spoken[0]["content"].endswith('{"type": "object"}')
    assert [m["role"] for m in wire_messages(asked[1:], schema, "object")] == ["system", "user"]
    assert wire_response_format(schema, "object") == {"type": "json_object"}
    assert wire_response_format(schema, "schema") == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": False},
    }


def test_a_token_is_at_least_a_byte_of_all_that_goes_over_the_wire() -> None:
    destination = destination_of(_settings(openai_api_key=SECRET), "openai/gpt-4o")
    messages = [Message("system", "Grüße"), Message("user", "ab")]
    bare = most_input_tokens(messages, None, destination)
    assert bare == 64 + (8 + 7) + (8 + 2)
    schema = {"type": "object"}
    assert most_input_tokens(messages, schema, destination) >= bare + len('{"type": "object"}')
    translated = destination_of(_settings(anthropic_api_key=SECRET), "anthropic/claude-sonnet-4-6")
    # What Anthropic adds around a tool is more than what it takes to say it.
    assert most_input_tokens(messages, schema, translated) > bare + 500


def test_the_worst_case_counts_input_and_output_at_their_prices() -> None:
    gateway = Gateway(_settings())
    asked = ModelRequest("openai/gpt-4", [Message("user", "x" * 928)], max_output_tokens=500)
    assert gateway.worst_case(asked) == WorstCase(Decimal("0.06"), 1_500)
