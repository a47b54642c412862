"""The public HTTP API in this process: the console can do nothing that its users cannot."""

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from starlette.types import ASGIApp

from api.http.addresses import IN_PROCESS

_TIMEOUT_SECONDS: Final = 60.0


@dataclass
class ApiFault(Exception):
    """A refusal of the API, in its own words."""

    status: int
    code: str
    message: str
    problems: list[dict[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.message


def segment(text: object) -> str:
    """As one part of an address."""
    return quote(str(text), safe="")


class ConsoleApi:
    """Requests and answers as JSON; raises Fault."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        import httpx  # a fifth of a second, which nobody waits for who only starts the API

        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False, client=(IN_PROCESS, 0)),
            base_url="http://127.0.0.1/v1",
            headers={"X-API-Key": key} if key else {},
            timeout=_TIMEOUT_SECONDS,
        )

    async def get(self, path: str, **query: Any) -> Any:
        given = {key: value for key, value in query.items() if value not in (None, "")}
        return await self._ask("GET", path, params=given)

    async def post(self, path: str, value: Any = None) -> Any:
        return await self._ask("POST", path, **({} if value is None else {"json": value}))

    async def put(self, path: str, value: Any) -> Any:
        return await self._ask("PUT", path, json=value)

    async def delete(self, path: str) -> Any:
        return await self._ask("DELETE", path)

    async def upload(self, path: str, text: str, *, is_yaml: bool = False) -> Any:
        """A definition as somebody wrote it."""
        media_type = "application/yaml" if is_yaml else "application/json"
        return await self._ask("POST", path, content=text.encode(), headers={"Content-Type": media_type})

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        answer = await self._client.request(method, path, **how)
        try:
            found = answer.json() if answer.content else None
        except ValueError:
            found = None
        if answer.is_success:
            return found
        facts = found if isinstance(found, dict) else {}
        raise ApiFault(
            answer.status_code,
            facts.get("code", "internal_error"),
            facts.get("detail", "something went wrong."),
            facts.get("problems") or [],
        )
