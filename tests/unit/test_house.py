"""The house itself: its names, walls and prose, and doors that open without loading what is heavy."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "bench")
)
MAX_MODULES: Final = 24


@cache
def modules(*tops: str) -> dict[str, ast.Module]:
    """Dotted name → syntax tree, without migrations."""
    found = {}
    for top in tops or (*PACKAGES, "tests", "bench"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[0] != "migrations":
                found[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def product() -> dict[str, ast.Module]:
    return {name: tree for name, tree in modules(*PACKAGES).items() if not name.startswith("migrations")}


@pytest.mark.parametrize("name", PACKAGES)
def test_no_installed_distribution_shadows_a_package(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")
    owners = set(importlib.metadata.packages_distributions().get(name, []))
    assert owners <= {"facilitair"}


HEAVY = ("torch", "transformers", "litellm", "weaviate", "neo4j")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("cli.main", (*HEAVY, "sqlalchemy", "temporalio", "fastapi", "httpx", "cel_expr_python", "pydantic")),
        ("api.app", HEAVY),
        # The form that people fill in is checked in the workflow: jsonschema is there, and what it reads.
        ("workflows.collaboration", (*HEAVY, "sqlalchemy", "httpx")),
    ],
)
def test_importing_a_door_loads_nothing_heavy(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(name for name in {absent!r} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# Walls


def test_no_folder_holds_more_modules_than_a_reader_takes_in() -> None:
    folders = Counter(name.rpartition(".")[0] for name in modules() if not name.endswith("__init__"))
    assert {folder: count for folder, count in folders.items() if count > MAX_MODULES} == {}


def test_the_readme_names_every_folder_of_the_product_and_no_other() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| where | what stands there |") : text.index("## A definition")]
    named = {name.rstrip("/") for name in re.findall(r"`([a-z_/]+/)`", table)}
    there = {name.rpartition(".")[0].replace(".", "/") for name in product()}
    assert there - named == set()
    assert {name for name in named if not (ROOT / name).is_dir()} == set()


def test_the_walks_of_a_stranger_lead_past_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Four walks") :].partition("\n## ")[0]
    walks = [re.findall(r"`([a-z_/]+\.py)`", line) for line in section.splitlines() if "→" in line]
    assert len(walks) == 4
    for walk in walks:
        assert 2 <= len(walk) <= 8
        assert [file for file in walk if not (ROOT / file).is_file()] == []


# Started by name: commands of contributors, programs that run as files of their own, and Temporal's entry.
STARTED: Final = {
    "cli.main",
    "infra.gate.leaks",
    "infra.gate.lock",
    "infra.gate.sbom",
    "infra.local.jars",
    "infra.local.launch",
    "schema.language.publish",
}


def test_every_module_is_used_by_the_product() -> None:
    trees = product() | {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in (ROOT / "migrations").rglob("*.py")
    }
    used = {target for name, tree in trees.items() for target in _imports(tree) if target != name}
    idle = {name for name in product() if not name.endswith(("__init__", "__main__"))} - used
    assert idle == STARTED


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.Constant(value=str(text)):
                yield text


# Words

# Names that travel: the outbox and the stream call the same fact alike; two requests of the API.
SHARED_NAMES: Final = {"ToolsCalled", "ToolsReturned", "RollbackRequest"}
_IRREGULAR: Final = re.compile(
    "Known|Told|Asked|Said|Kept|Meant|Made|Came|Seen|Again|Begun|Heard|Spoken|Written|Given|Taken|Drawn|"
    "Chosen|Shown|Gone|Done|Found|Held|Left|Lost|Sent|Forgotten|Stuck"
)


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for name, tree in product().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def test_a_class_name_means_one_thing() -> None:
    places = defaultdict(set)
    for module, node in classes():
        places[node.name].add(module)
    assert {name for name, found in places.items() if len(found) > 1} - SHARED_NAMES == set()


def test_no_class_is_a_bare_participle() -> None:
    """Events are past tense by design; names of the API's models and of live events are published."""
    found = {
        node.name
        for module, node in classes()
        if re.fullmatch(r"_?[A-Z][a-z]+", node.name)
        and (node.name.strip("_").endswith("ed") or _IRREGULAR.fullmatch(node.name.strip("_")))
        and not module.startswith(("schema.events", "schema.live"))
        and not any(ast.unparse(base).endswith("Model") for base in node.bases)
    }
    assert found == {"Refused", "Feed"} & found, "the error that callers catch, and a noun"


# Prose

_OPENING: Final = re.compile(r"(What|Who|Whose|Whom|Whether|Of|How|Where|When|Why|Which|Those)\b")
MAX_RIDDLES: Final = 0


def test_docstrings_open_with_a_verb_or_the_thing_itself() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    found = [
        f"{name}:{getattr(node, 'name', '')}"
        for name, tree in product().items()
        for node in ast.walk(tree)
        if isinstance(node, kinds) and _OPENING.match(ast.get_docstring(node) or "")
    ]
    assert len(found) <= MAX_RIDDLES, found


MAX_UNFORMATTED: Final = 7


def test_the_formatter_has_the_last_word() -> None:
    skip = "# fmt: " + "skip"
    count = sum(
        path.read_text(encoding="utf-8").count(skip)
        for top in (*PACKAGES, "tests", "bench")
        for path in (ROOT / top).rglob("*.py")
    )
    assert count <= MAX_UNFORMATTED


def test_no_banner_divides_a_module() -> None:
    banner = re.compile(r"^\s*# -- .+ -+$", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for top in PACKAGES
        for path in (ROOT / top).rglob("*.py")
        if banner.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(), "each part of a divided module is a class or a module of its own"
