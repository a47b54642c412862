"""`facilitair prompts trial start | show | look | stop`: A/B tests of prompts."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import JsonOption, SimulatedOption
from cli.output import columns, out, print_json
from cli.prompts.prompts import NameArgument

app = typer.Typer(help="Compare a version of a prompt with the present one.", no_args_is_help=True)


@app.command()
@command
def start(
    api: Api,
    name: NameArgument,
    candidate: Annotated[int, typer.Option("--candidate", min=1, help="The version to be compared.")],
    share: Annotated[float, typer.Option("--share", help="Of units that get it.")] = 0.5,
    unit: Annotated[str, typer.Option("--unit", help="What stays with one version: run or user.")] = "run",
    metric: Annotated[str, typer.Option("--metric", help="quality, success or cost.")] = "quality",
    alpha: Annotated[float, typer.Option("--alpha", help="How often equal versions may differ.")] = 0.05,
    min_units: Annotated[int, typer.Option("--min-units", help="Of each, before any verdict.")] = 30,
    max_units: Annotated[int, typer.Option("--max-units", help="Of both; then it is undecided.")] = 2_000,
    promote: Annotated[bool, typer.Option("--promote", help="Promote the candidate if it wins.")] = False,
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a share of the runs that start from now on the candidate, and compare the results."""
    body = {
        "candidate": candidate,
        "share": share,
        "unit": unit,
        "metric": metric,
        "alpha": alpha,
        "min_units": min_units,
        "max_units": max_units,
        "promote": promote,
    }
    api, path = api, f"/prompts/{segment(name)}/trial"
    _print(api.post(path, body, simulated=simulated), as_json=as_json)


@app.command()
@command
def show(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """Show the figures of the latest trial. Looking often spoils nothing."""
    _print(api.get(f"/prompts/{segment(name)}/trial"), as_json=as_json)


@app.command()
@command
def look(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """End the trial now if it is decided, rather than within a minute."""
    _print(api.post(f"/prompts/{segment(name)}/trial/look"), as_json=as_json)


@app.command()
@command
def stop(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """End the trial; the name means what it meant."""
    _print(api.delete(f"/prompts/{segment(name)}/trial"), as_json=as_json)


def _kind(trial: dict[str, Any]) -> str:
    return "simulated runs" if trial["simulated"] else "real runs"


def _print(trial: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(trial)
        return
    name, metric, unit = trial["name"], trial["metric"], trial["unit"]
    out().print(
        Text.assemble((f"{name}: {trial['status']}", "bold"), f"  {metric} by {unit}, {_kind(trial)}")
    )
    table = columns("", "version", f"{unit}s", metric, "without")
    for arm in ("control", "candidate"):
        one = trial[arm]
        mean = f"{one['mean']:.4f}" if one["units"] else "-"
        row = (f"{name}@{one['version']}", str(one["units"]), mean, str(one["unmeasured"]))
        table.add_row(arm, *row)
    out().print(table)
    out().print(_said(trial), markup=False)
    if trial["status"] != "running":
        out().print(_ended(trial), markup=False)


def _ended(trial: dict[str, Any]) -> str:
    name, candidate = trial["name"], trial["candidate"]["version"]
    when = f"ended {trial['stopped_at'][:19]}"
    if trial["status"] != "won":
        return f"{when}; {name} kept its meaning, {name}@{trial['control']['version']}"
    if trial["promote"]:
        return f"{when}; {name} was made to mean {name}@{candidate}"
    return f"{when}; `facilitair prompts promote {name} {candidate}` makes {name} mean the winner"


def _said(trial: dict[str, Any]) -> str:
    if trial["low"] is None:
        least = trial["min_units"]
        return f"nothing can be said before {least} {trial['unit']}s of each have ended"
    sure = f"{1 - trial['alpha']:.0%}"
    return (
        f"difference {trial['difference']:+.4f}, {sure} within [{trial['low']:+.4f}, {trial['high']:+.4f}] "
        f"at all looks together, p = {trial['p']:.4g}"
    )
