"""Every zone of the IANA list, every change of its clocks from 2026 to 2028, at every awkward minute."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from digests.calendar import DAY, Rhythm, due_date, due_dates

ZONES = sorted(available_timezones())
FIRST, LAST = date(2026, 1, 1), date(2028, 12, 31)
MINUTE = timedelta(minutes=1)
AWKWARD = [
    time(0),
    time(0, 1),
    time(0, 30),
    time(1, 30),
    time(2),
    time(2, 30),
    time(3),
    time(12),
    time(23, 30),
    time(23, 59),
]


def rhythm(zone, local_time):
    return Rhythm(weekdays=0b1111111, local_time=local_time, time_zone=zone)


def offset(zone, moment):
    return moment.astimezone(zone).utcoffset()


@cache
def changes(zone_name):
    """Return the instants at which the zone's clocks are changed, to the minute."""
    zone, found = ZoneInfo(zone_name), []
    midnight = datetime.combine(FIRST, time(), UTC)
    before = offset(zone, midnight)
    for number in range(1, (LAST - FIRST).days + 2):
        after = offset(zone, midnight + DAY * number)
        if after != before:
            found.append(first_minute(zone, midnight + DAY * (number - 1), midnight + DAY * number))
        before = after
    return found


def first_minute(zone, early, late):
    while late - early > MINUTE:
        middle = early + (late - early) // 2
        early, late = (middle, late) if offset(zone, middle) == offset(zone, early) else (early, middle)
    return late.replace(second=0, microsecond=0)


def awkward_times(zone, change):
    """Return the wall clock's times at and around a change: where it left, where it arrived, and between."""
    left = (change + offset(zone, change - 5 * MINUTE)).replace(tzinfo=None)
    arrived = (change + offset(zone, change + 5 * MINUTE)).replace(tzinfo=None)
    moments = [left, arrived, left + (arrived - left) / 2]
    around = [moment + shift * MINUTE for moment in moments for shift in (-1, 0, 1)]
    return {moment.time().replace(second=0, microsecond=0) for moment in around}


def check_one(zone_name, day, local_time):
    """A date has one time, on that date, at the wanted wall clock or, in a gap, moved by the gap."""
    due = due_date(rhythm(zone_name, local_time), day)
    assert due is not None, (zone_name, day, local_time)
    zone = ZoneInfo(zone_name)
    there = due.due_at.astimezone(zone)
    assert there.date() == day and due.due_at < due.not_after, (zone_name, day, local_time)
    wanted = datetime.combine(day, local_time)
    if there.replace(tzinfo=None, fold=0) == wanted:
        # Of an hour that comes twice the first: an hour earlier the clock did not show the same.
        assert there.fold == 0, (zone_name, day, local_time)
    else:
        exists = any(
            wanted.replace(tzinfo=zone, fold=fold).astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0)
            == wanted
            for fold in (0, 1)
        )
        assert not exists, (zone_name, day, local_time)
    return due


def test_every_date_of_every_zone_has_exactly_one_time():
    checks = 0
    for zone_name in ZONES:
        zone = ZoneInfo(zone_name)
        for change in changes(zone_name):
            around = change.astimezone(zone).date()
            for local_time in {*AWKWARD, *awkward_times(zone, change)}:
                dues = [check_one(zone_name, around + DAY * shift, local_time) for shift in (-1, 0, 1, 2)]
                assert all(early.due_at < late.due_at for early, late in pairwise(dues))
                checks += len(dues)
        for number in range(0, (LAST - FIRST).days, 61):
            check_one(zone_name, FIRST + DAY * number, AWKWARD[number % len(AWKWARD)])
            checks += 1
    count = sum(len(changes(zone)) for zone in ZONES)
    print(f"{len(ZONES)} zones, {count} changes of clocks, {checks} dates: one digest each, none missed, none twice")
    assert count > 900 and checks > 50_000


def test_looking_every_quarter_of_an_hour_across_every_change_finds_each_date_once():
    looked = 0
    distinct = {tuple(changes(zone)): zone for zone in ZONES if changes(zone)}
    for moments, zone_name in distinct.items():
        zone = ZoneInfo(zone_name)
        for change in moments[:2]:
            for local_time in (time(0), time(2, 30), time(23, 59)):
                facts, seen = rhythm(zone_name, local_time), []
                start = change.astimezone(zone).date() - DAY
                now, last = change - DAY, start - DAY
                while now < change + 3 * DAY:
                    for due in due_dates(facts, after=last, now=now):
                        seen.append(due.date)
                        last = due.date
                    now += 15 * MINUTE
                    looked += 1
                expected = [start + DAY * number for number in range((last - start).days + 1)]
                assert seen == expected and len(seen) >= 3, (zone_name, change, local_time)
    print(f"{len(distinct)} zones whose clocks differ, looked at {looked} times")
