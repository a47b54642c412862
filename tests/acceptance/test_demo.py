"""The first command of the README, as a script reads it, with the worker killed in the middle."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import facilitair


@pytest.fixture
def data() -> Iterator[Path]:
    """Not pytest's own folder, which is closed to other users: Postgres runs as one where we are root."""
    with tempfile.TemporaryDirectory(prefix="facilitair-test-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


async def test_demo_survives_its_worker_and_says_what_a_script_needs(data: Path) -> None:
    try:
        shown = await facilitair(data, "demo", "--json", "--crash")
        assert shown.code == 0, shown.stderr
        said = shown.json
        assert said["status"] == "completed"
        assert said["output"]
        assert said["seconds"] > 0
        assert {"temporal", "temporal_ui", "postgres", "neo4j", "weaviate", "api"} <= said["addresses"].keys()
        for step in said["steps"]:
            assert {
                "id",
                "agent",
                "model",
                "status",
                "tokens",
                "cost_usd",
                "seconds",
                "simulated",
            } <= step.keys()
        assert any(step["simulated"] for step in said["steps"])
    finally:
        ended = await facilitair(data, "down")
    assert ended.code == 0, ended.stderr
