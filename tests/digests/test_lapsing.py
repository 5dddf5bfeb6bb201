"""A consent that was not used for too long is not used again in silence (R-10)."""

import smtplib
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from digests import delivery, release
from digests.models import Delivery
from subscriptions.models import Subscription, lapse_limit
from tests.backends import ScriptedBackend
from tests.makers import make_digest, make_newsletter, make_sending_digest, make_subscription, utc
from tests.subscriptions.reading import a_reader, sign_up, subscribe

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("now", "limit"),
    [
        ("2026-11-22T10:00:00+01:00", "2024-11-22T10:00:00+01:00"),
        ("2026-02-28T10:00:00+01:00", "2024-02-28T10:00:00+01:00"),
        ("2028-02-29T10:00:00+01:00", "2026-02-28T10:00:00+01:00"),
        ("2026-12-31T23:59:00+01:00", "2024-12-31T23:59:00+01:00"),
        ("2027-01-01T00:00:00+01:00", "2025-01-01T00:00:00+01:00"),
        ("2026-07-01T10:00:00+02:00", "2024-07-01T10:00:00+02:00"),
    ],
)
def test_r10_the_gap_is_counted_in_calendar_months(now, limit):
    moment = timezone.datetime.fromisoformat
    assert lapse_limit(moment(now)) == moment(limit)


@pytest.mark.parametrize("months", [1, 11, 12, 13])
def test_r10_the_gap_is_a_setting(settings, months):
    settings.CONSENT_LAPSE_MONTHS = months
    expected = {1: (2026, 2, 28), 11: (2025, 4, 30), 12: (2025, 3, 31), 13: (2025, 2, 28)}[months]

    limit = lapse_limit(utc(2026, 3, 31, 10))

    assert (limit.year, limit.month, limit.day) == expected


def test_r10_a_reader_is_not_mailed_after_two_years_without_the_newsletter():
    newsletter = make_newsletter()
    now = timezone.now()
    lapsed = make_subscription(newsletter, active_since=lapse_limit(now))
    fresh = make_subscription(newsletter, active_since=lapse_limit(now) + MINUTE)
    sent = make_subscription(newsletter, active_since=now - timedelta(days=2000), last_sent_at=now - timedelta(days=9))
    digest = make_digest(newsletter)

    assert release.start_sending(digest, now=now)
    delivery.deliver_due()

    assert {message.to[0] for message in mail.outbox} == {fresh.subscriber.address, sent.subscriber.address}
    assert digest.expected_count == 2
    assert "1 " in digest.changes.get(state="sending").reason
    assert Subscription.objects.lapsed(now).get() == lapsed


def test_r10_a_consent_that_lapses_while_its_mail_waits_is_left_out_with_the_reason():
    digest = make_sending_digest(readers=2)
    old = Subscription.objects.order_by("pk")[0]
    Subscription.objects.filter(pk=old.pk).update(active_since=lapse_limit(timezone.now()) - MINUTE)

    delivery.deliver_due()

    assert Delivery.objects.get(subscriber=old.subscriber).reason == "lapsed"
    assert Delivery.objects.get(subscriber=old.subscriber).state == Delivery.State.SUPPRESSED
    assert len(mail.outbox) == 1 and digest.deliveries.count() == 2
    old.refresh_from_db()
    assert old.last_sent_at is None and Subscription.objects.lapsed().get() == old


def test_r10_being_sent_the_newsletter_keeps_the_consent_and_outlives_the_deliveries():
    make_sending_digest(readers=1)
    delivery.deliver_due()
    Delivery.objects.all().delete()

    subscription = Subscription.objects.get()

    assert subscription.last_sent_at is not None
    assert Subscription.objects.mailable(sent_at := subscription.last_sent_at + timedelta(days=729)).exists()
    assert not Subscription.objects.mailable(sent_at + timedelta(days=3)).exists()


def test_r10_the_day_of_sending_is_written_once_a_month():
    digest = make_sending_digest(readers=2)
    recently, long_ago = timezone.now() - timedelta(days=29), timezone.now() - timedelta(days=31)
    first, second = Subscription.objects.order_by("pk")
    Subscription.objects.filter(pk=first.pk).update(last_sent_at=recently)
    Subscription.objects.filter(pk=second.pk).update(last_sent_at=long_ago)

    delivery.deliver_due()

    first.refresh_from_db()
    second.refresh_from_db()
    assert first.last_sent_at == recently and second.last_sent_at > recently
    assert digest.deliveries.count() == 2


def test_what_surely_did_not_go_keeps_no_consent(settings):
    answers = {1: (550, b"5.1.1 no such user"), 2: (450, b"4.2.0 greylisted")}

    def answer(message, call):
        if call in answers:
            raise smtplib.SMTPRecipientsRefused({message.to[0]: answers[call]})
        if call == 3:
            raise TimeoutError

    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset(answer)
    make_sending_digest(readers=6)

    delivery.deliver_due()

    found = Delivery.objects.order_by("subscriber_id").values_list("state", "subscriber__subscriptions__last_sent_at")
    assert [(state, sent_at is not None) for state, sent_at in found] == [
        ("", True),
        ("refused", False),
        ("", False),  # waits again
        ("uncertain", True),
        ("", False),  # behind the fault
        ("", False),
    ]


def test_r10_whoever_signs_up_again_is_mailed_on_the_new_consent(time_machine):
    newsletter = make_newsletter()
    time_machine.move_to("2024-02-29T10:00:00Z", tick=False)
    subscribe("leserin@example.com", newsletter)
    time_machine.move_to("2026-02-28T10:01:00Z", tick=False)
    assert Subscription.objects.mailable().exists()
    time_machine.move_to("2026-03-01T10:00:00Z", tick=False)
    assert not Subscription.objects.mailable().exists()

    assert a_reader().post(sign_up("leserin@example.com", newsletter)).status_code == 303

    assert Subscription.objects.mailable().exists()


def test_r10_staff_see_how_many_consents_have_lapsed(admin_client):
    newsletter = make_newsletter()
    make_subscription(newsletter)
    make_subscription(newsletter, active_since=timezone.now() - timedelta(days=800))

    page = admin_client.get("/admin/subscriptions/newsletter/")
    detail = admin_client.get(f"/admin/subscriptions/newsletter/{newsletter.pk}/change/")

    row = page.context["cl"].queryset.get()
    assert (row.readers, row.lapsed) == (2, 1)
    assert 'class="field-lapsed"' in page.content.decode() and "field-lapsed" in detail.content.decode()
