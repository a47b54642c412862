"""Three lists that must agree: codes in the source, codes in docs/errors.md, files in examples/invalid."""

import ast
import re
from pathlib import Path

import pytest

from schema.errors import InvalidDefinition
from schema.language import document
from schema.language.document import MAX_BYTES
from schema.rules.validate import validate, validate_bytes

ROOT = Path(__file__).resolve().parents[3]
INVALID = ROOT / "examples" / "invalid"
SOURCES = sorted((ROOT / "schema").rglob("*.py"))

# A file that is too large does not belong in the repository.
WITHOUT_FILE = {"document_too_large": b" " * (MAX_BYTES + 1)}

# Refused where a model wrote it, and fine as an author's.
OF_PLANS = {"not_for_plans"}

_CODE = re.compile(r"[a-z]+(_[a-z]+)*")
_MAKERS = {"add", "_problem", "ExpressionInvalid", "StepError"}
_FILES = sorted(INVALID.iterdir())


def codes_in_source() -> set[str]:
    """First arguments of whatever makes a problem, and the first items of tuples that become one."""
    found: set[str] = set()
    for source in SOURCES:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                first = node.args[0] if name in _MAKERS else None
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                first = node.value.elts[0] if len(node.value.elts) > 2 else None
            else:
                continue
            if (
                isinstance(first, ast.Constant)
                and isinstance(first.value, str)
                and _CODE.fullmatch(first.value)
            ):
                found.add(first.value)
    # Errors at run are no problems of a document.
    return found - {"expression_failed", "output_invalid", "output_too_large"}


def codes_in_docs() -> set[str]:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    section = text.split("## Problems of a definition", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r'<a id="([a-z_]+)"></a>', section))


def test_source_docs_and_examples_agree() -> None:
    files = {file.stem for file in _FILES}
    assert codes_in_docs() == codes_in_source()
    assert files | WITHOUT_FILE.keys() == codes_in_source()
    assert not files & WITHOUT_FILE.keys()


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_example_is_refused_with_its_code_and_nothing_else(file: Path) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document.load(file.read_bytes()), planned=file.stem in OF_PLANS)
    assert [problem.code for problem in caught.value.problems] == [file.stem]


@pytest.mark.parametrize("code", sorted(WITHOUT_FILE))
def test_generated_example_is_refused_with_its_code(code: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate_bytes(WITHOUT_FILE[code])
    assert [problem.code for problem in caught.value.problems] == [code]


def test_every_code_of_the_platform_has_a_line() -> None:
    """Error classes raised with a literal code anywhere in the repository."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = set(re.findall(r'<a id="([a-z0-9_]+)"></a>', text))
    classes = "FacilitairError|NotFound|Refused|TryLater|BadRequest|Unavailable|StepError|ProviderError"
    raised = re.compile(rf'(?:\b(?:{classes})\(\s*|\btype=)"([a-z]+_[a-z_]+)"')
    packages = (
        "schema",
        "plan",
        "db",
        "workflows",
        "activities",
        "gateway",
        "router",
        "memory",
        "graph",
        "api",
        "cli",
        "workers",
        "infra",
    )
    used = {
        code
        for package in packages
        for file in (ROOT / package).rglob("*.py")
        for code in raised.findall(file.read_text(encoding="utf-8"))
    }
    assert used - documented == set()
