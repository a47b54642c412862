"""Cron expressions: five fields, as crontab(5) means them, for a server that means something else.

Temporal starts where the day of the month and the weekday both fit; crontab(5), where either does when both
are restricted. `expressions` says it in Temporal's words.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

_MONTHS: Final = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_WEEKDAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MAX_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NOT_FOR_PEOPLE: Final = frozenset(("Factory", "Local", "localtime", "posixrules"))
_MAX_CHANGES: Final = 4
_CHANGED: Final = (
    "does not come, and no run starts",
    "comes twice, and a run starts only once",
    "comes twice, and a run starts each time",
)


class CronInvalid(ValueError):
    """It is no cron expression, or names no date that comes."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The values that each field allows; Sunday is 0."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def is_either(self) -> bool:
        """True if a day may match by number or by weekday, since both are restricted."""
        _, _, day, _, weekday = self.text.split()
        return not day.startswith("*") and not weekday.startswith("*")

    def expressions(self) -> list[str]:
        """Expressions of which one fits wherever this one does, for a server that wants all fields to fit."""
        if not self.is_either:
            return [self.text]
        minute, hour, day, month, weekday = self.text.split()
        return [f"{minute} {hour} {day} {month} *", f"{minute} {hour} * {month} {weekday}"]

    def fits(self, moment: datetime) -> bool:
        """Tell whether a run starts at that time of the clock."""
        return moment.minute in self.minutes and moment.hour in self.hours and self._fits_day(moment.date())

    def _fits_day(self, day: date) -> bool:
        by_number, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = by_number or by_weekday if self.is_either else by_number and by_weekday
        return fits and day.month in self.months

    def dates(self) -> list[tuple[int, int]]:
        """(month, day) of the dates that its fields for them allow, in order."""
        return [
            (month, day)
            for month in sorted(self.months)
            for day in sorted(self.days)
            if day <= _MAX_DAYS[month - 1]
        ]


def parse(text: str) -> Cron:
    """Raises CronInvalid, whose text completes "found …"."""
    fields = text.split()
    if len(fields) != 5:
        raise CronInvalid(f"{len(fields)} fields")
    minutes, hours, days, months, weekdays = fields
    cron = Cron(
        " ".join(fields),
        _values(minutes, "minute", 0, 59),
        _values(hours, "hour", 0, 23),
        _values(days, "day of the month", 1, 31),
        _values(months, "month", 1, 12, _MONTHS, 3),
        frozenset(day % 7 for day in _values(weekdays, "weekday", 0, 7, _WEEKDAYS, 2)),
    )
    if not cron.is_either and not cron.dates():
        raise CronInvalid("a date that never comes")
    return cron


def _values(
    field: str, what: str, low: int, high: int, names: tuple[str, ...] = (), letters: int = 0
) -> frozenset[int]:
    """The values between low and high that a field lists; names stand for them from `low` on."""

    def value(text: str) -> int:
        if len(text) >= letters and letters:
            for at, name in enumerate(names):
                if name.startswith(text.lower()):
                    return low + at
        if not text.isdecimal() or not text.isascii() or not low <= int(text) <= high:
            raise CronInvalid(f"the {what} {text!r}")
        return int(text)

    def part(text: str) -> Iterator[int]:
        span, slash, step = text.partition("/")
        if slash and not (step.isdecimal() and step.isascii() and int(step) > 0):
            raise CronInvalid(f"the {what} {text!r}")
        first, dash, last = span.partition("-")
        start = low if span == "*" else value(first)
        end = value(last) if dash else high if span == "*" or slash else start
        if end < start:
            raise CronInvalid(f"the {what} {text!r}, which goes backwards")
        return iter(range(start, end + 1, int(step) if slash else 1))

    return frozenset(one for text in field.split(",") for one in part(text))


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """Empty where this machine has no database of them: then the server alone decides."""
    return frozenset(available_timezones() - _NOT_FOR_PEOPLE)


def zone_fault(name: str) -> str:
    """Return why the name is not in the IANA database; empty if it is."""
    if name in _NOT_FOR_PEOPLE or not name:
        return "it means whatever zone the server happens to be in"
    if name in _zones() or not _zones():
        return ""
    near = difflib.get_close_matches(name, _zones(), n=1)
    return f"did you mean {near[0]!r}?" if near else "there is no such zone"


def warnings(cron: Cron, zone: str, now: datetime) -> list[str]:
    """Return warnings about likely mistakes within the year after `now`."""
    return [*_about_dates(cron), *_about_zone(zone), *_about_changes(cron, zone, now)]


def _about_dates(cron: Cron) -> Iterator[str]:
    if cron.is_either:
        yield (
            f"{cron.text!r} starts a run on every day that fits by its number or by its weekday, as "
            "crontab(5) says."
        )
        return
    if cron.dates() == [(2, 29)]:
        yield f"{cron.text!r} starts a run on 29 February only: once in four years."
        return
    dated = {month for month, _ in cron.dates()}
    first = min(cron.days)
    if without := [_MONTHS[month - 1].capitalize() for month in sorted(cron.months - dated)]:
        yield f"{cron.text!r} starts no run in months without a day {first}: {', '.join(without)}."


def _about_zone(zone: str) -> Iterator[str]:
    name, sign, hours = zone.partition("+") if "+" in zone else zone.partition("-")
    if name == "Etc/GMT" and hours not in ("", "0"):
        turned = "behind" if sign == "+" else "ahead of"
        yield f"{zone} is {hours} hours {turned} UTC: the database counts against common use."


def _about_changes(cron: Cron, zone: str, now: datetime) -> list[str]:
    """The times at which no run starts, or two do, because the clock is changed."""
    if zone not in _zones():
        return []
    found = []
    for begins, minutes, starts in _changes(zone, now):
        if len(cron.hours) == 24 and starts != 1:
            continue  # every hour that passes has its start, whatever it is called
        times = [begins + timedelta(minutes=at) for at in range(minutes)]
        moment = next((one for one in times if cron.fits(one)), None)
        if moment is not None:
            what = f"{moment:%H:%M} {_CHANGED[starts]}"
            found.append(f"On {moment:%Y-%m-%d} the clock of {zone} is changed: {what}.")
    return found[:_MAX_CHANGES]


def _changes(zone: str, now: datetime) -> Iterator[tuple[datetime, int, int]]:
    """(first time of the clock, minutes from there, how many runs Temporal starts at one of these times) for
    each change of a zone's clock in a year."""
    tz = ZoneInfo(zone)
    hour = timedelta(hours=1)

    def offset(moment: datetime) -> timedelta:
        return moment.astimezone(tz).utcoffset() or timedelta()

    moment = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end = moment + timedelta(days=366)
    while moment < end:
        before, after = offset(moment), offset(moment + timedelta(days=1))
        if before == after:
            moment += timedelta(days=1)
            continue
        while offset(moment + hour) == before:
            moment += hour
        while offset(moment) == before:
            moment += timedelta(minutes=1)
        after = offset(moment)
        begins = (moment + min(before, after)).replace(tzinfo=None)
        # Of two equal times Go knows the later one only in zones east of Greenwich, and so does Temporal.
        starts = 0 if after > before else 2 if after < timedelta() else 1
        yield begins, abs(after - before) // timedelta(minutes=1), starts


def in_zone(iso: str, zone: str) -> str:
    """A time as the clock of the zone shows it, with its distance from UTC: `Mon 2026-03-02 09:00+01:00`."""
    moment = datetime.fromisoformat(iso)
    local = moment.astimezone(ZoneInfo(zone)) if zone in _zones() else moment
    return f"{local:%a} {local.isoformat(' ', 'minutes')}"
