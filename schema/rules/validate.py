"""Definition or all its problems at once. Nothing behind this module checks a definition again."""

from contextlib import suppress
from dataclasses import dataclass, replace

from schema import names
from schema.cel.expressions import Json
from schema.errors import InvalidDefinition
from schema.language import document, limits, shape, short_form
from schema.language.catalogue import BUILT_IN, Catalogue
from schema.language.definition import Definition
from schema.language.problems import EnoughProblems, Problems, kind_of, show
from schema.rules import meaning, planning, size


@dataclass(frozen=True, slots=True)
class ValidDefinition:
    """A definition that will run."""

    definition: Definition
    inferred: dict[str, tuple[str, ...]]
    """step → what it was found to depend on beside its `needs`; also of steps in bodies."""


def validate_bytes(
    data: bytes, *, is_yaml: bool = False, name: str | None = None, catalogue: Catalogue = BUILT_IN
) -> ValidDefinition:
    """The definition in an uploaded file; raises InvalidDefinition with every problem."""
    return validate(document.load(data, is_yaml=is_yaml), name=name, catalogue=catalogue)


def validate(
    uploaded: Json, *, name: str | None = None, catalogue: Catalogue = BUILT_IN, planned: bool = False
) -> ValidDefinition:
    """The definition in a JSON value; `name` serves a bare short-form list, which has none of its own.

    `catalogue` is what the tenant's definitions may name. It is looked up again when steps run. `planned`
    says that a model wrote the definition, which may use less than an author.
    """
    short = short_form.is_short_form(uploaded)
    problems = Problems()
    with suppress(EnoughProblems):
        full = short_form.expand(uploaded, name, catalogue.roles) if short else uploaded
        checked = _check(full, problems, catalogue, planned)
        if checked is not None:
            return checked
    found = problems.all
    if short:
        found = [replace(one, pointer=short_form.as_uploaded(one.pointer, uploaded)) for one in found]
    raise InvalidDefinition(found)


def _check_name(full: dict[str, Json], problems: Problems) -> None:
    name = full.get("name")
    if isinstance(name, str) and names.is_reserved(name):
        problems.add(
            "name_reserved",
            "/name",
            f"the name {show(name)}",
            f"a name that does not begin with `{names.OWN}`",
            "Those names belong to the platform's own workflows: put a word of your own before it.",
        )


def _check(full: Json, problems: Problems, catalogue: Catalogue, planned: bool) -> ValidDefinition | None:
    """Each phase sees only what the ones before it let through."""
    if not isinstance(full, dict):
        problems.add(
            "type_wrong",
            "",
            kind_of(full),
            "an object",
            "A definition is one JSON object with name and steps.",
        )
        return None
    limits.check(full, problems)
    if problems.all:
        return None
    _check_name(full, problems)
    parts = shape.read(full, problems)
    if planned:
        planning.check(parts, problems, catalogue)
    links = meaning.check(parts, problems, catalogue)
    if problems.all:
        return None
    definition = Definition.model_validate(full)
    size.check_size(definition, problems)
    if not problems.all:
        size.check_tree(definition, {}, problems)
    if problems.all:
        return None
    return ValidDefinition(definition, {step: link.inferred for step, link in links.items() if link.inferred})
