# Everything a contributor types. `just` alone lists it.
default:
    @just --list

# The environment, in the exact versions of pyproject.toml.
setup:
    uv sync

# Every server and the platform, until Ctrl-C.
up *arguments:
    uv run facilitair up {{arguments}}

# The gate: green before every commit.
check:
    uv run ruff format --check .
    uv run ruff check .
    uv run mypy
    uv run lint-imports
    uv run pytest tests/unit tests/replay

# All tests, on real servers that they start themselves.
test *arguments:
    uv run pytest {{arguments}}

# Format, and repair what can be repaired safely.
fmt:
    uv run ruff format .
    uv run ruff check --fix .

# The exact versions: as constraints in pyproject.toml, and with their hashes for images. After a changed dependency.
lock *arguments:
    uv run --no-sync python -m infra.gate.lock {{arguments}}

# Everything that is installed or downloaded, as a CycloneDX document.
sbom file="sbom.json":
    uv run python -m infra.gate.sbom {{file}}
