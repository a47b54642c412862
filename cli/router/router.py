"""`facilitair router`: what the router is worth."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from cli.command import command
from cli.options import JsonOption
from cli.output import columns, err, out, print_json
from schema.errors import Refused

app = typer.Typer(no_args_is_help=True, help="Who chooses models, how that is learned, and what it is worth.")


@app.command()
@command
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
    from router.evaluate.report import evaluate as judged

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
    _print(found)


_BASELINE: Final = "baseline_"
_MEASURES: Final = ("quality", "usd_per_1k", "aiq", "brier", "ece")


def _print(found: dict[str, float | None]) -> None:
    """Show the figures that the router is judged by, beside plainer ways, and what stands behind them."""
    from router.evaluate.report import KEYS

    ways: dict[str, dict[str, float | None]] = {}
    for key in (key for key in found if key.startswith(_BASELINE)):
        for measure in (one for one in _MEASURES if key.endswith(f"_{one}")):
            name = key.removeprefix(_BASELINE).removesuffix(f"_{measure}").replace("_", " ")
            ways.setdefault(name, {})[measure] = found[key]
    beside = columns("beside it", *_MEASURES)
    for name, measured in ways.items():
        beside.add_row(name, *(_number(measured[one]) if one in measured else "" for one in _MEASURES))
    rest = [key for key in found if key not in KEYS and not key.startswith(_BASELINE)]
    for table in (_rows("figure", found, KEYS), *([beside] if ways else ()), _rows("in detail", found, rest)):
        out().print(table, "")


def _rows(title: str, found: Mapping[str, float | None], keys: Iterable[str]) -> Table:
    table = columns(title, "value")
    for key in keys:
        table.add_row(key, _number(found[key]))
    return table


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:.4f}"
