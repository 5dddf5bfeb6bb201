from datetime import timedelta

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone

from newsroom.tasks import purge_all
from subscriptions import consent, suppression
from subscriptions.consent import Origin
from subscriptions.models import (
    ConsentPayload,
    ConsentRecord,
    PrivacyRequest,
    RequestCount,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, at, mails_to, open_rights_page, send_form, sign_up, stamp, subscribe

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def test_an_unconfirmed_sign_up_goes_after_seven_days_with_all_it_said():
    sign_up("leserin@example.com", make_newsletter())
    now = timezone.now()

    purge_all(now + 7 * DAY - timedelta(minutes=1))
    assert SignUp.objects.exists()
    purge_all(now + 7 * DAY + timedelta(minutes=1))

    assert not SignUp.objects.exists() and not ConsentPayload.objects.exists()
    assert ConsentRecord.objects.count() == 2


def test_seven_days_bring_one_confirmation_mail_and_no_reminder(time_machine):
    time_machine.move_to("2026-11-22T10:00:00Z", tick=False)
    send_form("leserin@example.com", make_newsletter())

    for _day in range(8):
        mails_to("leserin@example.com")
        call_command("purge")
        time_machine.shift(DAY)

    assert len(mail.outbox) == 1


def test_the_proof_of_a_confirmed_sign_up_outlives_it():
    subscribe("leserin@example.com", make_newsletter())

    purge_all(timezone.now() + 400 * DAY)

    assert not SignUp.objects.exists()
    assert ConsentPayload.objects.count() == 3
    assert Subscription.objects.mailable().exists()


def test_proof_goes_after_the_third_calendar_year(time_machine):
    time_machine.move_to("2026-02-01T10:00:00Z", tick=False)
    subscribe("leserin@example.com", make_newsletter())
    time_machine.move_to("2026-03-01T10:00:00Z", tick=False)
    consent.withdraw_all(Subscriber.objects.get(), origin=Origin(source="test"), now=timezone.now())

    purge_all(at("2029-12-31T22:59"))  # 23:59 in Berlin
    assert ConsentPayload.objects.count() == 4
    purge_all(at("2029-12-31T23:01"))

    assert not ConsentPayload.objects.exists()


def test_proof_stays_while_the_reader_reads_however_long(time_machine):
    time_machine.move_to("2020-02-01T10:00:00Z", tick=False)
    first, second = make_newsletter(), make_newsletter()
    subscribe("leserin@example.com", first, second)
    consent.withdraw(Subscription.objects.get(newsletter=first), origin=Origin(source="test"), now=timezone.now())

    purge_all(at("2030-01-01T10:00"))

    assert ConsentPayload.objects.count() == 4


def test_proof_of_a_restricted_reader_is_not_deleted(time_machine):
    time_machine.move_to("2020-02-01T10:00:00Z", tick=False)
    subscribe("leserin@example.com", make_newsletter())
    reader = Subscriber.objects.get()
    consent.withdraw_all(reader, origin=Origin(source="test"), now=timezone.now())
    Subscriber.objects.update(restricted_at=timezone.now())

    purge_all(at("2030-01-01T10:00"))

    assert ConsentPayload.objects.exists() and Subscriber.objects.exists()


def test_a_fresh_sign_up_survives_the_purge_of_old_proof(time_machine):
    time_machine.move_to("2020-02-01T10:00:00Z", tick=False)
    newsletter = make_newsletter()
    subscribe("leserin@example.com", newsletter)
    consent.withdraw_all(Subscriber.objects.get(), origin=Origin(source="test"), now=timezone.now())
    time_machine.move_to("2030-01-01T10:00:00Z", tick=False)
    link = sign_up("leserin@example.com", newsletter)

    purge_all(timezone.now())

    assert list(ConsentPayload.objects.values_list("record__type", flat=True)) == ["requested", "mail_sent"]
    assert a_reader().post(link).status_code == 303


def test_a_reader_without_newsletters_goes_when_his_deliveries_have_gone(settings):
    subscribe("leserin@example.com", make_newsletter())
    now = timezone.now()
    consent.withdraw_all(Subscriber.objects.get(), origin=Origin(source="test"), now=now)

    purge_all(now + settings.DELIVERY_RETENTION - DAY)
    assert Subscriber.objects.exists()
    purge_all(now + settings.DELIVERY_RETENTION + DAY)

    assert not Subscriber.objects.exists()


def test_requests_go_soon_if_their_link_was_never_used_and_late_if_it_was(settings):
    subscribe("leserin@example.com", make_newsletter())
    open_rights_page("leserin@example.com")
    a_reader().post("/meine-daten/", {"email": "nobody@example.com", "stamp": stamp(fingerprint="rights")})
    now = timezone.now()

    purge_all(now + 8 * DAY)
    assert PrivacyRequest.objects.get().address == "leserin@example.com"
    purge_all(now + settings.PRIVACY_REQUEST_RETENTION + DAY)

    assert not PrivacyRequest.objects.exists()


def test_counts_of_networks_go_after_a_day_and_bounces_after_a_year():
    send_form("leserin@example.com", make_newsletter())
    now = timezone.now()
    suppression.note("bounce@example.com", Suppression.Reason.HARD_BOUNCE, now)
    suppression.note("angry@example.com", Suppression.Reason.COMPLAINT, now)

    purge_all(now + DAY + timedelta(hours=1))
    assert not RequestCount.objects.exists() and Suppression.objects.count() == 2
    purge_all(now + 366 * DAY)

    assert Suppression.objects.get().reason == Suppression.Reason.COMPLAINT


def test_purging_twice_is_purging_once(capsys):
    sign_up("leserin@example.com", make_newsletter())
    SignUp.objects.update(requested_at=timezone.now() - 8 * DAY)

    call_command("purge")
    first = capsys.readouterr().out
    call_command("purge")

    assert "sign_ups: 1" in first and "sign_ups: 0" in capsys.readouterr().out
    assert "@" not in first


def test_the_sign_up_of_a_restricted_reader_stays_until_the_restriction_ends():
    subscribe("leserin@leser.example", make_newsletter())
    Subscriber.objects.update(restricted_at=timezone.now())
    later = timezone.now() + timedelta(days=8)

    assert purge_all(later)["sign_ups"] == 0
    Subscriber.objects.update(restricted_at=None)
    assert purge_all(later)["sign_ups"] == 1
