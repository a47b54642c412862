"""Who answers for a model: a provider whose key is set, a local Ollama, or the simulator."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from schema.errors import ProviderError
from schema.settings import Settings

Provider = Literal["openai", "anthropic", "deepseek", "openrouter", "ollama", "simulator"]
Structure = Literal["schema", "object"]

# Models of the seed that their providers have withdrawn, and what answers in their place there.
# The simulator still plays the old names.
SUCCESSORS: Final[Mapping[str, str]] = {
    "openai/gpt-4": "openai/gpt-4.1",
    "deepseek/deepseek-chat": "deepseek/deepseek-v4-flash",
    "anthropic/claude-3.5-sonnet": "anthropic/claude-sonnet-4-6",
    "qwen/qwen-2.5-coder": "qwen/qwen-2.5-coder-32b-instruct",
}

DEEPSEEK_URL: Final = "https://api.deepseek.com/v1"
OPENROUTER_URL: Final = "https://openrouter.ai/api/v1"
# A snapshot's date: gpt-4o-mini-2024-07-18, claude-haiku-4-5-20251001.
SNAPSHOT: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call goes."""

    provider: Provider
    model: str
    """The platform id that answers there; a withdrawn model's successor."""
    wire_model: str
    """The name that the provider knows it by."""
    base_url: str | None
    """None is the provider's own address (or what its SDK's variable says)."""
    simulated: bool
    structure: Structure = "schema"
    """"schema": the provider takes a JSON Schema. "object": it promises JSON only, the prompt says which."""
    api_key: str = field(default="", repr=False)

    @property
    def speaks_openai(self) -> bool:
        return self.provider != "anthropic"


def destination_of(settings: Settings, model: str) -> Destination:
    """Decide by the model's prefix and the keys that are set; nothing is called."""
    prefix, _, name = model.partition("/")
    if not prefix or not name:
        raise ProviderError(
            "model_unknown",
            f"found model {model!r}; expected provider/name, for example openai/gpt-4o-mini",
            retryable=False,
        )
    current = SUCCESSORS.get(model, model)
    native = current.partition("/")[2]
    if prefix == "openai" and settings.openai_api_key:
        structure: Structure = "object" if re.match(r"gpt-3\.5|gpt-4-|gpt-4$", native) else "schema"
        return Destination("openai", current, native, None, False, structure, settings.openai_api_key)
    if prefix == "anthropic" and settings.anthropic_api_key:
        return Destination("anthropic", current, native, None, False, "schema", settings.anthropic_api_key)
    if prefix == "deepseek" and settings.deepseek_api_key:
        key = settings.deepseek_api_key
        return Destination("deepseek", current, native, DEEPSEEK_URL, False, "object", key)
    if prefix == "ollama":
        # Never to a paid provider: who names Ollama wants it local.
        if settings.ollama_host:
            return Destination(
                "ollama", model, name, _ollama_url(settings.ollama_host), False, "schema", "ollama"
            )
    elif settings.openrouter_api_key:
        routed = current.removeprefix("openrouter/")
        key = settings.openrouter_api_key
        return Destination("openrouter", current, routed, OPENROUTER_URL, False, "object", key)
    url = settings.simulator_url.rstrip("/") + "/v1"
    return Destination("simulator", model, model, url, True, "schema", "simulated")


def answered_model(destination: Destination, reported: str) -> str:
    """The platform id of the model that says it answered."""
    if not reported:
        return destination.model
    plain = SNAPSHOT.sub("", reported)
    if destination.provider in ("simulator", "openrouter"):
        # These name models with their maker already.
        return plain if "/" in plain else destination.model
    return plain if plain.startswith(f"{destination.provider}/") else f"{destination.provider}/{plain}"


def _ollama_url(host: str) -> str:
    address = host if "://" in host else f"http://{host}"
    return address.rstrip("/").removesuffix("/v1") + "/v1"
