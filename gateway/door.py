"""The only place that imports litellm, and what it calls through: late, for it takes seconds and 165 MB."""

import importlib
import os
import threading
from typing import Any, Final

MAX_CONNECTIONS: Final = 2_000

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
            # Without it the import goes to the network for prices, three times if it fails.
            os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
            module: Any = importlib.import_module("litellm")
            module.telemetry = False
            module.suppress_debug_info = True
            module.num_retries = 0
            module.cache = None
            # Some models refuse a temperature; an agent that names one should still run on them.
            module.drop_params = True
            _loaded = module
    return _loaded


def openai_client(base_url: str | None, api_key: str, http_client: Any) -> Any:
    """A client of the SDK that litellm calls OpenAI-shaped providers with."""
    sdk = importlib.import_module("openai")
    return sdk.AsyncOpenAI(base_url=base_url, api_key=api_key, http_client=http_client, max_retries=0)


def http_client() -> Any:
    """An HTTP client whose bytes aiohttp reads: with hundreds of streams, httpx's own reading fills a
    processor. Call it where a loop runs."""
    aiohttp, httpx = importlib.import_module("aiohttp"), importlib.import_module("httpx")
    bridge = importlib.import_module("httpx_aiohttp")
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=httpx.create_ssl_context())
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)
    transport = bridge.AiohttpTransport(client=session)
    return httpx.AsyncClient(transport=transport, timeout=None, follow_redirects=False)
