"""Use limits per minute fully without exceeding them: decisions over recent admissions, without a clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.provider_limits import ProviderLimits


@dataclass(frozen=True, slots=True)
class WindowPace:
    """Milliseconds, on the one clock that all workers share."""

    window: int = 60_000
    margin: int = 1_500
    """Milliseconds by which an admission counts longer than a minute. The provider counts calls when they
    arrive, and one may take its time while the next does not: only this difference can bring too many into
    its minute."""
    slot: int = 100
    """Admissions are counted by slots, each as if all of its calls had come at its end."""
    spread: int = 1_700
    """At most `share` of a limit is let go within this time. What comes at once comes back at once a minute
    later, so that minutes in between would see less than the limit; and providers that allow 600 a minute
    may refuse 600 in a second. It is more than margin and slot, by which our minute is longer than theirs,
    and the share in it is a little more than a limit needs to be used up."""
    share: int = 32
    """In thousandths."""

    @property
    def lasts(self) -> int:
        """Milliseconds for which a slot counts from its beginning."""
        return self.window + self.margin + self.slot

    @property
    def spreads(self) -> int:
        """The same for what may go at once."""
        return self.spread + self.slot

    @property
    def fresh_seconds(self) -> float:
        """Seconds that may pass between admission and call; the rest of the margin is network time."""
        return self.margin / 2000


@dataclass(frozen=True, slots=True)
class Slot:
    """Admissions in the fraction of a second from `at`."""

    at: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class WindowState:
    """Usage that counts against an account's limits at a moment."""

    pace: WindowPace
    limits: ProviderLimits
    now: int
    slots: Sequence[Slot]
    """In the order of time."""

    def admitted(self, asked: Sequence[int]) -> int:
        """Count the waiting calls that may go now, from the first on; `asked` holds their tokens."""
        counts, pace, going = self.limits, self.pace, 0
        calls, tokens = self._used("requests", pace.lasts), self._used("tokens", pace.lasts)
        calls_soon, tokens_soon = self._used("requests", pace.spreads), self._used("tokens", pace.spreads)
        for amount in asked:
            if not _room(counts.requests_per_minute, pace, calls + going, calls_soon + going, 1):
                break
            if not _room(counts.tokens_per_minute, pace, tokens, tokens_soon, amount):
                break
            going, tokens, tokens_soon = going + 1, tokens + amount, tokens_soon + amount
        return going

    def free_at(self, tokens: int) -> int:
        """Return the time at which a call may go if no other goes before it."""
        when = self.now
        for name, limit, amount in (
            ("requests", self.limits.requests_per_minute, 1),
            ("tokens", self.limits.tokens_per_minute, tokens),
        ):
            if limit is not None:
                soon = self._left_at(name, _at_once(limit, self.pace) - 1, self.pace.spreads)
                when = max(when, soon, self._left_at(name, limit - amount, self.pace.lasts))
        return when

    def turn_at(self, requests_before: int) -> int:
        """Before this no call gets its turn that has so many before it, whatever they take in tokens."""
        if (limit := self.limits.requests_per_minute) is None:
            return self.now
        whole, rest = divmod(requests_before, limit)
        return self._left_at("requests", limit - rest - 1, self.pace.lasts) + whole * self.pace.lasts

    def likely_at(self, requests_before: int, tokens_through: int) -> int:
        """About when a call gets its turn: with those before it, itself included, it takes so many tokens."""
        when = self.turn_at(requests_before)
        if (limit := self.limits.tokens_per_minute) is not None and tokens_through:
            whole, rest = divmod(tokens_through - 1, limit)
            free = self._left_at("tokens", limit - rest - 1, self.pace.lasts)
            when = max(when, free + whole * self.pace.lasts)
        return when

    def _used(self, name: str, lasts: int) -> int:
        return sum(amount for ends, amount in self._counting(name, lasts) if ends > self.now)

    def _left_at(self, name: str, most: int, lasts: int) -> int:
        """Return the time from which no more than `most` of the usage counts."""
        counting = [one for one in self._counting(name, lasts) if one[0] > self.now]
        total, when = sum(amount for _, amount in counting), self.now
        for ends, amount in counting:
            if total <= most:
                break
            total, when = total - amount, ends
        return when

    def _counting(self, name: str, lasts: int) -> Iterator[tuple[int, int]]:
        for slot in self.slots:
            yield slot.at + lasts, slot.requests if name == "requests" else slot.tokens


def _at_once(limit: int, pace: WindowPace) -> int:
    return -(-limit * pace.share // 1_000)


def _room(limit: int | None, pace: WindowPace, used: int, used_soon: int, amount: int) -> bool:
    """The last one to go at once may take more than is left of the share: else a large one never would."""
    return limit is None or (used + amount <= limit and used_soon < _at_once(limit, pace))
