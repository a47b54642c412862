"""The parts of the gateway that need no server: destinations, keys, limits, structure, bounds."""

import os
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.client import Gateway
from gateway.destinations import SUCCESSORS, Destination, Destinations, Kind, answered_model
from gateway.estimate import WorstCase, most_input_tokens
from gateway.keys import Keys, variable_of
from gateway.messages import wire_messages, wire_response_format
from gateway.prices import PRICES, Price, listed_price, price_in_map
from gateway.provider_limits import ProviderLimits, limits_in
from gateway.request import Message, ModelRequest, ModelToolCall, ToolSpec, Usage
from gateway.usage_lookup import usage_in
from schema.errors import ProviderError
from schema.language.catalogue import ROLE_DEFAULTS, ROUTABLE_MODELS, TenantProvider
from schema.settings import Settings

NO_KEYS = {
    "openai_api_key": "",
    "anthropic_api_key": "",
    "openrouter_api_key": "",
    "deepseek_api_key": "",
    "openai_base_url": "",
    "anthropic_base_url": "",
    "ollama_host": "",
    "simulator_url": "http://127.0.0.1:7900",
}
SECRET = "sk-or-v1-0123456789abcdef"


def _settings(**values: str) -> Settings:
    return Settings.model_validate(NO_KEYS | values)


def _found(
    values: dict[str, str], model: str, *providers: TenantProvider, tenant: str = "default"
) -> Destination:
    own = {provider.name: provider for provider in providers}
    return Destinations(_settings(**values)).find(model, own, tenant)


@pytest.mark.parametrize(
    ("values", "model", "expected"),
    [
        ({}, "openai/gpt-4", ("simulator", "openai/gpt-4", "http://127.0.0.1:7900/v1", True)),
        ({}, "ollama/llama3.2", ("simulator", "ollama/llama3.2", "http://127.0.0.1:7900/v1", True)),
        (
            {"openai_api_key": SECRET},
            "openai/gpt-4o-mini",
            ("openai", "gpt-4o-mini", "https://api.openai.com/v1", False),
        ),
        (
            {"openai_api_key": SECRET},
            "openai/gpt-4",
            ("openai", "gpt-4.1", "https://api.openai.com/v1", False),
        ),
        (
            {"openai_api_key": SECRET},
            "anthropic/claude-3.5-sonnet",
            ("simulator", "anthropic/claude-3.5-sonnet", "http://127.0.0.1:7900/v1", True),
        ),
        (
            {"anthropic_api_key": SECRET},
            "anthropic/claude-3.5-sonnet",
            ("anthropic", "claude-sonnet-4-6", "https://api.anthropic.com", False),
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
            {"openai_api_key": SECRET, "openai_base_url": "http://proxy/v1"},
            "openai/o3",
            ("openai", "o3", "http://proxy/v1", False),
        ),
        (
            {"ollama_host": "gpu:11434"},
            "ollama/llama3.2",
            ("ollama", "llama3.2", "http://gpu:11434/v1", False),
        ),
    ],
)
def test_keys_decide_who_answers(
    values: dict[str, str], model: str, expected: tuple[str, str, str, bool]
) -> None:
    found = _found(values, model)
    assert (found.provider, found.wire_model, found.base_url, found.simulated) == expected
    assert SECRET not in repr(found)


@pytest.mark.parametrize("model", ["gpt-4", "", "/x", "openai/"])
def test_an_id_without_provider_is_unknown(model: str) -> None:
    with pytest.raises(ProviderError) as caught:
        _found({}, model)
    assert (caught.value.code, caught.value.retryable) == ("model_unknown", False)


@pytest.mark.parametrize(
    ("provider", "reported", "platform_id"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5"),
        ("openrouter", "qwen/qwen-2.5-coder-32b-instruct", "qwen/qwen-2.5-coder-32b-instruct"),
        ("simulator", "openai/gpt-4", "openai/gpt-4"),
        ("ollama", "llama3.2", "ollama/llama3.2"),
        ("acme", "llama-70b", "acme/llama-70b"),
        ("acme", "meta/llama-70b", "acme/meta/llama-70b"),
        ("openai", "", "openai/asked"),
    ],
)
def test_the_model_that_answered_has_a_platform_id(provider: str, reported: str, platform_id: str) -> None:
    kind: Kind = "simulator" if provider == "simulator" else "openai_compatible"
    destination = Destination(provider, "openai/asked", "asked", "http://x/v1", kind)
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
    destination = _found({"openai_api_key": SECRET}, "openai/gpt-4o")
    messages = [Message("system", "Grüße"), Message("user", "ab")]
    bare = most_input_tokens(messages, None, destination)
    assert bare == 64 + (8 + 7) + (8 + 2)
    schema = {"type": "object"}
    assert most_input_tokens(messages, schema, destination) >= bare + len('{"type": "object"}')
    translated = _found({"anthropic_api_key": SECRET}, "anthropic/claude-sonnet-4-6")
    # What Anthropic adds around a tool is more than what it takes to say it.
    assert most_input_tokens(messages, schema, translated) > bare + 500
    tool = ToolSpec("look", "Looks.", {"type": "object"})
    assert most_input_tokens(messages, None, destination, [tool]) > bare + len("lookLooks.")
    assert most_input_tokens(messages, None, translated, [tool]) > bare + 900
    called = [*messages, Message("assistant", "", (ModelToolCall("c1", "look", "{}"),))]
    assert most_input_tokens(called, None, destination) > bare + 8 + len("c1look{}")


def test_the_worst_case_counts_input_and_output_at_their_prices() -> None:
    gateway = Gateway(_settings())
    asked = ModelRequest("openai/gpt-4", [Message("user", "x" * 928)], max_output_tokens=500)
    assert gateway.worst_case(asked) == WorstCase(Decimal("0.06"), 1_500)


def test_tools_and_their_results_go_out_as_openai_wants_them() -> None:
    said = [
        Message(
            "assistant", "", (ModelToolCall("c1", "look", '{"a": 1}'), ModelToolCall("c2", "look", '{"a":'))
        ),
        Message("tool", "seen", tool_call_id="c1"),
    ]
    assert wire_messages(said, None, "schema") == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
                # What cannot be read would be refused by servers that read it.
                {
                    "id": "c2",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"unreadable": "{\\"a\\":"}'},
                },
            ],
        },
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("rounds", "ids"),
    [
        ([["a"], ["b"]], [["a"], ["b"]]),
        ([["a"], ["a"]], [["a"], ["call00001"]]),
        ([["a", "a"], ["a"]], [["a", "call00001"], ["call00002"]]),
        ([[""], [""]], [["call00000"], ["call00001"]]),
        ([["call00001"], ["", "call00001"]], [["call00001"], ["call00002", "call00003"]]),
    ],
)
def test_every_call_goes_out_under_an_id_of_its_own(rounds: list[list[str]], ids: list[list[str]]) -> None:
    said = []
    for number, round in enumerate(rounds):
        said.append(Message("assistant", "", tuple(ModelToolCall(id, "look", "{}") for id in round)))
        results = (Message("tool", f"{number}.{at}", tool_call_id=id) for at, id in enumerate(round))
        said.extend(results)
    wire = wire_messages(said, None, "schema")
    assert [[call["id"] for call in one["tool_calls"]] for one in wire if "tool_calls" in one] == ids
    # Every result stands with its own call.
    told = [(one["tool_call_id"], one["content"]) for one in wire if one["role"] == "tool"]
    assert told == [(id, f"{n}.{at}") for n, round in enumerate(ids) for at, id in enumerate(round)]


def test_a_name_that_a_model_made_up_goes_back_as_providers_take_it() -> None:
    calls = tuple(ModelToolCall(name, name, "{}") for name in ("json.parse", "", "fu nction😀", "x" * 99))
    [wire] = wire_messages([Message("assistant", "", calls)], None, "schema")
    names = [call["function"]["name"] for call in wire["tool_calls"]]
    assert names == ["json_parse", "unknown", "fu_nction_", "x" * 64]


ALLOWED = {"provider_hosts": "llm.acme.example, 10.0.0.5:8000"}
ACME = TenantProvider("acme", "openai_compatible", "https://llm.acme.example/v1/", "main", 60, 9_000)


@pytest.fixture
def acme_key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FACILITAIR_KEY_TEAM_2D1__MAIN", "acme-secret-key")
    return "acme-secret-key"


def test_a_tenants_own_provider_answers_for_its_models(acme_key: str) -> None:
    found = _found(ALLOWED, "acme/llama-70b", ACME, tenant="team-1")
    assert found == Destination(
        "acme",
        "acme/llama-70b",
        "llama-70b",
        "https://llm.acme.example/v1",
        "openai_compatible",
        "object",
        ProviderLimits(60, 9_000),
        acme_key,
    )
    assert (found.requests_per_minute, found.tokens_per_minute) == (60, 9_000)
    assert acme_key not in repr(found) and acme_key not in found.account


def test_a_tenants_own_key_goes_before_the_platforms(acme_key: str) -> None:
    platform = {"openai_api_key": SECRET, "provider_limits": "openai=500/200000"}
    own = TenantProvider("openai", "openai", key_ref="main")
    theirs, ours = _found(platform, "openai/gpt-4", own, tenant="team-1"), _found(platform, "openai/gpt-4")
    assert (theirs.api_key, ours.api_key) == (acme_key, SECRET)
    assert theirs.wire_model == ours.wire_model == "gpt-4.1"
    assert theirs.account != ours.account
    assert (theirs.limits, ours.limits) == (ProviderLimits(), ProviderLimits(500, 200_000))


def test_without_a_key_of_its_own_a_tenant_shares_the_platforms_limits() -> None:
    platform = {"openai_api_key": SECRET, "provider_limits": "openai=500/200000"}
    found = _found(platform, "openai/gpt-4", TenantProvider("openai", "openai", requests_per_minute=20))
    assert (found.api_key, found.limits) == (SECRET, ProviderLimits(20, 200_000))


@pytest.mark.parametrize(
    ("provider", "model", "wire_model"),
    [
        (TenantProvider("qwen", "openrouter", key_ref="main"), "qwen/q-32b", "qwen/q-32b"),
        (TenantProvider("mine", "openrouter", key_ref="main"), "mine/qwen/q-32b", "qwen/q-32b"),
        (TenantProvider("openrouter", "openrouter", key_ref="main"), "openrouter/a/b", "a/b"),
        # It answers for every built-in provider that nothing else answers for.
        (TenantProvider("openrouter", "openrouter", key_ref="main"), "openai/o3", "openai/o3"),
        (TenantProvider("claude", "anthropic", key_ref="main"), "claude/opus", "opus"),
    ],
)
def test_a_tenants_provider_knows_models_by_its_own_names(
    acme_key: str, provider: TenantProvider, model: str, wire_model: str
) -> None:
    found = _found({"openrouter_api_key": SECRET}, model, provider, tenant="team-1")
    assert (found.provider, found.wire_model, found.api_key) == (provider.name, wire_model, acme_key)


def test_what_a_removed_provider_answered_for_goes_to_nobody_else() -> None:
    with pytest.raises(ProviderError, match="facilitair providers set mine") as caught:
        _found({"openrouter_api_key": SECRET}, "mine/llama", ACME)
    assert (caught.value.code, caught.value.retryable) == ("model_unknown", False)


@pytest.mark.parametrize(
    ("values", "provider", "said"),
    [
        ({}, ACME, "'llm.acme.example', port 443; expected one that the operator allowed. Let"),
        (ALLOWED, TenantProvider("a", "openai_compatible"), "found no base_url"),
        (ALLOWED, TenantProvider("a", "openai_compatible", "https://u:p@llm.acme.example"), "a login in it"),
        (ALLOWED, TenantProvider("a", "openai_compatible", "http://10.0.0.5:8001"), "port 8001"),
        (ALLOWED, TenantProvider("a", "ollama"), "found no base_url"),
        # The platform's key goes nowhere but to the provider's own address.
        (
            {"anthropic_api_key": SECRET} | ALLOWED,
            TenantProvider("a", "anthropic", ACME.base_url),
            "no key_ref",
        ),
        (
            {"openai_api_key": SECRET},
            TenantProvider("a", "openai", "https://api.openai.com/v1"),
            "found no key_ref",
        ),
        (ALLOWED, TenantProvider("a", "openai"), "found no key_ref"),
    ],
)
def test_a_tenants_provider_that_cannot_be_called_is_refused(
    values: dict[str, str], provider: TenantProvider, said: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        _found(values, f"{provider.name}/m", provider)
    assert (caught.value.code, caught.value.retryable) == ("provider_auth", False)
    assert said in caught.value.message
    assert SECRET not in caught.value.message


def test_an_own_address_never_gets_the_platforms_key() -> None:
    own = TenantProvider("openai", "openai", "https://llm.acme.example/v1")
    assert _found({"openai_api_key": SECRET} | ALLOWED, "openai/gpt-4", own).api_key == ""


def test_a_key_is_found_in_a_file_and_read_again_when_it_changes(tmp_path: Path) -> None:
    keys = Keys(str(tmp_path))
    (tmp_path / "team-1").mkdir()
    path = tmp_path / "team-1" / "main"
    path.write_text("first-key\n")
    assert keys.find("team-1", "main") == "first-key"
    path.write_text("second-key\n")
    os.utime(path, ns=(1, 1))
    assert keys.find("team-1", "main") == "second-key"
    path.unlink()
    with pytest.raises(ProviderError) as caught:
        keys.find("team-1", "main")
    assert caught.value.code == "provider_auth"
    assert variable_of("team-1", "main") in caught.value.message
    assert str(path) in caught.value.message
    assert "second-key" not in caught.value.message


@pytest.mark.parametrize(
    "reference", ["../other/main", "..", ".", "/etc/passwd", "a/b", "", ".hidden", "a\0b"]
)
def test_a_reference_leads_nowhere_else(tmp_path: Path, reference: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "main").write_text("not yours")
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / ".hidden").write_text("nor this")
    with pytest.raises(ProviderError):
        Keys(str(tmp_path)).find("team", reference)


def test_a_key_that_cannot_be_sent_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACILITAIR_KEY_T__MAIN", "two words")
    with pytest.raises(ProviderError, match="FACILITAIR_KEY_T__MAIN") as caught:
        Keys("").find("t", "main")
    assert "two words" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        (
            "openai=500/200000, anthropic=50/",
            {"openai": ProviderLimits(500, 200_000), "anthropic": ProviderLimits(50, None)},
        ),
        ("ollama=/1000,", {"ollama": ProviderLimits(None, 1_000)}),
    ],
)
def test_limits_are_read(text: str, limits: dict[str, ProviderLimits]) -> None:
    assert limits_in(text) == limits


@pytest.mark.parametrize("text", ["openai", "openai=5", "openai=a/b", "openai=0/1", "a=1/1,a=2/2", "=1/2"])
def test_limits_that_cannot_be_read_end_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="openai=500/200000,anthropic=50/"):
        Gateway(_settings(provider_limits=text))


def test_only_names_allowed_without_a_port_must_be_public() -> None:
    destinations = Destinations(_settings(provider_hosts="a.example,b.example:8443", ollama_host="a.example"))
    assert destinations.reach("a.example:443") == "public"
    assert destinations.reach("b.example:8443") == "anywhere"
    assert destinations.reach("api.openai.com:443") == "anywhere"
    assert destinations.reach("b.example:443") == "nowhere"


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            {
                "data": {
                    "native_tokens_prompt": 12,
                    "native_tokens_completion": 5,
                    "native_tokens_cached": 4,
                    "tokens_prompt": 10,
                    "tokens_completion": 4,
                }
            },
            Usage(12, 5, 4),
        ),
        ({"data": {"tokens_prompt": 10, "tokens_completion": 4}}, Usage(10, 4)),
        ({"data": {"tokens_prompt": 10, "tokens_completion": None}}, None),
        ({"data": {"tokens_prompt": -1, "tokens_completion": True}}, None),
        ({"error": {"code": 404}}, None),
        (None, None),
        ([], None),
    ],
)
def test_an_account_of_a_generation_is_read(body: object, usage: Usage | None) -> None:
    assert usage_in(body) == usage
