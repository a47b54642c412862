"""All runs: found, watched from afar, started."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from api.console import forms
from api.console.client import ApiFault, segment
from api.console.html import badge, dollars, empty, moment, number, seconds, simulated, text
from api.console.layout import Frame

_PAGE: Final = 50
_LOOK_SECONDS: Final = 1.0
_STATUSES: Final = ("running", "completed", "failed")
_PERIODS: Final = {
    "1h": ("the last hour", timedelta(hours=1)),
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}
_COSTS: Final = {"0.01": "1 cent", "0.1": "10 cents", "1": "$1", "10": "$10"}
_KINDS: Final = {"false": "real", "true": "simulated"}
_FILTERS: Final = ("q", "status", "name", "period", "least_usd", "simulated")
_TASK_CHARS: Final = 160
_NAMES: Final = 200
"""Definitions that can be chosen from; others are found by searching for their name."""


class _Runs:
    """The list that one page shows."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.wanted: dict[str, str] = {}
        self.want(frame.query)
        self.names: list[str] = []
        self.pages = 1
        self.visible = True
        self.more: str | None = None
        self._sent = ""

    def want(self, facts: Mapping[str, Any]) -> None:
        """Take over what is filtered by; what no filter knows is as good as nothing."""
        found = {key: str(facts.get(key, ""))[:200].strip() for key in _FILTERS}
        known = {"status": _STATUSES, "period": _PERIODS, "least_usd": _COSTS, "simulated": _KINDS}
        self.wanted = {key: text if text in known.get(key, (text,)) else "" for key, text in found.items()}

    def _query(self) -> dict[str, str]:
        query = {key: text for key, text in self.wanted.items() if key != "period"}
        if period := self.wanted["period"]:
            query["since"] = (datetime.now(UTC) - _PERIODS[period][1]).isoformat()
        return query

    async def rows(self) -> str:
        """Everything that the page has unfolded, as rows of its table."""
        query = self._query()
        items: list[dict[str, Any]] = []
        after: str | None = None
        for _ in range(self.pages):
            found = await self.frame.api.get("/collaborations", **query, after=after, limit=_PAGE)
            items += found["items"]
            after = found["next"]
            if after is None:
                break
        self.more = after
        if not items:
            return f'<tr class="none"><td colspan="8">{self._none()}</td></tr>'
        return "".join(_row(one) for one in items)

    def _none(self) -> str:
        if any(self.wanted.values()):
            return empty("No run fits.", "Search looks at ids, names and tasks.")
        return empty(
            "Nothing has run yet.",
            'Choose <b>Start a run</b>, or <a href="definitions">write a definition</a>.',
        )

    async def send(self, *, always: bool = False) -> None:
        rows = await self.rows()
        if always or rows != self._sent:
            self._sent = rows
            self.frame.call("runs.show", rows, self.more is not None)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.visible:
                try:
                    await self.send()
                except ApiFault:
                    continue  # the next look may succeed


async def show(frame: Frame) -> None:
    runs = _Runs(frame)
    try:
        rows = await runs.rows()
        found = await frame.api.get("/definitions", limit=_NAMES)
        runs.names = [one["name"] for one in found["items"]]
    except ApiFault as fault:
        wrong = empty("The runs cannot be read just now.", text(fault))
        rows = f'<tr class="none"><td colspan="8">{wrong}</td></tr>'
    frame.show("Runs", "runs", _page(runs, rows), "runs.js")

    async def search(facts: dict[str, Any]) -> None:
        runs.want(facts)
        runs.pages = 1
        await runs.send(always=True)

    async def further(facts: dict[str, Any]) -> None:
        runs.pages += 1
        await runs.send(always=True)

    async def visible(facts: dict[str, Any]) -> None:
        runs.visible = bool(facts["is"])

    frame.on("search", search)
    frame.on("more", further)
    frame.on("visible", visible)
    starts(frame)
    frame.when_connected(runs.watch)


def _page(runs: _Runs, rows: str) -> str:
    chips = "".join(
        f'<button type="button" class="chip" data-status="{one}" '
        f'aria-pressed="{str(one == runs.wanted["status"]).lower()}">'
        f"{one.capitalize() or 'All'}</button>"
        for one in ("", *_STATUSES)
    )
    name = runs.wanted["name"]
    of_name = f' of <a href="definitions/{segment(name)}">{text(name)}</a>' if name else ""
    names = {one: one for one in (*runs.names, *([name] if name else []))}
    periods = {id: words for id, (words, _) in _PERIODS.items()}
    choices = "".join(
        _choice(key, label, runs.wanted[key], options)
        for key, label, options in (
            ("name", "any definition", names),
            ("period", "any time", periods),
            ("least_usd", "any cost", {id: f"at least {words}" for id, words in _COSTS.items()}),
            ("simulated", "real and simulated", {id: f"{word} only" for id, word in _KINDS.items()}),
        )
    )
    return f"""<div class="head"><h1>Runs{of_name}</h1>
<button class="primary" id="new-run" title="Start a run (n)">Start a run</button></div>
<div class="filters" role="search">
<input type="search" id="search" value="{text(runs.wanted["q"])}" placeholder="Search id, name or task"
aria-label="Search runs">
<div class="chips" role="group" aria-label="Status">{chips}</div>
<div class="choices">{choices}</div></div>
<table class="list runs" aria-label="Runs, newest first"><thead><tr><th>Status</th><th>Definition</th>
<th>Task</th>
<th>Started</th><th class="n">Time</th><th class="n">Tokens</th><th class="n">Cost</th><th>
<span class="sr">Simulated</span></th></tr></thead>
<tbody id="rows">{rows}</tbody></table>
<div class="row center"><button id="more"{"" if runs.more else " hidden"}>Show more</button></div>
{dialog()}"""


def _choice(key: str, label: str, chosen: str, options: Mapping[str, str]) -> str:
    shown = "".join(
        f'<option value="{text(id)}"{" selected" if id == chosen else ""}>{text(words)}</option>'
        for id, words in {"": label, **options}.items()
    )
    return f'<select data-filter="{key}" aria-label="{text(label)}">{shown}</select>'


def state_of(run: Mapping[str, Any]) -> str:
    """Return the state of a run in one word."""
    return str(run["sub_state"] or run["status"])


def task_of(run: Mapping[str, Any]) -> str:
    """Return the task of a run; empty for an empty input."""
    return "" if run["task"] == "{}" else str(run["task"])


def _row(run: Mapping[str, Any]) -> str:
    address = f"/console/runs/{segment(run['id'])}"
    version = f"@{run['version']}" if run["version"] else ""
    task = text(task_of(run), _TASK_CHARS) or '<span class="muted">no task</span>'
    # The browser counts the seconds of what runs: a row is sent again only when it says something new.
    lasts = (
        f'<span data-since="{text(run["started_at"])}"></span>'
        if run["status"] == "running"
        else seconds(run["seconds"])
    )
    return (
        f'<tr data-id="{text(run["id"])}"><td>{badge(state_of(run))}</td>'
        f'<td><a class="name" href="{address}">{text(run["name"])}<span class="muted">{version}</span></a>'
        f'<span class="id">{text(run["id"])}</span></td><td class="task">{task}</td>'
        f'<td class="when">{moment(run["started_at"])}</td><td class="n">{lasts}</td>'
        f'<td class="n" data-label="tokens">{number(run["tokens"])}</td>'
        f'<td class="n">{dollars(run["cost_usd"])}</td><td>{simulated(run.get("simulated", False))}</td></tr>'
    )


def dialog() -> str:
    """Render the dialog that starts a run; any page may hold it."""
    return """<dialog id="start" aria-labelledby="start-title"><form id="start-form">
<h2 id="start-title">Start a run</h2>
<div class="field"><label for="start-name">Definition</label>
<select id="start-name" required></select></div>
<div id="start-fields"></div>
<p class="bad" id="start-wrong" role="alert"></p>
<div class="row end"><button type="button" data-close>Cancel</button>
<button class="primary" type="submit">Start</button></div></form></dialog>"""


def starts(frame: Frame) -> None:
    """Let a page that has the dialog start runs."""

    async def names(facts: dict[str, Any]) -> None:
        found = await frame.api.get("/definitions", limit=200)
        frame.call("start.names", [one["name"] for one in found["items"]], facts.get("name") or "")

    async def chosen(facts: dict[str, Any]) -> None:
        found = await frame.api.get(f"/definitions/{segment(facts['name'])}", version=facts.get("version"))
        frame.call("start.fields", found["name"], forms.fields(found["definition"].get("input"), "start"))

    async def start(facts: dict[str, Any]) -> None:
        wanted = {"definition": str(facts["name"]), "input": facts["input"]}
        try:
            begun = await frame.api.post("/collaborations", wanted)
        except ApiFault as fault:
            frame.call("start.wrong", str(fault))
            return
        frame.go(f"/console/runs/{segment(begun['id'])}")

    frame.on("start-names", names)
    frame.on("start-chosen", chosen)
    frame.on("start", start)
