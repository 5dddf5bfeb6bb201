from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digests.calendar import DAY, Rhythm, due_date, due_dates, longest_gap, next_due
from tests.makers import utc

ZONES = sorted(available_timezones())
EVERY_DAY = 0b1111111
MONDAY_TO_FRIDAY = 0b0011111


def rhythm(local_time=time(7), *, zone="Europe/Berlin", weekdays=EVERY_DAY, not_later_than=None):
    return Rhythm(weekdays=weekdays, local_time=local_time, time_zone=zone, not_later_than=not_later_than)


def dates(due):
    return [each.date.isoformat() for each in due]


def test_a_digest_is_due_at_its_local_time():
    due = due_date(rhythm(time(7)), date(2026, 7, 1))

    assert due.due_at == utc(2026, 7, 1, 5)
    assert due.not_after == utc(2026, 7, 1, 22)


def test_before_its_time_nothing_is_due():
    assert due_dates(rhythm(time(7)), after=date(2026, 1, 14), now=utc(2026, 1, 15, 5, 59)) == []
    assert dates(due_dates(rhythm(time(7)), after=date(2026, 1, 14), now=utc(2026, 1, 15, 6))) == ["2026-01-15"]


def test_missed_dates_come_oldest_first():
    due = due_dates(rhythm(), after=date(2026, 1, 12), now=utc(2026, 1, 15, 12))

    assert dates(due) == ["2026-01-13", "2026-01-14", "2026-01-15"]


def test_without_a_last_date_only_today_counts():
    assert dates(due_dates(rhythm(), after=None, now=utc(2026, 1, 15, 12))) == ["2026-01-15"]


def test_days_without_a_digest_are_left_out():
    due = due_dates(rhythm(weekdays=MONDAY_TO_FRIDAY), after=date(2026, 1, 8), now=utc(2026, 1, 12, 12))

    assert dates(due) == ["2026-01-09", "2026-01-12"]


def test_a_time_that_summer_time_skips_moves_forward_by_the_gap():
    due = due_date(rhythm(time(2, 30)), date(2026, 3, 29))

    assert due.due_at.astimezone(ZoneInfo("Europe/Berlin")).time() == time(3, 30)


def test_of_a_time_that_comes_twice_the_first_counts():
    due = due_date(rhythm(time(2, 30)), date(2026, 10, 25))

    assert due.due_at == utc(2026, 10, 25, 0, 30)


def test_a_gap_that_swallows_the_rest_of_the_day_moves_the_time_back():
    due = due_date(rhythm(time(23, 30), zone="America/Nuuk"), date(2026, 3, 28))

    assert due.due_at.astimezone(ZoneInfo("America/Nuuk")).date() == date(2026, 3, 28)
    assert due.due_at < due.not_after


def test_a_date_that_did_not_happen_has_no_digest():
    assert due_date(rhythm(zone="Pacific/Apia"), date(2011, 12, 30)) is None


def test_not_later_than_ends_the_day_early():
    due = due_date(rhythm(time(7), not_later_than=time(12)), date(2026, 1, 15))

    assert due.not_after == utc(2026, 1, 15, 11)


def test_a_limit_before_the_time_is_ignored():
    due = due_date(rhythm(time(22), not_later_than=time(2)), date(2026, 1, 15))

    assert due.not_after == utc(2026, 1, 15, 23)


def test_a_move_to_another_zone_never_gives_a_date_twice():
    made = due_dates(rhythm(time(0), zone="Pacific/Auckland"), after=date(2026, 1, 14), now=utc(2026, 1, 15, 12))
    later = due_dates(rhythm(time(0), zone="America/Los_Angeles"), after=made[-1].date, now=utc(2026, 1, 15, 13))

    assert dates(made) == ["2026-01-15", "2026-01-16"]
    assert later == []


@pytest.mark.parametrize(
    ("weekdays", "days"), [(EVERY_DAY, 1), (MONDAY_TO_FRIDAY, 3), (0b0000001, 7), (0b1000001, 6), (0b0001001, 4)]
)
def test_the_longest_gap_reaches_over_the_weekend(weekdays, days):
    assert longest_gap(weekdays) == DAY * days


def test_the_next_one_is_todays_until_its_day_is_over():
    facts = rhythm(time(7))

    assert next_due(facts, after=date(2026, 1, 14), now=utc(2026, 1, 15, 20)).date == date(2026, 1, 15)
    assert next_due(facts, after=date(2026, 1, 15), now=utc(2026, 1, 15, 20)).date == date(2026, 1, 16)


@given(
    zone=st.sampled_from(ZONES),
    day=st.dates(date(2026, 1, 1), date(2027, 12, 31)),
    local_time=st.times(),
)
def test_in_every_zone_a_date_has_one_time_and_it_lies_on_that_date(zone, day, local_time):
    due = due_date(rhythm(local_time, zone=zone), day)

    assert due is not None
    assert due.due_at.astimezone(ZoneInfo(zone)).date() == day
    assert due.due_at < due.not_after <= due.due_at + timedelta(hours=26)


@pytest.mark.parametrize("local_time", [time(0), time(0, 30), time(1, 30), time(2, 30), time(3), time(23, 59)])
def test_every_change_of_the_clocks_of_two_years_keeps_one_digest_a_day(local_time):
    for zone in ZONES:
        offset = None
        for number in range(730):
            day = date(2026, 1, 1) + DAY * number
            now_offset = datetime.combine(day, time(12), ZoneInfo(zone)).utcoffset()
            if offset not in {None, now_offset}:
                for each in (day - DAY, day):
                    due = due_date(rhythm(local_time, zone=zone), each)
                    assert due is not None, (zone, each)
                    assert due.due_at.astimezone(ZoneInfo(zone)).date() == each, (zone, each)
            offset = now_offset


@given(
    zone=st.sampled_from(ZONES),
    weekdays=st.integers(1, EVERY_DAY),
    local_time=st.times(),
    start=st.integers(0, 500 * 24 * 60).map(lambda minutes: utc(2026, 1, 1) + timedelta(minutes=minutes)),
    steps=st.lists(st.timedeltas(timedelta(minutes=1), timedelta(days=3)), min_size=1, max_size=12),
)
def test_however_often_one_looks_no_date_is_missed_or_repeated(zone, weekdays, local_time, start, steps):
    facts = rhythm(local_time, zone=zone, weekdays=weekdays)
    first = start.astimezone(ZoneInfo(zone)).date() - DAY
    now, last, seen = start, first, []

    for step in steps:
        now += step
        due = due_dates(facts, after=last, now=now)
        seen += [each.date for each in due]
        last = seen[-1] if seen else first

    assert seen == [each.date for each in due_dates(facts, after=first, now=now)]
