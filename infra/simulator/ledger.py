"""Record what was really called and billed: the judge of every claim that nothing was paid twice."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from typing import Final, Literal

Outcome = Literal["finished", "refused", "broken", "abandoned"]
"""finished: answered to the end. refused: an error instead of an answer. broken: the simulator cut the answer
(a scripted fault). abandoned: the caller went away."""

MAX_KEYS: Final = 200_000
MAX_CALLS: Final = 200_000
# What a page holds unless told, and what it may hold.
PAGE: Final = 500
MAX_IN_PAGE: Final = 20_000


@dataclass(slots=True)
class Tally:
    """Sums over calls. `rejected` are those of the `refused` that broke a limit."""

    calls: int = 0
    finished: int = 0
    refused: int = 0
    broken: int = 0
    abandoned: int = 0
    open: int = 0
    rejected: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class SimulatedCall:
    """One request, from its arrival."""

    number: int
    model: str
    key: str
    user: str
    request_id: str = ""
    """The caller's own name for the call."""
    id: str = ""
    """The name that the answer carries."""
    stream: bool = False
    rejected: bool = False
    outcome: Outcome | None = None
    fault: str = ""
    finish_reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    began_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    sent_at: list[float] | tuple[()] = ()
    """Unix seconds of each chunk, of calls that a script paces."""

    def __post_init__(self) -> None:
        self.id = f"chatcmpl-simulated-{time.time_ns():x}-{self.number}"

    def as_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in _CALL_FIELDS}


_CALL_FIELDS: Final = tuple(each.name for each in fields(SimulatedCall))


@dataclass(slots=True)
class Ledger:
    """Sums in all, by model, by call key and by user; the latest calls one by one."""

    total: Tally = field(default_factory=Tally)
    by_model: OrderedDict[str, Tally] = field(default_factory=OrderedDict)
    by_key: OrderedDict[str, Tally] = field(default_factory=OrderedDict)
    by_user: OrderedDict[str, Tally] = field(default_factory=OrderedDict)
    calls: dict[int, SimulatedCall] = field(default_factory=dict)
    """Calls by number; numbers rise by one and the lowest are forgotten."""
    by_request_id: dict[str, int] = field(default_factory=dict)
    """The latest call with the caller's name."""
    number: int = 0
    cleared_at: int = 0
    """Calls up to this number were forgotten; they end without a trace."""

    def begin(self, model: str, key: str = "", user: str = "", request_id: str = "") -> SimulatedCall:
        self.number += 1
        call = SimulatedCall(self.number, model, key, user, request_id)
        for tally in self._tallies(call):
            tally.calls += 1
            tally.open += 1
        self.calls[call.number] = call
        if request_id:
            self.by_request_id[request_id] = call.number
        oldest = self.calls.pop(call.number - MAX_CALLS, None)
        if oldest and self.by_request_id.get(oldest.request_id) == oldest.number:
            del self.by_request_id[oldest.request_id]
        return call

    def end(
        self, call: SimulatedCall, outcome: Outcome, input_tokens: int = 0, output_tokens: int = 0
    ) -> None:
        """Book what the call cost; a second end of the same call changes nothing."""
        if call.outcome is not None:
            return
        call.outcome, call.input_tokens, call.output_tokens = outcome, input_tokens, output_tokens
        call.ended_at = time.time()
        if call.number <= self.cleared_at:
            return
        for tally in self._tallies(call):
            tally.open -= 1
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            tally.rejected += call.rejected
            tally.input_tokens += input_tokens
            tally.output_tokens += output_tokens

    def find(self, name: str) -> SimulatedCall | None:
        """The call of a response id, or the last one of a caller's own id."""
        number = self.by_request_id.get(name)
        if number is None:
            last = name.rpartition("-")[2]
            number = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else 0
            call = self.calls.get(number)
            return call if call is not None and call.id == name else None
        return self.calls.get(number)

    def as_json(
        self, key: str | None = None, since: int | None = None, limit: int | None = None
    ) -> dict[str, object]:
        """Return the totals of everything, or of one key (or all keys under a prefix ending in "/").

        `recent` are the latest calls, or with `since` the first ones after that number.
        """
        chosen = {
            name: tally
            for name, tally in self.by_key.items()
            if key is None or name == key or (key.endswith("/") and name.startswith(key))
        }
        page = [call for call in self._page(since, limit) if key is None or call.key in chosen]
        return {
            "total": asdict(self.total),
            "by_model": {name: asdict(tally) for name, tally in self.by_model.items()},
            "by_key": {name: asdict(tally) for name, tally in chosen.items()},
            "by_user": {name: asdict(tally) for name, tally in self.by_user.items()},
            "recent": [call.as_json() for call in page],
            "newest": self.number,
        }

    def arrivals(self, since: float, limit: int) -> list[tuple[float, str, int]]:
        """(unix seconds, model, tokens billed) of calls that no limit kept out, the oldest first."""
        admitted = (c for c in self.calls.values() if c.began_at > since and not c.rejected)
        return [(c.began_at, c.model, c.input_tokens + c.output_tokens) for c in islice(admitted, limit)]

    def clear(self) -> None:
        """Forget all sums and calls. Calls still open end without a trace."""
        self.total = Tally()
        self.cleared_at = self.number
        for known in (self.by_model, self.by_key, self.by_user, self.calls, self.by_request_id):
            known.clear()

    def _page(self, since: int | None, limit: int | None) -> Iterator[SimulatedCall]:
        size = PAGE if limit is None else min(limit, MAX_IN_PAGE)
        first = max(self.cleared_at, self.number - MAX_CALLS) + 1
        start = max(first, self.number + 1 - size if since is None else since + 1)
        return (self.calls[number] for number in range(start, min(start + size, self.number + 1)))

    def _tallies(self, call: SimulatedCall) -> list[Tally]:
        named = ((self.by_model, call.model), (self.by_key, call.key), (self.by_user, call.user))
        return [self.total, *(_tally(sums, name) for sums, name in named if name)]


def _tally(sums: OrderedDict[str, Tally], name: str) -> Tally:
    found = sums.get(name)
    if found is None:
        if len(sums) >= MAX_KEYS:
            sums.popitem(last=False)
        found = sums[name] = Tally()
    return found
