"""`facilitair webhook add | list | remove`: collaborations that other programs start by an address."""

from typing import Annotated

import typer

from cli.client import Api, segment
from cli.command import command
from cli.options import InputJsonOption, InputOption, JsonOption, LimitOption
from cli.output import columns, err, out, print_json, print_page
from cli.runs.inputs import parse

app = typer.Typer(help="Start collaborations by calling an address.", no_args_is_help=True)


@app.command()
@command
def add(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="name, name@version or name@alias.")],
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a secret address that starts a collaboration. In the input, ${input.…} is the JSON that is sent
    there; without --input the run gets all of it."""
    body = {"name": name}
    if inputs or input_json:
        body["input"] = parse(inputs or [], input_json)
    made = api.post("/webhooks", body)
    if as_json:
        print_json(made)
        return
    out().print(made["url"], markup=False, soft_wrap=True)
    err().print(f"webhook {made['id']}: anyone who knows this address may start {name}", markup=False)
    err().print("keep it: it is not shown again", markup=False)


@app.command("list")
@command
def list_(
    api: Api,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the webhooks, without their addresses."""
    page = api.get("/webhooks", limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("id", "starts", "made", "by", "last called")
    for one in page["items"]:
        called = (one["last_called_at"] or "never")[:19]
        table.add_row(one["id"], one["name"], one["created_at"][:19], one["created_by"] or "", called)
    print_page(page, table, limit)


@app.command()
@command
def remove(
    api: Api,
    id: Annotated[str, typer.Argument(metavar="ID", help="As `webhook list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """Let an address start nothing any more."""
    api.delete(f"/webhooks/{segment(id)}")
    if as_json:
        print_json({"id": id, "removed": True})
    else:
        out().print(f"{id} removed", markup=False)
