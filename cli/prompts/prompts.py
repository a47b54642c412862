"""`facilitair prompts …`: prompts as versions, and A/B tests of them."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import JsonOption, LimitOption
from cli.output import columns, err, out, print_json, print_page
from cli.runs.inputs import read_bytes, read_json, read_text
from schema.errors import Refused

app = typer.Typer(help="Stored prompts: versions, A/B tests, optimisation.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a stored prompt.")]


@app.command("list")
@command
def list_(
    api: Api,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the stored prompts."""
    page = api.get("/prompts", limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("name", "current", "newest", "on trial", "description")
    for one in page["items"]:
        trial = str(one["on_trial"] or "")
        table.add_row(one["name"], str(one["current"]), str(one["newest"]), trial, Text(one["description"]))
    print_page(page, table, limit)


@app.command()
@command
def show(
    api: Api,
    what: Annotated[str, typer.Argument(metavar="NAME[@VERSION]")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Versions listed.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show a prompt's text, and its versions."""
    name, _, version = what.partition("@")
    found = api.get(f"/prompts/{segment(name)}", version=version or None)
    stored = api.get(f"/prompts/{segment(name)}/versions", limit=limit)
    if as_json:
        print_json(found | {"versions": stored["items"]})
        return
    out().print(Text(f"{found['name']}@{found['version']}", style="bold"))
    _print_content(found["content"])
    table = columns("version", "stored", "by", "origin", "note")
    for one in stored["items"]:
        number = f"{one['version']} (current)" if one["version"] == found["current"] else str(one["version"])
        row = (number, one["created_at"][:19], one["created_by"] or "", one["origin"], Text(one["note"]))
        table.add_row(*row)
    out().print(table)


def _print_content(content: dict[str, Any]) -> None:
    parts = {"system": content["system"]}
    parts |= {f"by_task.{kind}": words for kind, words in content["by_task"].items()}
    parts |= {"when_complex": content["when_complex"]}
    for number, one in enumerate(content["examples"], 1):
        parts |= {f"examples {number}, input": one["input"], f"examples {number}, output": one["output"]}
    for title, words in parts.items():
        if words:
            out().print(Text(f"{title}:", style="dim"))
            out().print(Text(words))


@app.command("set")
@command
def set_(
    api: Api,
    name: NameArgument,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="The content as JSON or YAML; - reads JSON.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="Only a system prompt: its text, or @file.")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Let the bare name mean it at once.")] = False,
    note: Annotated[str, typer.Option("--note", help="Why this version is there.")] = "",
    description: Annotated[str | None, typer.Option("--description", help="Of the prompt.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Store a version of a prompt. The bare name goes on meaning what it meant, unless it is the first."""
    if (file is None) == (system is None):
        raise Refused("input_invalid", "found neither or both of --file and --system; expected one of them.")
    content = _content(file) if file is not None else {"system": _text(system or "")}
    query = {"promote": promote, "note": note} | ({} if description is None else {"description": description})
    stored = api.put(f"/prompts/{segment(name)}", content, **query)
    if as_json:
        print_json(stored)
        return
    state = "new" if stored["created"] else "unchanged"
    out().print(Text.assemble((f"{stored['name']}@{stored['version']}", "bold"), f"  {state}"))
    if stored["current"] != stored["version"]:
        number = stored["version"]
        compare = f"`facilitair prompts trial start {name} --candidate {number}` compares them"
        change = f"`facilitair prompts promote {name} {number}` changes that"
        err().print(f"{name} still means {name}@{stored['current']}; {change}, {compare}", markup=False)


def _text(given: str) -> str:
    return read_text(given[1:]) if given.startswith("@") else given


def _content(file: str) -> Any:
    return read_json(read_bytes(file), file, is_yaml=file.endswith((".yaml", ".yml")))


@app.command()
@command
def promote(
    api: Api,
    name: NameArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1)],
    as_json: JsonOption = False,
) -> None:
    """Let the bare name mean a version: a later one, or an earlier one to roll back."""
    answer = api.post(f"/prompts/{segment(name)}/promote", {"version": version})
    if as_json:
        print_json(answer)
    else:
        out().print(
            Text.assemble((f"{name}@{answer['to']}", "bold"), f"  instead of {name}@{answer['from']}")
        )


@app.command()
@command
def diff(
    api: Api,
    name: NameArgument,
    before: Annotated[int, typer.Argument(metavar="A", min=1)],
    after: Annotated[int | None, typer.Argument(metavar="B", help="Default: what the name means.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two versions."""
    query: dict[str, Any] = {"from": before, "to": after}
    found = api.get(f"/prompts/{segment(name)}/diff", **query)
    if as_json:
        print_json(found)
        return
    for line in found["text"].splitlines():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out().print(Text(line, style=style))
    if not found["changes"]:
        out().print("no difference")


@app.command()
@command
def remove(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """Forget a prompt with all its versions, unless a definition that is meant names it."""
    api.delete(f"/prompts/{segment(name)}")
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        out().print(f"{name} removed", markup=False)
