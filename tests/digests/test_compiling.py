from contextlib import nullcontext
from datetime import time, timedelta
from threading import Barrier, Thread

import pytest
from django.db import DataError, IntegrityError, connection, transaction

from digests import compilation, release
from digests.models import Digest, DigestChange, DigestSchedule, LeftOut
from newsroom.articles.models import Article
from newsroom.mail.messages import MjmlError
from tests.makers import a_date, make_article, make_digest, make_newsletter, make_schedule, make_section, utc

pytestmark = pytest.mark.django_db

# A Thursday in Berlin, 12:00 local time.
NOON = utc(2026, 1, 15, 11)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YESTERDAY = NOON.date() - DAY

State = Digest.State


def make_running(*, created_at=NOON - 10 * DAY, last_date=YESTERDAY, **values):
    """A schedule for 7 o'clock that waits for approval and has made yesterday's digest."""
    values = {"local_time": time(7), "approval": "required", "last_date": last_date} | values
    schedule = make_schedule(**values)
    DigestSchedule.objects.filter(pk=schedule.pk).update(created_at=created_at)
    schedule.refresh_from_db()
    return schedule


def make_seen(*, ago=HOUR, **values):
    return make_article(first_seen_at=NOON - ago, **values)


def headlines(digest):
    return list(digest.entries.values_list("headline", flat=True))


def test_a_due_digest_is_made_once_however_often_one_looks():
    schedule = make_running()
    make_seen()

    first = compilation.make_due_digests(NOON)
    again = compilation.make_due_digests(NOON) + compilation.make_due_digests(NOON + HOUR)

    assert [digest.state for digest in first] == [State.COMPILED]
    assert again == []
    assert Digest.objects.get().date == NOON.date()
    assert schedule.digests.get().entries.count() == 1


def test_before_its_time_there_is_no_digest():
    make_running(local_time=time(12, 1))
    make_seen()

    assert compilation.make_due_digests(NOON) == []


def test_a_new_schedule_begins_with_the_day_of_its_creation():
    make_running(created_at=NOON - HOUR, last_date=None, local_time=time(0))
    make_seen()

    (digest,) = compilation.make_due_digests(NOON)

    assert (digest.date, digest.state) == (NOON.date(), State.COMPILED)


def test_todays_digest_is_made_until_its_day_is_over():
    make_running(local_time=time(0))
    make_seen()

    (digest,) = compilation.make_due_digests(NOON + timedelta(hours=10, minutes=59))

    assert digest.state == State.COMPILED


def test_missed_days_are_skipped_with_a_reason_and_today_is_made():
    make_running(last_date=NOON.date() - 4 * DAY)
    make_seen(ago=2 * DAY)

    compilation.make_due_digests(NOON)

    found = list(Digest.objects.order_by("date").values_list("state", flat=True))
    assert found == [State.SKIPPED, State.SKIPPED, State.SKIPPED, State.COMPILED]
    assert all(Digest.objects.filter(state=State.SKIPPED).values_list("state_reason", flat=True))


def test_the_days_of_a_stopped_schedule_do_not_turn_up_as_skipped():
    schedule = make_running(state="stopped", last_date=NOON.date() - 9 * DAY)
    make_seen()

    compilation.make_due_digests(NOON)
    DigestSchedule.objects.update(state="running")
    compilation.make_due_digests(NOON)

    assert schedule.digests.get().state == State.COMPILED


def test_days_that_were_none_of_the_schedules_do_not_turn_up_as_skipped_when_it_becomes_a_daily_one():
    schedule = make_running(weekdays=0b0000001, last_date=NOON.date() - 3 * DAY)  # Monday's was the last
    make_seen()
    compilation.make_due_digests(NOON)

    DigestSchedule.objects.update(weekdays=0b1111111)
    compilation.make_due_digests(NOON)

    assert [(digest.date, digest.state) for digest in schedule.digests.all()] == [(NOON.date(), State.COMPILED)]


def test_what_a_crash_left_planned_is_compiled_by_the_next_look():
    schedule = make_running(last_date=NOON.date())
    make_seen()
    digest = Digest.objects.create(
        newsletter=schedule.newsletter,
        schedule=schedule,
        date=NOON.date(),
        due_at=NOON - HOUR,
        not_after=NOON + HOUR,
        created_at=NOON,
    )

    compilation.make_due_digests(NOON)

    digest.refresh_from_db()
    assert digest.state == State.COMPILED
    assert digest.entries.count() == 1


def test_what_a_crash_left_compiled_is_started_by_the_next_look(monkeypatch):
    make_running(approval="automatic")
    make_seen()
    with monkeypatch.context() as patch:
        patch.setattr(release, "start_due", lambda now: [])
        compilation.make_due_digests(NOON)

    compilation.make_due_digests(NOON)

    assert Digest.objects.get().state == State.SENDING


@pytest.mark.parametrize("error", [MjmlError("unbalanced"), DataError("value too long")])
def test_a_digest_that_cannot_be_compiled_holds_up_no_other(error, monkeypatch):
    broken, sound = make_running(), make_running()
    make_seen()
    store = compilation.rendering.store

    def fail(digest):
        if digest.newsletter_id == broken.newsletter_id:
            raise error
        store(digest)

    monkeypatch.setattr(compilation.rendering, "store", fail)
    compilation.make_due_digests(NOON)

    assert sound.digests.get().state == State.COMPILED
    assert broken.digests.get().state == State.PLANNED
    assert type(error).__name__ in broken.digests.get().state_reason
    assert not broken.digests.get().entries.exists()


def test_articles_are_chosen_by_when_they_were_first_seen():
    schedule = make_running()
    waiting = [
        make_seen(published_at=NOON - 9 * DAY),  # back-dated by its feed, but new to us
        make_seen(ago=71 * HOUR),
    ]
    make_seen(ago=73 * HOUR)
    make_seen(state=Article.State.DRAFT)
    make_article(first_seen_at=NOON - HOUR, published_at=NOON + HOUR)

    compilation.make_due_digests(NOON)

    assert {entry.article for entry in schedule.digests.get().entries.all()} == set(waiting)


def test_a_weekly_newsletter_reaches_back_over_its_week():
    make_running(newsletter=make_newsletter(frequency="weekly"), weekdays=0b0001000)
    make_seen(ago=6 * DAY)

    (digest,) = compilation.make_due_digests(NOON)

    assert digest.entries.count() == 1


def test_a_new_newsletter_does_not_begin_with_the_archive():
    make_running(created_at=NOON - HOUR)
    make_seen(ago=26 * HOUR)
    young = make_seen(ago=24 * HOUR)

    (digest,) = compilation.make_due_digests(NOON)

    assert [entry.article for entry in digest.entries.all()] == [young]


def test_only_the_chosen_sections_count():
    chosen = make_section()
    schedule = make_running()
    schedule.sections.add(chosen)
    article = make_seen(section=chosen)
    make_seen()

    (digest,) = compilation.make_due_digests(NOON)

    assert [entry.article for entry in digest.entries.all()] == [article]


def test_articles_stand_by_section_importance_and_time():
    make_running()
    first, second = make_section(position=1), make_section(position=2)
    make_seen(section=second, headline="E", importance=3)
    make_seen(section=first, headline="C", importance=2, ago=2 * HOUR)
    make_seen(section=first, headline="B", importance=2, ago=HOUR)
    make_seen(section=first, headline="D", importance=1)
    make_seen(section=first, headline="A", importance=3, ago=9 * HOUR)

    (digest,) = compilation.make_due_digests(NOON)

    assert headlines(digest) == ["A", "B", "C", "D", "E"]


def test_every_article_stands_in_one_digest_of_a_newsletter():
    schedule = make_running()
    make_seen(headline="gestern")
    compilation.make_due_digests(NOON)
    make_article(headline="heute", first_seen_at=NOON + HOUR)

    compilation.make_due_digests(NOON + DAY)

    assert [headlines(digest) for digest in schedule.digests.order_by("date")] == [["gestern"], ["heute"]]


def test_two_newsletters_may_carry_the_same_article():
    make_running(), make_running()
    make_seen()

    assert [digest.entries.count() for digest in compilation.make_due_digests(NOON)] == [1, 1]


def test_over_the_maximum_the_least_important_are_left_out_and_stay_out():
    schedule = make_running(maximum_articles=2)
    section = make_section()
    make_seen(section=section, headline="wichtig", importance=3)
    make_seen(section=section, headline="neu", importance=2)
    left_out = make_seen(section=section, headline="alt", importance=2, ago=5 * HOUR)

    (digest,) = compilation.make_due_digests(NOON)

    assert headlines(digest) == ["wichtig", "neu"]
    assert LeftOut.objects.get().article == left_out
    assert LeftOut.objects.get().reason == LeftOut.Reason.MAXIMUM
    assert not compilation.waiting_articles(schedule, now=NOON).exists()


def test_a_day_without_articles_is_skipped_with_a_reason():
    make_running()

    (digest,) = compilation.make_due_digests(NOON)

    assert digest.state == State.SKIPPED
    assert digest.state_reason
    assert DigestChange.objects.filter(digest=digest).last().reason == digest.state_reason


def test_below_the_minimum_the_articles_wait():
    schedule = make_running(minimum_articles=2)
    article = make_seen()

    (digest,) = compilation.make_due_digests(NOON)

    assert digest.state == State.SKIPPED
    assert list(compilation.waiting_articles(schedule, now=NOON)) == [article]


def test_a_skipped_digest_is_compiled_after_all_once_there_are_articles():
    make_running()
    (digest,) = compilation.make_due_digests(NOON)
    assert not compilation.reopen(digest, now=NOON)
    make_article(first_seen_at=NOON + HOUR)

    assert compilation.reopen(digest, now=NOON + 2 * HOUR)

    digest.refresh_from_db()
    assert (digest.state, digest.entries.count()) == (State.COMPILED, 1)


def test_a_skipped_digest_of_another_day_stays_skipped():
    make_running()
    (digest,) = compilation.make_due_digests(NOON)
    make_article(first_seen_at=NOON + HOUR)

    assert not compilation.reopen(digest, now=NOON + DAY)


def test_a_weekly_newsletter_is_not_sent_twice_in_seven_days():
    schedule = make_running(newsletter=make_newsletter(frequency="weekly"), weekdays=0b0001000)
    make_seen()
    compilation.make_due_digests(NOON)
    DigestSchedule.objects.filter(pk=schedule.pk).update(weekdays=0b0010000)
    make_article(first_seen_at=NOON + HOUR)

    (digest,) = compilation.make_due_digests(NOON + DAY)

    assert digest.state == State.SKIPPED


def test_a_digest_made_ahead_goes_out_at_its_time():
    schedule = make_running(approval="automatic", local_time=time(18))
    make_seen()

    digest = compilation.make_ahead(schedule, now=NOON)
    compilation.make_due_digests(NOON)
    digest.refresh_from_db()
    assert digest.state == State.COMPILED
    compilation.make_due_digests(NOON + 6 * HOUR)

    digest.refresh_from_db()
    assert digest.state == State.SENDING
    assert compilation.make_ahead(schedule, now=NOON) is None


def test_a_digest_made_ahead_does_not_go_out_by_itself_once_its_schedule_is_stopped():
    schedule = make_running(approval="automatic", local_time=time(18))
    make_seen()
    digest = compilation.make_ahead(schedule, now=NOON)

    DigestSchedule.objects.update(state="stopped")
    compilation.make_due_digests(NOON + 6 * HOUR)

    digest.refresh_from_db()
    assert digest.state == State.COMPILED


def test_no_digest_is_made_by_hand_when_it_is_too_late_for_it():
    schedule = make_running(not_later_than=time(11))
    make_seen()

    assert compilation.make_ahead(schedule, now=NOON) is None
    assert not Digest.objects.exists()


def test_a_digest_keeps_the_words_it_was_compiled_with():
    make_running()
    article = make_seen(headline="Erste Fassung\u2028mit\x07 \u202eUmbruch")
    (digest,) = compilation.make_due_digests(NOON)

    Article.objects.filter(pk=article.pk).update(headline="Zweite Fassung")

    assert headlines(digest) == ["Erste Fassung mit Umbruch"]


@pytest.mark.django_db(transaction=True)
def test_looking_at_the_same_moment_makes_one_digest():
    schedule = make_running(approval="automatic")
    make_seen()
    barrier, errors = Barrier(4), []

    def look():
        try:
            barrier.wait(10)
            compilation.make_due_digests(NOON)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    digest = schedule.digests.get()
    assert errors == []
    assert digest.entries.count() == 1
    assert list(digest.changes.values_list("state", flat=True)) == [State.PLANNED, State.COMPILED, State.SENDING]


def test_r06_the_database_refuses_a_second_digest_in_a_week():
    newsletter = make_newsletter(frequency="weekly")
    make_running(newsletter=newsletter)
    make_seen()
    (first,) = compilation.make_due_digests(NOON)
    first.refresh_from_db()
    assert first.only_in_week == NOON.date() - 3 * DAY

    with pytest.raises(IntegrityError), transaction.atomic():
        make_digest(newsletter, date=NOON.date() + DAY, only_in_week=first.only_in_week)

    Digest.objects.filter(pk=first.pk).update(state=State.CANCELLED)
    make_digest(newsletter, date=NOON.date() + DAY, only_in_week=first.only_in_week)


def test_r06_a_digest_cancelled_while_it_went_out_counts_for_its_week():
    newsletter = make_newsletter(frequency="weekly")
    make_running(newsletter=newsletter)
    make_seen()
    (first,) = compilation.make_due_digests(NOON)
    Digest.objects.filter(pk=first.pk).update(state=State.CANCELLED, audience_frozen_at=NOON)
    make_article(first_seen_at=NOON + HOUR)

    (second,) = compilation.make_due_digests(NOON + DAY)

    assert second.state == State.SKIPPED
    with pytest.raises(IntegrityError), transaction.atomic():
        Digest.objects.filter(pk=second.pk).update(state=State.COMPILED, only_in_week=NOON.date() - 3 * DAY)


@pytest.mark.parametrize(
    ("date", "monday"),
    [("2027-01-01", "2026-12-28"), ("2028-02-29", "2028-02-28"), ("2026-11-22", "2026-11-16")],
)
def test_r06_a_week_is_one_over_the_turn_of_the_year(date, monday):
    year, month, day = map(int, date.split("-"))
    noon = utc(year, month, day, 11)
    make_running(
        newsletter=make_newsletter(frequency="weekly"), created_at=noon - 10 * DAY, last_date=noon.date() - DAY
    )
    make_article(first_seen_at=noon - HOUR)

    (digest,) = compilation.make_due_digests(noon)

    digest.refresh_from_db()
    assert (digest.state, str(digest.only_in_week)) == (State.COMPILED, monday)


def test_r06_a_newsletter_for_weekdays_has_no_digest_on_a_weekend():
    make_running(newsletter=make_newsletter(frequency="weekdays"))
    make_seen()
    made = [compilation.make_due_digests(NOON + days * DAY)[-1] for days in (1, 2, 3)]

    assert [digest.state for digest in made] == [State.COMPILED, State.SKIPPED, State.SKIPPED]
    assert made[1].state_reason == made[2].state_reason != ""


@pytest.mark.parametrize(("date", "is_weekend"), [("2026-11-20", False), ("2026-11-21", True), ("2026-11-22", True)])
def test_r06_the_database_refuses_a_weekend_if_readers_agreed_to_weekdays(date, is_weekend):
    newsletter, daily = make_newsletter(frequency="weekdays"), make_newsletter(frequency="daily")
    thursday = utc(2026, 11, 19, 11)
    for each in (newsletter, daily):
        make_running(newsletter=each, created_at=thursday - 10 * DAY, last_date=thursday.date() - DAY)
    make_article(first_seen_at=thursday - HOUR)
    compilation.make_due_digests(thursday)

    move = f"UPDATE digests_digest SET date = '{date}' WHERE newsletter_id = %s"
    with connection.cursor() as cursor:
        cursor.execute(move, [daily.pk])
        with pytest.raises(IntegrityError) if is_weekend else nullcontext(), transaction.atomic():
            cursor.execute(move, [newsletter.pk])

    assert Digest.objects.get(newsletter=newsletter).date == (thursday.date() if is_weekend else a_date(date))
