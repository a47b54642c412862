"""A simulator of its own for a test module, without delays, and what its calls are made through."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from schema.settings import Settings


@contextmanager
def running_simulator(speed: str = "inf") -> Iterator[str]:
    """The address of a simulator that answers at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "infra.simulator", "--port", str(port), "--speed", speed]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"{url}/health").raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise


def only_simulated(simulator_url: str, **more: str) -> Settings:
    """Settings without any provider's key, apart from those in `more`."""
    keys = ("openai_api_key", "anthropic_api_key", "openrouter_api_key", "deepseek_api_key", "ollama_host")
    values = dict.fromkeys(keys, "") | {"simulator_url": simulator_url} | more
    return Settings.model_validate(values)
