"""One run, live: its steps as they light up, what its agents say, and the controls that steer it."""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from api.console import dag_svg, run_views, tasks
from api.console.client import ApiFault, segment
from api.console.feed import RunFeed
from api.console.html import badge, embed, simulated, text
from api.console.layout import Frame, missing
from api.console.runs import dialog, starts, state_of, task_of
from api.live.playback import playback
from schema.values.foreign_json import NotJson, read_json

_TABS: Final = (
    ("agents", "Agents"),
    ("step", "Step"),
    ("timeline", "Timeline"),
    ("result", "Input & output"),
    ("trace", "Trace"),
    ("events", "Events"),
)


async def show(frame: Frame, id: str) -> None:
    try:
        run = await frame.api.get(f"/collaborations/{segment(id)}", include="lineage")
    except ApiFault as fault:
        missing(frame, fault, "runs")
        return
    picture = await _picture(frame, run)
    frame.show(f"{run['name']} · {run['id']}", "runs", _page(frame, run, picture), "tasks.js", "run.js")
    uuid = UUID(run["run_id"])
    feed = RunFeed(frame)

    async def watch() -> None:
        async with frame.state.hub.watch(uuid) as watcher:
            await feed.send(watcher)

    async def play(facts: dict[str, Any]) -> None:
        frame.call("run.reset")
        await feed.send(playback(frame.state, uuid, float(facts["speed"])))
        frame.call("run.played")

    frame.on("play", play)
    frame.when_connected(watch)
    _steers(frame, str(run["id"]))
    _tells(frame, str(run["id"]))
    starts(frame)
    tasks.decides(frame)


async def _picture(frame: Frame, run: Mapping[str, Any]) -> str:
    """The plan that the run is bound to."""
    name = f"{run['name']}@{run['version']}" if run["version"] else run["name"]
    try:
        plan = await frame.api.post("/definitions/plan", {"name": name})
    except ApiFault:
        return '<p class="muted pad">There is no plan to draw.</p>'
    return dag_svg.draw(plan["nodes"], plan["edges"], f"The steps of {run['name']}")


def _steers(frame: Frame, id: str) -> None:
    """Bind the buttons that steer the run."""
    own = f"/collaborations/{segment(id)}"

    async def pause(facts: dict[str, Any]) -> None:
        await frame.api.post(f"{own}/pause")

    async def resume(facts: dict[str, Any]) -> None:
        await frame.api.post(f"{own}/resume")

    async def stop(facts: dict[str, Any]) -> None:
        await frame.api.post(f"{own}/stop")
        frame.toast("The run is being stopped.")

    async def tell(facts: dict[str, Any]) -> None:
        whom = str(facts.get("whom") or "")
        kind, _, name = whom.partition(":")
        wanted = {"text": str(facts["text"]), **({kind: name} if kind in ("step", "agent") else {})}
        await frame.api.post(f"{own}/feedback", wanted)
        frame.call("run.told")

    async def rerun(facts: dict[str, Any]) -> None:
        begun = await frame.api.post(f"{own}/rerun", {})
        frame.go(f"/console/runs/{segment(begun['id'])}")

    async def again(facts: dict[str, Any]) -> None:
        run = await frame.api.get(own, include="input")
        wanted = {"definition": f"{run['name']}@{run['version']}", "input": run["input"]}
        begun = await frame.api.post("/collaborations", wanted)
        frame.go(f"/console/runs/{segment(begun['id'])}")

    async def fork(facts: dict[str, Any]) -> None:
        step = str(facts["step"])
        wanted: dict[str, Any] = {"from": [step]}
        try:
            if facts.get("output") is not None:
                value = facts["output"] if facts["as"] == "text" else read_json(str(facts["output"]))
                wanted = {"from": [], "outputs": {step: value}}
            if facts.get("input") is not None:
                wanted["input"] = read_json(str(facts["input"]))
            begun = await frame.api.post(f"{own}/fork", wanted)
        except NotJson as error:
            frame.call("run.forkWrong", f"Not JSON: {error}")
        except ApiFault as fault:
            frame.call("run.forkWrong", str(fault))
        else:
            frame.go(f"/console/runs/{segment(begun['id'])}")

    for name, handler in (
        ("pause", pause),
        ("resume", resume),
        ("stop", stop),
        ("tell", tell),
        ("rerun", rerun),
        ("again", again),
        ("fork", fork),
    ):
        frame.on(name, handler)


def _tells(frame: Frame, id: str) -> None:
    """Bind the controls that choose what the page shows of the run."""
    own = f"/collaborations/{segment(id)}"

    async def step(facts: dict[str, Any]) -> None:
        path = str(facts["path"])
        try:
            found = await frame.api.get(f"{own}/steps/{segment(path)}/details")
        except ApiFault as fault:
            if fault.status != 404:
                raise
            frame.call("run.step", path, '<p class="muted pad">It has not begun.</p>')
            return
        run = await frame.api.get(own, include="lineage")
        frame.call("run.step", path, run_views.step(found, run))

    async def asked(facts: dict[str, Any]) -> None:
        frame.call("tasks.fill", await tasks.cards_of(frame, id))

    async def view(facts: dict[str, Any]) -> None:
        tab = str(facts["tab"])
        if tab == "trace":
            html = run_views.trace(await frame.api.get(f"{own}/trace"))
        elif tab == "events":
            html = run_views.events(await frame.api.get(f"{own}/events", limit=1_000))
        else:
            run = await frame.api.get(own, include="input,output")
            html = run_views.result(run)
            if facts.get("fork"):
                frame.call("run.forkInput", json.dumps(run.get("input"), indent=2, ensure_ascii=False))
                return
        frame.call("run.fill", tab, html)

    async def head(facts: dict[str, Any]) -> None:
        run = await frame.api.get(own, include="lineage")
        frame.call("run.head", task_of(run), run_views.lineage(run), _waits(run))

    frame.on("head", head)
    frame.on("step", step)
    frame.on("asked", asked)
    frame.on("view", view)


def _waits(run: Mapping[str, Any]) -> str:
    return " · ".join(run.get("waits_for") or ())


def _page(frame: Frame, run: Mapping[str, Any], picture: str) -> str:
    state = state_of(run)
    facts = {
        "id": run["id"],
        "status": run["status"],
        "sub": run["sub_state"],
        "began": run["started_at"],
        "seconds": run["seconds"],
        "ended": run["completed_at"],
    }
    tabs = "".join(
        f'<button role="tab" id="tab-{id}" aria-controls="view-{id}" aria-selected="{str(at == 0).lower()}"'
        f' tabindex="{0 if at == 0 else -1}">{name}</button>'
        for at, (id, name) in enumerate(_TABS)
    )
    views = "".join(
        f'<div role="tabpanel" id="view-{id}" aria-labelledby="tab-{id}"{"" if at == 0 else " hidden"}>'
        f"{_HINTS.get(id, '')}</div>"
        for at, (id, _) in enumerate(_TABS)
    )
    ui = frame.state.settings.temporal_ui_url.rstrip("/")
    space = frame.state.settings.temporal_namespace
    temporal = (
        f'<a class="button" target="_blank" rel="noopener" '
        f'href="{text(ui)}/namespaces/{segment(space)}/workflows/'
        f'{segment(run["id"])}">Temporal ↗</a>'
        if ui
        else ""
    )
    version = f"@{run['version']}" if run["version"] else ""
    query = f"?version={run['version']}" if run["version"] else ""
    error = (
        f'<p class="bad" id="error">{text(run["error"]["message"])}</p>'
        if run["error"]
        else '<p class="bad" id="error"></p>'
    )
    return f"""<script type="application/json" id="run-data">{embed(facts)}</script>
<div class="run-head"><div class="titles">
<p class="crumbs"><a href="/console/">Runs</a> <span aria-hidden="true">›</span>
<span class="mono">{text(run["id"])}</span></p>
<h1><span id="state" aria-live="polite">{badge(state)}</span>
<a href="/console/definitions/{segment(run["name"])}{query}">{text(run["name"])}<span class="muted"
id="version">{version}</span></a>
<span id="simulated">{simulated(run.get("simulated", False))}</span></h1>
<p class="task" id="task" title="{text(task_of(run), 2000)}">{text(task_of(run), 400)}</p>
<div id="lineage">{run_views.lineage(run)}</div>{error}</div>
<dl class="facts"><div><dt>Time</dt><dd id="f-time"></dd></div><div><dt>Steps</dt><dd id="f-steps">0</dd>
</div>
<div><dt>Tokens</dt><dd id="f-tokens">0</dd></div><div><dt>Cost</dt><dd id="f-cost">$0.0000</dd></div></dl>
<div class="buttons row">
<button id="pause" title="Nothing new begins (p)" hidden>❚❚ Pause</button>
<button id="resume" class="primary" title="Go on (p)" hidden>▶ Resume</button>
<button id="tell" title="Every later prompt holds it (t)" hidden>✎ Tell it</button>
<button id="stop" class="danger" hidden>■ Stop</button>
<button id="rerun" class="primary" title="What it finished is kept and costs nothing" hidden>↻ Retry</button>
<button id="again" title="A new run with the same input" hidden>↻ Run again</button>
<span id="playing" class="row" hidden><label for="speed" class="sr">Speed</label>
<select id="speed" title="Speed">
<option value="1">1×</option><option value="4" selected>4×</option><option value="10">10×</option></select>
<button id="play" title="Show it once more as it happened">▷ Playback</button></span>{temporal}</div></div>
<div id="paused" class="banner" role="status" hidden></div>
<div id="waits" class="banner" role="status"{"" if _waits(run) else " hidden"}>{text(_waits(run))}</div>
<div id="asked" class="asked-list" aria-live="polite"></div>
<div class="run-body"><section class="card plan" aria-label="Plan"><div class="tools">
<h2>Plan</h2><span class="legend muted"><i class="key"></i>order <i class="key stream"></i>stream</span>
<span class="zoom"><button class="quiet icon" id="zoom-out" aria-label="Smaller">−</button>
<button class="quiet icon" id="zoom-in" aria-label="Larger">+</button>
<button class="quiet" id="zoom-fit">Fit</button></span></div>
<div class="canvas" id="canvas">{picture}</div></section>
<section class="card views" aria-label="Details">
<div class="tabs" role="tablist">{tabs}</div>{views}</section></div>
{_DIALOGS}{dialog()}"""


_HINTS: Final = {
    "agents": '<p class="muted pad" id="silent">No agent has spoken yet.</p>'
    '<p class="muted small pad" id="shed" hidden>What was said before is kept with its step.</p>',
    "step": '<p class="muted pad">Choose a step in the plan.</p>',
}
_DIALOGS: Final = """<dialog id="tell-dialog" aria-labelledby="tell-title"><form id="tell-form">
<h2 id="tell-title">Tell the run</h2><p class="muted">The very next prompt holds it, and every later one.</p>
<div class="field"><label for="tell-text">What</label>
<textarea id="tell-text" rows="4" required maxlength="20000"></textarea></div>
<div class="field"><label for="tell-whom">To</label><select id="tell-whom">
<option value="">Every agent</option></select></div>
<div class="row end"><button type="button" data-close>Cancel</button>
<button class="primary" type="submit">Tell</button></div>
</form></dialog>
<dialog id="stop-dialog" aria-labelledby="stop-title"><form method="dialog">
<h2 id="stop-title">Stop this run?</h2>
<p>Steps under way are cancelled, and what says how to undo itself is undone.</p>
<div class="row end"><button data-close type="button">Keep it running</button>
<button class="danger" id="stop-sure" type="button">Stop it</button></div></form></dialog>
<dialog id="fork-dialog" aria-labelledby="fork-title"><form id="fork-form">
<h2 id="fork-title">Fork from here</h2>
<p class="muted">A new run keeps what this one finished. <b id="fork-step">
</b> and all that depends on it is done anew.</p>
<div class="field check"><input type="radio" name="how" id="fork-again" value="again" checked>
<label for="fork-again">Run the step again</label></div>
<div class="field check"><input type="radio" name="how" id="fork-given" value="given">
<label for="fork-given">Take this as its output instead</label></div>
<textarea class="code" id="fork-output" rows="8" aria-label="Output" hidden></textarea>
<div class="field check"><input type="checkbox" id="fork-edit">
<label for="fork-edit">Change the run’s input</label></div>
<textarea class="code" id="fork-input" rows="8" aria-label="Input" hidden></textarea>
<p class="bad" id="fork-wrong" role="alert"></p>
<div class="row end"><button type="button" data-close>Cancel</button>
<button class="primary" type="submit">Fork</button></div>
</form></dialog>"""
