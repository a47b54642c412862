"""`facilitair prices [set | show]`: what models cost, for a million tokens."""

import shlex
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from cli.client import Api, connect
from cli.command import command
from cli.options import DataOption, JsonOption, LimitOption, UrlOption
from cli.output import columns, out, print_json, print_more, print_warnings

app = typer.Typer(help="What models cost you, in US dollars for a million tokens.")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="provider/model")]
PRICE_TITLES: Final = ("model", "in", "cached in", "out", "from")


@app.callback(invoke_without_command=True)
@command
def list_(
    context: typer.Context,
    limit: LimitOption = 50,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your own prices, which go before all others; or set one, or show a model's."""
    if context.invoked_subcommand:
        return
    page = connect(url, data).get("/prices", limit=limit)
    if as_json:
        print_json(page)
        return
    if page["items"]:
        _print_versions(page["items"])
    else:
        out().print("none of your own yet")
    print_more(page, limit)


@app.command()
@command
def show(api: Api, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what a model costs now, where that comes from, and your own versions."""
    found = api.get(f"/prices/{_path(model)}")
    if as_json:
        print_json(found)
        return
    table = columns(*PRICE_TITLES)
    table.add_row(*price_row(found))
    out().print(table)
    if found["versions"]:
        out().print()
        _print_versions(found["versions"])
    if found["source"] is None:
        model = shlex.quote(found["answers"])
        said = f"calls of it are refused with price_missing; `facilitair prices set {model}` sets it"
        print_warnings({"warnings": [said]})


@app.command("set")
@command
def set_(
    api: Api,
    model: ModelArgument,
    into: Annotated[str, typer.Option("--in", help="Dollars for a million tokens of input.")],
    out_of: Annotated[str, typer.Option("--out", help="Dollars for a million tokens of output.")],
    cached: Annotated[
        str | None,
        typer.Option("--cached-in", help="Of input that the provider had cached. Default: as --in."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a model costs, from the next call on. Earlier calls keep the price that they had."""
    body = {"input_usd": into, "output_usd": out_of} | ({"cached_input_usd": cached} if cached else {})
    stored = api.put(f"/prices/{_path(model)}", body)
    if as_json:
        print_json(stored)
    else:
        out().print(Text.assemble((model, "bold"), f"  version {stored['version']}"))


def price_row(found: dict[str, Any]) -> tuple[Text, str, str, str, str]:
    """Return a row for PRICE_TITLES."""
    model = Text(found["model"])
    if found["answers"] != found["model"]:
        model.append(f" ({found['answers']} answers)", style="dim")
    figures = [_usd(found[f"{of}_usd"]) for of in ("input", "cached_input", "output")]
    return model, figures[0], figures[1], figures[2], found["source"] or "no price is known"


def _usd(value: float | None) -> str:
    return "" if value is None else f"${value:.6f}".rstrip("0").rstrip(".")


def _print_versions(versions: list[dict[str, Any]]) -> None:
    table = columns("model", "version", "in", "cached in", "out", "set by", "set at")
    for one in versions:
        figures = [_usd(one[f"{of}_usd"]) for of in ("input", "cached_input", "output")]
        version, set_by = str(one["version"]), Text(one["set_by"] or "")
        table.add_row(Text(one["model"]), version, *figures, set_by, one["set_at"][:19])
    out().print(table)


def _path(model: str) -> str:
    from urllib.parse import quote

    return quote(model, safe="/")
