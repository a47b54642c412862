"""The API, as the commands use it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from cli.output import InputRefused, NothingRunning
from schema.errors import FacilitairError, NotFound, Problem, Unavailable

# httpx takes a fifth of a second to import: `--help` does not need it.
if TYPE_CHECKING:
    import httpx

_TIMEOUT_SECONDS: Final = 30.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Api:
    """Requests and answers as JSON; a refusal becomes the error it was in the API.

    The address is looked up with the first request: a command may find that it needs none.
    """

    def __init__(self, address: str | Callable[[], str], *, key: str = "") -> None:
        self._find, self._key = address, key

    @cached_property
    def address(self) -> str:
        return (self._find if isinstance(self._find, str) else self._find()).rstrip("/")

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(
            base_url=f"{self.address}/v1",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=_TIMEOUT_SECONDS,
            # A proxy from the environment cannot reach this machine's loopback.
            trust_env=urlsplit(self.address).hostname not in _LOOPBACK,
        )

    def get(self, path: str, **query: Any) -> Any:
        return self._request("GET", path, params=_given(query))

    def whole(self, path: str, key: str, **query: Any) -> Any:
        """An answer that has a list in pages, with all of its pages."""
        found = page = self.get(path, **query)
        while place := page.get("next"):
            page = self.get(path, after=place)
            found[key] += page[key]
        return found | {"next": None}

    def post(self, path: str, value: Any = None, **query: Any) -> Any:
        return self._request("POST", path, json=value, params=_given(query))

    def put(self, path: str, value: Any, **query: Any) -> Any:
        return self._request("PUT", path, json=value, params=query)

    def delete(self, path: str, **query: Any) -> Any:
        return self._request("DELETE", path, params=_given(query))

    def upload(self, content: bytes, *, is_yaml: bool, name: str | None) -> Any:
        media_type = "application/yaml" if is_yaml else "application/json"
        query = {"name": name} if name else {}
        return self._request(
            "POST", "/definitions", content=content, params=query, headers={"Content-Type": media_type}
        )

    @contextmanager
    def stream(self, path: str, place: str, **query: Any) -> Iterator[Iterator[bytes]]:
        """The bytes of a stream, on from a place; raises what breaks it, on the way too."""
        import httpx

        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": place} if place else {})
        try:
            with self._client.stream(
                "GET", path, params=query, headers=headers, timeout=httpx.Timeout(_TIMEOUT_SECONDS, read=60)
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _error(answer)
                yield answer.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def content(self, path: str) -> bytes:
        """Return a response that is not JSON."""
        return self._answer("GET", path).content

    def _unreachable(self, error: "httpx.TransportError") -> NothingRunning:
        return NothingRunning(
            "api_unreachable",
            f"found no API at {self.address} ({type(error).__name__}). Start the platform with "
            "`facilitair up`, or name another address with --url.",
        )

    def _request(self, method: str, path: str, **how: Any) -> Any:
        answer = self._answer(method, path, **how)
        return answer.json() if answer.content else None

    def _answer(self, method: str, path: str, **how: Any) -> "httpx.Response":
        import httpx

        try:
            answer = self._client.request(method, path, **how)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_success:
            return answer
        raise _error(answer)


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _error(answer: "httpx.Response") -> FacilitairError:
    try:
        body = answer.json()
        code, detail = str(body["code"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return FacilitairError(
            "answer_unknown",
            f"found status {answer.status_code} from {answer.url}; expected an answer of Facilitair's API. "
            "Check --url.",
        )
    if answer.status_code == 404:
        return NotFound(code, detail)
    if answer.status_code == 503:
        return Unavailable(code, detail)
    if answer.status_code >= 500:
        return FacilitairError(code, detail)
    problems = [
        Problem(one["code"], one["pointer"], one["found"], one["expected"], one["fix"])
        for one in body.get("problems") or ()
    ]
    return InputRefused(code, detail, problems)


def segment(text: str) -> str:
    """A person's text as one segment of a path."""
    return quote(text, safe="", errors="replace")


def connect(url: str | None, data: Path | None) -> Api:
    """Return the named API, else the one of the platform that runs here."""
    return Api(url or partial(running_address, data), key=os.environ.get("FACILITAIR_API_KEY", ""))


def running_address(data: Path | None) -> str:
    """Return the address of the platform under `data`. Raises NothingRunning."""
    from infra.local import read_state
    from schema.settings import default_data_dir

    directory = data or default_data_dir()
    state = read_state(directory)
    if state is None or not state.running:
        raise NothingRunning(
            "nothing_running",
            f"nothing is running under {directory}. Start it with `facilitair up --detach`, or name a "
            "running API with --url or FACILITAIR_URL.",
        )
    return state.addresses["api"]
