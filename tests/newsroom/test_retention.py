"""The purge as a machine, what audit and alarms say of it, and the officer's page."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import DatabaseError
from django.utils import timezone, translation

from newsroom import retention, tasks
from newsroom.mail import alarms
from newsroom.retention import Rule, admin, audit, purging
from newsroom.retention.models import PurgeRun
from subscriptions.models import EvidenceView, RequestCount, Suppression
from tests.makers import make_subscription

pytestmark = pytest.mark.django_db

PAGE = "/admin/retention/purgerun/"
NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def make_counts(number: int, *, at: datetime = NOW - 30 * DAY) -> None:
    RequestCount.objects.bulk_create([RequestCount(network=f"{at}{n}", window_start=at) for n in range(number)])


def make_views(number: int, *, at: datetime = NOW - 400 * DAY) -> None:
    EvidenceView.objects.bulk_create(
        [EvidenceView(address_hash="h", actor="staff:1", way="page", viewed_at=at) for _ in range(number)]
    )


class Refused:
    """A store whose table answers with an error that quotes an address."""

    def count(self):
        return 1

    def count_due(self, now):
        return 1

    def purge(self, now, *, limit, note):
        if self.count_due(now):
            raise DatabaseError("duplicate key (leserin@leser.example)")
        yield


@pytest.fixture
def refused_rule():
    rule = Rule(name="refused", what="x", period=str, since="x", basis="x", store=Refused())
    retention.register(rule)
    yield rule
    del retention._rules["refused"]


def test_a_purge_takes_no_more_rows_at_once_than_it_may(settings):
    settings.PURGE_CHUNK = 3
    make_counts(10)
    taken: list[object] = []

    store = {rule.name: rule.store for rule in retention.rules()}["request_counts"]
    for _chunk in store.purge(NOW, limit=settings.PURGE_CHUNK, note=taken.append):
        taken.append("committed")

    assert taken == [3, "committed", 3, "committed", 3, "committed", 1, "committed"]


def test_a_purge_with_little_time_says_it_did_not_finish_and_the_next_goes_on(settings):
    settings.PURGE_CHUNK = 2
    make_counts(7)

    first = purging.purge(NOW, time_limit=timedelta())

    assert first.state == PurgeRun.State.UNFINISHED and 0 < first.counts["request_counts"] < 7
    second = purging.purge(NOW)
    assert second.state == PurgeRun.State.COMPLETE
    assert first.counts["request_counts"] + second.counts["request_counts"] == 7


def test_a_table_that_refuses_keeps_no_other_waiting_and_its_words_reach_no_log(refused_rule, caplog):
    make_counts(2)

    with caplog.at_level(logging.ERROR):
        run = purging.purge(NOW)

    assert run.state == PurgeRun.State.FAILED
    assert run.counts["request_counts"] == 2
    assert "purging refused failed: DatabaseError" in caplog.text and "leserin" not in caplog.text


def test_the_task_goes_behind_the_tasks_that_wait_when_its_time_is_up(settings, monkeypatch):
    settings.PURGE_CHUNK = 1
    monkeypatch.setattr(tasks, "PURGE_TIME", timedelta())
    again = []
    monkeypatch.setattr(tasks.purge, "apply_async", lambda **options: again.append(options))
    make_counts(2, at=timezone.now() - 30 * DAY)

    tasks.purge()
    assert len(again) == 1
    tasks.purge()
    tasks.purge()

    assert not RequestCount.objects.exists() and len(again) == 2


def test_the_log_and_the_command_say_counts_alone(capsys, caplog):
    make_subscription()
    with caplog.at_level(logging.INFO):
        call_command("purge")

    said = capsys.readouterr().out + caplog.text
    assert "request_counts: 0" in said and "leser.example" not in said


def test_a_run_that_was_broken_off_is_known_as_such_some_hours_later():
    lost = PurgeRun.objects.create(started_at=NOW)

    purging.purge(NOW + timedelta(hours=5))
    lost.refresh_from_db()
    assert lost.state == PurgeRun.State.RUNNING
    purging.purge(NOW + timedelta(hours=7))

    lost.refresh_from_db()
    assert lost.state == PurgeRun.State.UNFINISHED


def test_audit_says_when_no_purge_was_complete_for_two_days():
    assert list(audit.broken_invariants(NOW)) == []  # a new site has had none
    purging.purge(NOW)
    PurgeRun.objects.create(started_at=NOW + DAY)  # begun, and killed

    assert list(audit.broken_invariants(NOW + 2 * DAY)) == []
    [said] = audit.broken_invariants(NOW + 2 * DAY + timedelta(microseconds=1))

    assert said == "What is due is not deleted: no purge was complete since 2026-11-22 10:30."


def test_audit_says_when_no_purge_was_ever_complete(refused_rule):
    purging.purge(NOW)

    said = list(audit.broken_invariants(NOW + 3 * DAY))

    assert "no purge was complete since 2026-11-22 10:30" in said[0]


def test_audit_names_what_is_still_there_days_after_its_time(settings):
    make_views(3, at=NOW - settings.EVIDENCE_VIEW_RETENTION)

    assert list(audit.broken_invariants(NOW + settings.PURGE_GRACE - timedelta(microseconds=1))) == []
    [said] = audit.broken_invariants(NOW + settings.PURGE_GRACE)

    assert said == "3 of views_of_evidence are still here, though due for more than 2 days."


def test_what_comes_to_be_due_at_once_has_until_the_next_purges(settings):
    purging.purge(NOW)
    make_views(3)  # as if a restriction had been lifted after it

    assert list(audit.broken_invariants(NOW + timedelta(hours=2))) == []
    [said] = audit.broken_invariants(NOW + timedelta(hours=3))

    assert said.startswith("3 of views_of_evidence are still here")


def test_a_purge_that_leaves_something_behind_is_not_called_complete(settings):
    class Stubborn(Refused):
        def purge(self, now, *, limit, note):
            note(0)
            yield

    retention.register(Rule(name="stubborn", what="x", period=str, since="x", basis="x", store=Stubborn()))
    try:
        run = purging.purge(NOW)
    finally:
        del retention._rules["stubborn"]

    assert run.state == PurgeRun.State.FAILED


def test_staff_are_told_when_the_purge_stands_still():
    purging.purge(NOW)

    assert not [alarm for alarm in alarms.current(NOW + DAY) if alarm.key == "retention"]
    [alarm] = [alarm for alarm in alarms.current(NOW + 3 * DAY) if alarm.key == "retention"]

    assert alarm.url == PAGE and alarm.mail_after is not None


# The officer's page


def officer(client, *permissions: str):
    user = User.objects.create_user("dsb", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def test_r37_the_officer_sees_every_rule_with_period_ground_and_counts(client):
    make_counts(4, at=timezone.now())
    Suppression.objects.create(address_hash="h", reason="hard_bounce", created_at=timezone.now() - 340 * DAY)

    page = officer(client, "view_purgerun").get(PAGE).content.decode()

    with translation.override("de"):
        for rule in retention.rules():
            assert str(rule.what) in page and rule.period() in page and str(rule.basis) in page
    assert "7 Tage (der Link gilt 72 Stunden)" in page


def test_r37_what_is_due_is_counted_for_each_day_ahead(settings):
    now = datetime(2026, 12, 20, 10, tzinfo=UTC)
    for days in (0, 1, 5, 9, 100):
        make_views(1, at=now - settings.EVIDENCE_VIEW_RETENTION + timedelta(days=days))

    [line] = [line for line in admin.lines(admin.horizons(now)) if line.rule.name == "views_of_evidence"]

    assert line.held == 5
    assert line.due == [1, 1, 3, 4, 4]  # now, tonight, in 7 days, in 30 days, when the year ends


@pytest.mark.parametrize(
    ("now", "tonight", "year_end"),
    [
        ("2026-03-29T00:30:00+00:00", "2026-03-29T22:00:00+00:00", "2026-12-31T23:00:00+00:00"),  # a day of 23 hours
        ("2026-10-25T00:30:00+00:00", "2026-10-25T23:00:00+00:00", "2026-12-31T23:00:00+00:00"),  # and one of 25
        ("2026-12-31T23:30:00+00:00", "2027-01-01T23:00:00+00:00", "2027-12-31T23:00:00+00:00"),  # 2027 in Berlin
    ],
)
def test_r37_tonight_and_the_end_of_the_year_are_those_of_berlin(now, tonight, year_end):
    horizons = admin.horizons(datetime.fromisoformat(now))

    assert horizons[1].at == datetime.fromisoformat(tonight)
    assert horizons[-1].at == datetime.fromisoformat(year_end)


def test_r37_the_last_runs_stand_below_in_words(client):
    PurgeRun.objects.create(started_at=NOW, ended_at=NOW, state="complete", counts={"sign_ups": 3, "readers": 0})

    page = officer(client, "view_purgerun").get(PAGE).content.decode()

    assert "Anmeldung ohne Bestätigung: 3" in page and "vollständig" in page
    assert "readers" not in page


@pytest.mark.parametrize("permissions", [[], ["view_subscriber"]])
def test_r37_the_page_needs_its_own_permission(client, permissions):
    assert officer(client, *permissions).get(PAGE).status_code == 403


def test_r37_nobody_changes_or_deletes_the_record_of_a_run(admin_client):
    run = purging.purge(NOW)

    assert admin_client.get(f"{PAGE}{run.pk}/change/").status_code == 200
    assert admin_client.post(f"{PAGE}{run.pk}/change/", {"state": "failed"}).status_code == 403
    assert admin_client.post(f"{PAGE}{run.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"{PAGE}add/").status_code == 403
