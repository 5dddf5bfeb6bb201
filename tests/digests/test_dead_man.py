"""If today's digest has not reached its readers by its time, staff are told, by mail and on the start page."""

from datetime import time, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from digests import audience, compilation, delivery, restoring, watching
from digests.models import DeliveryBatch, Digest, DigestChange, DigestSchedule, HighWater
from newsroom.mail import alarms
from newsroom.mail.models import OutboxMail
from tests.makers import make_article, make_schedule, make_subscriptions, utc

pytestmark = pytest.mark.django_db

# A Thursday in Berlin; the digest is due at 7:00, 6:00 UTC.
DUE = utc(2026, 1, 15, 6)
MINUTE = timedelta(minutes=1)
DEADLINE = DUE + 60 * MINUTE


@pytest.fixture
def schedule(settings, tmp_path):
    settings.HIGH_WATER_MARK = tmp_path / "high-water.json"
    schedule = make_schedule(local_time=time(7), last_date=DUE.date() - timedelta(days=1))
    DigestSchedule.objects.update(created_at=DUE - timedelta(days=30))
    make_article(first_seen_at=DUE - timedelta(hours=1))
    make_subscriptions(schedule.newsletter, 3)
    return schedule


def texts(now):
    return [alarm.text for alarm in watching.find_alarms(now)]


def set_digest(**values):
    Digest.objects.update(**values)


def test_a_digest_nobody_made_is_noticed_at_its_time_and_not_before(schedule):
    assert texts(DEADLINE - MINUTE) == []

    (text,) = texts(DEADLINE)

    assert str(schedule.newsletter) in text


def test_a_digest_that_reached_its_readers_is_no_alarm(schedule):
    compilation.make_due_digests(DUE)
    set_digest(state=Digest.State.FINISHED)

    assert texts(DEADLINE) == []


def test_a_latecomer_is_waited_for_as_long_as_everybody_else(schedule):
    compilation.make_due_digests(DUE)
    digest = Digest.objects.get()
    DeliveryBatch.objects.update(state="done")
    assert delivery.finish(digest.pk, now=DUE + MINUTE)
    afternoon = DEADLINE + timedelta(hours=5)
    Digest.objects.update(state=Digest.State.SENDING)
    DigestChange.objects.create(digest=digest, state=Digest.State.SENDING, at=afternoon)
    audience.add_batch(digest, [1], at=afternoon)

    assert texts(afternoon + 59 * MINUTE) == []
    assert len(texts(afternoon + 60 * MINUTE)) == 1


@pytest.mark.parametrize("state", ["planned", "compiled", "approved", "sending", "paused"])
def test_wherever_it_hangs_staff_are_told_where(schedule, state):
    compilation.make_due_digests(DUE)
    set_digest(state=state)

    alarm = next(iter(watching.find_alarms(DEADLINE)))

    assert alarm.url == reverse("admin:digests_digest_change", args=[Digest.objects.get().pk])
    assert alarm.is_grave and alarm.mail_after == timedelta()


def test_each_place_where_it_hangs_has_words_of_its_own(schedule):
    compilation.make_due_digests(DUE)
    DigestSchedule.objects.update(approval="required")
    found = set()
    for state in ("planned", "compiled", "approved", "sending", "paused"):
        set_digest(state=state)
        found.update(texts(DEADLINE))

    assert len(found) == 5


@pytest.mark.parametrize("state", ["cancelled", "skipped"])
def test_a_digest_staff_or_its_rules_ended_is_no_alarm(schedule, state):
    compilation.make_due_digests(DUE)
    set_digest(state=state)

    assert texts(DEADLINE) == []


def test_a_day_without_digest_is_no_alarm(schedule):
    DigestSchedule.objects.update(weekdays=0b0000111)

    assert texts(DEADLINE) == []


def test_a_stopped_schedule_is_no_alarm(schedule):
    DigestSchedule.objects.update(state="stopped")

    assert texts(DEADLINE) == []


def test_a_digest_made_ahead_is_not_missed_when_its_schedule_was_stopped(schedule):
    assert compilation.make_ahead(schedule, now=DUE - 30 * MINUTE)
    DigestSchedule.objects.update(state="stopped")

    tomorrow = DUE + timedelta(days=1)
    compilation.make_due_digests(tomorrow)

    assert Digest.objects.get().state == Digest.State.SKIPPED
    assert texts(tomorrow) == []


def test_a_schedule_made_after_todays_time_is_no_alarm(schedule):
    DigestSchedule.objects.update(created_at=DUE + MINUTE)

    assert texts(DEADLINE) == []


def test_a_digest_of_the_late_evening_is_watched_past_midnight(schedule):
    DigestSchedule.objects.update(local_time=time(23, 30))

    assert texts(utc(2026, 1, 15, 22, 30) + 61 * MINUTE)


def test_staff_are_mailed_once_and_again_when_it_is_over(schedule):
    for minute in range(0, 30, 5):
        alarms.watch(DEADLINE + minute * MINUTE)
    assert OutboxMail.objects.filter(kind="alarm").count() == 1

    OutboxMail.objects.update(state="sent")
    compilation.make_due_digests(DEADLINE + 30 * MINUTE)
    set_digest(state=Digest.State.FINISHED)
    alarms.watch(DEADLINE + 40 * MINUTE)

    assert OutboxMail.objects.filter(kind="alarm_over").count() == 1


def test_days_that_were_missed_are_told_and_then_cease_to_be_news(schedule):
    compilation.make_due_digests(DUE + timedelta(days=1))

    missed = [text for text in texts(DUE + timedelta(days=1)) if "15.01.2026" in text]

    assert len(missed) == 1
    assert not any("15.01.2026" in text for text in texts(DUE + timedelta(days=5)))


def test_a_digest_nobody_approved_in_time_is_told(schedule):
    DigestSchedule.objects.update(approval="required")
    compilation.make_due_digests(DUE)
    compilation.make_due_digests(utc(2026, 1, 15, 23))

    assert any("15.01.2026" in text for text in texts(utc(2026, 1, 15, 23)))


def test_a_day_without_articles_is_not_a_missed_one(schedule):
    DigestSchedule.objects.update(minimum_articles=5)
    compilation.make_due_digests(DUE)

    assert texts(DEADLINE) == []


def test_readers_who_did_not_get_it_in_time_are_told(schedule):
    compilation.make_due_digests(DUE)
    digest = Digest.objects.get()
    if digest.audience_frozen_at is None:
        audience.freeze(digest, now=DUE)
    DeliveryBatch.objects.update(state="expired")
    set_digest(state=Digest.State.FINISHED)

    assert any("3" in text and str(digest) in text for text in texts(digest.not_after + MINUTE))


def test_a_beat_that_is_silent_is_noticed_by_the_page_that_is_looked_at(schedule):
    now = timezone.now()
    restoring.count(now)
    HighWater.objects.update(at=now - timedelta(minutes=11))
    DigestSchedule.objects.update(weekdays=1 << (now + timedelta(days=3)).weekday())

    assert len(texts(now)) == 1
    restoring.count(now)

    assert texts(now) == []


def test_a_machine_that_was_off_over_night_starts_without_an_alarm(schedule):
    now = timezone.now()
    restoring.count(now)
    HighWater.objects.update(at=now - timedelta(hours=10))
    DigestSchedule.objects.update(weekdays=1 << (now + timedelta(days=3)).weekday())

    alarms.watch(now)  # before beat has said “tick”
    restoring.count(now)
    alarms.watch(now + MINUTE)
    assert not OutboxMail.objects.exists()

    for minutes in (20, 21, 22):
        alarms.watch(now + minutes * MINUTE)
    assert OutboxMail.objects.get().kind == alarms.BEGUN
