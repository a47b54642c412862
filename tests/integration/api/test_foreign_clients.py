"""Clients that others publish, each used as its own documentation says; `clients/package.json` pins them."""

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from infra.local import cache
from infra.local.process import SetupProgress
from schema.language.catalogue import ROLES, ROUTABLE_MODELS
from schema.language.editors import json_schema
from schema.language.skills import SKILLS
from schema.language.tools import TOOLS
from tests.integration.api.test_chats import CALLING, ECHO, FAILING, run_of, stored
from tests.support.api_server import ApiServer, served
from tests.support.pages import PAGES, ROOT, blocks
from tests.support.stack import Stack

SCRIPTS: Final = Path(__file__).parents[2] / "support" / "clients"
PYTHON_GENERATOR: Final = "openapi-python-client@0.29.1"
KINDS: Final = ("agent", "tool", "transform", "switch", "map", "loop", "human", "collaboration", "wait")

pytestmark = pytest.mark.timeout(180)


class Clients:
    """The packages, installed once per user."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def run(self, script: str, given: Any) -> Any:
        """Return what a script prints; raises where it fails."""
        shutil.copy(SCRIPTS / script, self._directory)
        printed = await self.command("node", script, given=json.dumps(given))
        return json.loads(printed.splitlines()[-1])

    async def command(self, *command: str, given: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate(given.encode())
        assert process.returncode == 0, (stdout + stderr).decode()
        return stdout.decode()


@pytest.fixture(scope="session")
def clients() -> Clients:
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("these clients run on Node, and there is none")
    lock = (SCRIPTS / "package-lock.json").read_bytes()
    directory = cache.cache_dir() / "clients" / hashlib.sha256(lock).hexdigest()[:12]
    try:
        cache.install(directory, _install, SetupProgress())
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot fetch the clients: {error.stderr[-300:]}")
    return Clients(directory)


def _install(directory: Path) -> Mapping[str, object]:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SCRIPTS / name, directory)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
    subprocess.run(["npm", "ci", *quiet], cwd=directory, check=True, capture_output=True, text=True)
    return {"from": "npm"}


@pytest.fixture(scope="module")
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    async with served(platform.settings) as found:
        yield found


def at(api: ApiServer, path: str) -> str:
    return f"{api.http.base_url}{path}"


# -- editors and validators ---------------------------------------------------------------------------------


async def test_an_editor_completes_every_kind_role_tool_skill_and_model(clients: Clients) -> None:
    def step(inside: str) -> str:
        return f'{{"name": "x", "steps": {{"a": {inside}}}}}'

    def agent(inside: str) -> str:
        return f'{{"name": "x", "agents": {{"a": {inside}}}}}'

    within = '{"kind": "map", "body": {"steps": {"b": {"kind": "‸"}}}}'
    wanted = {
        step('{"kind": "‸"}'): KINDS,
        step('{"kind": ‸}'): KINDS,
        step(within): KINDS,
        step('{"kind": "tool", "tool": "‸"}'): TOOLS,
        step('{"kind": "agent", "role": "‸"}'): ROLES,
        agent('{"role": "‸"}'): ROLES,
        agent('{"model": "‸"}'): ROUTABLE_MODELS,
        agent('{"model": {"among": ["‸"]}}'): ROUTABLE_MODELS,
        agent('{"fallback": ["‸"]}'): ROUTABLE_MODELS,
        agent('{"tools": ["‸"]}'): TOOLS,
        agent('{"skills": ["‸"]}'): SKILLS,
        '[{"agent": "‸"}]': ROLES,
    }
    asked = {"schema": json_schema(), "places": list(wanted), "texts": [step('{"kind": "agnt"}')]}
    found = await clients.run("editors.mjs", asked)
    missing = {
        place: sorted(set(expected) - set(offered))
        for (place, expected), offered in zip(wanted.items(), found["places"], strict=True)
    }
    assert {place: one for place, one in missing.items() if one} == {}
    assert any(all(kind in told for kind in KINDS) for told in found["texts"][0])


async def test_a_strict_validator_takes_the_schema_and_what_is_written_with_it(clients: Clients) -> None:
    written: dict[str, Any] = {
        path.name: json.loads(path.read_text()) for path in (ROOT / "examples").glob("*.json")
    }
    for block in (block for page in PAGES for block in blocks(page) if block.language == "json"):
        value = json.loads(block.text)
        if isinstance(value, dict) and {"name", "steps"} <= value.keys():
            written[f"{block.page}:{block.line}"] = value
    assert await clients.run("ajv.mjs", {"schema": json_schema(), "documents": written}) == []
    assert await clients.run("ajv.mjs", {"schema": json_schema(), "documents": {"bad": {}}}) == ["bad"]


# -- AG-UI --------------------------------------------------------------------------------------------------


async def test_ag_ui_starts_a_run_and_is_given_its_output(
    platform: Stack, api: ApiServer, clients: Clients
) -> None:
    url = at(api, f"/v1/agui/{await stored(platform, ECHO)}")
    found = await clients.run("agui.mjs", {"url": url, "message": "A loop.", "input": {"file": "a.py"}})
    assert found["result"]["output"] == {"asked": "A loop.", "file": "a.py"}
    assert [message["role"] for message in found["messages"]] == ["user", "assistant"]
    assert found["state"]["steps"]["answer"]["status"] == "completed"


async def test_ag_ui_sees_the_tools_that_a_model_calls(
    platform: Stack, api: ApiServer, clients: Clients
) -> None:
    url = at(api, f"/v1/collaborations/{await run_of(platform, CALLING)}/stream")
    found = await clients.run("agui.mjs", {"url": url})
    assert [(one["role"], one["tools"]) for one in found["messages"]] == [
        ("assistant", ["text_diff"]),
        ("tool", []),
        ("assistant", []),
    ]
    assert json.loads(found["messages"][1]["content"])["added"] == 1


async def test_ag_ui_is_told_why_a_run_failed(platform: Stack, api: ApiServer, clients: Clients) -> None:
    run = await run_of(platform, FAILING)
    found = await clients.run("agui.mjs", {"url": at(api, f"/v1/collaborations/{run}/stream")})
    [[code, message]] = found["errors"]
    assert message.startswith("step 'fetch': ")
    assert (await api.http.get(f"/v1/collaborations/{run}")).json()["error"]["code"] == code


# -- the AI SDK ---------------------------------------------------------------------------------------------


async def test_the_ai_sdk_sends_a_message_and_reads_the_run(
    platform: Stack, api: ApiServer, clients: Clients
) -> None:
    chat, name = uuid.uuid4().hex, await stored(platform, ECHO)
    asked = {"api": at(api, f"/v1/chat/{name}"), "chat": chat, "body": {"input": {"file": "b.py"}}}
    found = await clients.run("ai.mjs", asked | {"message": "A loop."})
    assert found["errors"] == []
    assert [part["type"] for part in found["parts"] if part["type"] in ("text", "data-step")] == [
        "text",
        "data-step",
    ]
    end = next(part["data"] for part in found["parts"] if part["type"] == "data-run" and part["id"] == "end")
    assert end["output"] == {"asked": "A loop.", "file": "b.py"}
    # Its own address for coming back: there is nothing to go on with.
    assert (await clients.run("ai.mjs", asked))["reconnected"] is False


async def test_the_ai_sdk_watches_a_run_and_its_tools(
    platform: Stack, api: ApiServer, clients: Clients
) -> None:
    run = await run_of(platform, CALLING)
    found = await clients.run("ai.mjs", {"api": at(api, "/v1/collaborations?dialect=vercel"), "chat": run})
    assert found["errors"] == []
    [tool] = [part for part in found["parts"] if part["type"] == "dynamic-tool"]
    assert (tool["toolName"], tool["state"], tool["output"]["added"]) == ("text_diff", "output-available", 1)


async def test_the_ai_sdk_is_told_why_a_run_failed(platform: Stack, api: ApiServer, clients: Clients) -> None:
    run = await run_of(platform, FAILING)
    found = await clients.run("ai.mjs", {"api": at(api, "/v1/collaborations?dialect=vercel"), "chat": run})
    assert "step 'fetch'" in found["errors"][0]


# -- Temporal -----------------------------------------------------------------------------------------------


async def test_temporals_typescript_sdk_runs_a_definition_by_its_name(
    platform: Stack, clients: Clients
) -> None:
    name = await stored(platform, ECHO)
    asked = {"address": platform.settings.temporal_address, "name": name}
    found = await clients.run("temporal.mjs", asked | {"id": f"{name}-1", "input": {"task": "A loop."}})
    assert found == {"result": {"asked": "A loop.", "file": ""}}
    wrong = await clients.run("temporal.mjs", asked | {"id": f"{name}-2", "input": {}})
    assert wrong["type"] == "input_invalid"


# -- generators of clients ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def openapi(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("openapi") / "openapi.json"
    file.write_bytes((await api.http.get("/openapi.json")).content)
    return file


async def test_a_typescript_client_is_generated_and_strictly_typed(openapi: Path, clients: Clients) -> None:
    types = openapi.with_suffix(".ts")
    await clients.command("node_modules/.bin/openapi-typescript", str(openapi), "-o", str(types))
    await clients.command("node_modules/.bin/tsc", "--noEmit", "--strict", "--skipLibCheck", str(types))
    assert "definitions_upload" in types.read_text()


_UPLOADING: Final = """
import json, sys
from facilitair_client import Client
from facilitair_client.api.definitions import definitions_upload
from facilitair_client.models.{module} import {body}

client = Client(sys.argv[1])
body = {body}.from_dict(json.loads(sys.argv[2]))
print(definitions_upload.sync(client=client, body=body).name)
"""


async def test_a_python_client_is_generated_whole_and_uploads(
    api: ApiServer, openapi: Path, tmp_path: Path
) -> None:
    made = tmp_path / "client"
    command = ("uvx", PYTHON_GENERATOR, "generate", "--path", str(openapi), "--output-path", str(made))
    told = await _output(*command)
    if not made.exists():
        pytest.skip(f"the generator cannot be fetched: {told[-300:]}")
    assert "Endpoint will not be generated" not in told, told
    module, body = "definitions_upload_json_body_type_0", "DefinitionsUploadJsonBodyType0"
    (made / "upload.py").write_text(_UPLOADING.format(module=module, body=body))
    name = f"generated-{uuid.uuid4().hex[:8]}"
    definition = json.dumps(ECHO | {"name": name})
    script = (sys.executable, str(made / "upload.py"), str(api.http.base_url), definition)
    assert (await _output(*script)).strip() == name


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()
