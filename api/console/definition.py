"""One definition: written with its problems and its picture beside it, stored as versions, compared."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from nicegui import background_tasks, ui
from nicegui.events import ValueChangeEventArguments

from api.console import dag_svg
from api.console import definition_views as views
from api.console.client import ApiFault, segment
from api.console.html import text
from api.console.layout import Frame, missing
from api.console.runs import dialog, starts
from schema.errors import InvalidDefinition
from schema.language import document
from schema.rules import positions

MAX_LINED_CHARS: Final = 300_000
"""Longest text whose problems get line numbers: reading it holds the event loop."""
_PAUSE_SECONDS: Final = 0.3
"""Pause in typing before the text is checked."""
_TEMPLATE: Final = {
    "language": "facilitair/v1",
    "name": "my-collaboration",
    "description": "Two agents: one writes, the other reviews.",
    "input": {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}},
    "agents": {"writer": {"role": "coder"}, "critic": {"role": "reviewer"}},
    "steps": {
        "write": {"kind": "agent", "agent": "writer", "prompt": "${input.task}"},
        "review": {"kind": "agent", "agent": "critic", "prompt": "Review this:\n${steps.write.output}"},
    },
    "output": {"text": "${steps.write.output}", "review": "${steps.review.output}"},
}


class _Editor:
    """The text that is being edited on one page."""

    def __init__(self, frame: Frame, name: str, written: str) -> None:
        self.frame = frame
        self.name = name
        self.written = written
        self.problems: list[dict[str, Any]] = []
        self._waiting: asyncio.Task[None] | None = None
        # The page is there already: the editor, which NiceGUI draws, moves into its place.
        with ui.teleport("#editor"):
            self.box = ui.codemirror(written, language="JSON", theme="githubLight", on_change=self._changed)
            self.box.classes("editor").props('aria-label="Definition"')

    @property
    def is_yaml(self) -> bool:
        return not self.written.lstrip().startswith(("{", "["))

    def _changed(self, event: ValueChangeEventArguments[Any]) -> None:
        self.written = str(event.value or "")
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = background_tasks.create(self._later(), name="check a definition")

    async def _later(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)
        await self.check()

    async def check(self) -> None:
        """Say what is wrong with what is written, and draw it where nothing is."""
        try:
            found = await self.frame.api.upload(
                f"/definitions/validate{self._query()}", self.written, is_yaml=self.is_yaml
            )
        except ApiFault as fault:
            self._refused(fault)
            return
        self.problems = []
        self.box.line_tooltips = {}
        self.box.set_language("YAML" if self.is_yaml else "JSON")
        self.frame.call("editor.fine", views.fine(found))
        await self._draw()

    def _refused(self, fault: ApiFault) -> None:
        root = positions.read(self.written, MAX_LINED_CHARS)
        self.problems = [
            {**one, "line": positions.line_of(root, one["pointer"])}
            for one in fault.problems
            or [{"code": fault.code, "pointer": "", "message": fault.message, "fix": ""}]
        ]
        self.box.line_tooltips = {one["line"]: one["message"] for one in self.problems if one["line"]}
        self.frame.call("editor.wrong", views.problems(self.problems), len(self.problems))

    async def _draw(self) -> None:
        # The picture is of the document as it was read; YAML has to be read first.
        try:
            # By the upload's own door: an alias in YAML can make a short text unboundedly large.
            read = document.load(self.written.encode("utf-8", "replace"), is_yaml=self.is_yaml)
            plan = await self.frame.api.post("/definitions/plan", {"definition": read})
        except (ApiFault, InvalidDefinition):
            return
        picture = dag_svg.draw(plan["nodes"], plan["edges"], f"The steps of {plan['name']}")
        self.frame.call("editor.draw", picture, views.estimate(plan["estimate"]))

    def _query(self) -> str:
        # A short form is a bare list, which has no name of its own.
        return f"?name={segment(self.name)}" if self.name and self.written.lstrip().startswith("[") else ""

    async def save(self, facts: dict[str, Any]) -> None:
        try:
            stored = await self.frame.api.upload(
                f"/definitions{self._query()}", self.written, is_yaml=self.is_yaml
            )
        except ApiFault as fault:
            self._refused(fault)
            self.frame.toast(f"Not stored: {fault.message}", "bad")
            return
        words = "Stored as" if stored["created"] else "Nothing new: this is"
        for warning in stored["warnings"]:
            self.frame.toast(warning)
        self.frame.toast(f"{words} {stored['name']}@{stored['version']}.")
        if stored["name"] != self.name:
            self.frame.go(f"/console/definitions/{segment(stored['name'])}")
            return
        self.frame.call("editor.stored", stored["name"], stored["version"])
        await send_versions(self.frame, self.name)

    async def load(self, facts: dict[str, Any]) -> None:
        self.box.value = str(facts["text"])
        self.written = self.box.value or ""
        await self.check()

    async def jump(self, facts: dict[str, Any]) -> None:
        line = int(facts["line"])
        if 0 < line <= self.written.count("\n") + 1:
            self.box.reveal_line(line)

    async def theme(self, facts: dict[str, Any]) -> None:
        self.box.set_theme("githubDark" if facts["dark"] else "githubLight")


async def show_new(frame: Frame) -> None:
    _show(frame, "", None, json.dumps(_TEMPLATE, indent=2, ensure_ascii=False))


async def show(frame: Frame, name: str) -> None:
    try:
        found = await frame.api.get(f"/definitions/{segment(name)}", version=frame.query.get("version"))
    except ApiFault as fault:
        missing(frame, fault, "definitions")
        return
    _show(frame, name, found, json.dumps(found["definition"], indent=2, ensure_ascii=False))


def _show(frame: Frame, name: str, found: Mapping[str, Any] | None, written: str) -> None:
    frame.show(name or "New definition", "definitions", _page(name, found), "definitions.js")
    editor = _Editor(frame, name, written)

    async def begin() -> None:
        await editor.check()
        if name:
            await send_versions(frame, name)

    for do, handler in (
        ("save", editor.save),
        ("load", editor.load),
        ("jump", editor.jump),
        ("theme", editor.theme),
    ):
        frame.on(do, handler)
    frame.when_connected(begin)
    starts(frame)
    if name:
        _versions(frame, name)


async def send_versions(frame: Frame, name: str) -> None:
    own = f"/definitions/{segment(name)}"
    versions = await frame.api.get(f"{own}/versions", limit=200)
    aliases = await frame.api.get(f"{own}/aliases")
    frame.call("editor.versions", views.versions(name, versions["items"], aliases))


def _versions(frame: Frame, name: str) -> None:
    """Bind the buttons for stored versions."""
    own = f"/definitions/{segment(name)}"

    async def difference(facts: dict[str, Any]) -> None:
        found = await frame.api.get(f"{own}/diff", **{"from": facts["from"], "to": facts["to"]})
        frame.call("editor.diff", views.difference(found))

    async def roll_back(facts: dict[str, Any]) -> None:
        done = await frame.api.post(f"{own}/rollback", {"version": int(facts["version"])})
        frame.toast(f"{name} means {name}@{done['to']} from now on.")
        await send_versions(frame, name)

    async def deprecate(facts: dict[str, Any]) -> None:
        address = f"{own}/versions/{int(facts['version'])}/deprecate"
        if facts.get("reason"):
            await frame.api.post(address, {"reason": str(facts["reason"])})
        else:
            await frame.api.delete(address)
        await send_versions(frame, name)

    async def alias(facts: dict[str, Any]) -> None:
        await frame.api.put(f"{own}/aliases/{segment(facts['alias'])}", {"version": int(facts["version"])})
        frame.toast(f"{name}@{facts['alias']} means version {facts['version']}.")
        await send_versions(frame, name)

    frame.on("diff", difference)
    frame.on("rollback", roll_back)
    frame.on("deprecate", deprecate)
    frame.on("alias", alias)


def _page(name: str, found: Mapping[str, Any] | None) -> str:
    version = f'<span class="muted" id="version">@{found["version"]}</span>' if found else ""
    warning = (
        f'<p class="banner">Deprecated: {text(found["deprecated"])}</p>'
        if found and found["deprecated"]
        else ""
    )
    actions = (
        f'<a class="button" href="/console/?name={segment(name)}">Runs</a>'
        '<button id="new-run" title="Start a run (n)">Start a run</button>'
        if found
        else ""
    )
    started = dialog().replace("<dialog ", f'<dialog data-name="{text(name)}" ', 1)
    return f"""<div class="head"><div><p class="crumbs"><a href="/console/definitions">Definitions</a>
<span aria-hidden="true">›</span> {text(name or "new")}</p>
<h1>{text(name or "New definition")}{version}</h1></div>
<div class="row"><label class="button" for="file">Open a file…<input type="file" id="file" class="sr"
 accept=".json,.yaml,.yml,application/json"></label>{actions}
<button class="primary" id="save" title="Save (Ctrl S)">Save{" as a new version" if found else ""}</button>
</div></div>{warning}
<div class="write"><section class="card" aria-label="Editor"><div id="editor"></div>
<div id="verdict" class="verdict" role="status" aria-live="polite"></div></section>
<section class="card views" aria-label="Details"><div class="tabs" role="tablist">
<button role="tab" id="tab-diagram" aria-controls="view-diagram" aria-selected="true">Diagram</button>
<button role="tab" id="tab-versions" aria-controls="view-versions" aria-selected="false"
tabindex="-1"{"" if found else " hidden"}>Versions</button>
<button role="tab" id="tab-diff" aria-controls="view-diff" aria-selected="false"
tabindex="-1"{"" if found else " hidden"}>Difference</button></div>
<div role="tabpanel" id="view-diagram" aria-labelledby="tab-diagram">
<div id="estimate" class="pad muted small"></div>
<div class="canvas" id="canvas"></div></div>
<div role="tabpanel" id="view-versions" aria-labelledby="tab-versions" hidden></div>
<div role="tabpanel" id="view-diff" aria-labelledby="tab-diff" hidden>
<p class="muted pad">Choose two versions in Versions.</p></div></section></div>
{started}"""
