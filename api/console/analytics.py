"""Plots of runs: over time, by model, by agent."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from nicegui import ui

from api.console.client import ApiFault
from api.console.html import brief, dollars, empty, kinds, number, simulated, text
from api.console.layout import Frame
from api.console.plots import axis, step

_PERIODS: Final = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
_STATUS_COLOURS: Final = {"completed": "#2f9e5f", "failed": "#d64550", "running": "#3b82d6"}
# Told apart by people who see red and green alike; of medium lightness, for light and dark.
_COLOURS: Final = ("#3b73d9", "#d98a2b", "#2a9d8f", "#a05bc7", "#cf5b78", "#6b8e23", "#8c6d4f", "#5f7d95")
_PLOTS: Final = (
    ("runs", "Runs by status"),
    ("costs", "Cost by model"),
    ("agents", "Cost by agent"),
    ("tokens", "Tokens by agent"),
    ("latency", "Latency by agent"),
    ("models", "Latency by model"),
    ("first", "Time to the first token by model"),
    ("attempts", "Attempts by agent"),
)
_MAX_BARS: Final = 12


async def show(frame: Frame) -> None:
    period = frame.query.get("period", "7d")
    period = period if period in _PERIODS else "7d"
    try:
        found = await frame.api.get("/analytics", period=period, simulated=frame.query.get("simulated"))
    except ApiFault as fault:
        frame.show("Analytics", "analytics", empty("The figures cannot be read just now.", text(fault)))
        return
    frame.show("Analytics", "analytics", _page(found), "analytics.js")
    if not found["runs"]:
        return
    for name, options in _options(found).items():
        with ui.teleport(f"#plot-{name}"):
            ui.echart(options, renderer="svg").classes("chart")


def _page(found: Mapping[str, Any]) -> str:
    which = str(found["simulated"]).lower()
    chips = "".join(
        f'<a class="button chip" '
        f'href="?period={id}&amp;simulated={which}"'
        f"{' aria-current=page' if id == found['period'] else ''}>{name}</a>"
        for id, name in _PERIODS.items()
    )
    head = (
        f'<div class="head"><h1>Analytics</h1>{kinds(found["simulated"], period=found["period"])}'
        f'<nav class="chips" aria-label="Period">{chips}</nav></div>'
    )
    if not found["runs"]:
        which = "simulated" if found["simulated"] else "real"
        return head + empty(f"No {which} run in this time.", "Choose a longer one, or the other runs.")
    plots = "".join(
        f'<figure class="card plot" aria-labelledby="title-{id}">'
        f'<figcaption id="title-{id}">{title}</figcaption>'
        f'<div id="plot-{id}" class="room"></div></figure>'
        for id, title in _PLOTS
    )
    return f'{head}{_sums(found)}<div class="plots">{plots}</div>{_table(found["agents"])}'


def _sums(found: Mapping[str, Any]) -> str:
    runs = sum(one["runs"] for one in found["runs"])
    failed = sum(one["runs"] for one in found["runs"] if one["status"] == "failed")
    tokens = sum(one["input_tokens"] + one["output_tokens"] for one in found["costs"])
    cost = sum(one["cost_usd"] for one in found["costs"])
    facts = (
        ("Runs", number(runs)),
        ("Failed", f"{failed / runs * 100:.1f} %"),
        ("Tokens", number(tokens)),
        ("Cost", dollars(cost)),
    )
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    mark = simulated(found["simulated"])
    return f'<div class="row sums"><dl class="facts">{shown}</dl>{mark}</div>'


def _table(agents: Sequence[Mapping[str, Any]]) -> str:
    """The same figures to read, to copy, and for who cannot see a plot."""
    rows = "".join(
        f"<tr><td>{text(one['name'])}</td><td class=n>{number(one['attempts'])}</td>"
        f"<td class=n>{number(one['failed'])}</td>"
        f"<td class=n>{number(one['input_tokens'] + one['output_tokens'])}</td>"
        f"<td class=n>{dollars(one['cost_usd'])}</td>"
        f"<td class=n>{_time(one['p50_ms'])}</td><td class=n>{_time(one['p95_ms'])}</td>"
        f"<td class=n>{_time(one['first_token_p50_ms'])}</td></tr>"
        for one in agents
    )
    return (
        '<div class="card scroll pad"><h2>Agents</h2><table class="small-table"><thead><tr><th>Agent</th>'
        "<th class=n>Attempts</th>"
        "<th class=n>Failed</th><th class=n>Tokens</th><th class=n>Cost</th><th class=n>p50</th>"
        "<th class=n>p95</th>"
        f"<th class=n>First token p50</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _time(milliseconds: float | None) -> str:
    return "" if milliseconds is None else brief(milliseconds / 1000)


def _options(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    bars = _bars(found)
    agents, models = found["agents"][:_MAX_BARS], found["models"][:_MAX_BARS]
    return {
        "runs": _stacked(bars, found["runs"], "status", "runs", _STATUS_COLOURS, ""),
        "costs": _stacked(bars, found["costs"], "model", "cost_usd", {}, "$"),
        "agents": _sideways(agents, {"cost": "cost_usd"}, "$"),
        "tokens": _sideways(agents, {"in": "input_tokens", "out": "output_tokens"}, "", stack=True),
        "latency": _sideways(agents, {"p50": "p50_ms", "p95": "p95_ms"}, "s"),
        "models": _sideways(models, {"p50": "p50_ms", "p95": "p95_ms"}, "s"),
        "attempts": _sideways(
            [{**one, "fine": one["attempts"] - one["failed"]} for one in agents],
            {"fine": "fine", "failed": "failed"},
            "",
            stack=True,
        ),
        "first": _sideways(models, {"p50": "first_token_p50_ms", "p95": "first_token_p95_ms"}, "s"),
    }


def _bars(found: Mapping[str, Any]) -> list[datetime]:
    width = timedelta(hours=1) if found["bucket"] == "1 hour" else timedelta(days=1)
    first = datetime.fromisoformat(found["since"])
    count = {"24h": 24, "7d": 7, "30d": 30}[found["period"]]
    return [first + width * at for at in range(count)]


def _stacked(
    bars: Sequence[datetime],
    rows: Sequence[Mapping[str, Any]],
    name: str,
    value: str,
    colours: Mapping[str, str],
    unit: str,
) -> dict[str, Any]:
    """Bars over time, one colour per name."""
    sums: dict[str, list[float]] = {}
    at = {bar: index for index, bar in enumerate(bars)}
    for row in rows:
        index = at.get(datetime.fromisoformat(row["at"]))
        if index is not None:
            sums.setdefault(row[name], [0.0] * len(bars))[index] += row[value]
    hours = len(bars) == 24
    series = [
        {
            "name": one,
            "type": "bar",
            "stack": "all",
            "barMaxWidth": 34,
            "data": [round(value, 6) for value in values],
            "itemStyle": {"color": colours.get(one) or _COLOURS[index % len(_COLOURS)]},
        }
        for index, (one, values) in enumerate(sorted(sums.items(), key=lambda one: -sum(one[1])))
    ]
    labels = [bar.strftime("%H:%M") if hours else f"{bar.day} {bar.strftime('%b')}" for bar in bars]
    return _base(unit) | {
        "xAxis": {"type": "category", "data": labels, "axisTick": {"show": False}},
        "yAxis": _values(_tops(series, stack=True), unit),
        "series": series,
    }


def _sideways(
    rows: Sequence[Mapping[str, Any]], values: Mapping[str, str], unit: str, *, stack: bool = False
) -> dict[str, Any]:
    """A bar per name, the first on top; times are drawn in seconds."""
    scale = 1000 if unit == "s" else 1
    series = [
        {
            "name": shown,
            "type": "bar",
            "barMaxWidth": 18,
            "data": [round((row[key] or 0) / scale, 6) for row in rows],
            "itemStyle": {"color": _COLOURS[index], "borderRadius": 2},
            **({"stack": "all"} if stack else {}),
        }
        for index, (shown, key) in enumerate(values.items())
    ]
    return _base(unit, legend=len(values) > 1) | {
        "xAxis": _values(_tops(series, stack=stack), unit),
        "yAxis": {
            "type": "category",
            "data": [row["name"] for row in rows],
            "inverse": True,
            "axisTick": {"show": False},
            "axisLabel": {"width": 130, "overflow": "truncate"},
        },
        "series": series,
    }


def _tops(series: Sequence[Mapping[str, Any]], *, stack: bool) -> list[float]:
    """Return the upper ends of stacked bars."""
    rows = zip(*(one["data"] for one in series), strict=True)
    return [sum(row) if stack else max(row) for row in rows]


def _values(tops: Sequence[float], unit: str) -> dict[str, Any]:
    """An axis from nothing to a round number that no bar passes, with a label at its end."""
    fits = axis("", tops or [1.0], from_zero=True)
    shape = {"$": "${value}", "s": "{value} s"}.get(unit, "{value}")
    return {
        "type": "value",
        "min": 0,
        "max": fits.high,
        "interval": step(0, fits.high),
        "axisLabel": {"formatter": shape},
    }


def _base(unit: str, *, legend: bool = True) -> dict[str, Any]:
    return {
        "backgroundColor": "transparent",
        "animation": False,
        "aria": {"enabled": True},
        "grid": {"left": 8, "right": 34, "top": 38 if legend else 12, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}, "confine": True},
        "legend": {"type": "scroll", "top": 2, "left": 0, "itemWidth": 12, "itemHeight": 9, "show": legend},
    }
