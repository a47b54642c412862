"""The page of schedules and their next starts."""

from typing import Any, Final

from api.console.client import ApiFault, segment
from api.console.html import badge, empty, moment, text
from api.console.layout import Frame
from schema.language.cron import in_zone

_MAX_SCHEDULES: Final = 200


async def show(frame: Frame) -> None:
    try:
        page = await frame.api.get("/schedules", limit=_MAX_SCHEDULES)
        cards = "".join(_card(one) for one in page["items"]) or empty(
            "Nothing starts by the clock.", "Make a schedule with <code>facilitair schedule add</code>."
        )
    except ApiFault as fault:
        cards = empty("The schedules cannot be read just now.", text(fault))
    frame.show(
        "Schedules",
        "schedules",
        '<div class="head"><h1>Schedules</h1><p class="muted">What starts by the clock.</p></div>'
        f'<div class="asked-list">{cards}</div>',
    )


def _card(one: dict[str, Any]) -> str:
    name = str(one["name"])
    rhythm = f"every {one['every']}" if one["every"] else f"{one['cron']} in {one['timezone']}"
    last = one["recent"][:1]
    started = "".join(
        f' · last run <a href="/console/runs/{segment(run["id"])}">{moment(run["at"])}</a>' for run in last
    )
    return f"""<article class="card pad" data-schedule="{text(one["id"])}">
<div class="row">{badge("paused") if one["paused"] else ""}<h2>
<a href="/console/definitions/{segment(name.partition("@")[0])}">{text(name)}</a></h2></div>
<p class="muted small">{text(rhythm)} · {text(one["id"])}{started}</p>{_next(one)}</article>"""


def _next(one: dict[str, Any]) -> str:
    """The next starts, by the clock of the schedule: the browser's own zone may be another."""
    if one["paused"]:
        return "<p>Starts nothing until it is resumed.</p>"
    if not one["next"]:
        return "<p>Never starts again.</p>"
    times = "".join(f"<li>{in_zone(start, one['timezone'])}</li>" for start in one["next"])
    return f'<ol class="starts" aria-label="Next starts">{times}</ol>'
