"""`facilitair roles | skills | providers [set | remove]`: what definitions may name."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, connect, segment
from cli.command import command
from cli.options import DataOption, JsonOption, UrlOption
from cli.output import columns, err, out, print_json
from cli.runs.inputs import read_text
from schema.errors import Refused

roles = typer.Typer(help="Roles that agents can have.")
skills = typer.Typer(help="Skills that agents can have.")
providers = typer.Typer(help="Who serves models, with your own keys and limits.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits, - and _.")]
DescriptionOption = Annotated[str | None, typer.Option("--description", help="For people.")]
_ORIGINS = {"built_in": "built in", "yours": "yours", "yours_instead": "yours instead of the built-in"}


@roles.callback(invoke_without_command=True)
@command
def list_roles(
    context: typer.Context, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the roles, or set and remove some of your own."""
    if context.invoked_subcommand:
        return
    found = connect(url, data).get("/catalogue")["roles"]
    if as_json:
        print_json(found)
        return
    rows = [
        (one["name"], one["model"], one["relationship"], ", ".join(one["skills"]), _ORIGINS[one["origin"]])
        for one in found
    ]
    _print_table(("role", "model", "leaves in the graph", "skills", "from"), rows)


@roles.command("set")
@command
def set_role(
    api: Api,
    name: NameArgument,
    model: Annotated[str | None, typer.Option("--model", help="provider/model")] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="The system prompt, or @file for its text.")
    ] = None,
    relationship: Annotated[
        str | None, typer.Option("--relationship", help="What its work leaves in the graph: REVIEWED, …")
    ] = None,
    skill: Annotated[
        list[str] | None, typer.Option("--skill", help='Every agent in it has this. Repeat it; "" for none.')
    ] = None,
    description: DescriptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a role, change yours, or have one instead of the built-in. What is not given stays as it is."""
    given = {
        "model": model,
        "system": _text(system),
        "relationship": relationship,
        "skills": _several(skill),
        "description": description,
    }
    _set(api, "roles", name, given, as_json)


@roles.command("remove")
@command
def remove_role(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """Remove a role of yours."""
    _remove(api, "roles", name, as_json)


@skills.callback(invoke_without_command=True)
@command
def list_skills(
    context: typer.Context, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the skills, or set and remove some of your own."""
    if context.invoked_subcommand:
        return
    found = connect(url, data).get("/catalogue")["skills"]
    if as_json:
        print_json(found)
        return
    rows = [
        (one["name"], one["description"], ", ".join(one["tools"]), _ORIGINS[one["origin"]]) for one in found
    ]
    _print_table(("skill", "for", "tools", "from"), rows)


@skills.command("set")
@command
def set_skill(
    api: Api,
    name: NameArgument,
    instructions: Annotated[
        str | None, typer.Option("--instructions", help="What an agent is told, or @file for its text.")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option("--tool", help='A built-in tool. Repeat it; "" for none.')
    ] = None,
    description: DescriptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a skill, change yours, or have one instead of the built-in. What is not given stays as it is."""
    given = {"instructions": _text(instructions), "tools": _several(tool), "description": description}
    _set(api, "skills", name, given, as_json)


@skills.command("remove")
@command
def remove_skill(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """Remove a skill of yours."""
    _remove(api, "skills", name, as_json)


@providers.callback(invoke_without_command=True)
@command
def list_providers(
    context: typer.Context, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the providers, or set and remove some of your own."""
    if context.invoked_subcommand:
        return
    found = connect(url, data).get("/catalogue")["providers"]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["kind"],
            one["base_url"] or "",
            one["key_ref"] or "",
            str(one["requests_per_minute"] or ""),
            str(one["tokens_per_minute"] or ""),
            _ORIGINS[one["origin"]],
        )
        for one in found
    ]
    _print_table(("provider", "kind", "address", "key", "requests/min", "tokens/min", "from"), rows)


@providers.command("set")
@command
def set_provider(
    api: Api,
    name: NameArgument,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="openai, anthropic, deepseek, openrouter, ollama or openai_compatible."),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Of a host that the operator allowed.")
    ] = None,
    key_ref: Annotated[
        str | None,
        typer.Option("--key-ref", help="The name under which workers find the key; never the key."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option("--requests-per-minute", min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option("--tokens-per-minute", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a provider, or give a built-in one your own key and limits. Its models are NAME/model."""
    given = {
        "kind": kind,
        "base_url": base_url,
        "key_ref": key_ref,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
    }
    _set(api, "providers", name, given, as_json)


@providers.command("remove")
@command
def remove_provider(api: Api, name: NameArgument, as_json: JsonOption = False) -> None:
    """Remove a provider of yours."""
    _remove(api, "providers", name, as_json)


def _set(api: Api, section: str, name: str, given: dict[str, Any], as_json: bool) -> None:
    """Send what is given over what stands there; the built-in one's of that name where it is left out."""
    if all(value is None for value in given.values()):
        raise Refused("request_invalid", f"found nothing to set for {name!r}; see --help.")
    there: list[dict[str, Any]] = api.get("/catalogue")[section]
    before = next((one for one in there if one["name"] == name), {})
    body = {key: before.get(key) if value is None else value for key, value in given.items()}
    stored = api.put(
        f"/{section}/{segment(name)}", {key: value for key, value in body.items() if value is not None}
    )
    if as_json:
        print_json(stored)
    else:
        out().print(Text.assemble((stored["name"], "bold"), f"  {_ORIGINS[stored['origin']]}"))


def _remove(api: Api, section: str, name: str, as_json: bool) -> None:
    gone = api.delete(f"/{section}/{segment(name)}")
    if as_json:
        print_json(gone)
        return
    out().print(f"{name} removed" + (", the built-in one holds again" if gone["built_in"] else ""))
    used_by = [*gone["used_by"], *(f"the role {role}" for role in gone["roles"])]
    if used_by and not gone["built_in"]:
        more = " and others" if gone["more"] else ""
        warning = f"! {', '.join(used_by)}{more} still name it, and will fail there"
        err().print(Text(warning, style="yellow"))


def _text(given: str | None) -> str | None:
    return read_text(given[1:]) if given and given.startswith("@") else given


def _several(given: list[str] | None) -> list[str] | None:
    return None if given is None else [one for one in given if one]


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = columns(*titles)
    for row in rows:
        table.add_row(*map(Text, row))
    out().print(table)
