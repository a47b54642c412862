"""`facilitair pause | resume | stop | tell | adjust`: steer a running collaboration."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import JsonOption
from cli.output import out, print_json
from cli.runs import runs
from cli.runs.runs import IdArgument
from cli.runs.tasks import login
from schema.errors import Refused

AsOption = Annotated[
    str | None, typer.Option("--as", envvar="FACILITAIR_USER", help="Who steers. Default: your login.")
]


@command
def pause(
    api: Api,
    id: IdArgument,
    actor: AsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nothing new begin in a run. What is under way goes on to its end."""
    _steer(api, id, "pause", {}, actor, as_json)


@command
def resume(
    api: Api,
    id: IdArgument,
    actor: AsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a paused run go on."""
    _steer(api, id, "resume", {}, actor, as_json)


@command
def stop(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Ask a run to stop, as `cancel` does."""
    runs.cancel_run(api, id, as_json=as_json)


@command
def tell(
    api: Api,
    id: IdArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What every later prompt of it holds.")],
    step: Annotated[str | None, typer.Option("--step", help="Only the prompts of this step.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only the prompts of this agent.")] = None,
    actor: AsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a run something that its very next prompt holds."""
    _steer(api, id, "feedback", {"text": text, "step": step, "agent": agent}, actor, as_json)


@command
def adjust(
    api: Api,
    id: IdArgument,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this one. Default: every agent.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="provider/model")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature")] = None,
    max_output_tokens: Annotated[int | None, typer.Option("--max-output-tokens")] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    back: Annotated[
        list[str] | None,
        typer.Option("--back", help="A change to take back: model, temperature, … Repeat it."),
    ] = None,
    actor: AsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask agents otherwise from the next call of a run on."""
    given = {
        "model": model,
        "temperature": temperature,
        "max_output_tokens": max_output_tokens,
        "system": system,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    changes |= {key.replace("-", "_"): None for key in back or ()}
    if not changes:
        raise Refused("request_invalid", "found no change; expected at least one, such as --model or --back.")
    _steer(api, id, "adjust", {"agent": agent, "changes": changes}, actor, as_json)


def _steer(
    api: Api,
    id: str,
    how: str,
    body: dict[str, Any],
    actor: str | None,
    as_json: bool,
) -> None:
    if name := actor or login():
        body["actor"] = f"user:{name.removeprefix('user:')}"
    answer = api.post(f"/collaborations/{segment(id)}/{how}", body)
    if as_json:
        print_json(answer)
    else:
        out().print(Text(f"{answer['id']}  {answer['status']}"))
