import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from schema.language.catalogue import ROLE_DEFAULTS, Catalogue
from schema.language.editors import ID
from schema.language.publish import PUBLISHED, main, published_text
from schema.rules.validate import validate, validate_bytes
from tests.support.pages import PAGES, blocks

ROOT = Path(__file__).resolve().parents[3]
LANGUAGE = ROOT / "docs" / "language.md"


def test_the_published_schema_is_current() -> None:
    assert main(["--check"]) == 0, "run python -m schema.language.publish"


@pytest.fixture(scope="module")
def published() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(PUBLISHED.read_text(encoding="utf-8")), offline=True)


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.json")), ids=lambda file: file.stem)
def test_examples_fit_it_and_say_where_it_is(
    file: Path, published: jsonschema_rs.Draft202012Validator
) -> None:
    example = json.loads(file.read_text(encoding="utf-8"))
    published.validate(example)
    if isinstance(example, dict):  # a bare list has no place for it
        assert (file.parent / example["$schema"]).resolve() == PUBLISHED


def test_it_has_an_address_and_no_word_that_json_schema_does_not_know() -> None:
    assert json.loads(published_text())["$id"] == ID
    assert '"discriminator"' not in published_text()


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


def snippets(pages: list[Path]) -> Iterator[Any]:
    for block in (block for page in pages for block in blocks(page)):
        if block.language in ("json", "yaml"):
            yield pytest.param(block.language, block.text, id=f"{block.page}-{block.line}")


OTHER_PAGES = [page for page in PAGES if page != LANGUAGE]


@pytest.mark.parametrize(("kind", "body"), list(snippets(OTHER_PAGES)))
def test_whole_definitions_of_every_page_are_valid(
    kind: str, body: str, published: jsonschema_rs.Draft202012Validator
) -> None:
    value = json.loads(body) if kind == "json" else yaml.safe_load(body)
    if isinstance(value, dict) and "steps" in value:
        published.validate(value)
        roles = {"security-reviewer": ROLE_DEFAULTS["reviewer"]}
        validate(value, catalogue=Catalogue(roles={**ROLE_DEFAULTS, **roles}, prompts={"summary": 1}))


@pytest.mark.parametrize(("kind", "body"), list(snippets([LANGUAGE])))
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
            "name": "snippet",
            "agents": {"writer": {"role": "coder"}},
            "steps": others | ({} if section else value),
        } | section
    validate(value, name="snippet")
    published.validate(value)
