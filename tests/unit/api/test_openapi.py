"""The OpenAPI document as generators and linters of others read it."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from schema.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(json.loads(json.dumps(create_app(Settings()).openapi())))


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(one)


def test_every_list_says_of_what(document: dict[str, Any]) -> None:
    """openapi-python-client leaves out an operation with a list of it does not know what."""
    assert [node for node in nodes(document) if node.get("type") == "array" and "items" not in node] == []


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = Counter(operation["operationId"] for operation in operations(document))
    assert [name for name, count in names.items() if count > 1 or not name.isidentifier()] == []
    assert "collaborations_read" in names


def test_tags_are_declared_and_used(document: dict[str, Any]) -> None:
    declared = {tag["name"] for tag in document["tags"]}
    assert {tag for operation in operations(document) for tag in operation["tags"]} == declared
    assert all(tag["description"] for tag in document["tags"])


def test_it_says_where_the_server_is(document: dict[str, Any]) -> None:
    assert [server["url"] for server in document["servers"]] == ["/"]
