"""`facilitair router`: what the router is worth."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption
from cli.output import columns, err, out, print_json, told
from schema.errors import Refused

app = typer.Typer(no_args_is_help=True, help="What the router is worth, on real outcomes.")


@app.callback()
def _group() -> None:
    """Keeps `evaluate` a subcommand while it is the only one."""


@app.command()
@told
def evaluate(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="A folder of outcomes; see docs/router.md.")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judge this stored checkpoint on all of it, and learn nothing."),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Also what a torch network would add: some minutes more.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep a checkpoint learned from all of it, for --checkpoint."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from a folder of outcomes, and judge on the part that was kept back."""
    from gateway.prices import per_million
    from router.evaluate import evaluate as judged

    if checkpoint and save:
        raise Refused(
            "request_invalid", "found --checkpoint and --save; expected one: the first learns nothing."
        )
    found = judged(
        data, lambda what: err().print(what, style="dim"), per_million, checkpoint, network=network, save=save
    )
    if as_json:
        print_json(found)
        return
    table = columns("figure", "value")
    for name, value in found.items():
        table.add_row(name, "no data" if value is None else f"{value:.4f}")
    out().print(table)
