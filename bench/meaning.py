"""Random accepted definitions on real servers: each must end, and come to what the language means. None may
read what is absent when a frame has ended.

`python -m bench.meaning [--cases 2000] [--seed 1] [--json]` draws definitions that pass the upload's checks,
runs each on Temporal and Postgres, every other one with an activity per step, and compares status, output and
the fate of every step with `tests/support/reference.py`, a naive reading of the language that shares no code
with the interpreter.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from sqlalchemy import text
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from schema.rules.validate import validate
from tests.support import reference
from tests.support.definitions import definitions, inputs
from tests.support.stack import Stack, stack

AT_A_TIME: Final = 12
HANGS_AFTER_SECONDS: Final = 120.0

Case = tuple[dict[str, Any], dict[str, Any], reference.Result]


@dataclass
class Report:
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    hung: list[dict[str, Any]] = field(default_factory=list)
    different: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            **self.outcomes,
            "hung": len(self.hung),
            "different": len(self.different),
            "seconds": round(self.seconds, 1),
        }


def draw(number: int, starts_with: int) -> list[Case]:
    """Accepted definitions with their input and what they mean; those whose meaning is left open are not
    among them."""
    found: list[Case] = []

    @seed(starts_with)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(definitions(), inputs())
    def collect(document: dict[str, Any], value: dict[str, Any]) -> None:
        whole = {**document, "name": f"meaning-{starts_with}-{len(found)}"}
        if len(found) % 2:
            whole["defaults"] = {**whole.get("defaults", {}), "chain": "off"}
        try:
            found.append((whole, value, reference.run(validate(whole).definition, value)))
        except reference.UnspecifiedMeaning:
            return

    collect()
    return found


async def compare(on: Stack, cases: list[Case]) -> Report:
    """Run every case; some at a time."""
    report, began = Report(len(cases)), time.monotonic()
    left = iter(cases)

    async def work() -> None:
        for case in left:
            await _one(on, case, report)

    await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
    report.seconds = time.monotonic() - began
    return report


async def _one(on: Stack, case: Case, report: Report) -> None:
    document, value, expected = case
    await on.store(document)
    handle = await on.start(document["name"], value, document["name"])
    status, output, code = "completed", None, None
    try:
        output = await asyncio.wait_for(handle.result(), HANGS_AFTER_SECONDS)
    except TimeoutError:
        report.hung.append({"definition": document, "input": value})
        return
    except WorkflowFailureError as error:
        status = "failed"
        code = error.cause.type if isinstance(error.cause, ApplicationError) else str(error.cause)
    report.outcomes[status] += 1
    fine = status == expected.status and (
        code in expected.codes
        if status == "failed"
        else output == expected.output
        and await _statuses(on, document["name"], expected) == expected.statuses
        and await _sub_state(on, document["name"]) == ("no_output" if expected.no_output else "")
    )
    if not fine:
        found = {"status": status, "output": output, "code": code}
        meant = {"status": expected.status, "output": expected.output, "codes": sorted(expected.codes)}
        report.different.append({"definition": document, "input": value, "found": found, "meant": meant})


async def _statuses(on: Stack, id: str, expected: reference.Result) -> dict[str, str]:
    """path → how the step ended."""
    query = text("""
        SELECT path, e.status FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
        WHERE c.temporal_workflow_id = :id AND e.kind <> 'item'
          AND e.status IN ('completed', 'skipped', 'caught')
    """)
    async with on.engine.connect() as connection:
        rows = await connection.execute(query, {"id": id})
        return {path: status for path, status in rows if expected.is_clear(path)}


async def _sub_state(on: Stack, id: str) -> str:
    query = text("SELECT sub_state FROM collaborations WHERE temporal_workflow_id = :id")
    async with on.engine.connect() as connection:
        return str((await connection.execute(query, {"id": id})).scalar_one())


async def _main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases = draw(options.cases, options.seed)
    async with stack() as on:
        report = await compare(on, cases)
    print(json.dumps(report.as_json(), indent=None if options.json else 2))
    for one in (*report.hung, *report.different)[:3]:
        print(json.dumps(one))
    return 1 if report.hung or report.different else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(_main()))
