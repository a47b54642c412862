# Everything a contributor types. `just` alone lists it.
default:
    @just --list

# The environment, from the lock file.
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

# The exact versions with their hashes, for images; no index is named in it.
lock:
    uv export --no-dev --no-emit-project --no-header --quiet -o requirements.lock
