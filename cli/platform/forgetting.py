"""`facilitair forget`: what the simulator left, before real models are asked."""

from typing import Annotated

import typer

from cli.client import Api
from cli.command import command
from cli.options import JsonOption
from cli.output import err, out, print_json
from schema.errors import Refused


@command
def forget(
    api: Api,
    simulated: Annotated[
        bool,
        typer.Option("--simulated", help="All that the simulator answered, and what was learned from it."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget all simulated runs, and what router, prompts, edges, memory and graph have from them."""
    if not simulated:
        raise Refused("request_invalid", "found nothing to forget; expected --simulated.")
    runs = 0
    while (done := api.post("/simulated/forget", {"dry_run": dry_run}))["more"]:
        runs += done["runs"]
    done["runs"] += runs
    if as_json:
        print_json(done | {"dry_run": dry_run})
        return
    what = "to forget" if dry_run else "forgotten"
    out().print(
        f"{what}: {done['runs']:,} simulated runs, {done['trainings']} trainings, "
        f"{done['prompt_versions']} prompt versions"
    )
    if done["running"]:
        err().print(f"{done['running']} simulated runs go on: stop them, and forget again")
