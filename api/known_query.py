"""Refuse what no operation reads: a misspelt filter would otherwise answer with everything."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute

from api.problems import BadRequest
from schema.problems import nearest

_fields: dict[Callable[..., Any], frozenset[str]] = {}
"""Of operations that were asked for."""


async def known_query(request: Request) -> None:
    """Raise BadRequest for a field of the query that the operation does not have."""
    route = request.scope["route"]
    if route.endpoint not in _fields:
        _fields[route.endpoint] = _fields_of(route)
    known = _fields[route.endpoint]
    for field in request.query_params:
        if field not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise BadRequest(
                "request_invalid",
                f"found {field[:100]!r} in the query; expected one of: {expected}. {nearest(field, known)}",
            )


def _fields_of(route: APIRoute) -> frozenset[str]:
    fields = get_flat_params(route.dependant)
    return frozenset(field.alias for field in fields if isinstance(field.field_info, Query))
