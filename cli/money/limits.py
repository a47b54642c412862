"""`facilitair limits [set | remove]`: what a tenant, its users and its definitions may spend."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, connect
from cli.command import command
from cli.options import DataOption, JsonOption, LimitOption, UrlOption
from cli.output import columns, out, print_json, print_page, print_warnings
from schema.errors import Refused

app = typer.Typer(help="What may be spent by day, by month or for ever.")

ScopeArgument = Annotated[str, typer.Argument(metavar="SCOPE", help="tenant, user or definition.")]
SubjectArgument = Annotated[
    str,
    typer.Argument(metavar="[NAME]", help="The user or definition; left out: each that has no own limit."),
]
PeriodOption = Annotated[str, typer.Option("--per", help="day, month or total; days and months of UTC.")]


@app.callback(invoke_without_command=True)
@command
def list_(
    context: typer.Context,
    limit: LimitOption = 50,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the limits and what is left of them, or set and remove some; and what the operator allows."""
    if context.invoked_subcommand:
        return
    api = connect(url, data)
    page, bounds = api.get("/limits", limit=limit), api.get("/bounds")["items"]
    if as_json:
        print_json(page | {"bounds": bounds})
        return
    table = columns("limit of", "per", "allows", "spent", "reserved", "left")
    for one in page["items"]:
        whose = f"each {one['scope']}" if one["subject"] == "*" else _whose(one["scope"], one["subject"])
        table.add_row(Text(whose), one["period"], _both(one["usd"], one["tokens"]))
        for counter in one["counters"]:
            own = "" if counter["subject"] == one["subject"] else f"  {counter['subject']}"
            table.add_row(Text(own), "", "", *_counted(one, counter))
    print_page(page, table, limit)
    _print_bounds(bounds)


def _print_bounds(bounds: list[dict[str, Any]]) -> None:
    """Show what the operator allows each tenant."""
    table = columns("bound", "allows", "used", "set by")
    for one in bounds:
        used = "" if one["used"] is None else f"{one['used']:,}"
        table.add_row(Text(one["about"]), f"{one['limit']:,.0f}", used, one["setting"])
    out().print(table)


@app.command("set")
@command
def set_(
    api: Api,
    scope: ScopeArgument,
    per: PeriodOption,
    subject: SubjectArgument = "",
    usd: Annotated[str | None, typer.Option("--usd", help="US dollars, to the micro-dollar.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=0, help="Input and output together.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set a limit, which holds from the next call on; what its period saw before counts."""
    if usd is None and tokens is None:
        raise Refused("request_invalid", "found neither --usd nor --tokens; expected one of them, or both.")
    body = _key(scope, subject, per) | {"usd": usd, "tokens": tokens}
    stored = api.put("/limits", {key: one for key, one in body.items() if one is not None})
    if as_json:
        print_json(stored)
        return
    out().print(named(stored))
    print_warnings(stored)


@app.command("remove")
@command
def remove(
    api: Api,
    scope: ScopeArgument,
    per: PeriodOption,
    subject: SubjectArgument = "",
    as_json: JsonOption = False,
) -> None:
    """Remove a limit."""
    key = _key(scope, subject, per)
    api.delete("/limits", **key)
    if as_json:
        print_json(key | {"removed": True})
    else:
        out().print(Text(f"the limit of {_whose(scope, key['subject'])} per {per} is removed"))


def _key(scope: str, subject: str, per: str) -> dict[str, str]:
    return {"scope": scope, "subject": subject or ("" if scope == "tenant" else "*"), "period": per}


def _whose(scope: str, subject: str) -> str:
    return {"": "the tenant", "*": f"each {scope}"}.get(subject, f"{scope} {subject}")


def named(limit: dict[str, Any]) -> Text:
    """A limit and what is left of it, in a line."""
    line = Text.assemble(
        (_whose(limit["scope"], limit["subject"]), "bold"),
        f"  {_both(limit['usd'], limit['tokens'])} per {limit['period']}",
    )
    if limit["subject"] != "*" and limit["counters"]:
        spent, reserved, left = _counted(limit, limit["counters"][0])
        line.append(f", {spent} spent, {reserved} reserved, {left} left")
    return line


def _counted(limit: dict[str, Any], counter: dict[str, Any]) -> tuple[str, str, str]:
    """Return spent, reserved and remaining amounts in the limit's units."""
    usd = limit["usd"] is not None
    tokens = limit["tokens"] is not None
    spent = (counter["spent_usd"] if usd else None, counter["spent_tokens"] if tokens else None)
    reserved = (counter["reserved_usd"] if usd else None, counter["reserved_tokens"] if tokens else None)
    left = (
        max(0.0, limit["usd"] - spent[0] - reserved[0]) if usd else None,
        max(0, limit["tokens"] - spent[1] - reserved[1]) if tokens else None,
    )
    return _both(*spent), _both(*reserved), _both(*left)


def _both(usd: float | None, tokens: int | None) -> str:
    parts = [] if usd is None else [f"${usd:,.6f}"]
    return ", ".join(parts if tokens is None else [*parts, f"{tokens:,} tokens"])
