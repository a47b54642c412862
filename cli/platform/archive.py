"""`facilitair archive`: pack what agents said long ago."""

from typing import Annotated, Any

import typer

from cli.client import Api
from cli.command import command
from cli.options import JsonOption
from cli.output import out, print_json
from schema.errors import Refused

_DAYS = {"d": 1.0, "h": 1 / 24, "w": 7.0}


@command
def archive(
    api: Api,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Since the run ended: 7d, 12h, 0d. Default: the platform's setting.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Pack the tokens of runs that ended long ago, now instead of tonight. They are played back as before."""
    body: dict[str, Any] = {"dry_run": dry_run}
    if older_than is not None:
        body["older_than_days"] = _days(older_than)
    done = {"executions": 0, "tokens": 0}
    while True:
        answer = api.post("/streams/archive", body)
        done = {key: count + answer[key] for key, count in done.items()}
        if not answer["more"]:
            break
    if as_json:
        print_json(done | {"dry_run": dry_run})
    else:
        what = "to archive" if dry_run else "archived"
        out().print(f"{what}: {done['tokens']:,} tokens of {done['executions']:,} executions", markup=False)


def _days(age: str) -> float:
    unit = _DAYS.get(age[-1:])
    try:
        if unit is None:
            raise ValueError
        return float(age[:-1]) * unit
    except ValueError:
        raise Refused("request_invalid", f"found --older-than {age!r}; expected such as 7d or 12h.") from None
