"""The router: who chooses models, how well that is calibrated, and the hands on it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.console.client import ApiFault
from api.console.html import empty, kinds, moment, number, text
from api.console.layout import Frame
from api.console.plots import Axis, Series, Tone, axis, plot

_CHECKPOINTS: Final = 20
_STATES: Final = {
    "shadow": "watches",
    "share": "decides a share",
    "all": "decides",
    "rolled_back": "rolled back",
    "retired": "retired",
}
_TONES: Final = {"registered": "completed", "refused": "skipped", "failed": "failed", "running": "running"}


_LOSSES: Final[tuple[tuple[str, str, Tone], ...]] = (
    ("loss", "on what it learns from", "a"),
    ("validated", "on what it has not seen", "b"),
)


async def show(frame: Frame) -> None:
    try:
        status = await frame.api.get("/router", simulated=frame.query.get("simulated"))
        which = status["simulated"]
        listed = (await frame.api.get("/router/checkpoints", simulated=which, limit=_CHECKPOINTS))["items"]
        trained = (await frame.api.get("/router/trainings", simulated=which, limit=1))["items"]
    except ApiFault as fault:
        frame.show("Router", "router", empty("The router cannot be read just now.", text(fault)))
        return
    frame.show("Router", "router", page(status, listed, trained[0] if trained else None), "router.js")
    _hands(frame, status["simulated"])


def _hands(frame: Frame, simulated: bool) -> None:
    which = f"?simulated={str(simulated).lower()}"

    async def train(facts: dict[str, Any]) -> None:
        await frame.api.post(f"/router/trainings{which}", {})
        frame.toast("It learns. What comes of it stands here when it has ended.")

    async def promote(facts: dict[str, Any]) -> None:
        found = await frame.api.post("/router/promote", {"number": int(facts["number"])})
        frame.toast(f"Checkpoint {found['number']} {_STATES[found['state']]} now.")
        frame.go(f"/console/router{which}")

    async def roll_back(facts: dict[str, Any]) -> None:
        await frame.api.post(f"/router/rollback{which}", {"reason": "in the console"})
        frame.go(f"/console/router{which}")

    frame.on("train", train)
    frame.on("promote", promote)
    frame.on("rollback", roll_back)


def page(
    status: Mapping[str, Any], checkpoints: Sequence[Mapping[str, Any]], training: Mapping[str, Any] | None
) -> str:
    """All of it, as HTML."""
    return (
        f"{_head(status)}{_sums(status)}{_rollout(status)}{_quarantines(status['quarantines'])}"
        f"{_plots(training)}{_table(checkpoints)}{_trainings(status['trainings'])}"
    )


def _head(status: Mapping[str, Any]) -> str:
    present = status["serving"] or status["challenger"]
    buttons = '<button type="button" class="primary" data-do="train">Learn now</button>'
    if present:
        sure = f"Roll back checkpoint {present['number']}?"
        buttons += (
            f'<button type="button" class="danger" data-do="rollback" data-sure="{sure}">Roll back</button>'
        )
    return (
        '<div class="head"><div><h1>Router</h1><p class="muted">Who chooses models where a definition leaves '
        f'it open.</p></div><div class="row">{kinds(status["simulated"])}{buttons}</div></div>'
    )


def _sums(status: Mapping[str, Any]) -> str:
    serving, challenger = status["serving"], status["challenger"]
    fresh = status["fresh_seconds"]
    facts = (
        ("Decides", f"checkpoint {serving['number']}" if serving else "rules"),
        ("Challenger", f"checkpoint {challenger['number']}" if challenger else "none"),
        ("Knows all until", "–" if fresh is None else _ago(fresh)),
        ("Must rest", number(len(status["quarantines"]))),
    )
    shown = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return f'<div class="row sums"><dl class="facts pairs-of">{shown}</dl></div>'


def _ago(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{seconds / 60:.0f} min ago"
    return f"{hours:.1f} h ago" if hours < 48 else f"{hours / 24:.1f} days ago"


def _rollout(status: Mapping[str, Any]) -> str:
    """The way of the challenger, and where it stands on it."""
    challenger = status["challenger"] or status["serving"]
    if challenger is None:
        return empty("Rules decide.", "A checkpoint enters in shadow when the router has learned enough.")
    names = ("shadow", "share", "all")
    at = names.index(challenger["state"])
    steps = "".join(
        f"<li{' aria-current=step' if place == at else ''}>{_STATES[name]}</li>"
        for place, name in enumerate(names)
    )
    more = (
        f'<button type="button" data-do="promote" data-number="{challenger["number"]}" '
        f'data-sure="Let checkpoint {challenger["number"]} serve more before the evidence says so?">'
        "Promote</button>"
        if challenger["state"] != "all"
        else ""
    )
    return (
        f'<div class="card pad rollout"><div class="row"><h2>Checkpoint {challenger["number"]}</h2>'
        f'<ol class="way">{steps}</ol>{more}</div>'
        f'<p class="muted">{number(challenger["outcomes"])} outcomes since '
        f"{moment(challenger['state_since'])}: "
        f"{text(challenger['state_reason'])}</p></div>"
    )


def _quarantines(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    rows = "".join(
        f"<li><b>{text(one['model'])}</b> rests until {moment(one['until'])}: {text(one['reason'])}</li>"
        for one in found
    )
    return f'<div class="banner"><ul class="parts">{rows}</ul></div>'


def _plots(training: Mapping[str, Any] | None) -> str:
    if training is None:
        return ""
    curves = training["figures"].get("curves") or {}
    drawn = (
        (
            "Calibration",
            "What was predicted beside what came, on outcomes held out.",
            calibration(curves.get("calibration") or []),
        ),
        (
            "Cost against quality",
            "The router at several weights of cost, and each model alone.",
            cost_quality(curves.get("cost_quality") or []),
        ),
        ("Learning", "Loss by epoch.", learning(training["curve"])),
    )
    cards = "".join(
        f'<figure class="card plot"><figcaption>{name}</figcaption><p class="muted small">{what}</p>'
        f"{figure or '<p class=empty>no data in the last training</p>'}</figure>"
        for name, what, figure in drawn
    )
    return f'<div class="plots">{cards}</div>'


def calibration(bins: Sequence[Mapping[str, float]]) -> str:
    """On the diagonal what was said came true; a larger mark stands for more outcomes."""
    if not bins:
        return ""
    most = max(one["count"] for one in bins)
    found = Series(
        "outcomes",
        [(one["predicted"], one["ok"]) for one in bins],
        marks=True,
        sizes=[3 + 5 * (one["count"] / most) ** 0.5 for one in bins],
        labels=[f"said {one['predicted']:.2f}, was {one['ok']:.2f}, of {one['count']:.0f}" for one in bins],
    )
    ideal = Series("said is what came", [(0, 0), (1, 1)], "faint")
    return plot("Calibration", Axis("predicted", 0, 1), Axis("came right", 0, 1), [ideal, found])


def cost_quality(points: Sequence[Mapping[str, Any]]) -> str:
    if not points:
        return ""
    by_router = sorted(
        (one["usd"], one["ok"], one["name"]) for one in points if one["name"].startswith("router")
    )
    singles = [one for one in points if not one["name"].startswith("router")]
    router = Series(
        "router",
        [(usd, ok) for usd, ok, _ in by_router],
        marks=True,
        labels=[f"{name}: ${usd:.5f}, {ok:.3f}" for usd, ok, name in by_router],
    )
    alone = Series(
        "one model for all",
        [(one["usd"], one["ok"]) for one in singles],
        "b",
        line=False,
        marks=True,
        labels=[f"{one['name']}: ${one['usd']:.5f}, {one['ok']:.3f}" for one in singles],
        names=[one["name"].rpartition("/")[2] for one in singles],
    )
    across = axis("dollars for a step", [one["usd"] for one in points], "$", from_zero=True)
    up = axis("quality", [one["ok"] for one in points])
    return plot("Cost against quality", across, up, [router, alone])


def learning(curve: Sequence[Mapping[str, Any]]) -> str:
    """Plot a training's curve; each member of a committee gets a line of its own."""
    members = sorted({one.get("member", 0) for one in curve})
    series = [
        Series(shown, [(one["epoch"], one[name]) for one in curve if _is(one, member, name)], tone)
        for name, shown, tone in _LOSSES
        for member in members
    ]
    values = [y for one in series for _, y in one.points]
    if not values:
        return ""
    epochs = [x for one in series for x, _ in one.points]
    last = max(max(epochs), min(epochs) + 1)
    return plot("Learning", Axis("epoch", min(epochs), last), axis("loss", values), series)


def _is(point: Mapping[str, Any], member: int, name: str) -> bool:
    return point.get("member", 0) == member and point.get(name) is not None


def _table(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    rows = "".join(
        f"<tr><td class=n>{one['number']}</td><td>{_STATES[one['state']]}</td>"
        f"<td class=n>{number(one['outcomes'])}</td><td>{moment(one['trained_until'])}</td>"
        f"<td class=n>{_figure(one, 'brier')}</td><td class=n>{_figure(one, 'ece')}</td>"
        f"<td>{text(one['state_reason'], 160)}</td></tr>"
        for one in found
    )
    return (
        '<div class="card scroll pad"><h2>Checkpoints</h2><table class="small-table wide"><thead><tr>'
        "<th class=n>Number</th><th>State</th><th class=n>Outcomes</th><th>Learned until</th>"
        "<th class=n>Brier</th><th class=n>ECE</th><th>Why</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _figure(checkpoint: Mapping[str, Any], name: str) -> str:
    value = (checkpoint["manifest"].get("figures") or {}).get(name)
    return "–" if value is None else f"{value:.3f}"


def _came_to(status: str) -> str:
    return f'<span class="badge st-{_TONES[status]}">{text(status)}</span>'


def _trainings(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{moment(one['started_at'])}</td><td>{_came_to(one['status'])}</td>"
        f"<td class=n>{number(one['data'].get('outcomes', 0))}</td><td>{text(one['started_by'] or '')}</td>"
        f"<td>{text(one['reason'], 200)}</td></tr>"
        for one in found
    )
    return (
        '<div class="card scroll pad"><h2>Trainings</h2><table class="small-table wide"><thead><tr>'
        "<th>Began</th><th>Came to</th><th class=n>Outcomes</th><th>By</th><th>Why</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
