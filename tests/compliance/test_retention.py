"""Every rule of retention at its very boundary, on both sides of year ends, leap days and clock changes (R-37).

`CASES` holds one way to make a row for each rule; a rule without one fails `test_r37_no_rule_is_without_its_boundary`.
What is expected is written down here in the words of R-37 and not taken from the code.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone, translation

from digests.models import Delivery, DeliveryBatch, Digest, ProviderEvent
from newsroom import persons, retention
from newsroom.mail.models import OutboxMail
from newsroom.retention import purging
from newsroom.retention.models import PurgeRun
from subscriptions import erasures, ledger, suppression
from subscriptions.ledger import Act
from subscriptions.models import (
    AddressChange,
    ConsentRecord,
    EvidenceView,
    PrivacyRequest,
    RequestCount,
    RightsCase,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from tests.makers import make_newsletter, make_subscriber, make_subscription

pytestmark = pytest.mark.django_db

ADDRESS = "leserin@leser.example"
BERLIN = ZoneInfo("Europe/Berlin")
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
YEAR = 365 * DAY
MOMENTS = {
    "an ordinary day": datetime(2026, 11, 22, 10, 15, 30, 123456, UTC),
    "a whole second": datetime(2026, 11, 22, 10, 15, 30, tzinfo=UTC),
    "the last microsecond of a year in Berlin": datetime(2026, 12, 31, 22, 59, 59, 999999, UTC),
    "the first one of a year in Berlin": datetime(2026, 12, 31, 23, tzinfo=UTC),
    "still last year in UTC": datetime(2026, 12, 31, 23, 30, tzinfo=UTC),
    "a leap day": datetime(2028, 2, 29, 12, tzinfo=UTC),
    "the last day of February": datetime(2027, 2, 28, 22, 59, 59, 999999, UTC),
    "before summer time": datetime(2027, 3, 28, 0, 59, 59, 999999, UTC),
    "summer time begins": datetime(2027, 3, 28, 1, tzinfo=UTC),
    "the first half past two": datetime(2027, 10, 31, 0, 30, tzinfo=UTC),
    "the second half past two": datetime(2027, 10, 31, 1, 30, tzinfo=UTC),
}


# One row (or what belongs together) of a rule, made at a moment; returned is the moment from which it is due.


def a_sign_up(at: datetime) -> datetime:
    sign_up = SignUp.objects.create(
        address=ADDRESS, address_key=ADDRESS, language="de", token_hash=uuid4().hex, requested_at=at,
        expires_at=at + 3 * DAY,
    )  # fmt: skip
    _record(ConsentRecord.Type.REQUESTED, at=at, subject=sign_up.uuid)
    return at + 7 * DAY


def a_service_mail(at: datetime) -> datetime:
    state = OutboxMail.State.SENT
    OutboxMail.objects.create(kind="sign_up", reference=_cause(), state=state, created_at=at, next_attempt_at=at)
    return at + 7 * DAY


def a_former_reader(at: datetime) -> datetime:
    reader = _reader(at)
    make_subscription(subscriber=reader, state="ended", active_since=at, ended_at=at)
    return at + 90 * DAY


def a_proof(at: datetime) -> datetime:
    _record(ConsentRecord.Type.CONFIRMED, at=at - DAY)
    _record(ConsentRecord.Type.WITHDRAWN, at=at)
    return datetime(at.astimezone(BERLIN).year + 4, 1, 1, tzinfo=BERLIN)


def a_bounce(at: datetime) -> datetime:
    suppression.note(ADDRESS, Suppression.Reason.HARD_BOUNCE, at)
    return at + YEAR


def a_line_of_the_journal(at: datetime) -> datetime:
    erasures.note(ADDRESS, at=at)
    return at + 70 * DAY


def a_view_of_evidence(at: datetime) -> datetime:
    hashed = suppression.address_hash(ADDRESS)
    EvidenceView.objects.create(address_hash=hashed, actor="staff:1", way=EvidenceView.Way.PAGE, viewed_at=at)
    return at + YEAR


def a_request_whose_link_was_used(at: datetime) -> datetime:
    _request(at, opened_at=at, state=PrivacyRequest.State.OPENED)
    return at + 3 * YEAR


def a_request_whose_link_was_not_used(at: datetime) -> datetime:
    _request(at)
    return at + 7 * DAY


def a_count_of_a_network(at: datetime) -> datetime:
    RequestCount.objects.create(network="n", window_start=at, count=3)
    return at + timedelta(hours=24)


def a_delivery(at: datetime) -> datetime:
    digest = _digest(at)
    Delivery.objects.create(digest=digest, batch=digest.batches.get(), subscriber=_reader(at), created_at=at)
    return at + 90 * DAY


def a_batch(at: datetime) -> datetime:
    _digest(at)
    return at + 90 * DAY


def an_entry_of_the_admins_log(at: datetime) -> datetime:
    staff = User.objects.create_user("redaktion")
    LogEntry.objects.create(user=staff, action_time=at, object_repr="x", action_flag=2)
    return at + YEAR


def a_session(at: datetime) -> datetime:
    Session.objects.create(session_key=uuid4().hex, session_data="", expire_date=at + timedelta(hours=8))
    return at + timedelta(hours=8)


def a_run_of_the_purge(at: datetime) -> datetime:
    PurgeRun.objects.create(started_at=at, ended_at=at, state=PurgeRun.State.COMPLETE)
    return at + YEAR


def a_case(at: datetime) -> datetime:
    _case(at, closed_at=at, state=RightsCase.State.DONE)
    _case(at)  # still open: for that there is no end
    return at + 3 * YEAR


def a_change_of_address(at: datetime) -> datetime:
    _change(at, confirmed_at=at, state=AddressChange.State.CONFIRMED)
    return at + 90 * DAY


def a_change_of_address_nobody_confirmed(at: datetime) -> datetime:
    _change(at)
    return at + 7 * DAY


def a_report_of_nobodys_mail(at: datetime) -> datetime:
    state = ProviderEvent.State.UNMATCHED
    ProviderEvent.objects.create(source="smtp", key=uuid4().hex, state=state, received_at=at, next_attempt_at=at)
    return at + 7 * DAY


Make = Callable[[datetime], datetime]
CASES: list[tuple[str, Make]] = [
    ("sign_ups", a_sign_up),
    ("service_mails", a_service_mail),
    ("readers", a_former_reader),
    ("evidence", a_proof),
    ("suppressions", a_bounce),
    ("erasures", a_line_of_the_journal),
    ("views_of_evidence", a_view_of_evidence),
    ("privacy_requests", a_request_whose_link_was_used),
    ("privacy_requests", a_request_whose_link_was_not_used),
    ("rights_cases", a_case),
    ("address_changes", a_change_of_address),
    ("address_changes", a_change_of_address_nobody_confirmed),
    ("request_counts", a_count_of_a_network),
    ("deliveries", a_delivery),
    ("batches", a_batch),
    ("provider_events", a_report_of_nobodys_mail),
    ("admin_log", an_entry_of_the_admins_log),
    ("sessions", a_session),
    ("purge_runs", a_run_of_the_purge),
]
# About networks, batches, runs, staff, and who is erased or unknown, not about a reader.
NOBODYS = {"request_counts", "erasures", "batches", "provider_events", "admin_log", "sessions", "purge_runs"}


def _reader(at: datetime) -> Subscriber:
    return Subscriber.objects.filter(address_key=ADDRESS).first() or make_subscriber(ADDRESS, created_at=at)


def _cause() -> object:
    """The sign-up that caused a mail; made anew, it is too young to be purged itself."""
    now = timezone.now() + 20 * YEAR
    sign_up = SignUp.objects.create(
        address=ADDRESS, address_key=ADDRESS, language="de", token_hash=uuid4().hex, requested_at=now, expires_at=now
    )
    return sign_up.uuid


def _record(act: ConsentRecord.Type, *, at: datetime, subject: object = None) -> ConsentRecord:
    body = {"address": ADDRESS}
    return ledger.record(Act(type=act, subject=subject or uuid4(), address_key=ADDRESS, body=body), at=at)


def _request(at: datetime, **values) -> None:
    PrivacyRequest.objects.create(
        address=ADDRESS, address_key=ADDRESS, token_hash=uuid4().hex, requested_at=at, expires_at=at + DAY, **values
    )


def _case(at: datetime, **values) -> None:
    received = at.astimezone(BERLIN).date()
    RightsCase.objects.create(
        kind=RightsCase.Kind.ACCESS, way=RightsCase.Way.LETTER, address=ADDRESS, address_key=ADDRESS,
        received_on=received, due_on=received + 30 * DAY, entered_at=at, entered_by="staff:1", **values,
    )  # fmt: skip


def _change(at: datetime, **values) -> None:
    # The reader has a newsletter, or he would go himself.
    make_subscription(subscriber=_reader(at))
    AddressChange.objects.create(
        subscriber=_reader(at), old_address=ADDRESS, old_address_key=ADDRESS, new_address="neu@leser.example",
        new_address_key="neu@leser.example", token_hash=uuid4().hex, requested_at=at, expires_at=at + 3 * DAY, **values,
    )  # fmt: skip


def _digest(at: datetime) -> Digest:
    digest = Digest.objects.create(
        newsletter=make_newsletter(), date=at.astimezone(BERLIN).date(), state=Digest.State.FINISHED, due_at=at,
        not_after=at, created_at=at, expected_count=1,
    )  # fmt: skip
    DeliveryBatch.objects.create(
        digest=digest, number=1, reader_ids=[1], size=1, state=DeliveryBatch.State.DONE, next_attempt_at=at
    )
    return digest


def rule_of(name: str) -> retention.Rule:
    [rule] = [rule for rule in retention.rules() if rule.name == name]
    return rule


def test_r37_no_rule_is_without_its_boundary():
    assert {name for name, _make in CASES} == {rule.name for rule in retention.purged_rules()}


CASE_IDS = [make.__name__ for _name, make in CASES]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("name", "make"), CASES, ids=CASE_IDS)
def test_r37_what_a_rule_keeps_is_there_until_the_last_microsecond_and_not_longer(name, make, moment):
    due_at = make(MOMENTS[moment])
    store = rule_of(name).store
    held = store.count()

    before = purging.purge(due_at - MICROSECOND).counts[name]
    assert (before, store.count_due(due_at - MICROSECOND)) == (0, 0) and store.count() >= held
    assert store.count_due(due_at) >= 1

    run = purging.purge(due_at)

    assert run.state == PurgeRun.State.COMPLETE and run.counts[name] >= 1
    assert store.count_due(due_at) == 0


OF_READERS = [case for case in CASES if case[0] not in NOBODYS]


@pytest.mark.parametrize(("name", "make"), OF_READERS, ids=[make.__name__ for _name, make in OF_READERS])
def test_r37_nothing_of_a_restricted_reader_goes_until_the_restriction_ends(name, make):
    due_at = make(MOMENTS["an ordinary day"])
    _reader(MOMENTS["an ordinary day"])
    Subscriber.objects.update(restricted_at=due_at - DAY)
    later = due_at + 10 * YEAR

    assert purging.purge(later).counts[name] == 0
    Subscriber.objects.update(restricted_at=None)

    assert purging.purge(later).counts[name] >= 1


@pytest.mark.parametrize(
    ("last_act", "last_day"),
    [
        ("2026-03-01T10:00:00+00:00", "2029-12-31"),
        ("2026-12-31T22:59:59+00:00", "2029-12-31"),
        ("2026-12-31T23:00:00+00:00", "2030-12-31"),  # in Berlin it is 2027
        ("2026-12-31T23:30:00+00:00", "2030-12-31"),
        ("2028-02-29T12:00:00+00:00", "2031-12-31"),
    ],
)
def test_r13_proof_is_there_on_the_last_day_of_the_third_year_in_berlin_and_gone_on_the_next(last_act, last_day):
    a_proof(datetime.fromisoformat(last_act))
    midnight = datetime.fromisoformat(last_day).replace(tzinfo=BERLIN) + DAY

    assert purging.purge(midnight - MICROSECOND).counts["evidence"] == 0
    assert purging.purge(midnight).counts["evidence"] == 2


@pytest.mark.parametrize(
    ("last_sent", "lapses"),
    [
        ("2026-11-22T10:15:30.123456+01:00", "2028-11-22T10:15:30.123456+01:00"),
        ("2027-12-31T23:30:00+01:00", "2029-12-31T23:30:00+01:00"),
        ("2026-02-28T12:00:00+01:00", "2028-02-28T12:00:00+01:00"),
        ("2026-03-01T00:00:00+01:00", "2028-03-01T00:00:00+01:00"),
        # Two years later there is no such day: not before the next one begins.
        ("2028-02-29T12:00:00+01:00", "2030-03-01T00:00:00+01:00"),
        # By the wall clock, which in that night goes from two to three at once; two years later it does not.
        ("2027-03-28T03:00:00+02:00", "2029-03-28T02:00:00+02:00"),
        ("2026-10-25T12:00:00+01:00", "2028-10-25T12:00:00+02:00"),  # two years later it is still summer time
        # The second half past two of that night; the first one is an hour earlier and lapses no later.
        ("2027-10-31T02:30:00+01:00", "2029-10-31T03:00:00+01:00"),
    ],
)
def test_r10_a_consent_lapses_two_calendar_years_after_the_last_mail_to_the_microsecond(last_sent, lapses):
    sent_at, lapses_at = datetime.fromisoformat(last_sent), datetime.fromisoformat(lapses)
    make_subscription(active_since=sent_at - YEAR, last_sent_at=sent_at)

    def standing(at: datetime) -> tuple[bool, bool]:
        return Subscription.objects.mailable(at).exists(), Subscription.objects.lapsed(at).exists()

    assert standing(lapses_at - MICROSECOND) == (True, False)
    assert standing(lapses_at) == (False, True)
    assert rule_of("lapsed_consents").store.count_due(lapses_at) == 1


def test_r37_a_lapsed_consent_is_not_deleted():
    make_subscription(active_since=MOMENTS["an ordinary day"])

    purging.purge(MOMENTS["an ordinary day"] + 5 * YEAR)

    assert Subscription.objects.lapsed(MOMENTS["an ordinary day"] + 5 * YEAR).count() == 1


@pytest.mark.parametrize("language", ["de", "en"])
def test_r37_the_privacy_page_and_the_export_tell_the_periods_of_the_rules_and_no_others(client, language, settings):
    settings.SIGN_UP_RETENTION = 11 * DAY  # nobody typed that anywhere
    settings.LANGUAGE_CODE = language
    with translation.override(language):
        page = unescape(client.get("/datenschutz/").content.decode())
        told = {rule.period() for rule in retention.rules()}

        for rule in retention.public_rules():
            assert f'<th scope="row">{rule.what}</th><td>{rule.period()}</td>' in page
        assert page.count('<th scope="row">') == len(retention.public_rules())
        assert {holding.words.until() for holding in persons.holdings() if holding.words} <= told
    assert "11 " in page
