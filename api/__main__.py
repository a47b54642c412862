"""`python -m api`: serve the HTTP door."""

import gc
import sys

from api.auth import is_loopback
from schema.settings import Settings


def main() -> int:
    settings = Settings()
    if not settings.api_key and not is_loopback(settings.host):
        sys.stderr.write(
            f"found FACILITAIR_HOST={settings.host} and no FACILITAIR_API_KEY; expected 127.0.0.1, or a key: "
            "anyone who reaches this address could run collaborations at your cost. Set FACILITAIR_API_KEY.\n"
        )
        return 2

    gc.disable()  # a tenth of the start: what importing makes is there to stay
    import uvicorn

    from api.app import create_app
    from db.telemetry import log_as_json, setup

    gc.enable()

    log_as_json()
    traces = setup("api", settings)
    try:
        uvicorn.run(
            create_app(settings), host=settings.host, port=settings.port, log_config=None, access_log=False,
            server_header=False, proxy_headers=False, limit_concurrency=1_000, timeout_graceful_shutdown=5,
        )  # fmt: skip
    finally:
        traces.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
