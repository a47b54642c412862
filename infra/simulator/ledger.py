"""What was really called and billed: the judge of every claim that nothing was paid twice."""

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

Outcome = Literal["finished", "refused", "broken", "abandoned"]
"""finished: answered to the end. refused: an error instead of an answer. broken: the simulator cut the answer
(a scripted fault). abandoned: the caller went away."""

MOST_KEYS: Final = 200_000
MOST_RECENT: Final = 500


@dataclass(slots=True)
class Tally:
    """Sums over calls."""

    calls: int = 0
    finished: int = 0
    refused: int = 0
    broken: int = 0
    abandoned: int = 0
    open: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Call:
    """One request, from its arrival."""

    number: int
    model: str
    key: str
    user: str
    outcome: Outcome | None = None
    fault: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    began_at: float = field(default_factory=time.time)
    sent_at: list[float] = field(default_factory=list)
    """Unix seconds of each chunk, of calls that a script paces."""


@dataclass(slots=True)
class Ledger:
    """Sums in all, by model, by call key and by user; the latest calls one by one."""

    total: Tally = field(default_factory=Tally)
    by_model: dict[str, Tally] = field(default_factory=dict)
    by_key: dict[str, Tally] = field(default_factory=dict)
    by_user: dict[str, Tally] = field(default_factory=dict)
    recent: deque[Call] = field(default_factory=lambda: deque(maxlen=MOST_RECENT))
    number: int = 0

    def begin(self, model: str, key: str, user: str) -> Call:
        self.number += 1
        call = Call(self.number, model, key, user)
        for tally in self._tallies(call):
            tally.calls += 1
            tally.open += 1
        self.recent.append(call)
        return call

    def end(self, call: Call, outcome: Outcome, input_tokens: int, output_tokens: int) -> None:
        """Book what the call cost; a second end of the same call changes nothing."""
        if call.outcome is not None:
            return
        call.outcome, call.input_tokens, call.output_tokens = outcome, input_tokens, output_tokens
        for tally in self._tallies(call):
            tally.open -= 1
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            tally.input_tokens += input_tokens
            tally.output_tokens += output_tokens

    def as_json(self, key: str | None = None) -> dict[str, object]:
        """Everything, or what one key (or all keys under a prefix ending in "/") came to."""
        chosen = {
            name: tally
            for name, tally in self.by_key.items()
            if key is None or name == key or (key.endswith("/") and name.startswith(key))
        }
        return {
            "total": asdict(self.total),
            "by_model": {name: asdict(tally) for name, tally in self.by_model.items()},
            "by_key": {name: asdict(tally) for name, tally in chosen.items()},
            "by_user": {name: asdict(tally) for name, tally in self.by_user.items()},
            "recent": [asdict(call) for call in self.recent if key is None or call.key in chosen],
        }

    def clear(self) -> None:
        """Forget all sums. Calls still open end into sums that nobody reads."""
        self.total = Tally()
        self.by_model, self.by_key, self.by_user = {}, {}, {}
        self.recent.clear()

    def _tallies(self, call: Call) -> list[Tally]:
        named = ((self.by_model, call.model), (self.by_key, call.key), (self.by_user, call.user))
        return [self.total, *(_tally(sums, name) for sums, name in named if name)]


def _tally(sums: dict[str, Tally], name: str) -> Tally:
    found = sums.get(name)
    if found is None:
        if len(sums) >= MOST_KEYS:
            del sums[next(iter(sums))]
        found = sums[name] = Tally()
    return found
