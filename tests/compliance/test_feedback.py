"""E-45 and R-38: what comes back from mailboxes ends the mailing, as far as it proves itself."""

import io
import sys
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from digests import events
from digests.models import ProviderEvent
from subscriptions import consent, suppression
from subscriptions.consent import Origin
from subscriptions.models import ConsentRecord, Subscription, Suppression
from tests.bounce_mails import ADDRESS, complaint, delivery_report
from tests.esp_reports import Brevo
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _returning(settings):
    settings.BOUNCE_ADDRESS = "bounces@wochenblitz.example"


def comes_back(monkeypatch, content, *, days_ago=0):
    monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": io.BytesIO(content)}))
    call_command("ingest_bounce")
    waiting = ProviderEvent.objects.filter(state="waiting")
    waiting.update(received_at=timezone.now() - timedelta(days=days_ago))
    events.process(timezone.now())


def states():
    return sorted(Subscription.objects.values_list("state", flat=True))


def test_e45_a_complaint_ends_every_newsletter_and_no_form_brings_the_address_back(post, monkeypatch):
    daily, weekly = make_newsletter(), make_newsletter()
    post.subscribe(ADDRESS, daily, weekly)
    (issue,) = post.issue(daily)

    comes_back(monkeypatch, complaint(issue.sender))

    assert states() == ["ended", "ended"]
    assert post.issue(weekly) == []
    before = len(post.all())
    send_form(ADDRESS, daily)
    assert len(post.all()) == before
    proof = ConsentRecord.objects.filter(type="withdrawn").get().payload.body
    assert proof["source"] == "bounce_mail" and len(proof["newsletters"]) == 2


def test_e45_an_address_that_does_not_exist_is_mailed_no_more_after_one_bounce(post, monkeypatch):
    daily, weekly = make_newsletter(), make_newsletter()
    post.subscribe(ADDRESS, daily, weekly)
    (issue,) = post.issue(daily)

    comes_back(monkeypatch, delivery_report(issue.sender, status="5.1.1"))

    assert states() == ["ended", "ended"] and post.issue(weekly) == []
    assert suppression.find(ADDRESS).reason == Suppression.Reason.HARD_BOUNCE


def test_e45_a_full_mailbox_is_never_taken_for_a_dead_one(post, monkeypatch):
    daily = make_newsletter()
    post.subscribe(ADDRESS, daily)
    (issue,) = post.issue(daily)

    for status in ("5.2.2", "4.2.2"):
        comes_back(monkeypatch, delivery_report(issue.sender, status=status, diagnosis="smtp; 552 5.2.2 quota"))

    assert states() == ["active"] and not Suppression.objects.exists()


def test_e45_three_days_of_soft_bounces_pause_and_the_reader_can_go_on(post, monkeypatch):
    newsletters = [make_newsletter() for _ in range(3)]
    post.subscribe(ADDRESS, *newsletters)
    mails = [post.issue(newsletter)[0] for newsletter in newsletters]

    for mail, days_ago in zip(mails, (15, 2, 0), strict=True):
        comes_back(monkeypatch, delivery_report(mail.sender, status="4.4.7", diagnosis=""), days_ago=days_ago)
    assert states() == ["active"] * 3  # three days, but not within two weeks
    comes_back(monkeypatch, delivery_report(mails[0].sender, status="4.3.0", diagnosis=""), days_ago=5)

    assert states() == ["paused"] * 3
    assert ConsentRecord.objects.filter(type="changed").count() == 3
    paused = Subscription.objects.first()
    assert consent.resume(paused, origin=Origin(source="preferences"), now=timezone.now())


def test_e45_a_forged_report_ends_nothing(post, monkeypatch):
    daily = make_newsletter()
    post.subscribe(ADDRESS, daily)
    post.issue(daily)

    comes_back(monkeypatch, delivery_report("bounces@wochenblitz.example"))
    comes_back(monkeypatch, complaint("newsletter@wochenblitz.example"))

    assert states() == ["active"] and not Suppression.objects.exists()


def test_r38_after_a_hard_bounce_the_readers_own_confirmation_opens_the_mailbox_again(post, monkeypatch):
    daily = make_newsletter()
    post.subscribe(ADDRESS, daily)
    (issue,) = post.issue(daily)
    comes_back(monkeypatch, delivery_report(issue.sender))
    assert suppression.is_suppressed(ADDRESS)

    post.subscribe(ADDRESS, daily)

    assert states() == ["active"] and not suppression.is_suppressed(ADDRESS)
    # The old report, should it come again, is older than this proof.
    comes_back(monkeypatch, delivery_report(issue.sender, status="5.1.2", diagnosis=""))
    assert states() == ["active"]


def test_r38_a_providers_complaint_stays_until_staff_decide(post, settings):
    daily = make_newsletter()
    post.subscribe(ADDRESS, daily)
    post.issue(daily)
    brevo, row = Brevo(), Subscription.objects.get().subscriber.deliveries.get()
    backend = settings.EMAIL_BACKEND
    brevo.configure(settings)
    assert brevo.post(brevo.complaint, row=row.uuid, to=ADDRESS).status_code == 200
    events.process(timezone.now())
    settings.EMAIL_BACKEND = backend

    before = len(post.all())
    send_form(ADDRESS, daily)

    assert len(post.all()) == before and states() == ["ended"]
    assert suppression.find(ADDRESS).reason == Suppression.Reason.COMPLAINT
    assert a_reader().get("/newsletter/").status_code == 200
