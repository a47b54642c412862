"""The examples, as people bring them to a platform over HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.cli import ROOT

EXAMPLES: Final = sorted((ROOT / "examples").glob("*.json"))
INPUTS: Final = ROOT / "examples" / "inputs"
# Sub-collaborations are bound when a definition is uploaded, so those come first.
BEFORE: Final = {"release": ("haiku", "lint-report")}


def input_of(path: Path) -> Any:
    """The input of an example's run."""
    if path.stem == "code-review":
        return {"file": (ROOT / "schema" / "language" / "templates.py").read_text()}
    return json.loads((INPUTS / path.name).read_text())


async def upload(http: httpx.AsyncClient) -> None:
    """Store every example, those that others name first."""
    first = [name for names in BEFORE.values() for name in names]
    for path in sorted(EXAMPLES, key=lambda path: path.stem not in first):
        answer = await http.post(
            "/v1/definitions",
            params={"name": path.stem},
            content=path.read_bytes(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.is_success, f"{path.stem}: {answer.text}"


async def finish(http: httpx.AsyncClient, run: str) -> dict[str, Any]:
    """The run when it has ended; what it asks people is decided with the first action offered."""
    async with asyncio.timeout(120):
        while True:
            found: dict[str, Any] = (await http.get(f"/v1/collaborations/{run}")).json()
            if found.get("status") in ("completed", "failed"):
                return found
            for task in (await http.get("/v1/tasks", params={"collaboration": run})).json()["items"]:
                body = {"action": task["actions"][0]["id"], "actor": "user:ada"}
                await http.post(f"/v1/tasks/{task['id']}/decisions", json=body)
            await asyncio.sleep(0.2)
