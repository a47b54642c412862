"""Cron expressions as crontab(5) means them, and what is told of them."""

from datetime import UTC, datetime

import pytest

from schema.language import cron
from schema.language.cron import CronInvalid, parse

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ("0 9 13 * 5", ["0 9 13 * *", "0 9 * * 5"]),
        ("0  9 1-7 * MON", ["0 9 1-7 * *", "0 9 * * MON"]),
        ("0 9 * * 5", ["0 9 * * 5"]),
        ("0 9 13 * *", ["0 9 13 * *"]),
        # A star with a step is a star to crontab(5): both must fit.
        ("0 9 */2 * 5", ["0 9 */2 * 5"]),
        ("0 9 13 * */2", ["0 9 13 * */2"]),
    ],
)
def test_a_day_fits_by_number_or_weekday_where_both_are_restricted(text: str, expressions: list[str]) -> None:
    assert parse(text).expressions() == expressions


@pytest.mark.parametrize(
    ("text", "moment", "fits"),
    [
        ("0 9 13 * 5", "2026-12-13T09:00", True),
        ("0 9 13 * 5", "2026-12-18T09:00", True),
        ("0 9 13 * 5", "2026-12-17T09:00", False),
        ("0 9 */2 * 5", "2026-12-11T09:00", True),
        ("0 9 */2 * 5", "2026-12-18T09:00", False),
        ("*/20 8-10/2 * Dec sat,7", "2026-12-06T10:40", True),
        ("*/20 8-10/2 * Dec sat,7", "2026-12-06T09:40", False),
        ("5/20 * * * *", "2026-12-06T09:45", True),
        ("5/20 * * * *", "2026-12-06T09:20", False),
    ],
)
def test_times_that_fit(text: str, moment: str, fits: bool) -> None:
    assert parse(text).fits(datetime.fromisoformat(moment)) is fits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 9 * *", "4 fields"),
        ("@daily", "1 fields"),
        ("60 9 * * *", "the minute '60'"),
        ("0 24 * * *", "the hour '24'"),
        ("0 9 0 * *", "the day of the month '0'"),
        ("0 9 * 13 *", "the month '13'"),
        ("0 9 * * 8", "the weekday '8'"),
        ("0 9 * * someday", "the weekday 'someday'"),
        ("0 9 * * 5-1", "the weekday '5-1', which goes backwards"),
        ("0 9 L * *", "the day of the month 'L'"),
        ("0 9 ? * 1", "the day of the month '?'"),
        ("0/0 9 * * *", "the minute '0/0'"),
        ("0 9 30 2 *", "a date that never comes"),
        ("0 9 31 4,jun,9,11 *", "a date that never comes"),
        ("0 9 30 2 */2", "a date that never comes"),
    ],
)
def test_what_is_no_time_is_refused(text: str, says: str) -> None:
    with pytest.raises(CronInvalid, match=f"^{says.replace('?', '[?]')}$"):
        parse(text)


def test_a_weekday_makes_any_date_come() -> None:
    assert parse("0 9 30 2 5").dates() == []


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("Europe/Berlin", ""),
        ("UTC", ""),
        ("Local", "it means whatever zone the server happens to be in"),
        ("", "it means whatever zone the server happens to be in"),
        ("localtime", "it means whatever zone the server happens to be in"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Mars/Olympus Mons", "there is no such zone"),
        ("../etc/passwd", "there is no such zone"),
    ],
)
def test_zones_are_those_of_the_database(zone: str, says: str) -> None:
    assert cron.zone_fault(zone) == says


@pytest.mark.parametrize(
    ("text", "zone", "says"),
    [
        ("0 9 * * 1-5", "Europe/Berlin", []),
        ("30 * * * *", "Europe/Berlin", ["On 2027-10-31 "]),
        ("30 * * * *", "America/New_York", []),
        ("30 2 * * *", "UTC", []),
        ("30 2 * * 1", "Europe/Berlin", []),  # the clock is changed on Sundays
        ("30 2 * * *", "Europe/Berlin", ["On 2027-03-28 ", "On 2027-10-31 "]),
        ("45 1 * * *", "Australia/Lord_Howe", ["On 2027-04-04 "]),
        ("0 9 13 * 5", "UTC", ["by its number or by its weekday"]),
        ("0 9 29 2 *", "UTC", ["on 29 February only"]),
        ("0 9 31 * *", "UTC", ["in months without a day 31: February, April, June, September, November."]),
        ("0 9 * * *", "Etc/GMT+5", ["5 hours behind UTC"]),
        ("0 9 * * *", "Etc/GMT-5", ["5 hours ahead of UTC"]),
        ("0 9 * * *", "Etc/GMT", []),
    ],
)
def test_what_may_not_be_meant_is_told(text: str, zone: str, says: list[str]) -> None:
    told = cron.warnings(parse(text), zone, NOW)
    assert [part for part, one in zip(says, told, strict=True) if part not in one] == []


def test_changes_of_the_clock_are_told_with_what_happens() -> None:
    assert cron.warnings(parse("30 2 * * *"), "Europe/Berlin", NOW) == [
        "On 2027-03-28 the clock of Europe/Berlin is changed: 02:30 does not come, and no run starts.",
        "On 2027-10-31 the clock of Europe/Berlin is changed: 02:30 comes twice, and a run starts only once.",
    ]
    assert cron.warnings(parse("30 1 * * *"), "America/New_York", NOW) == [
        "On 2027-11-07 the clock of America/New_York is changed: 01:30 comes twice, and a run starts each "
        "time.",
    ]


def test_times_are_shown_by_the_clock_of_their_zone() -> None:
    assert cron.in_zone("2026-12-01T08:00:00Z", "Europe/Berlin") == "Tue 2026-12-01 09:00+01:00"
    assert cron.in_zone("2026-07-01T08:00:00Z", "UTC") == "Wed 2026-07-01 08:00+00:00"
