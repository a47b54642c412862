"""`facilitair router …`: who decides, what it expects, how it learns, and what people say of answers."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import JsonOption, LimitOption, SimulatedOption
from cli.output import columns, err, out, print_json, print_page
from schema.errors import FacilitairError, Refused

NumberArgument = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="Of the checkpoint.")]

_LOOK_SECONDS: Final = 2.0


@command
def status(
    api: Api,
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who chooses models now, how fresh that is, and which models must rest."""
    _print_status(api.get("/router", simulated=simulated), as_json=as_json)


@command
def checkpoints(api: Api, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List what was learned and put to work, the newest first."""
    page = api.get("/router/checkpoints", limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("checkpoint", "of", "state", "since", "outcomes", "learned until", "why")
    for one in page["items"]:
        table.add_row(
            str(one["number"]),
            _kind(one),
            one["state"],
            _when(one["state_since"]),
            str(one["outcomes"]),
            _when(one["trained_until"]),
            Text(one["state_reason"]),
        )
    print_page(page, table, limit, none="none yet: rules decide")


@command
def export(
    api: Api,
    number: NumberArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
) -> None:
    """Write a checkpoint to a file, for `facilitair router evaluate --checkpoint`."""
    content = api.content(f"/router/checkpoints/{number}/content")
    try:
        file.write_bytes(content)
    except OSError as error:
        raise Refused("file_unwritable", f"{file} cannot be written: {error.strerror}.") from error
    out().print(Text(f"checkpoint {number}: {len(content):,} bytes in {file}"))


@command
def trainings(api: Api, limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List every time that the router learned, or tried to, the newest first."""
    page = api.get("/router/trainings", limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("training", "of", "status", "began", "outcomes", "by", "why")
    for one in page["items"]:
        table.add_row(
            one["id"],
            _kind(one),
            one["status"],
            _when(one["started_at"]),
            str(one["data"].get("outcomes", "")),
            Text(one["started_by"] or ""),
            Text(one["reason"]),
        )
    print_page(page, table, limit)


@command
def train(
    api: Api,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same data and seed, the same weights.")] = 0,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="ISO 8601; what ended later is left out.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait, and show the result.")] = False,
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from all outcomes until now; what comes of it enters in shadow, or is refused with the reason."""
    body = {"seed": seed} | ({"until": until} if until else {})
    started = api.post("/router/trainings", body, simulated=simulated)
    if not watch:
        if as_json:
            print_json(started)
        else:
            out().print(Text(f"learning: {started['id']}; `facilitair router trainings` tells how far it is"))
        return
    done = _watched(api, started["id"])
    if as_json:
        print_json(done)
    else:
        out().print(Text(f"{done['status']}: {done['reason']}"))
    if done["status"] in ("failed", "refused"):
        raise typer.Exit(1)


def _watched(api: Api, id: str) -> dict[str, Any]:
    """The training when it has ended; its epochs are told on the way."""
    shown = 0
    while True:
        try:
            found: dict[str, Any] = api.get(f"/router/trainings/{segment(id)}")
        except FacilitairError as error:
            # It is written down by the worker that takes it.
            if error.code != "training_unknown":
                raise
            found = {"status": "running", "curve": []}
        for point in found["curve"][shown:]:
            err().print(Text("  ".join(f"{name} {_short(value)}" for name, value in point.items())))
        shown = len(found["curve"])
        if found["status"] != "running":
            return found
        time.sleep(_LOOK_SECONDS)


@command
def promote(api: Api, number: NumberArgument, as_json: JsonOption = False) -> None:
    """Let a checkpoint serve more now: from shadow to a share of the choices, from there to all."""
    found = api.post("/router/promote", {"number": number})
    if as_json:
        print_json(found)
    else:
        out().print(Text(f"checkpoint {found['number']} serves: {found['state']}"))


@command
def rollback(
    api: Api,
    reason: Annotated[str, typer.Option("--reason", help="For the log.")] = "",
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the checkpoint before serve again, or rules where there is none; at once."""
    found = api.post("/router/rollback", {"reason": reason}, simulated=simulated)
    _print_status(found, as_json=as_json)


@command
def lift(
    api: Api,
    model: Annotated[str, typer.Argument(help="As `status` lists it.")],
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a quarantined model be chosen again, before its time is over."""
    found = api.delete(f"/router/quarantines/{segment(model)}", simulated=simulated)
    _print_status(found, as_json=as_json)


@command
def outcome(
    api: Api,
    run: Annotated[str, typer.Argument(metavar="RUN")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="Its path: review, per_file[17].review.")],
    ok: Annotated[float, typer.Argument(metavar="OK", min=0, max=1, help="0 useless to 1 right.")],
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say how good an agent's answer was: the router learns from it. The last word counts."""
    path = f"/collaborations/{segment(run)}/steps/{segment(step)}/outcome"
    found = api.post(path, {"ok": ok, "note": note})
    if as_json:
        print_json(found)
    else:
        out().print(Text(f"{run}/{step}: {found['ok']:g}"))


@command
def predict(
    api: Api,
    task: Annotated[str, typer.Argument(metavar="TEXT", help="What is to be done.")],
    role: Annotated[str | None, typer.Option("--role", help="Of the agent.")] = None,
    agent: Annotated[str, typer.Option("--agent", help="Its name, where it has no role.")] = "anyone",
    among: Annotated[
        list[str] | None, typer.Option("--among", help="provider/model; repeat it. Default: the catalogue's.")
    ] = None,
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask whom the router would choose, what it expects of each model, and how sure it is. Runs nothing."""
    body: dict[str, Any] = {"task": task, "agent": agent, "candidates": among or []}
    body |= {"role": role} if role else {}
    found = api.post("/router/predict", body, simulated=simulated)
    if as_json:
        print_json(found)
        return
    sure = "" if found["confidence"] is None else f"  confidence {found['confidence']:.2f}"
    out().print(
        Text.assemble((found["model"], "bold"), f"  by {found['policy']} for {found['category']}{sure}")
    )
    table = columns("model", "chance", "success", "seconds", "tokens", "dollars")
    for one in found["candidates"]:
        rest = " (rests)" if one["quarantined"] else ""
        success = "-" if one["success"] is None else f"{one['success']:.2f} ± {one['doubt']:.2f}"
        table.add_row(
            Text(one["model"] + rest),
            f"{one['chance']:.3f}",
            success,
            _span(one["seconds"]),
            _span(one["output_tokens"]),
            _span(one["usd"]),
        )
    out().print(table)
    for note in found["notes"]:
        err().print(Text(f"! {note}", style="yellow"))


def _print_status(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    of_kind = " in simulated runs" if found["simulated"] else ""
    out().print(
        Text.assemble((f"{found['policy']} decides{of_kind}", "bold"), _fresh(found["fresh_seconds"]))
    )
    for name in ("serving", "challenger"):
        if one := found[name]:
            line = f"{name}: checkpoint {one['number']}, {one['state']} since {_when(one['state_since'])}"
            out().print(Text(f"{line}, {one['outcomes']} outcomes; {one['state_reason']}"))
    if found["coverage"]:
        held = ", ".join(f"{name} {share:.0%}" for name, share in found["coverage"].items())
        out().print(Text(f"90 % intervals held of late: {held}"))
    for one in found["quarantines"]:
        out().print(Text(f"{one['model']} rests until {_when(one['until'])}: {one['reason']}"))
    if found["trainings"]:
        last = found["trainings"][0]
        out().print(Text(f"last training: {last['status']}, {_when(last['started_at'])}; {last['reason']}"))
    else:
        out().print(Text("it has not learned yet; `facilitair router train` lets it"))


def _fresh(seconds: float | None) -> str:
    return "" if seconds is None else f"  knows all until {seconds / 3600:.1f} hours ago"


def _kind(one: dict[str, Any]) -> str:
    return "simulated runs" if one["simulated"] else "real runs"


def _when(iso: str | None) -> str:
    return (iso or "-")[:19].replace("T", " ")


def _span(ends: dict[str, float] | None) -> str:
    return "-" if ends is None else f"{ends['low']:.3g} … {ends['expected']:.3g} … {ends['high']:.3g}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
