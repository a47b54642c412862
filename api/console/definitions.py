"""All definitions, by name."""

from typing import Any, Final

from api.console.client import ApiFault, segment
from api.console.html import badge, empty, moment, text
from api.console.layout import Frame
from api.console.runs import dialog, starts

_PAGE: Final = 200
_MAX_PAGES: Final = 10
_ABOUT_CHARS: Final = 160


async def show(frame: Frame) -> None:
    try:
        items = await _all(frame)
        rows = "".join(_row(one) for one in items)
        if not items:
            hint = "A definition says which agents do what, and in which order."
            rows = f'<tr class="none"><td colspan="5">{empty("There is no definition yet.", hint)}</td></tr>'
    except ApiFault as fault:
        wrong = empty("The definitions cannot be read just now.", text(fault))
        rows = f'<tr class="none"><td colspan="5">{wrong}</td></tr>'
    frame.show(
        "Definitions",
        "definitions",
        f"""<div class="head"><h1>Definitions</h1>
<a class="button primary" href="/console/new">New definition</a></div>
<div class="filters" role="search">
<input type="search" id="search" placeholder="Search name or description"
aria-label="Search definitions"></div>
<table class="list definitions"><thead><tr><th>Name</th><th>Newest</th><th>Last run</th><th>Stored</th>
<th></th></tr></thead>
<tbody id="rows">{rows}</tbody></table>{dialog()}""",
        "definitions.js",
    )
    starts(frame)


async def _all(frame: Frame) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    after: str | None = None
    for _ in range(_MAX_PAGES):
        found = await frame.api.get("/definitions", limit=_PAGE, after=after)
        items += found["items"]
        after = found["next"]
        if after is None:
            break
    return items


def _row(one: dict[str, Any]) -> str:
    name = str(one["name"])
    marks = badge("deprecated") if one["deprecated"] else ""
    about = text(one["description"], _ABOUT_CHARS)
    return (
        f'<tr data-id="{text(name)}"><td>'
        f'<a class="name" href="/console/definitions/{segment(name)}">{text(name)}</a>'
        f'<span class="about">{about}</span></td>'
        f'<td>@{one["version"]} {marks}</td><td class="last">{_last(one["last_run"])}</td>'
        f'<td class="when">{moment(one["created_at"])}'
        f'<span class="muted">{text(one["created_by"] or "")}</span></td>'
        f'<td class="n"><a class="button" href="/console/?name={segment(name)}">Runs</a> '
        f'<button type="button" data-start="{text(name)}">Start</button></td></tr>'
    )


def _last(run: dict[str, Any] | None) -> str:
    """The newest run: how it stands, and the way to it."""
    if run is None:
        return '<span class="muted">none yet</span>'
    shown = f"{badge(run['sub_state'] or run['status'])} {moment(run['started_at'])}"
    return f'<a href="/console/runs/{segment(run["id"])}">{shown}</a>'
