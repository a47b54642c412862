"""The only place that imports litellm: late, for it takes seconds and 165 MB."""

import importlib
import os
import threading
from typing import Any

_lock = threading.Lock()
_loaded: Any = None


def is_loaded() -> bool:
    return _loaded is not None


def litellm() -> Any:
    """The litellm module, imported and quietened on first use."""
    global _loaded  # the module itself is a process-wide singleton, and so is its configuration
    if _loaded is not None:
        return _loaded
    with _lock:
        if _loaded is None:
            # Without them it goes to the network: for prices when imported, for headers when first called.
            os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
            os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
            module: Any = importlib.import_module("litellm")
            module.telemetry = False
            module.suppress_debug_info = True
            module.num_retries = 0
            module.cache = None
            # Some models refuse a temperature; an agent that names one should still run on them.
            module.drop_params = True
            _loaded = module
    return _loaded


def provider_config(provider: str, model: str) -> Any:
    """Return litellm's description of a provider's requests. It calls no provider."""
    manager = litellm().utils.ProviderConfigManager
    return manager.get_provider_chat_config(model, litellm().LlmProviders(provider))


def anthropic_events(*, json_mode: bool) -> Any:
    """Return litellm's reader for Anthropic's events, one per answer; `json_mode` is for schemas."""
    handler = importlib.import_module("litellm.llms.anthropic.chat.handler")
    return handler.ModelResponseIterator(None, sync_stream=False, json_mode=json_mode)


def empty_response() -> tuple[Any, Any]:
    """The HTTP response and the answer that litellm fills when it translates a whole one."""
    return importlib.import_module("httpx").Response(200), litellm().ModelResponse()
