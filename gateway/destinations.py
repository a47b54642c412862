"""Choose who answers for a model: a tenant's own provider, one with a key, a local Ollama, or the
simulator."""

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from gateway.keys import Keys
from gateway.provider_limits import NO_LIMITS, ProviderLimits, limits_in
from schema.errors import ProviderError
from schema.hosts import fault_of, names_in
from schema.language.catalogue import PROVIDERS, ProviderKind, TenantProvider
from schema.settings import Settings

Kind = Literal[ProviderKind, "simulator"]
Structure = Literal["schema", "object"]

# Models of the seed that their providers have withdrawn, and what answers in their place there.
# The simulator still plays the old names.
SUCCESSORS: Final[Mapping[str, str]] = {
    "openai/gpt-4": "openai/gpt-4.1",
    "deepseek/deepseek-chat": "deepseek/deepseek-v4-flash",
    "anthropic/claude-3.5-sonnet": "anthropic/claude-sonnet-4-6",
    "qwen/qwen-2.5-coder": "qwen/qwen-2.5-coder-32b-instruct",
}

KEYED: Final[tuple[ProviderKind, ...]] = ("openai", "anthropic", "deepseek", "openrouter")
ADDRESSES: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
"""The providers' own."""
# A snapshot's date: gpt-4o-mini-2024-07-18, claude-haiku-4-5-20251001.
SNAPSHOT: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")
# These of OpenAI take no schema.
ONLY_OBJECTS: Final = re.compile(r"gpt-3\.5|gpt-4-|gpt-4$")


@dataclass(frozen=True, slots=True)
class Destination:
    """The provider, address and model to which a call goes."""

    provider: str
    """The first part of the ids of its models."""
    model: str
    """The platform id that answers there; a withdrawn model's successor."""
    wire_model: str
    """The name that the provider knows it by."""
    base_url: str
    kind: Kind
    """The protocol that it speaks."""
    structure: Structure = "schema"
    """"schema": the provider takes a JSON Schema. "object": it promises JSON only, the prompt says which."""
    limits: ProviderLimits = NO_LIMITS
    api_key: str = field(default="", repr=False)

    @property
    def simulated(self) -> bool:
        return self.kind == "simulator"

    @property
    def speaks_openai(self) -> bool:
        return self.kind != "anthropic"

    @property
    def account(self) -> str:
        """The mark of address and key: accounts with the same mark share limits. The key cannot be read from
        it."""
        mark = hashlib.sha256(f"{self.base_url}\n{self.api_key}".encode()).hexdigest()
        return f"{self.provider}:{mark[:12]}"

    @property
    def requests_per_minute(self) -> int | None:
        return self.limits.requests_per_minute

    @property
    def tokens_per_minute(self) -> int | None:
        return self.limits.tokens_per_minute

    @property
    def can_be_asked(self) -> bool:
        """Tell whether the provider reports afterwards what a call took."""
        return self.kind in ("openrouter", "simulator")


class Destinations:
    """Decides by a model's first part and the keys that are set; nothing is called."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError where provider_limits cannot be read."""
        self._settings = settings
        self._limits = limits_in(settings.provider_limits)
        self._keys = Keys(settings.keys_dir)

    def find(self, model: str, providers: Mapping[str, TenantProvider], tenant: str) -> Destination:
        """Raises ProviderError: model_unknown, or provider_auth for a tenant's provider."""
        name, _, rest = model.partition("/")
        if not name or not rest:
            raise ProviderError(
                "model_unknown",
                f"found model {model!r}; expected provider/name, for example openai/gpt-4o-mini",
                retryable=False,
            )
        if own := providers.get(name):
            return self._own(own, model, tenant)
        if name not in PROVIDERS:
            # Removed since the upload, perhaps: its prompts are for nobody else.
            known = ", ".join(dict.fromkeys((*PROVIDERS, *providers)))
            raise ProviderError(
                "model_unknown",
                f"found model {model!r} of no provider of tenant {tenant!r}; expected one of {known}. "
                f"Define it with `facilitair providers set {shlex.quote(name)}`, or name another model",
                retryable=False,
            )
        kind = _kind(name)
        if kind is not None and kind != "openrouter" and self.platform_key(kind):
            return self._platforms(kind, model)
        if name == "ollama":
            # Never to a paid provider: who names Ollama wants it local.
            if self._settings.ollama_host:
                return self._limited(Destination(name, model, rest, self._address("ollama"), "ollama"))
        elif (through := providers.get("openrouter")) and through.kind == "openrouter":
            return self._own(through, model, tenant)
        elif self.platform_key("openrouter"):
            return self._platforms("openrouter", model)
        url = self._settings.simulator_url.rstrip("/") + "/v1"
        return self._limited(Destination("simulator", model, model, url, "simulator"))

    def simulates(self, model: str, providers: Mapping[str, TenantProvider], tenant: str) -> bool:
        """Return whether the simulator would answer for a model; not where nobody would."""
        try:
            return self.find(model, providers, tenant).simulated
        except ProviderError:
            return False

    def platform_key(self, kind: ProviderKind) -> str:
        known = self._settings
        return {
            "openai": known.openai_api_key,
            "anthropic": known.anthropic_api_key,
            "deepseek": known.deepseek_api_key,
            "openrouter": known.openrouter_api_key,
        }.get(kind, "")

    def reach(self, place: str) -> Literal["anywhere", "public", "nowhere"]:
        """Return where a host:port may lead.

        Anywhere if the operator named it with its port or set it as an address of the platform; to public
        addresses if only its name is allowed; otherwise nowhere.
        """
        allowed = names_in(self._settings.provider_hosts)
        ours = {_place(self._address(kind)) for kind in get_args(ProviderKind)}
        if place in allowed | ours | {_place(self._settings.simulator_url)}:
            return "anywhere"
        return "public" if place.rpartition(":")[0] in allowed else "nowhere"

    def _platforms(self, kind: ProviderKind, model: str) -> Destination:
        model = SUCCESSORS.get(model, model)
        return self._limited(_at(kind, self._address(kind), model, self.platform_key(kind)))

    def _limited(self, destination: Destination) -> Destination:
        limits = self._limits.get(destination.provider)
        return replace(destination, limits=limits) if limits else destination

    def _address(self, kind: ProviderKind) -> str:
        """Return the provider's address; "" if the platform does not call it."""
        known = self._settings
        if kind == "ollama":
            return _ollama_url(known.ollama_host) if known.ollama_host else ""
        other = {"openai": known.openai_base_url, "anthropic": known.anthropic_base_url}.get(kind)
        return other or ADDRESSES.get(kind, "")

    def _own(self, own: TenantProvider, model: str, tenant: str) -> Destination:
        """At a tenant's provider."""
        address = self._own_address(own)
        limits = ProviderLimits(own.requests_per_minute, own.tokens_per_minute)
        key = self._keys.find(tenant, own.key_ref) if own.key_ref else ""
        if not key and not own.base_url:
            # The platform's keys go where the platform calls, and what it may is shared by all tenants.
            key = self.platform_key(own.kind)
            limits = limits.and_those(self._limits.get(own.kind, NO_LIMITS))
        if not key and (own.kind in ("anthropic", "deepseek", "openrouter") or address in ADDRESSES.values()):
            raise _refused(own, "no key_ref", "the name under which the worker finds its key")
        model = SUCCESSORS.get(model, model)
        if own.kind == own.name or (own.kind == "openrouter" and own.name in PROVIDERS):
            return replace(_at(own.kind, address, model, key), provider=own.name, limits=limits)
        structure: Structure = "schema" if own.kind in ("openai", "anthropic", "ollama") else "object"
        wire_model = model.partition("/")[2]
        return Destination(own.name, model, wire_model, address, own.kind, structure, limits, key)

    def _own_address(self, own: TenantProvider) -> str:
        if not own.base_url:
            if address := self._address(own.kind):
                return address
            raise _refused(own, "no base_url", "the address of its API, for example https://host/v1")
        if own.base_url.rstrip("/") not in ADDRESSES.values():
            fault = fault_of(own.base_url, self._settings.provider_hosts)
            if fault is not None:
                raise _refused(own, *fault)
        return _ollama_url(own.base_url) if own.kind == "ollama" else own.base_url.rstrip("/")


def answered_model(destination: Destination, reported: str) -> str:
    """The platform id of the model that says it answered."""
    if not reported:
        return destination.model
    plain = SNAPSHOT.sub("", reported)
    if destination.kind == "simulator" or destination.provider == "openrouter":
        # These name models with their maker already.
        return plain if "/" in plain else destination.model
    return plain if plain.startswith(f"{destination.provider}/") else f"{destination.provider}/{plain}"


def _at(kind: ProviderKind, address: str, model: str, key: str) -> Destination:
    """At one of the providers that everybody knows, under the names that it gives its models."""
    native = model.partition("/")[2]
    structure: Structure = "object" if kind in ("deepseek", "openrouter") else "schema"
    if kind == "openai" and ONLY_OBJECTS.match(native):
        structure = "object"
    # OpenRouter's names have the maker in front, as our ids have.
    wire_model = model.removeprefix("openrouter/") if kind == "openrouter" else native
    return Destination(kind, model, wire_model, address, kind, structure, api_key=key)


def _kind(name: str) -> ProviderKind | None:
    return next((kind for kind in KEYED if kind == name), None)


def _refused(own: TenantProvider, found: str, expected: str, fix: str = "Add it.") -> ProviderError:
    message = f"provider {own.name!r}: found {found}; expected {expected}. {fix}"
    return ProviderError("provider_auth", message, retryable=False)


def _ollama_url(host: str) -> str:
    address = host if "://" in host else f"http://{host}"
    return address.rstrip("/").removesuffix("/v1") + "/v1"


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
