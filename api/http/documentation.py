"""The OpenAPI document and the page that shows it, with nothing fetched from elsewhere."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from api.http import problems
from schema.settings import Settings

TAGS: Final = {
    "definitions": "What users upload: checked, stored in versions, planned and rehearsed.",
    "catalogue": "Roles, skills, providers and models.",
    "spending": "Prices, limits, and what was spent on whom.",
    "collaborations": "Runs: start, read, steer, cancel, and go on from them.",
    "streams": "Runs as they happen.",
    "schedules": "Starts by the clock.",
    "webhooks": "Starts by an address.",
    "prompts": "Stored prompts and their trials.",
    "tasks": "What people are asked.",
    "graph": "Questions in Cypher.",
    "analytics": "Sums of runs over time.",
    "router": "Which model does what.",
    "health": "Whether the platform works.",
}
_ERRORS: Final = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
_OWN: Final = Path(__file__).parent / "documentation_static"
# Swagger UI sets styles by itself and holds its icons as data.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>API · Facilitair</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/swagger-ui/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui/swagger-ui-bundle.js"></script>
<script src="/docs/own/start.js"></script></body></html>"""


def operation_id(route: APIRoute) -> str:
    """Return the name that generators of clients give an operation: `collaborations_read`."""
    return f"{route.tags[0] if route.tags else 'other'}_{route.name}"


def install(app: FastAPI) -> None:
    """Add /openapi.json, /docs, and what `type` of a problem leads to."""
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_route("/openapi.json", _Document().answer, include_in_schema=False)
    app.add_route("/docs", _page, include_in_schema=False)
    # A problem's `type` is relative, and so are the addresses that it is told at.
    app.add_route("/{above:path}docs/errors.md", _errors, include_in_schema=False)
    app.mount("/docs/swagger-ui", StaticFiles(directory=_swagger_ui()))
    app.mount("/docs/own", StaticFiles(directory=_OWN))


def _swagger_ui() -> Path:
    """Return where a package of the registry keeps Swagger UI; only its files are used, not its code."""
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "static"


async def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})


async def _errors(request: Request) -> Response:
    return FileResponse(_ERRORS, media_type="text/markdown; charset=utf-8")


class _Document:
    """The OpenAPI document as bytes, made when it is first asked for."""

    def __init__(self) -> None:
        self._making: asyncio.Task[bytes] | None = None

    async def answer(self, request: Request) -> Response:
        if self._making is None or (self._making.done() and self._making.exception()):
            self._making = asyncio.create_task(_made_elsewhere())
        return Response(await asyncio.shield(self._making), media_type="application/json")


async def _made_elsewhere() -> bytes:
    # Seconds of pure computation: in a thread, too, they would hold the event loop for half a second.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api.http.documentation", stdout=asyncio.subprocess.PIPE
    )
    written, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the OpenAPI document could not be made (exit status {process.returncode})")
    return written


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=[{"name": name, "description": about} for name, about in TAGS.items()],
            servers=[{"url": "/", "description": "The API that serves this document."}],
        )
        components = schema.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        document = problems.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= document.pop("$defs") | {"ProblemDocument": document}
        for operation in (one for methods in schema["paths"].values() for one in methods.values()):
            for body in operation.get("requestBody", {}).get("content", {}).values():
                schemas |= body["schema"].pop("$defs", {})
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{"bearer": []}, {"header": []}, {}]
        app.openapi_schema = schema
    return app.openapi_schema


def main() -> int:
    """Write the document to standard output."""
    from api.app import create_app

    sys.stdout.buffer.write(json.dumps(create_app(Settings()).openapi(), separators=(",", ":")).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
