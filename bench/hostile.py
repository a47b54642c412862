"""Hostile uploads through the validator, or a running API: `python -m bench.hostile [--json] [--url URL]`.

Each must be refused with a code within 100 ms, and the memory of the process must stay flat. Times are of the
process's own CPU without --url, so that a busy machine changes nothing; with --url they are of the wall.
"""

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.hostile_uploads import Upload, large, uploads
from schema.errors import InvalidDefinition
from schema.rules.validate import validate_bytes

LIMIT_MS: Final = 100.0
LARGE_STEPS: Final = 200


@dataclass(frozen=True)
class Measurement:
    name: str
    bytes: int
    code: str
    milliseconds: float


@dataclass(frozen=True)
class Report:
    uploads: int
    refused: int
    through: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    over_limit: list[Measurement]
    accepted: list[str]
    large_valid_ms: float | None
    """A valid definition of 200 steps, never seen before; None with --url."""
    large_faulty_ms: float | None
    """The same full of faults, all told at once."""
    rss_before_mib: float
    rss_growth_mib: float
    machine: str

    @property
    def holds(self) -> bool:
        large = max(self.large_valid_ms or 0, self.large_faulty_ms or 0)
        return self.refused == self.uploads and not self.over_limit and large <= LIMIT_MS


def refusal(upload: Upload) -> str:
    """The code that the upload is refused with; empty when it is accepted."""
    try:
        validate_bytes(upload.data, is_yaml=upload.is_yaml)
    except InvalidDefinition as error:
        return error.problems[0].code
    return ""


def _large_ms(*, faulty: bool) -> float:
    data = json.dumps(large(LARGE_STEPS, faulty=faulty)).encode()
    began = time.process_time()
    code = refusal(Upload("large", data))
    spent = (time.process_time() - began) * 1e3
    if bool(code) != faulty:
        raise RuntimeError(f"the large definition was {'refused' if code else 'accepted'}: {code}")
    return round(spent, 1)


def _refusal_over_http(client: httpx.Client, upload: Upload) -> str:
    media_type = "application/yaml" if upload.is_yaml else "application/json"
    answer = client.post("/v1/definitions", content=upload.data, headers={"content-type": media_type})
    if answer.is_success:
        return ""
    if answer.status_code >= 500:
        raise RuntimeError(f"{upload.name}: {answer.status_code} {answer.text[:300]}")
    problem = answer.json()
    return str((problem.get("problems") or [problem])[0]["code"])


def _rss_mib(pid: int) -> float:
    """Resident memory; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


def measure(url: str | None, api_key: str, pid: int, rounds: int) -> Report:
    """Every upload `rounds` times. The first time of each counts, before anything of it is cached; the
    further rounds show whether memory grows."""
    client = httpx.Client(
        base_url=url or "http://unused", timeout=60, headers={"x-api-key": api_key} if api_key else {}
    )
    clock = time.perf_counter if url else time.process_time
    codes: dict[str, tuple[str, int]] = {}
    first: dict[str, float] = {}
    before = 0.0
    warm_up = Upload("warm up", b'{"name":"x","steps":{"a":{"kind":"transform","value":"${input.a + b}"}}}')
    _refusal_over_http(client, warm_up) if url else refusal(warm_up)
    for number in range(rounds):
        for upload in uploads():
            began = clock()
            code = _refusal_over_http(client, upload) if url else refusal(upload)
            spent = (clock() - began) * 1e3
            codes[upload.name] = (code, len(upload.data))
            first.setdefault(upload.name, spent)
        if number == 0:
            before = _rss_mib(pid)
    large_valid, large_faulty = (None, None) if url else (_large_ms(faulty=False), _large_ms(faulty=True))
    times = sorted(first.values())
    slow = [
        Measurement(name, codes[name][1], codes[name][0], round(spent, 1))
        for name, spent in first.items()
        if spent > LIMIT_MS
    ]
    return Report(
        uploads=len(codes),
        refused=sum(bool(code) for code, _ in codes.values()),
        through=url or "the validator",
        p50_ms=round(statistics.median(times), 2),
        p99_ms=round(times[int(len(times) * 0.99) - 1], 1),
        max_ms=round(times[-1], 1),
        over_limit=slow,
        accepted=[name for name, (code, _) in codes.items() if not code],
        large_valid_ms=large_valid,
        large_faulty_ms=large_faulty,
        rss_before_mib=round(before, 1),
        rss_growth_mib=round(_rss_mib(pid) - before, 1),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--url", help="upload to this running API instead, such as http://127.0.0.1:8700")
    parser.add_argument("--pid", type=int, default=0, help="with --url: the API's process, for its memory")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    report = measure(
        arguments.url,
        os.environ.get("FACILITAIR_API_KEY", ""),
        arguments.pid or os.getpid(),
        arguments.rounds,
    )
    if arguments.json:
        print(json.dumps(asdict(report) | {"holds": report.holds}, indent=2, ensure_ascii=False))
    else:
        print(f"{report.refused} of {report.uploads} refused by {report.through} ({report.machine})")
        print(f"p50 {report.p50_ms} ms, p99 {report.p99_ms} ms, max {report.max_ms} ms")
        print(f"memory {report.rss_before_mib} MiB after the first round, then {report.rss_growth_mib:+} MiB")
        if report.large_valid_ms is not None:
            print(
                f"{LARGE_STEPS} steps: {report.large_valid_ms} ms valid, {report.large_faulty_ms} ms faulty"
            )
        for item in report.over_limit:
            print(f"over {LIMIT_MS:g} ms: {item.name}: {item.milliseconds} ms ({item.code})")
        for name in report.accepted:
            print(f"accepted: {name}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
