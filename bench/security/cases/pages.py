"""Requests as browsers send them for pages of other origins, or under names that are not ours."""

from collections.abc import Iterator
from typing import Any, Final

from bench.security.cases.playing import HttpCase

_FOREIGN: Final[dict[str, dict[str, str]]] = {
    "an image": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    "a script": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
    "a fetch": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    "a frame": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    "another port": {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    "a link": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    "a foreign origin": {"origin": "http://evil.test"},
    "a null origin": {"origin": "null"},
    "another port's origin": {"origin": "http://127.0.0.1:1"},
    "a secure origin": {"origin": "https://127.0.0.1"},
    "another name's origin": {"origin": "http://localhost"},
    "a rebound name": {"host": "evil.test"},
    "a login in the host": {"host": "evil@127.0.0.1"},
}
_TEXT: Final = {"content-type": "text/plain"}


def cases(run: str, definition: str) -> Iterator[HttpCase]:
    """Return the cases. `run` is somebody's run, `definition` one that could be started."""
    start = {"definition": definition, "input": {}}
    asked: tuple[tuple[str, str, Any], ...] = (
        ("GET", "/stream/collaborate?task=hello", None),
        ("GET", "/v1/stream/collaborate?task=hello", None),
        ("GET", f"/v1/collaborations/{run}", None),
        ("GET", f"/v1/collaborations/{run}/stream", None),
        ("POST", "/v1/collaborations", start),
        ("POST", f"/v1/collaborations/{run}/cancel", None),
        ("POST", f"/v1/collaborations/{run}/pause", {}),
        ("POST", f"/v1/collaborations/{run}/fork", {"from": ["a"]}),
        ("DELETE", "/v1/providers/anything", None),
        ("PUT", "/v1/limits", {}),
        ("POST", "/v1/graph/query", {"query": "MATCH (n) RETURN n"}),
        ("POST", "/v1/definitions", {"name": "foreign", "steps": {}}),
        ("POST", "/console/login", None),
    )
    for method, path, body in asked:
        for by, headers in _FOREIGN.items():
            name = f"{method} {path} by {by}"
            yield HttpCase(name, method, path, 403, "origin_refused", body, headers=_TEXT | headers)
