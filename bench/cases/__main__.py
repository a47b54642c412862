"""Replay cases from bug reports: `python -m bench.cases DIR [--json] [--jobs N]`.

DIR holds folders, each with a definition, what a provider answers and what must come of it (`expect.json`).
Each case gets a platform of its own. Prints `name, expected, got, right` for each; ends with 1 where one is
wrong.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.cases.case import Case, cases
from bench.cases.play import Verdict, play


async def replay(folders: list[Case], jobs: int) -> list[Verdict]:
    """Play all cases, so many at a time; those that serve a page one after the other."""
    places, pages = asyncio.Semaphore(jobs), asyncio.Lock()

    async def one(case: Case) -> Verdict:
        async with places:
            if case.page is None:
                verdict = await play(case)
            else:
                async with pages:  # the definition names the port
                    verdict = await play(case)
        print(f"{'right' if verdict.right else 'WRONG'}  {verdict.name}", file=sys.stderr, flush=True)
        return verdict

    return list(await asyncio.gather(*map(one, folders)))


def as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "expected": verdict.expected,
        "got": verdict.got | {"wrong": verdict.wrong},
        "right": verdict.right,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="a folder of cases, or one case")
    parser.add_argument("--json", action="store_true", help="a list on stdout")
    parser.add_argument("--jobs", type=int, default=1, help="platforms at a time (default: %(default)s)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these folders")
    arguments = parser.parse_args()
    found = [case for case in cases(arguments.dir) if not arguments.only or case.name in arguments.only]
    if not found:
        parser.error(f"{arguments.dir} holds no case: no folder there has an expect.json")
    verdicts = asyncio.run(replay(found, arguments.jobs))
    if arguments.json:
        print(json.dumps([as_json(one) for one in verdicts], indent=1))
    else:
        for verdict in verdicts:
            print(f"{'right' if verdict.right else 'wrong'}  {verdict.name}")
            for fault in verdict.wrong:
                print(f"       {fault}")
    return 0 if all(verdict.right for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
