"""`facilitair graph | trace`: ask the graph, and see where a run spent its time and money."""

import json
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import JsonOption, SimulatedOption
from cli.output import columns, err, out, print_json
from cli.runs.inputs import parse
from cli.runs.spans import picture, total


@command
def graph(
    api: Api,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Cypher, or a stored query such as issues-by-pair.")
    ],
    parameters: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="key=text or key:=JSON. Repeat it.")
    ] = None,
    simulated: SimulatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the collaboration graph in Cypher."""
    body = {"cypher": query, "parameters": parse(parameters or [], None)}
    answer: dict[str, Any] = api.post("/graph/query", body, simulated=simulated)
    if as_json:
        print_json(answer)
        return
    table = columns(*answer["columns"])
    for row in answer["rows"]:
        table.add_row(*(Text(_cell(value)) for value in row))
    out().print(table if answer["rows"] else "no rows")
    if answer["simulated"] is not None:
        err().print(f"of {'simulated' if answer['simulated'] else 'real'} runs alone", style="dim")
    if answer["truncated"]:
        err().print("there are more rows: add a LIMIT and an order")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@command
def trace(
    api: Api,
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of a run.")],
    as_json: JsonOption = False,
) -> None:
    """Show a run's trace: time, model, tokens and dollars of every span, and their sum."""
    found: dict[str, Any] = api.whole(f"/collaborations/{segment(id)}/trace", "spans")
    run: dict[str, Any] = api.whole(f"/collaborations/{segment(id)}", "steps")
    if as_json:
        print_json(found | {"total": total(run)})
    elif not found["spans"]:
        err().print(
            f"no spans of trace {found['trace_id']} are kept here: they are written a moment after they end, "
            "or went to OTEL_EXPORTER_OTLP_ENDPOINT."
        )
    else:
        out().print(picture(found["spans"], run))
