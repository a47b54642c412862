"""`facilitair schedule add | list | pause | resume | run | remove`: collaborations by the clock."""

from typing import Annotated, Any

import typer

from cli.client import Api, segment
from cli.command import command
from cli.options import InputJsonOption, InputOption, JsonOption, LimitOption
from cli.output import columns, out, print_json, print_page, print_warnings
from cli.runs.inputs import parse
from schema.language.cron import in_zone

app = typer.Typer(help="Start collaborations by the clock.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id that `schedule add` printed.")]


@app.command()
@command
def add(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="name, name@version or name@alias.")],
    cron: Annotated[
        str | None, typer.Option("--cron", help='minute hour day month weekday, such as "0 9 * * 1-5".')
    ] = None,
    every: Annotated[str | None, typer.Option("--every", help="Such as 30m, 6h or 1d.")] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Of --cron, such as Europe/Berlin.")] = "UTC",
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            help="While the run before still goes on: skip, buffer_one, allow_all or cancel_other.",
        ),
    ] = "skip",
    catch_up: Annotated[
        str, typer.Option("--catch-up", help="How late a missed start is still made up for.")
    ] = "1h",
    paused: Annotated[bool, typer.Option("--paused", help="Start nothing before `schedule resume`.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a collaboration again and again."""
    body = {
        "name": name,
        "cron": cron,
        "every": every,
        "timezone": timezone,
        "input": parse(inputs or [], input_json),
        "overlap": overlap,
        "catch_up": catch_up,
        "paused": paused,
    }
    _print(api.post("/schedules", body), as_json=as_json)


@app.command("list")
@command
def list_(
    api: Api,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the schedules."""
    page = api.get("/schedules", limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("id", "starts", "when", "next", "last run")
    for one in page["items"]:
        last = one["recent"][0]["id"] if one["recent"] else ""
        table.add_row(one["id"], one["name"], _when(one), _next(one)[0], last)
    print_page(page, table, limit)


@app.command()
@command
def pause(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Start nothing until it is resumed."""
    _print(api.post(f"/schedules/{segment(id)}/pause"), as_json=as_json)


@app.command()
@command
def resume(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Go on after a pause; what was missed is not made up for."""
    _print(api.post(f"/schedules/{segment(id)}/resume"), as_json=as_json)


@app.command()
@command
def run(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Start a run now as well."""
    _print(api.post(f"/schedules/{segment(id)}/run"), as_json=as_json)


@app.command()
@command
def remove(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Start nothing any more; runs under way go on."""
    api.delete(f"/schedules/{segment(id)}")
    if as_json:
        print_json({"id": id, "removed": True})
    else:
        out().print(f"{id} removed", markup=False)


def _print(one: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(one)
        return
    out().print(f"{one['id']}  {one['name']}, {_when(one)}; next: {', '.join(_next(one))}", markup=False)
    print_warnings(one)


def _when(one: dict[str, Any]) -> str:
    return f"every {one['every']}" if one["every"] else f"{one['cron']} ({one['timezone']})"


def _next(one: dict[str, Any]) -> list[str]:
    """Its next starts, by the clock of its zone; never empty."""
    if one["paused"]:
        return ["paused"]
    return [in_zone(start, one["timezone"]) for start in one["next"]] or ["never"]
