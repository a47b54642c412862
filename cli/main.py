"""The `facilitair` command. Modules of commands import little at the top: `--help` must come at once."""

import sys

import typer

from cli.definitions import catalogue, definitions, rehearsal, schedules, versions, webhooks
from cli.money import limits, prices, spending
from cli.output import tell_bug
from cli.platform import archive, demo, forgetting, servers
from cli.prompts import optimize, prompts, trials
from cli.router import router, routing
from cli.runs import forks, runs, steering, tasks, traces

app = typer.Typer(
    name="facilitair",
    help="Multi-agent collaborations as JSON documents, executed as durable workflows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 failure, 2 refused input, 3 nothing running.",
)

_PLATFORM = "The platform on this machine"
_WORK = "Collaborations"
_LOOK = "What happened"

app.command(rich_help_panel=_PLATFORM)(demo.demo)
app.command(rich_help_panel=_PLATFORM)(servers.up)
app.command(rich_help_panel=_PLATFORM)(servers.down)
app.command(rich_help_panel=_PLATFORM)(servers.status)
app.command(rich_help_panel=_PLATFORM)(servers.doctor)
app.command(rich_help_panel=_PLATFORM)(archive.archive)
app.command(rich_help_panel=_PLATFORM)(forgetting.forget)
app.command(rich_help_panel=_WORK)(definitions.apply)
app.command(rich_help_panel=_WORK)(definitions.validate)
app.command(rich_help_panel=_WORK)(rehearsal.plan)
app.command("dry-run", rich_help_panel=_WORK)(rehearsal.dry_run)
app.command(rich_help_panel=_WORK)(spending.estimate)
app.command("list", rich_help_panel=_WORK)(definitions.list_)
app.command(rich_help_panel=_WORK)(versions.versions)
app.command(rich_help_panel=_WORK)(versions.diff)
app.command(rich_help_panel=_WORK)(versions.alias)
app.command(rich_help_panel=_WORK)(versions.rollback)
app.command(rich_help_panel=_WORK)(versions.deprecate)
app.add_typer(prompts.app, name="prompts", rich_help_panel=_WORK)
prompts.app.add_typer(trials.app, name="trial")
prompts.app.command()(optimize.optimize)
app.add_typer(catalogue.roles, name="roles", rich_help_panel=_WORK)
app.add_typer(catalogue.skills, name="skills", rich_help_panel=_WORK)
app.add_typer(catalogue.providers, name="providers", rich_help_panel=_WORK)
app.add_typer(router.app, name="router", rich_help_panel=_LOOK)
for command in (
    routing.status,
    routing.predict,
    routing.outcome,
    routing.train,
    routing.trainings,
    routing.checkpoints,
    routing.export,
    routing.promote,
    routing.rollback,
    routing.lift,
):
    router.app.command()(command)
app.add_typer(limits.app, name="limits", rich_help_panel=_WORK)
app.add_typer(prices.app, name="prices", rich_help_panel=_WORK)
app.add_typer(schedules.app, name="schedule", rich_help_panel=_WORK)
app.add_typer(webhooks.app, name="webhook", rich_help_panel=_WORK)
app.command(rich_help_panel=_WORK)(runs.run)
app.command(rich_help_panel=_WORK)(runs.watch)
app.command(rich_help_panel=_WORK)(runs.cancel)
app.command(rich_help_panel=_WORK)(steering.pause)
app.command(rich_help_panel=_WORK)(steering.resume)
app.command(rich_help_panel=_WORK)(steering.stop)
app.command(rich_help_panel=_WORK)(steering.tell)
app.command(rich_help_panel=_WORK)(steering.adjust)
app.command(rich_help_panel=_WORK)(forks.fork)
app.command(rich_help_panel=_WORK)(forks.rerun)
app.add_typer(tasks.app, name="tasks", rich_help_panel=_WORK)
app.command(rich_help_panel=_WORK)(tasks.decide)
app.command(rich_help_panel=_LOOK)(definitions.runs)
app.command(rich_help_panel=_LOOK)(forks.show)
app.command(rich_help_panel=_LOOK)(runs.playback)
app.command(rich_help_panel=_LOOK)(spending.spending)
app.command(rich_help_panel=_LOOK)(traces.graph)
app.command(rich_help_panel=_LOOK)(traces.trace)


def main() -> None:
    try:
        app()
    except Exception as error:
        tell_bug(error, as_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
