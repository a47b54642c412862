import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from schema.publish import PUBLISHED, main, published_text
from schema.validate import validate, validate_bytes

ROOT = Path(__file__).resolve().parents[2]
LANGUAGE = ROOT / "docs" / "language.md"


def test_the_published_schema_is_current() -> None:
    assert main(["--check"]) == 0, "run python -m schema.publish"


@pytest.fixture(scope="module")
def published() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(PUBLISHED.read_text(encoding="utf-8")), offline=True)


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.json")), ids=lambda file: file.stem)
def test_examples_fit_it(file: Path, published: jsonschema_rs.Draft202012Validator) -> None:
    published.validate(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code", ["field_missing", "field_unknown", "kind_unknown", "type_wrong", "value_wrong"]
)
def test_faults_of_shape_do_not_fit_it(code: str, published: jsonschema_rs.Draft202012Validator) -> None:
    assert not published.is_valid(json.loads((ROOT / "examples" / "invalid" / f"{code}.json").read_text()))


def test_every_field_says_what_it_is_for() -> None:
    parts = json.loads(published_text())["$defs"]
    silent = [
        f"{name}.{field}"
        for name, part in parts.items()
        for field, schema in part.get("properties", {}).items()
        if "description" not in schema and "const" not in schema and "$ref" not in schema
    ]
    assert silent == []


def snippets() -> Iterator[Any]:
    text = LANGUAGE.read_text(encoding="utf-8")
    for number, (kind, body) in enumerate(re.findall(r"```(json|yaml)\n(.*?)```", text, re.DOTALL)):
        yield pytest.param(kind, body, id=f"{kind}-{number}")


@pytest.mark.parametrize(("kind", "body"), list(snippets()))
def test_snippets_of_the_language_reference_are_valid(
    kind: str, body: str, published: jsonschema_rs.Draft202012Validator
) -> None:
    """A whole definition as it stands; steps or agents alone inside one that has the rest."""
    if kind == "yaml":
        validate_bytes(body.encode(), is_yaml=True)
        return
    value = json.loads(body)
    if isinstance(value, dict) and "steps" not in value:
        others = {name: {"kind": "transform", "value": "x"} for name in ("draft", "review", "extra")}
        section = value if value.keys() <= {"agents", "defaults", "input", "output", "stream"} else {}
        value = {
            "name": "snippet", "agents": {"writer": {"role": "coder"}},
            "steps": others | ({} if section else value),
        } | section  # fmt: skip
    validate(value, name="snippet")
    published.validate(value)
