"""The first command of the README, as a script reads it, with the worker killed in the middle."""

from pathlib import Path

from tests.acceptance.command import facilitair


async def test_demo_survives_its_worker_and_says_what_a_script_needs(tmp_path: Path) -> None:
    try:
        shown = await facilitair(tmp_path, "demo", "--json", "--crash")
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
        ended = await facilitair(tmp_path, "down")
    assert ended.code == 0, ended.stderr
