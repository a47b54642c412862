"""The HTTP API against its own OpenAPI document, played by schemathesis on a platform started for it.

`python -m bench.security.contract [--json] [--short]` sends what the document allows and what it does not, in
all of schemathesis' phases, and counts the answers that the document does not promise.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import CheckNode, ScenarioRecorder

from tests.support.stack import SERVERS, stack

_SEED: Final = 4711
_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
)
"""Of those left out, ignored_auth needs a key to leave away, and the API is played without one."""
_REFUSALS: Final = ["400", "401", "403", "404", "405", "409", "413", "415", "422", "429"]
_ACCEPTED: Final = ["2xx", "3xx", "401", "403", "404", "409", "429"]
_REFUSED_BY_MORE: Final = {
    "POST /v1/definitions": "the validator of the language reads the document",
    "POST /v1/definitions/validate": "the validator of the language reads the document",
    "POST /v1/definitions/plan": "the validator of the language reads the document",
    "POST /v1/definitions/estimate": "the validator reads the document, and its `input` schema the input",
    "POST /v1/definitions/dry-run": "the validator reads the document and the mocks of its steps",
    "POST /v1/collaborations": "the input must fit the `input` schema of the definition",
    "GET /v1/stream/collaborate": "the parameters must fit the `input` schema of the definition",
    "POST /v1/chat/{definition}": "the message must fit the `input` schema of the definition",
    "POST /v1/agui/{definition}": "the message must fit the `input` schema of the definition",
    "GET /v1/collaborations/{id}/stream": "a place must be one of that run, or of that playback",
    "POST /v1/collaborations/{id}/stream": "a place must be one of that run, or of that playback",
    "POST /v1/collaborations/{id}/fork": "the steps and the input must be ones of the run's definition",
    "POST /v1/collaborations/{id}/rerun": "the input must be one of the definition that is named",
    "POST /v1/collaborations/{id}/feedback": "the step and its agent must be ones of the run",
    "POST /v1/collaborations/{id}/adjust": "the model's provider must be one of the tenant's",
    "POST /v1/collaborations/{id}/steps/{step}/outcome": "the step must be an agent's that has answered",
    "POST /v1/tasks/{id}/decisions": "the question itself says which actions there are, and its form",
    "POST /v1/webhooks": "the input holds CEL expressions",
    "POST /v1/schedules": "the cron expression and the time zone must be ones of the calendar",
    "GET /v1/spending": "`since` must be before `until`",
    "PUT /v1/roles/{name}": "the model's provider and the skills must be ones of the tenant's",
    "PUT /v1/providers/{name}": "the address must be one that the operator allows",
    "POST /v1/graph/query": "Neo4j reads the Cypher",
}
"""Operation → what else refuses with 422 what the schema allows, and no JSON Schema can say."""
_SHOWN_CHARS: Final = 600
_SHOWN_FAULTS: Final = 3


@dataclass(frozen=True)
class Extent:
    """How much is played: so many cases, and every operation, unless the time is over before."""

    cases: int
    seconds: int
    examples: int
    """Of each operation, each time that it is fuzzed."""
    chains: int
    """Of operations that build on each other's answers, each time that the stateful phase runs."""
    coverage: bool = True
    """Whether each bound of each schema is tried: 3,000 cases."""


LONG: Final = Extent(cases=20_000, seconds=1_700, examples=10, chains=60)
SHORT: Final = Extent(cases=300, seconds=75, examples=1, chains=3, coverage=False)


@dataclass
class Contract:
    """What was sent, and the answers that the OpenAPI document does not promise."""

    cases: int = 0
    server_errors: int = 0
    undocumented: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    operations: set[str] = field(default_factory=set)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """"operation: check" → the first requests that showed it, with their answers."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, int]:
        return {
            "schemathesis_cases": self.cases,
            "schemathesis_server_errors": self.server_errors,
            "schemathesis_undocumented": self.undocumented,
        }


async def measure(extent: Extent = LONG) -> Contract:
    """Play on a platform of its own, since what is played changes limits, roles and providers."""
    async with stack((*SERVERS, "worker", "projector", "neo4j", "api")) as own:
        return await asyncio.to_thread(play, own.supervisor.addresses["api"], extent)


def play(url: str, extent: Extent) -> Contract:
    """Play against a running API."""
    found = Contract()
    # It is made when it is first asked for: on a busy machine that takes longer than schemathesis waits.
    httpx.get(f"{url}/openapi.json", timeout=120).raise_for_status()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=_config(url, extent))
    running = from_schema(schema).execute()
    for event in running:
        if isinstance(event, events.ScenarioFinished):
            _count(found, event.phase.value, event.recorder)
            if found.cases >= extent.cases and len(found.operations) == len(schema):
                running.stop()
        elif isinstance(event, events.NonFatalError):
            found.undocumented += 1
            _show(found, f"{event.label}: {event.info.title}", event.info.message)
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.EngineFinished):
            found.seconds = round(event.running_time, 1)
    return found


def _config(url: str, extent: Extent) -> SchemathesisConfig:
    generation = {
        "max-examples": extent.examples,
        "no-shrink": True,
        "database": "none",
        # No schema of ours says of every text that it has no NUL: each is refused, as tests show.
        "allow-x00": False,
    }
    checks: dict[str, Any] = {"enabled": False} | {name: {"enabled": True} for name in _CHECKS}
    checks["negative_data_rejection"] |= {"expected-statuses": _REFUSALS}
    checks["positive_data_acceptance"] |= {"expected-statuses": _ACCEPTED}
    return SchemathesisConfig.from_dict(
        {
            "seed": _SEED,
            "max-time": extent.seconds,
            "base-url": url,
            "continue-on-failure": True,
            "request-timeout": 30.0,
            "max-stream-events": 5,
            "generation": generation,
            "checks": checks,
            "phases": {
                "coverage": {"enabled": extent.coverage},
                "stateful": {"generation": generation | {"max-examples": extent.chains}},
            },
            "operations": [
                {
                    "include-name": name,
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*_ACCEPTED, "422"]}},
                }
                for name in _REFUSED_BY_MORE
            ],
        }
    )


def _count(found: Contract, phase: str, recorder: ScenarioRecorder) -> None:
    for id, sent in recorder.interactions.items():
        found.cases += 1
        found.phases[phase] += 1
        found.operations.add(recorder.cases[id].value.operation.label)
        found.statuses[sent.response.status_code if sent.response else 0] += 1
    for id, checks in recorder.checks.items():
        for check in checks:
            if check.status is not Status.SUCCESS:
                _fault(found, recorder, id, check)


def _fault(found: Contract, recorder: ScenarioRecorder, id: str, check: CheckNode) -> None:
    if check.name == "not_a_server_error":
        found.server_errors += 1
    else:
        found.undocumented += 1
    sent = recorder.interactions.get(id)
    answer = sent.response if sent else None
    told = check.failure_info
    lines = [
        *([told.failure.message[:_SHOWN_CHARS], told.code_sample[:_SHOWN_CHARS]] if told else []),
        f"{answer.status_code} {answer.text[:_SHOWN_CHARS]}" if answer else "no answer",
    ]
    _show(found, f"{recorder.cases[id].value.operation.label}: {check.name}", "\n".join(lines))


def _show(found: Contract, fault: str, how: str) -> None:
    shown = found.faults.setdefault(fault, [])
    if len(shown) < _SHOWN_FAULTS:
        shown.append(how)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--short", action="store_true", help="a few hundred cases, as the tests play them")
    arguments = parser.parse_args()
    found = asyncio.run(measure(SHORT if arguments.short else LONG))
    for fault, shown in sorted(found.faults.items()):
        print(f"\n{fault}", *shown, sep="\n", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found.as_json()))
    else:
        operations = len(found.operations)
        print(f"{found.cases:,} cases of {operations} operations in {found.seconds:.0f} s")
        print(f"{dict(found.phases)}, statuses {dict(sorted(found.statuses.items()))}")
        print(f"{found.server_errors} server errors, {found.undocumented} answers not documented")
    return int(bool(found.server_errors or found.undocumented))


if __name__ == "__main__":
    raise SystemExit(main())
