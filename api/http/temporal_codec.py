"""The remote codec of Temporal's own pages: opens sealed payloads for users who are signed in to the
console."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from schema.settings import Settings

PATHS: Final = ("/codec/decode", "/codec/encode")
MAX_BYTES: Final = 4 * 1024 * 1024


class Codec:
    """Answers the pages at FACILITAIR_TEMPORAL_UI_URL, and no others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def preflight(self) -> Response:
        headers = {
            **self._headers(),
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "content-type, x-namespace, authorization",
        }
        return Response(status_code=204, headers=headers)

    def refusal(self, status: int, text: str) -> Response:
        return Response(text, status, self._headers())

    async def answer(self, request: Request, path: str) -> Response:
        """Return the payloads of the body, opened or sealed, as JSON of `temporal.api.common.v1.Payloads`."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return self.refusal(413, "too many payloads")
        # Importing Temporal's SDK takes half a second, which only those who look there wait for.
        from google.protobuf import json_format
        from temporalio.api.common.v1 import Payloads

        from schema.errors import Refused
        from workflows.codec import data_converter

        codec = data_converter(self._settings).payload_codec
        try:
            payloads = json_format.Parse(body, Payloads(), max_recursion_depth=20)
            work = codec and (codec.decode if path.endswith("/decode") else codec.encode)
            done = await work(payloads.payloads) if work else list(payloads.payloads)
        except (json_format.ParseError, UnicodeDecodeError, RecursionError, Refused) as error:
            return self.refusal(400, f"cannot be read: {type(error).__name__}")
        text = json_format.MessageToJson(Payloads(payloads=done), indent=None)
        return Response(text, media_type="application/json", headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {
            "access-control-allow-origin": self._settings.temporal_ui_url.rstrip("/"),
            "access-control-allow-credentials": "true",
            "vary": "origin",
        }
