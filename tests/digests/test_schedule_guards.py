"""A schedule that cannot double or skip: downtime, and changes of its time and zone."""

from datetime import time, timedelta

import pytest
from django.db.models import F
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from digests import compilation
from digests.models import Digest, DigestSchedule
from tests.makers import make_article, make_schedule, utc

pytestmark = pytest.mark.django_db

# A Thursday, 12:00 in Berlin, 20:00 in Tokyo, 6:00 in New York.
NOON = utc(2026, 1, 15, 11)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

State = Digest.State


@pytest.fixture
def schedule():
    """One for 14 o'clock in Berlin that has been running for ten days and has looked at all before today."""
    schedule = make_schedule(local_time=time(14), approval="required", last_date=NOON.date() - DAY)
    DigestSchedule.objects.update(created_at=NOON - 10 * DAY)
    make_article(first_seen_at=NOON - HOUR)
    compilation.make_due_digests(NOON)
    return schedule


def change(schedule, **values):
    DigestSchedule.objects.filter(pk=schedule.pk).update(**values)


def made():
    return [(digest.date.isoformat(), digest.state) for digest in Digest.objects.order_by("date")]


def test_a_zone_to_the_east_does_not_skip_todays_digest(schedule):
    change(schedule, time_zone="Asia/Tokyo")

    compilation.make_due_digests(NOON)

    assert made() == [("2026-01-15", State.COMPILED)]


def test_a_zone_to_the_east_does_not_skip_it_either_where_it_is_past_the_latest_time(schedule):
    change(schedule, time_zone="Asia/Tokyo", not_later_than=time(16))

    compilation.make_due_digests(NOON)

    digest = Digest.objects.get()
    assert digest.state == State.COMPILED
    assert digest.not_after == utc(2026, 1, 15, 15)  # midnight in Tokyo


def test_an_earlier_latest_time_does_not_skip_todays_digest(schedule):
    change(schedule, local_time=time(8), not_later_than=time(9))

    compilation.make_due_digests(NOON)

    assert made() == [("2026-01-15", State.COMPILED)]


def test_a_zone_in_which_it_is_tomorrow_makes_no_day_look_missed(schedule):
    late = utc(2026, 1, 15, 12, 30)  # 13:30 in Berlin, and in Kiribati 2:30 of the next day
    change(schedule, time_zone="Pacific/Kiritimati", local_time=time(1))

    compilation.make_due_digests(late)
    compilation.make_due_digests(late + timedelta(minutes=1))

    assert made() == [("2026-01-16", State.COMPILED)]


def test_a_zone_to_the_west_makes_no_second_digest_of_a_date(schedule):
    compilation.make_due_digests(NOON + 3 * HOUR)
    change(schedule, time_zone="America/New_York")

    for hour in range(4, 12):  # until Berlin's midnight
        compilation.make_due_digests(NOON + hour * HOUR)

    assert made() == [("2026-01-15", State.COMPILED)]


def test_a_crash_in_the_middle_of_a_change_loses_nothing(schedule, monkeypatch):
    change(schedule, time_zone="Asia/Tokyo", not_later_than=time(16))

    def crash(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(compilation, "_make", crash)
    with pytest.raises(KeyboardInterrupt):
        compilation.make_due_digests(NOON)
    monkeypatch.undo()
    compilation.make_due_digests(NOON)

    assert made() == [("2026-01-15", State.COMPILED)]


@pytest.mark.parametrize(
    ("down", "expected"),
    [
        (timedelta(minutes=10), [State.COMPILED]),
        (timedelta(hours=7), [State.COMPILED]),
        (timedelta(days=3, minutes=10), [State.SKIPPED, State.SKIPPED, State.SKIPPED, State.COMPILED]),
    ],
)
def test_after_a_time_without_newsroom_today_is_caught_up_and_older_days_are_skipped(schedule, down, expected):
    make_article(first_seen_at=NOON + HOUR + down)
    compilation.make_due_digests(NOON + 2 * HOUR - timedelta(minutes=1))  # the last look before its time

    compilation.make_due_digests(NOON + 2 * HOUR - timedelta(minutes=1) + down)

    assert [state for _date, state in made()] == expected
    dates = [date for date, _state in made()]
    assert dates == sorted(set(dates))


def test_how_long_it_was_down_makes_no_burst():
    schedule = make_schedule(local_time=time(7), last_date=NOON.date() - 60 * DAY)
    DigestSchedule.objects.update(created_at=NOON - 90 * DAY)
    make_article(first_seen_at=NOON - HOUR)

    compilation.make_due_digests(NOON)

    states = list(schedule.digests.order_by("date").values_list("state", flat=True))
    assert len(states) == 60 and states.count(State.SKIPPED) == 59 and states[-1] != State.SKIPPED


ZONES = ["Pacific/Kiritimati", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Pacific/Pago_Pago", "Africa/Cairo"]


@effort(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.timedeltas(timedelta(minutes=1), timedelta(hours=9)),
            st.sampled_from(ZONES),
            st.times(time(0), time(23, 59)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_however_the_zone_is_changed_no_date_comes_twice_or_looks_missed(db, moves):
    Digest.objects.all().delete()
    DigestSchedule.objects.all().delete()
    schedule = make_schedule(local_time=time(7), approval="required", last_date=NOON.date() - DAY)
    DigestSchedule.objects.update(created_at=NOON - 10 * DAY)
    now = NOON
    compilation.make_due_digests(now)

    for step, zone, local_time in moves:
        now += step
        compilation.make_due_digests(now)  # Newsroom runs, and looks just before the change
        change(schedule, time_zone=zone, local_time=local_time)
        compilation.make_due_digests(now)

    dates = list(schedule.digests.values_list("date", flat=True))
    assert len(dates) == len(set(dates))
    assert not schedule.digests.filter(not_after__lte=F("created_at")).exists()
