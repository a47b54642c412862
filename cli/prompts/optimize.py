"""`facilitair prompts optimize`: better examples for a prompt, from what was judged well."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import JsonOption, SimulatedOption
from cli.output import err, out, print_json
from cli.prompts.prompts import NameArgument


@command
def optimize(
    api: Api,
    name: NameArgument,
    metric: Annotated[
        str, typer.Option("--metric", help="quality: what a judge says of answers.")
    ] = "quality",
    limit: Annotated[int, typer.Option("--limit", help="So many of the newest collaborations.")] = 2_000,
    budget: Annotated[float, typer.Option("--budget", help="Dollars for all calls together.")] = 1.0,
    model: Annotated[
        str | None, typer.Option("--model", help="Who answers. Default: who answered most often.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="Who judges. Default: the reviewer's model.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Only tell how the latest search goes.")] = False,
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for better examples, and put what is found on trial. Needs 1,000 judged collaborations, and DSPy
    where the worker runs."""
    api, path = api, f"/prompts/{segment(name)}/optimize"
    if show:
        found = api.get(path)
    else:
        body = {"metric": metric, "limit": limit, "budget_usd": budget, "model": model, "judge": judge}
        found = api.post(path, body, simulated=simulated)
    if as_json:
        print_json(found)
        return
    out().print(Text.assemble((f"{name}: {found['state']}", "bold"), f"  {found['workflow_id']}"))
    if error := found["error"]:
        err().print(Text.assemble((error["code"], "red bold"), ": ", error["message"]))
    elif done := found["result"]:
        out().print(_said(name, done), markup=False)
    else:
        err().print(f"`facilitair prompts optimize {name} --show` shows its result", markup=False)


def _said(name: str, done: dict[str, Any]) -> str:
    return (
        f"{name}@{done['version']} with {done['examples']} examples is on trial: over {done['held_out']} "
        f"held-out tasks {done['candidate']:.3f} with them, {done['present']:.3f} without, as "
        f"{done['judge']} judges"
    )
