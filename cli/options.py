"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="FACILITAIR_URL", help="The API's address. Default: the running platform's."
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", envvar="FACILITAIR_DATA", file_okay=False, help="Directory of the running platform."
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", help="key=text, key=@file (its text) or key:=JSON. Repeat it."),
]
InputJsonOption = Annotated[
    str | None, typer.Option("--input-json", metavar="FILE", help="The input as JSON; - reads stdin.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=200)]
SimulatedOption = Annotated[
    bool | None,
    typer.Option(
        "--simulated/--real",
        help="Of simulated runs alone, or of real ones. Default: real from the first call of a provider on.",
    ),
]
