"""`python -m api`: serve the HTTP door."""

import gc
import resource
import sys
from contextlib import suppress

from api.http.auth import MIN_KEY_CHARS
from api.http.origins import is_loopback
from api.http.public_address import public_address
from schema.errors import Refused
from schema.settings import Settings

_MAX_FILES = 65_536
_NOT_STARTED = 3


def main() -> int:
    settings = Settings()
    if wrong := refusal(settings):
        sys.stderr.write(f"{wrong}\n")
        return 2
    _allow_many_connections()

    gc.disable()  # a tenth of the start: what importing makes is there to stay
    import uvicorn

    from api.app import create_app
    from api.http.server import config
    from db.telemetry import log_as_json, setup

    gc.enable()

    log_as_json()
    traces = setup("api", settings)
    server = uvicorn.Server(config(create_app(settings), settings, host=settings.host, port=settings.port))
    try:
        with suppress(KeyboardInterrupt):
            server.run()
    finally:
        traces.shutdown()
    return 0 if server.started else _NOT_STARTED


def refusal(settings: Settings) -> str | None:
    """Return why the API must not be started with these settings."""
    key = settings.api_key
    if not key and not is_loopback(settings.host):
        return (
            f"found FACILITAIR_HOST={settings.host} and no FACILITAIR_API_KEY; expected 127.0.0.1, or a key: "
            "anyone who reaches this address could run collaborations at your cost. Set FACILITAIR_API_KEY."
        )
    if key and len(key) < MIN_KEY_CHARS:
        return (
            f"found a FACILITAIR_API_KEY of {len(key)} characters; expected at least {MIN_KEY_CHARS}: a "
            "shorter one can be guessed. Make one with `openssl rand -hex 32`."
        )
    try:
        public = public_address(settings)
    except Refused as error:
        return error.message
    if public and not key and not is_loopback(public.host):
        return (
            f"found FACILITAIR_PUBLIC_URL={settings.public_url} and no FACILITAIR_API_KEY; expected a key: "
            "anyone who opens this address could run collaborations at your cost. Set FACILITAIR_API_KEY."
        )
    if key and not settings.payload_keys:
        return (
            "found a FACILITAIR_API_KEY and no FACILITAIR_PAYLOAD_KEYS; expected both: without the second, "
            "anyone who reaches Temporal reads runs and starts them as anybody. Make one with "
            "`openssl rand -base64 32 | tr '+/' '-_'`, and give it to every worker too."
        )
    return None


def _allow_many_connections() -> None:
    """Raise the number of files that this process may open: 1,024, the usual one, is 1,000 silent sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
