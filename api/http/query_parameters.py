"""Refuse what no operation reads: a misspelt filter would otherwise answer with everything."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant

from api.http.problems import BadRequest
from schema.language.problems import nearest

_fields: dict[Callable[..., Any], frozenset[str]] = {}
"""Parameters of operations that were called before."""


async def known_query(request: Request) -> None:
    """Raise BadRequest for a field of the query that the operation does not have."""
    route = request.scope["route"]
    if route.endpoint not in _fields:
        _fields[route.endpoint] = _fields_of(route.dependant)
    known = _fields[route.endpoint]
    for field in request.query_params:
        if field not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise BadRequest(
                "request_invalid",
                f"found {field[:100]!r} in the query; expected one of: {expected}. {nearest(field, known)}",
            )


def _fields_of(dependant: Dependant) -> frozenset[str]:
    found = {name for inner in dependant.dependencies for name in _fields_of(inner)}
    for field in dependant.query_params:
        # One model may stand for several fields.
        inner = getattr(field.field_info.annotation, "model_fields", None)
        found |= {one.alias or name for name, one in inner.items()} if inner else {field.alias}
    return frozenset(found)
