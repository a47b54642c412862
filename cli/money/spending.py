"""`facilitair spending | estimate`: the cost of model calls, and what a run can cost."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Api
from cli.command import command
from cli.definitions.definitions import read_definition
from cli.definitions.rehearsal import WhatArgument, is_file
from cli.money.limits import named
from cli.money.prices import PRICE_TITLES, price_row
from cli.options import InputJsonOption, InputOption, JsonOption, LimitOption
from cli.output import columns, out, print_json, print_more, print_warnings
from cli.runs.inputs import parse

_NOBODY = "(none)"


@command
def spending(
    api: Api,
    by: Annotated[
        str,
        typer.Option("--by", help="model, agent, definition, user, day, provider, run or tenant."),
    ] = "model",
    since: Annotated[
        str, typer.Option("--since", help="Such as 24h or 7d ago, or a day or moment: 2026-11-01.")
    ] = "30d",
    until: Annotated[str | None, typer.Option("--until", help="End of the period. Default: now.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Show the cost of model calls. Simulated calls are listed apart: nobody is billed."""
    query = {"by": by, "since": _moment(since), "until": until and _moment(until), "limit": limit}
    found = api.get("/spending", **query)
    if as_json:
        print_json(found)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in (by, "calls", "tokens in", "cached", "out", "billed", "simulated", ""):
        table.add_column(title, justify="left" if title in (by, "") else "right")
    for one in found["items"]:
        table.add_row(Text(one["name"] or _NOBODY), *_row(one))
    table.add_row(Text("in all", "bold"), *_row(found["total"]))
    out().print(table if found["total"]["calls"] else "no calls in this time")
    print_more(found, limit)


def _row(one: dict[str, Any]) -> tuple[str | Text, ...]:
    notes = []
    if one["assumed_usd"]:
        notes.append(f"at most: ${one['assumed_usd']:,.6f} of it are assumed")
    if one["open_calls"]:
        notes.append(f"{one['open_calls']:,} open")
    return (
        f"{one['calls']:,}",
        f"{one['input_tokens']:,}",
        f"{one['cached_input_tokens']:,}",
        f"{one['output_tokens']:,}",
        f"${one['billed_usd']:,.6f}",
        f"${one['simulated_usd']:,.6f}" if one["simulated"] else "",
        Text(", ".join(notes), "yellow"),
    )


def _moment(given: str) -> str:
    """A time that has gone by as a moment; whatever else it is the API reads."""
    import re

    from schema.language.steps import DURATION, seconds

    if not re.fullmatch(DURATION, given):
        return given
    try:
        return (datetime.now(UTC) - timedelta(seconds=seconds(given))).isoformat()
    except OverflowError:
        return given


@command
def estimate(
    api: Api,
    what: WhatArgument,
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a run can cost at most, with your prices and limits. Without an input its size is guessed."""
    body: dict[str, Any] = {"name": what}
    if is_file(what):
        definition = read_definition(what).definition
        body = {"definition": definition.model_dump(mode="json", by_alias=True, exclude_unset=True)}
    if inputs or input_json:
        body["input"] = parse(inputs or [], input_json)
    found = api.post("/definitions/estimate", body)
    if as_json:
        print_json(found)
        return
    cost = "unknown" if found["usd"] is None else f"at most ${found['usd']:,.6f}"
    tree = found["tree"]
    children = (
        f", {found['children']:,} sub-collaborations not counted; with them and all within at most "
        f"{tree['children']:,} sub-collaborations and {tree['executions']:,} executions"
        if found["children"]
        else ""
    )
    out().print(
        Text.assemble((found["name"], "bold"), f"  {cost}, {found['model_calls']:,} model calls{children}")
    )
    out().print(Text("Retries apart; values that prompts read from other steps are guessed.", "dim"))
    table = columns(*PRICE_TITLES)
    for one in found["prices"]:
        table.add_row(*price_row(one))
    if found["prices"]:
        out().print(table)
    for one in found["limits"]:
        out().print(named(one))
    print_warnings(found)
