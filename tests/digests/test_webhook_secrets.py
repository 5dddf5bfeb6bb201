"""Secrets without which nobody may report, and what Amazon's messages have to prove."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.core.cache import cache

from digests import checks, events
from digests.models import ProviderEvent
from tests import esp_reports
from tests.amazon import CERTIFICATE_URL, HOST, TOPIC, Amazon, as_post
from tests.esp_reports import KEY, PASSWORD

# Configuration


def found(settings, slug="", **anymail):
    if slug:
        settings.EMAIL_BACKEND = f"anymail.backends.{slug}.EmailBackend"
    settings.ANYMAIL = anymail
    return [message.id for message in checks.check_events()]


@pytest.mark.parametrize(
    "slug",
    [
        "amazon_ses", "brevo", "mailersend", "mailgun", "mailjet", "mailtrap", "mandrill", "postmark", "resend",
        "sparkpost", "unisender_go", "postal", "sendgrid",
    ],
)  # fmt: skip
def test_a_provider_without_its_secret_is_refused_at_the_start(settings, slug):
    assert found(settings, slug) == ["digests.E001"]
    (message,) = checks.check_events()
    assert message.is_serious() and "ANYMAIL_" in message.hint


def test_each_secret_is_enough(settings):
    with Amazon() as amazon:
        for esp in esp_reports.all_esps(amazon):
            assert found(settings, esp.slug, **esp.anymail()) == [], esp.slug


@pytest.mark.parametrize("slug", ["scaleway", "console", "test"])
def test_who_does_not_report_needs_no_secret(settings, slug):
    assert found(settings, slug) == []


def test_the_api_key_stands_in_for_mailguns_signing_key_with_a_warning(settings):
    assert found(settings, "mailgun", MAILGUN_API_KEY=KEY) == ["digests.W001"]


@pytest.mark.parametrize(
    ("slug", "anymail", "expected"),
    [
        ("postal", {"POSTAL_WEBHOOK_KEY": "no key"}, "digests.E002"),
        ("sendgrid", {"SENDGRID_TRACKING_WEBHOOK_VERIFICATION_KEY": "no key"}, "digests.E002"),
        ("resend", {"RESEND_SIGNING_SECRET": "whsec_!"}, "digests.E002"),
        ("brevo", {"WEBHOOK_SECRET": "password"}, "digests.E003"),
        ("brevo", {"WEBHOOK_SECRET": "user:short"}, "digests.E003"),
        ("amazon_ses", {"AMAZON_SES_SNS_TOPICS": ["arn:aws:sqs:eu-central-1:123456789012:queue"]}, "digests.E004"),
    ],
)
def test_a_secret_that_is_none_is_refused(settings, slug, anymail, expected):
    assert found(settings, slug, **anymail) == [expected]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("bounces@wochenblitz.example", []),
        ("bounces@ruecklauf.wochenblitz.example", []),
        ("bounces", ["digests.E005"]),
        ("bounces+x@wochenblitz.example", ["digests.E006"]),
        ("a-very-long-name-for-bounces@wochenblitz.example", ["digests.E006"]),
        ("bounces@elsewhere.example", ["digests.W002"]),
    ],
)
def test_the_return_address_is_one_that_can_be_told_apart(settings, address, expected):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.DEFAULT_FROM_EMAIL = "Wochenblitz <newsletter@wochenblitz.example>"
    settings.BOUNCE_ADDRESS = address

    assert found(settings) == expected


def test_a_return_address_beside_a_provider_that_reports_itself_is_pointed_out(settings):
    settings.BOUNCE_ADDRESS = "bounces@wochenblitz.example"
    settings.DEFAULT_FROM_EMAIL = "Wochenblitz <newsletter@wochenblitz.example>"

    assert found(settings, "brevo", WEBHOOK_SECRET=PASSWORD) == ["digests.W003"]


# Amazon


@pytest.fixture
def ses(settings, monkeypatch, db):
    with Amazon() as amazon:
        esp = esp_reports.AmazonSes(amazon)
        esp.configure(settings)
        amazon.lead_there(monkeypatch)
        yield esp


def a_message(ses, **values):
    return ses.amazon.message(json.dumps(ses.report(ses.hard, row=uuid4(), to="x@leser.example", at=now())), **values)


def now():
    return datetime.now(UTC)


def answer(ses, message):
    code = ses.send(as_post(message)).status_code
    events.process(now())
    return code


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_amazons_signature_hold(ses, version):
    assert answer(ses, a_message(ses, SignatureVersion=version)) == 200
    assert ProviderEvent.objects.get().state == "unmatched"


def test_the_certificate_is_asked_for_once(ses):
    for _ in range(3):
        assert answer(ses, a_message(ses, MessageId=str(uuid4()))) == 200

    assert ses.amazon.requests == [CERTIFICATE_URL.removeprefix(f"https://{HOST}")]


@pytest.mark.parametrize(
    "values",
    [
        {"TopicArn": "arn:aws:sns:eu-central-1:999999999999:newsletter-events"},
        {"TopicArn": "arn:aws:sns:us-east-1:123456789012:newsletter-events"},
        {"TopicArn": None},
        {"TopicArn": ["x"]},
        {"SignatureVersion": "3"},
        {"SigningCertURL": f"http://{HOST}/SimpleNotificationService-9c6465fa7f48f5ca.pem"},
        {"SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-9c6465fa7f48f5ca.pem"},
        {"SigningCertURL": f"https://{HOST}.evil.example/SimpleNotificationService-9c6465fa7f48f5ca.pem"},
        {"SigningCertURL": f"https://user@{HOST}/SimpleNotificationService-9c6465fa7f48f5ca.pem"},
        {"SigningCertURL": f"https://{HOST}:8443/SimpleNotificationService-9c6465fa7f48f5ca.pem"},
        {"SigningCertURL": f"https://{HOST}/bucket/SimpleNotificationService-9c6465fa7f48f5ca.pem"},
        {"SigningCertURL": f"https://{HOST}/SimpleNotificationService-9c6465fa7f48f5ca.pem?x"},
        {"SigningCertURL": f"https://{HOST}/SimpleNotificationService-9c6465fa7f48f5ca.pem#x"},
        {"SigningCertURL": "https://[::1"},
        {"SigningCertURL": 7},
        {"Timestamp": "2026-01-02T03:04:05.678Z"},
    ],
    ids=str,
)
def test_a_message_of_anothers_topic_or_certificate_is_refused_without_asking_anybody(ses, values):
    assert answer(ses, a_message(ses, **values)) == 403
    assert not ProviderEvent.objects.exists()
    assert len(ses.amazon.requests) == ("Timestamp" in values)


def test_a_signature_is_about_the_whole_message(ses):
    message = a_message(ses)
    for name, value in {"Message": "{}", "MessageId": "another", "Subject": "added", "Signature": "AAAA"}.items():
        assert answer(ses, {**message, name: value}) == 403
    assert answer(ses, {**message, "Signature": "not base 64"}) == 403
    assert not ProviderEvent.objects.exists()


def test_a_certificate_that_cannot_be_had_makes_amazon_try_again_and_us_not_ask_at_once(ses, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody there

    assert answer(ses, a_message(ses)) == 503
    ses.amazon.lead_there(monkeypatch)
    assert answer(ses, a_message(ses)) == 503
    cache.clear()
    assert answer(ses, a_message(ses)) == 200


def test_what_is_no_certificate_is_refused(ses):
    ses.amazon.certificate = b"x" * 100_000
    assert answer(ses, a_message(ses)) == 403
    cache.clear()
    ses.amazon.certificate = b"<html>"
    assert answer(ses, a_message(ses)) == 403
    assert not ProviderEvent.objects.exists()


def subscription(ses, **values):
    asked = {
        "Type": "SubscriptionConfirmation",
        "Token": "2336412f37fb687f5d51e6e2",
        "SubscribeURL": "https://evil.example/",
    }
    return ses.amazon.message("You have chosen to subscribe to the topic", **{**asked, **values})


def test_a_subscription_to_our_topic_is_confirmed_at_amazon_and_nowhere_else(ses, caplog):
    assert answer(ses, subscription(ses)) == 200

    (_certificate, asked) = ses.amazon.requests
    assert asked.startswith("/?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns%3A")
    assert "Token=2336412f37fb687f5d51e6e2" in asked
    assert ProviderEvent.objects.get().state == "done" and ProviderEvent.objects.get().raw == ""
    assert not [record for record in caplog.records if record.name.startswith("digests") and "2336412f" in str(record)]


def test_a_subscription_to_a_topic_that_is_not_ours_is_not_confirmed(ses):
    assert answer(ses, subscription(ses, TopicArn=TOPIC.replace("events", "others"))) == 403
    assert ses.amazon.requests == []


def test_a_confirmation_that_fails_is_tried_again(ses):
    answer(ses, a_message(ses))
    ses.amazon.status = 500
    assert answer(ses, subscription(ses)) == 200
    waiting = ProviderEvent.objects.get(state="waiting")
    assert waiting.attempts == 1 and waiting.next_attempt_at > now()

    ses.amazon.status = 200
    events.process(now() + timedelta(minutes=5))
    waiting.refresh_from_db()
    assert waiting.state == "done"


def test_messages_about_the_topic_itself_are_no_reports(ses):
    assert answer(ses, ses.amazon.message("Successfully validated SNS topic for Amazon SES event publishing.")) == 200
    assert answer(ses, subscription(ses, Type="UnsubscribeConfirmation")) == 200
    assert not ProviderEvent.objects.exists()
