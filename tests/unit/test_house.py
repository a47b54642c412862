"""The house itself: nobody else owns our top-level names, and doors open without loading what is heavy."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "bench")
)


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
