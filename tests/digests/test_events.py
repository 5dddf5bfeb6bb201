"""Providers' reports: who may report, what is made of it, and that nothing else changes anything."""

import json
import logging
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digests import delivery as delivering
from digests import events, outcomes, sweeping
from digests.models import Delivery, DeliveryBatch, Digest, ProviderEvent
from digests.webhooks.esps import reports_in
from digests.webhooks.signatures import Malformed
from newsroom.mail.models import OutboxMail
from newsroom.persons import holdings
from newsroom.tasks import purge_all
from subscriptions import suppression
from subscriptions.models import AddressChange, ConsentRecord, SignUp, Subscription, Suppression
from tests import esp_reports
from tests.amazon import Amazon
from tests.backends import ScriptedBackend
from tests.makers import make_newsletter, make_sending_digest, make_subscription
from tests.subscriptions.reading import send_form

pytestmark = pytest.mark.django_db

Kind = ProviderEvent.Kind
# These know a password, or sign a token: of what a report says they prove nothing.
BY_PASSWORD = {"brevo", "mailjet", "postmark", "sparkpost", "mailgun"}
SLUGS = [
    "amazon_ses", "brevo", "mailersend", "mailgun", "mailjet", "mailtrap", "mandrill", "postmark", "resend",
    "sparkpost", "unisender_go", "postal", "sendgrid",
]  # fmt: skip


@pytest.fixture(scope="module")
def esps():
    with Amazon() as amazon:
        yield {esp.slug: esp for esp in esp_reports.all_esps(amazon)}


@pytest.fixture(params=SLUGS)
def esp(request, esps, settings, monkeypatch):
    return use(esps[request.param], settings, monkeypatch)


@pytest.fixture
def brevo(esps, settings, monkeypatch):
    return use(esps["brevo"], settings, monkeypatch)


@pytest.fixture
def mailgun(esps, settings, monkeypatch):
    return use(esps["mailgun"], settings, monkeypatch)


def use(esp, settings, monkeypatch):
    esp.configure(settings)
    if esp.slug == "amazon_ses":
        esp.amazon.lead_there(monkeypatch)
        esp.amazon.status = 200
    return esp


def a_delivery(settings, *, digest=None, **values):
    """A mail that a reader was handed; the reader has another newsletter, too."""
    backend = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = digest or make_sending_digest(readers=1, **values)
    delivering.deliver_due()
    settings.EMAIL_BACKEND = backend
    delivery = digest.deliveries.select_related("subscriber", "digest").get()
    make_subscription(subscriber=delivery.subscriber)
    return delivery


def process():
    return events.process(timezone.now())


def report(esp, said, delivery, **values):
    values.setdefault("to", delivery.subscriber.address if delivery.subscriber else "leserin@leser.example")
    answer = esp.post(said, row=delivery.uuid, **values)
    process()
    delivery.refresh_from_db()
    return answer


def states(delivery):
    """The states of this newsletter's subscription and of the reader's other one."""
    subscriptions = delivery.subscriber.subscriptions
    this = subscriptions.get(newsletter=delivery.digest.newsletter)
    return this.state, subscriptions.exclude(pk=this.pk).get().state


def everything():
    """All that a report could change, but for the table of reports itself."""
    return {
        "deliveries": list(Delivery.objects.order_by("pk").values_list("pk", "state", "reason", "subscriber")),
        "subscriptions": list(Subscription.objects.order_by("pk").values_list("pk", "state", "paused_until")),
        "suppressions": list(Suppression.objects.order_by("address_hash").values_list("address_hash", "reason")),
        "digests": list(Digest.objects.order_by("pk").values_list("pk", "state")),
    }


# What a report does


def test_a_hard_bounce_ends_all_subscriptions_at_once_with_proof(esp, settings):
    delivery = a_delivery(settings)

    assert report(esp, esp.hard, delivery).status_code == 200

    assert (delivery.state, delivery.reason) == ("bounced", "hard_bounce")
    assert states(delivery) == ("ended", "ended")
    assert suppression.find(delivery.subscriber.address_key).reason == Suppression.Reason.HARD_BOUNCE
    proof = ConsentRecord.objects.get(subject=delivery.subscriber.uuid, type="withdrawn").payload.body
    assert (proof["actor"], proof["source"]) == ("provider", "webhook")


def test_a_complaint_ends_all_subscriptions_and_is_remembered(esp, settings):
    delivery = a_delivery(settings)
    if not esp.complaint:  # Postal
        return

    report(esp, esp.complaint, delivery)

    assert delivery.state == "complained"
    assert states(delivery) == ("ended", "ended")
    assert suppression.is_blocked(delivery.subscriber.address_key)


def test_who_unsubscribes_at_the_provider_leaves_this_newsletter_alone(esp, settings):
    delivery = a_delivery(settings)
    if not esp.unsubscribe:
        return

    report(esp, esp.unsubscribe, delivery)

    assert states(delivery) == ("ended", "active")
    assert not Suppression.objects.exists()
    assert ConsentRecord.objects.get(type="withdrawn").payload.body["source"] == "webhook"


def test_one_soft_bounce_is_counted_and_no_more(esp, settings):
    delivery = a_delivery(settings)

    report(esp, esp.soft, delivery)

    assert (delivery.state, delivery.reason) == ("bounced", "soft_bounce")
    assert states(delivery) == ("active", "active")
    assert not Suppression.objects.exists()


def test_a_delivered_mail_settles_what_was_uncertain_and_the_digest_ends(esp, settings):
    delivery = a_delivery(settings)
    Delivery.objects.update(state="uncertain", reason="timeout")
    Digest.objects.update(state="sending", finished_at=None)

    report(esp, esp.delivered, delivery)

    assert delivery.state == "accepted"
    delivery.digest.refresh_from_db()
    assert delivery.digest.state == Digest.State.FINISHED


def test_what_a_report_said_is_forgotten_once_it_is_understood(esp, settings):
    delivery = a_delivery(settings)

    for said in filter(None, (esp.delivered, esp.hard, esp.soft, esp.complaint, esp.unsubscribe)):
        report(esp, said, delivery)

    assert ProviderEvent.objects.exists()
    assert set(ProviderEvent.objects.values_list("raw", "state")) == {("", "done")}


# Who may report: a table per provider


def variants(esp, row, to):
    """Every way to tell lies to the webhook of a provider: a name, and what is posted."""
    now = datetime.now(UTC)
    body = esp.body([esp.report(esp.hard, row=row, to=to, at=now)])
    genuine = esp.signed(body, at=now)
    bare = {name: value for name, value in genuine.items() if name != "headers"}
    garbage = [b"", b"{", b"null", b"[1]", b"{}", b'"x"', b"\xff\xfe\x00", b"[" * 100_000, b'{"a":"\\ud800"}']
    yield "forged", esp.forged(genuine)
    if "headers" in genuine and esp.slug != "amazon_ses":
        yield "without proof", bare
    if esp.slug not in BY_PASSWORD:
        yield "changed", {**genuine, "data": genuine_changed(genuine["data"])}
    yield "five megabytes", {**genuine, "data": b'{"a":"' + b"x" * 5_000_000 + b'"}'}
    yield "an empty list", {**genuine, "data": b"[]"}
    for content in garbage:
        yield "malformed", {**genuine, "data": content}
        yield "malformed, with a proof", esp.signed(content, at=now)


def genuine_changed(data):
    octets = data if isinstance(data, bytes) else data.encode()
    return octets.replace(b"leser.example", b"elsewhere.example").replace(b"leser.ex", b"anders.ex")


def test_lies_change_nothing_and_are_never_answered_by_500(esp, settings):
    delivery = a_delivery(settings)
    before = everything()
    told: dict[str, set[int]] = {}
    for name, posted in variants(esp, delivery.uuid, delivery.subscriber.address):
        answer = esp.send(posted)
        told.setdefault(name, set()).add(answer.status_code)
        process()

    print(f"{esp.slug:13}", "; ".join(f"{name}: {', '.join(map(str, sorted(codes)))}" for name, codes in told.items()))
    assert everything() == before
    assert all(200 <= code < 500 for codes in told.values() for code in codes)
    assert told["five megabytes"] == {413}
    assert told["malformed"] <= {400, 401, 403} and told["malformed, with a proof"] <= {400, 401}
    assert told["forged"] <= {401, 403} and told.get("changed", set()) <= {401, 403}


def test_a_report_that_is_sent_again_and_again_changes_nothing_more(esp, settings):
    delivery = a_delivery(settings)
    now = datetime.now(UTC)
    report(esp, esp.soft, delivery, at=now)
    before, known = everything(), ProviderEvent.objects.count()

    answers = {report(esp, esp.soft, delivery, at=now).status_code for _ in range(10)}

    after = (everything(), ProviderEvent.objects.count())
    print(f"{esp.slug:13} replayed ten times: {answers}, {int(after != (before, known))} changes")
    assert answers == {200} and after == (before, known)


@pytest.mark.parametrize("slug", ["mailgun", "resend", "sendgrid", "amazon_ses"])
@pytest.mark.parametrize("age", [timedelta(hours=26), timedelta(minutes=-6)])
def test_a_report_signed_long_ago_or_in_the_future_is_refused(esps, settings, monkeypatch, slug, age):
    esp = use(esps[slug], settings, monkeypatch)
    delivery = a_delivery(settings)

    assert report(esp, esp.hard, delivery, at=datetime.now(UTC) - age).status_code == 403
    assert not ProviderEvent.objects.exists()


def test_a_spent_token_of_mailguns_carries_no_other_report(mailgun, settings):
    """Mailgun's signature covers time and token alone: who saw one report could put any other in its place."""
    delivery = a_delivery(settings)
    now = datetime.now(UTC)
    report(mailgun, mailgun.delivered, delivery, at=now, token="seen-by-somebody")
    purge_all(timezone.now())

    report(mailgun, mailgun.complaint, delivery, at=now, token="seen-by-somebody")

    assert (delivery.state, states(delivery)) == ("", ("active", "active"))


def test_nobody_answers_for_a_provider_that_is_not_configured(settings, brevo):
    delivery = a_delivery(settings)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"

    assert report(brevo, brevo.hard, delivery).status_code == 404
    assert Client().post("/webhooks/nobody/tracking/").status_code == 404
    assert Client().get(brevo.path).status_code == 404


def test_a_provider_may_look_before_it_reports(brevo):
    assert Client().get(brevo.path).status_code == Client().head(brevo.path).status_code == 200
    assert Client().put(brevo.path).status_code == 405
    assert not Client().get(brevo.path).cookies


def test_a_post_that_lies_about_its_length_is_no_500(brevo):
    answer = Client().generic("POST", brevo.path, b"{}", CONTENT_LENGTH="many")

    assert answer.status_code == 400


def test_however_deeply_a_report_is_nested_it_is_taken_or_called_malformed():
    answers = set()
    for depth in range(700, 1000):
        body = b'{"event": "delivered", "x": ' + b"[" * depth + b"]" * depth + b"}"
        try:
            answers.add(len(reports_in("brevo", body)))
        except Malformed:
            answers.add("malformed")

    assert answers == {1, "malformed"}


# What is made of it


def test_a_report_of_no_mail_of_ours_changes_nothing_whatever_address_it_names(esp, settings):
    delivery = a_delivery(settings)
    before = everything()

    answers = [
        esp.post(said, row=uuid4(), to=delivery.subscriber.address).status_code
        for said in filter(None, (esp.hard, esp.complaint, esp.unsubscribe, esp.soft))
    ]
    process()

    assert set(answers) == {200}
    assert everything() == before
    assert set(ProviderEvent.objects.values_list("state", "raw")) == {("unmatched", "")}
    assert not ProviderEvent.objects.exclude(delivery=None).exists()


def amazons(kind, detail, diagnosis=None):
    more = {"diagnosticCode": diagnosis} if diagnosis else {}
    return {"eventType": "Bounce", "bounce": {"bounceType": kind, "bounceSubType": detail, **more}}


def amazons_complaint(**said):
    return {"eventType": "Complaint", "complaint": said}


def mailguns(reason, message=""):
    return {"event": "failed", "severity": "permanent", "reason": reason, "delivery-status": {"message": message}}


def mailjets(is_hard, related_to, error):
    return {"event": "bounce", "hard_bounce": is_hard, "error_related_to": related_to, "error": error}


def postmarks_list(reason, origin):
    changed = {"RecordType": "SubscriptionChange", "SuppressSending": True}
    return {**changed, "SuppressionReason": reason, "Origin": origin}


def resends(kind, detail, message="x"):
    return {"type": "email.bounced", "bounce": {"type": kind, "subType": detail, "message": message}}


def unisenders(grade, detail):
    return {"status": f"{grade}_bounced", "delivery_info": {"delivery_status": detail}}


SPARKPOSTS_SOFT = ("1", "20", "21", "22", "24", "40", "70")
SPARKPOSTS_BLOCKED = ("25", "50", "51", "52", "53", "54")
TABLE = [
    ("brevo", {"event": "hard_bounce"}, Kind.HARD_BOUNCE),
    ("brevo", {"event": "invalid_email"}, Kind.HARD_BOUNCE),
    ("brevo", {"event": "soft_bounce"}, Kind.SOFT_BOUNCE),
    ("brevo", {"event": "blocked"}, Kind.SUPPRESSED),
    ("brevo", {"event": "error"}, Kind.BLOCKED),
    ("brevo", {"event": "deferred"}, Kind.ACCEPTED),
    ("brevo", {"event": "request"}, Kind.ACCEPTED),
    ("brevo", {"event": "spam"}, Kind.COMPLAINT),
    ("brevo", {"event": "complaint"}, Kind.COMPLAINT),
    ("brevo", {"event": "unsubscribe"}, Kind.UNSUBSCRIBE),
    ("brevo", {"event": "something_new"}, Kind.OTHER),
    ("amazon_ses", amazons("Permanent", "General"), Kind.HARD_BOUNCE),
    ("amazon_ses", amazons("Permanent", "NoEmail"), Kind.HARD_BOUNCE),
    ("amazon_ses", amazons("Permanent", "OnAccountSuppressionList"), Kind.SUPPRESSED),
    ("amazon_ses", amazons("Transient", "MailboxFull"), Kind.SOFT_BOUNCE),
    ("amazon_ses", amazons("Transient", "ContentRejected"), Kind.BLOCKED),
    ("amazon_ses", amazons("Undetermined", "Undetermined"), Kind.SOFT_BOUNCE),
    ("amazon_ses", amazons("Permanent", "General", "smtp; 550 5.7.1 listed"), Kind.BLOCKED),
    ("amazon_ses", {"eventType": "Complaint", "complaint": {"complaintFeedbackType": "abuse"}}, Kind.COMPLAINT),
    ("amazon_ses", {"eventType": "Complaint", "complaint": {}}, Kind.COMPLAINT),
    ("amazon_ses", amazons_complaint(complaintFeedbackType="not-spam"), Kind.OTHER),
    ("amazon_ses", amazons_complaint(complaintSubType="OnAccountSuppressionList"), Kind.SUPPRESSED),
    ("amazon_ses", {"eventType": "DeliveryDelay", "deliverydelay": {"delayType": "MailboxFull"}}, Kind.ACCEPTED),
    ("amazon_ses", {"eventType": "Subscription"}, Kind.UNSUBSCRIBE),
    ("amazon_ses", {"eventType": "Reject", "reject": {"reason": "Bad content"}}, Kind.BLOCKED),
    ("postmark", {"RecordType": "Bounce", "Type": "HardBounce"}, Kind.HARD_BOUNCE),
    ("postmark", {"RecordType": "Bounce", "Type": "BadEmailAddress"}, Kind.HARD_BOUNCE),
    ("postmark", {"RecordType": "Bounce", "Type": "SoftBounce"}, Kind.SOFT_BOUNCE),
    ("postmark", {"RecordType": "Bounce", "Type": "Transient"}, Kind.ACCEPTED),
    ("postmark", {"RecordType": "Bounce", "Type": "DnsError"}, Kind.ACCEPTED),
    ("postmark", {"RecordType": "Bounce", "Type": "AutoResponder"}, Kind.ACCEPTED),
    ("postmark", {"RecordType": "Bounce", "Type": "SpamNotification"}, Kind.BLOCKED),
    ("postmark", {"RecordType": "Bounce", "Type": "Blocked"}, Kind.BLOCKED),
    ("postmark", {"RecordType": "Bounce", "Type": "ManuallyDeactivated"}, Kind.SUPPRESSED),
    ("postmark", {"RecordType": "SpamComplaint", "Type": "SpamComplaint"}, Kind.COMPLAINT),
    ("postmark", postmarks_list("ManualSuppression", "Recipient"), Kind.UNSUBSCRIBE),
    ("postmark", postmarks_list("ManualSuppression", "Customer"), Kind.OTHER),
    ("postmark", postmarks_list("HardBounce", "Recipient"), Kind.OTHER),
    ("postmark", {"RecordType": "SubscriptionChange", "SuppressSending": False}, Kind.OTHER),
    ("mailgun", mailguns("bounce"), Kind.HARD_BOUNCE),
    ("mailgun", mailguns("suppress-bounce"), Kind.SUPPRESSED),
    ("mailgun", mailguns("suppress-complaint"), Kind.SUPPRESSED),
    ("mailgun", mailguns("suppress-unsubscribe"), Kind.SUPPRESSED),
    ("mailgun", mailguns("espblock"), Kind.BLOCKED),
    ("mailgun", mailguns("generic"), Kind.SOFT_BOUNCE),
    ("mailgun", {"event": "failed", "severity": "temporary", "reason": "generic"}, Kind.ACCEPTED),
    ("mailgun", mailguns("bounce", "550 5.7.1 blocked"), Kind.BLOCKED),
    ("mailgun", mailguns("bounce", "552 5.2.2 full"), Kind.SOFT_BOUNCE),
    ("mailgun", mailguns("bounce", "550 see 5.9.23.1"), Kind.HARD_BOUNCE),
    ("mailgun", {"event": "rejected", "reject": {"reason": "Sandbox"}}, Kind.BLOCKED),
    ("mailjet", mailjets(True, "recipient", "user unknown"), Kind.HARD_BOUNCE),
    ("mailjet", mailjets(True, "recipient", "quota exceeded"), Kind.SOFT_BOUNCE),
    ("mailjet", mailjets(False, "domain", "invalid domain"), Kind.SOFT_BOUNCE),
    ("mailjet", mailjets(False, "domain", "greylisted"), Kind.ACCEPTED),
    ("mailjet", mailjets(True, "spam", "content blocked"), Kind.BLOCKED),
    ("mailjet", {"event": "blocked", "error_related_to": "mailjet", "error": "preblocked"}, Kind.SUPPRESSED),
    ("mailjet", {"event": "blocked", "error_related_to": "recipient", "error": "blacklisted"}, Kind.SUPPRESSED),
    ("mailersend", {"type": "hard_bounced"}, Kind.HARD_BOUNCE),
    ("mailersend", {"type": "soft_bounced"}, Kind.SOFT_BOUNCE),
    ("mandrill", {"event": "hard_bounce"}, Kind.HARD_BOUNCE),
    ("mandrill", {"event": "soft_bounce"}, Kind.SOFT_BOUNCE),
    ("mandrill", {"event": "deferral"}, Kind.ACCEPTED),
    ("mandrill", {"event": "reject", "reject": {"reason": "hard-bounce"}}, Kind.SUPPRESSED),
    ("mandrill", {"event": "reject", "reject": {"reason": "unsigned"}}, Kind.BLOCKED),
    ("sparkpost", {"type": "bounce", "bounce_class": "10"}, Kind.HARD_BOUNCE),
    ("sparkpost", {"type": "out_of_band", "bounce_class": "30"}, Kind.HARD_BOUNCE),
    *(("sparkpost", {"type": "bounce", "bounce_class": each}, Kind.SOFT_BOUNCE) for each in SPARKPOSTS_SOFT),
    *(("sparkpost", {"type": "bounce", "bounce_class": each}, Kind.BLOCKED) for each in SPARKPOSTS_BLOCKED),
    ("sparkpost", {"type": "bounce", "bounce_class": "60"}, Kind.ACCEPTED),
    ("sparkpost", {"type": "bounce", "bounce_class": "90"}, Kind.UNSUBSCRIBE),
    ("sparkpost", {"type": "link_unsubscribe"}, Kind.UNSUBSCRIBE),
    ("sparkpost", {"type": "policy_rejection", "raw_reason": "550 recipient address suppressed"}, Kind.SUPPRESSED),
    ("sparkpost", {"type": "delay", "bounce_class": "22"}, Kind.ACCEPTED),
    ("sendgrid", {"event": "bounce", "type": "bounce"}, Kind.HARD_BOUNCE),
    ("sendgrid", {"event": "bounce", "type": "bounce", "status": "5.2.2"}, Kind.SOFT_BOUNCE),
    ("sendgrid", {"event": "bounce", "type": "blocked"}, Kind.BLOCKED),
    ("sendgrid", {"event": "dropped", "reason": "Bounced Address"}, Kind.SUPPRESSED),
    ("sendgrid", {"event": "dropped", "reason": "Spam Content (if spam checker app enabled)"}, Kind.BLOCKED),
    ("sendgrid", {"event": "group_unsubscribe", "asm_group_id": 1}, Kind.UNSUBSCRIBE),
    ("mailtrap", {"event": "bounce"}, Kind.HARD_BOUNCE),
    ("mailtrap", {"event": "bounce", "bounce_category": "spam"}, Kind.BLOCKED),
    ("mailtrap", {"event": "soft bounce"}, Kind.SOFT_BOUNCE),
    ("mailtrap", {"event": "suspension"}, Kind.BLOCKED),
    ("mailtrap", {"event": "reject"}, Kind.SUPPRESSED),
    ("resend", resends("Permanent", "General"), Kind.HARD_BOUNCE),
    ("resend", resends("Permanent", "Suppressed"), Kind.SUPPRESSED),
    ("resend", resends("Transient", "General"), Kind.SOFT_BOUNCE),
    ("resend", resends("", "", "Resend has suppressed sending"), Kind.SUPPRESSED),
    ("resend", {"type": "email.failed"}, Kind.BLOCKED),
    ("resend", {"type": "email.delivery_delayed"}, Kind.ACCEPTED),
    ("postal", {"event": "MessageDeliveryFailed", "status": "HardFail"}, Kind.HARD_BOUNCE),
    ("postal", {"event": "MessageDelayed", "status": "SoftFail"}, Kind.ACCEPTED),
    ("postal", {"event": "MessageHeld", "status": "Held"}, Kind.ACCEPTED),
    ("postal", {"event": "MessageBounced", "bounce": {"id": 1}}, Kind.SOFT_BOUNCE),
    ("unisender_go", unisenders("hard", "err_user_unknown"), Kind.HARD_BOUNCE),
    ("unisender_go", unisenders("hard", "err_mailbox_full"), Kind.SOFT_BOUNCE),
    ("unisender_go", unisenders("hard", "err_spam_rejected"), Kind.BLOCKED),
    ("unisender_go", unisenders("hard", "err_unsubscribed"), Kind.SUPPRESSED),
    ("unisender_go", unisenders("soft", "err_will_retry"), Kind.ACCEPTED),
]


@pytest.mark.parametrize(("slug", "said", "kind"), TABLE, ids=lambda value: str(value)[:60])
def test_the_raw_report_decides_how_grave_it_is(esps, settings, monkeypatch, slug, said, kind):
    esp = use(esps[slug], settings, monkeypatch)

    assert esp.post(said, row=uuid4()).status_code == 200
    process()

    assert ProviderEvent.objects.get().kind == kind


@pytest.mark.parametrize(
    ("slug", "said"),
    [
        ("brevo", {"event": "unique_opened"}),
        ("brevo", {"event": "click"}),
        ("amazon_ses", {"eventType": "Open"}),
        ("mailgun", {"event": "opened"}),
        ("mailersend", {"type": "clicked"}),
        ("mandrill", {"event": "open"}),
        ("postal", {"event": "MessageLoaded"}),
        ("postmark", {"RecordType": "Click"}),
        ("resend", {"type": "email.opened"}),
        ("sparkpost", {"type": "initial_open"}),
        ("unisender_go", {"status": "clicked"}),
    ],
)
def test_nobody_is_watched_even_if_the_provider_does(esps, settings, monkeypatch, slug, said):
    esp = use(esps[slug], settings, monkeypatch)

    assert esp.post(said, row=uuid4()).status_code == 200
    assert not ProviderEvent.objects.exists()


def test_three_days_of_soft_bounces_within_two_weeks_pause_the_reader(brevo, settings):
    newsletter = make_newsletter()
    delivery = a_delivery(settings, newsletter=newsletter)
    today = datetime.now(UTC)

    for days_ago in (20, 19, 5, 5):
        report(brevo, brevo.soft, delivery, at=today - timedelta(days=days_ago))
    assert states(delivery) == ("active", "active")
    report(brevo, brevo.soft, delivery, at=today - timedelta(days=18))
    assert states(delivery) == ("paused", "paused")

    paused = delivery.subscriber.subscriptions.first()
    assert paused.paused_until == timezone.localdate() + settings.SOFT_BOUNCE_PAUSE
    assert ConsentRecord.objects.filter(type="changed").last().payload.body["source"] == "soft_bounces"


def test_a_mailbox_that_was_full_is_forgotten_when_the_reader_has_left_it(brevo, settings):
    delivery = a_delivery(settings)
    today = datetime.now(UTC)
    for days_ago in (3, 2):
        report(brevo, brevo.soft, delivery, at=today - timedelta(days=days_ago))
    reader, moved_at = delivery.subscriber, timezone.now()
    AddressChange.objects.create(
        subscriber=reader, old_address=reader.address, old_address_key=reader.address_key,
        new_address="neu@leser.example", new_address_key="neu@leser.example", nonce="n", token_hash="t",
        state="confirmed", requested_at=moved_at, expires_at=moved_at, confirmed_at=moved_at,
    )  # fmt: skip
    type(reader).objects.filter(pk=reader.pk).update(address="neu@leser.example", address_key="neu@leser.example")

    report(brevo, brevo.soft, delivery, at=today - timedelta(days=1))  # late, and of the former address

    assert states(delivery) == ("active", "active")


def test_mail_that_is_refused_for_our_own_sake_pauses_nobody(esps, settings, monkeypatch):
    sparkpost = use(esps["sparkpost"], settings, monkeypatch)
    delivery = a_delivery(settings)

    for days_ago in range(10):
        at = datetime.now(UTC) - timedelta(days=days_ago)
        report(sparkpost, {"type": "bounce", "bounce_class": "51"}, delivery, at=at)

    assert (delivery.state, delivery.reason) == ("bounced", "blocked")
    assert states(delivery) == ("active", "active")


def test_a_bounce_at_a_former_address_does_not_shut_the_new_one(brevo, settings):
    delivery = a_delivery(settings)

    report(brevo, brevo.hard, delivery, to="frueher@leser.example")

    assert delivery.state == "bounced"
    assert states(delivery) == ("active", "active") and not Suppression.objects.exists()


def test_a_bounce_older_than_the_readers_confirmation_is_disproved(brevo, settings):
    delivery = a_delivery(settings)
    delivery.subscriber.subscriptions.update(active_since=timezone.now() + timedelta(seconds=1))

    report(brevo, brevo.hard, delivery)

    assert states(delivery) == ("active", "active")


def test_an_old_unsubscription_does_not_end_a_newer_order(brevo, settings):
    delivery = a_delivery(settings)
    delivery.subscriber.subscriptions.update(active_since=timezone.now())

    report(brevo, brevo.unsubscribe, delivery, at=datetime.now(UTC) - timedelta(hours=2))

    assert states(delivery) == ("active", "active")


def test_a_report_that_is_faster_than_our_own_record_is_not_lost(brevo, settings):
    """The provider tells of the mail while the call that handed it over still hangs; then the call fails."""
    delivery = a_delivery(settings)
    batch = DeliveryBatch.objects.get()
    DeliveryBatch.objects.update(state="submitting", lease_until=timezone.now() - timedelta(seconds=1))
    batch.tries.update(acknowledged=0, in_flight=1, ended_at=None)
    Digest.objects.update(state="sending", finished_at=None)

    report(brevo, brevo.delivered, delivery)
    sweeping.sweep(timezone.now())

    delivery.refresh_from_db()
    assert delivery.state == "accepted"
    assert outcomes.counts(delivery.digest)["uncertain"] == 0


@pytest.mark.parametrize(
    ("state", "said", "after"),
    [
        ("refused", "delivered", "refused"),
        ("suppressed", "hard", "suppressed"),
        ("postponed", "delivered", "postponed"),
        ("failed", "delivered", "accepted"),
        ("uncertain", "hard", "bounced"),
        ("accepted", "complaint", "complained"),
        ("complained", "hard", "complained"),
        ("bounced", "delivered", "bounced"),
    ],
)
def test_a_delivery_only_moves_forward(brevo, settings, state, said, after):
    delivery = a_delivery(settings)
    Delivery.objects.update(state=state)

    report(brevo, getattr(brevo, said), delivery)

    assert delivery.state == after


def test_staff_see_sums_and_these_outlive_the_deliveries(brevo, settings):
    digest = make_sending_digest(readers=3)
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    delivering.deliver_due()
    brevo.configure(settings)
    for said, delivery in zip((brevo.hard, brevo.soft, brevo.complaint), digest.deliveries.all(), strict=True):
        report(brevo, said, delivery)

    assert outcomes.feedback(digest) == {"bounced": 2, "complained": 1}
    assert outcomes.counts(digest)["accepted"] == 3
    before = outcomes.counts(digest)
    purge_all(timezone.now() + settings.DELIVERY_RETENTION + timedelta(days=2))

    digest.refresh_from_db()
    assert not Delivery.objects.exists() and not ProviderEvent.objects.exists()
    assert (outcomes.counts(digest), outcomes.feedback(digest)) == (before, {"bounced": 2, "complained": 1})


# The order in which reports come


_DAY = timedelta(days=1)


@given(order=st.permutations(range(7)), cuts=st.sets(st.integers(1, 6)))
@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("with_complaint", [False, True])
def test_any_order_of_the_same_reports_leaves_the_same_rows(esps, settings, monkeypatch, with_complaint, order, cuts):
    """Seven reports about three readers, shuffled, and taken up at any moments between; each comes twice."""
    brevo = use(esps["brevo"], settings, monkeypatch)
    Subscription.objects.all().delete()
    Digest.objects.all().delete()
    Suppression.objects.all().delete()
    ProviderEvent.objects.all().delete()
    DeliveryBatch.objects.all().delete()
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=3)
    delivering.deliver_due()
    brevo.configure(settings)
    first, second, third = digest.deliveries.order_by("subscriber_id").select_related("subscriber")
    Delivery.objects.filter(pk=third.pk).update(state="uncertain", reason="timeout")
    now = datetime.now(UTC)
    reports = [
        (brevo.delivered, first, now),
        (brevo.hard, first, now),
        (brevo.complaint if with_complaint else brevo.soft, first, now),
        *((brevo.soft, second, now - days * _DAY) for days in (1, 2, 3)),
        (brevo.unsubscribe, third, now),
    ]

    for number, index in enumerate(order, 1):
        said, delivery, at = reports[index]
        for _ in range(2):
            brevo.post(said, row=delivery.uuid, to=delivery.subscriber.address, at=at)
        if number in cuts:
            process()
    process()

    ended = [subscription.state for subscription in Subscription.objects.order_by("subscriber_id")]
    assert ended == ["ended", "paused", "ended"]
    reason = Suppression.Reason.COMPLAINT if with_complaint else Suppression.Reason.HARD_BOUNCE
    assert [entry.reason for entry in Suppression.objects.all()] == [reason]
    assert list(digest.deliveries.order_by("subscriber_id").values_list("state", "reason")) == [
        ("complained", "") if with_complaint else ("bounced", "hard_bounce"),
        ("bounced", "soft_bounce"),
        ("accepted", "reported"),
    ]


# What else is promised


def test_a_service_mail_that_is_called_spam_is_the_last_one(brevo, settings):
    send_form("fremd@leser.example", make_newsletter())
    mail = OutboxMail.objects.get(reference=SignUp.objects.get().uuid)

    brevo.post(brevo.complaint, row=mail.uuid, to="fremd@leser.example")
    process()

    assert suppression.is_blocked("fremd@leser.example")


def test_a_service_mail_is_found_by_the_providers_own_id(esps, settings, monkeypatch):
    postmark = use(esps["postmark"], settings, monkeypatch)
    send_form("fremd@leser.example", make_newsletter())
    OutboxMail.objects.update(provider_message_id="883953f4-6105-42a2-a16a-77a8eac79483", state="sent")

    postmark.post({**postmark.hard, "Metadata": {}}, row=uuid4(), to="fremd@leser.example")
    process()

    assert suppression.find("fremd@leser.example").reason == Suppression.Reason.HARD_BOUNCE
    assert OutboxMail.objects.get().reason == "hard_bounce"


def test_a_report_nobody_understands_keeps_no_other_waiting_and_is_kept_for_a_while(brevo, settings):
    delivery = a_delivery(settings)
    brevo.post({"event": "hard_bounce", "ts_epoch": "when?"}, row=delivery.uuid)
    brevo.post({"event": "hard_bounce", "ts_epoch": 1e300}, row=delivery.uuid)

    report(brevo, brevo.hard, delivery)

    assert delivery.state == "bounced"
    unreadable = ProviderEvent.objects.filter(state="unreadable")
    assert unreadable.count() == 2 and all(unreadable.values_list("raw", flat=True))
    purge_all(timezone.now() + settings.PROVIDER_EVENT_RETENTION + timedelta(hours=1))
    assert not unreadable.exists()


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_an_id_that_no_database_can_be_asked_for_keeps_no_report_waiting(brevo, settings, text):
    delivery = a_delivery(settings)
    strange = {"event": "delivered", "email": "a@b.example", "ts_epoch": 1_700_000_000_000, "message-id": text}
    events.store("brevo", {"strange": json.dumps(strange)}, now=timezone.now())

    report(brevo, brevo.hard, delivery)

    assert delivery.state == "bounced"
    assert ProviderEvent.objects.get(key="strange").state == "unmatched"


def test_other_peoples_mails_in_the_same_account_are_nobody_of_ours(brevo):
    brevo.post({**brevo.hard, "X-Mailin-custom": "not JSON"}, row=uuid4())
    brevo.post({**brevo.hard, "X-Mailin-custom": '{"delivery": ["x"]}'}, row=uuid4())
    process()

    assert set(ProviderEvent.objects.values_list("state", "raw")) == {("unmatched", "")}


def test_an_erased_reader_is_in_no_report_and_reports_about_him_change_nothing(brevo, settings):
    delivery = a_delivery(settings)
    report(brevo, brevo.soft, delivery)
    key, address = delivery.subscriber.address_key, delivery.subscriber.address
    brevo.post({"event": "hard_bounce", "ts_epoch": "when?"}, row=delivery.uuid, to=address.upper())
    process()
    assert ProviderEvent.objects.filter(raw__icontains=address).exists()
    (held,) = (holding for holding in holdings() if holding.name == "provider_events")
    assert [row["what"] for row in held.export(key)] == ["soft_bounce", ""]

    for holding in reversed(holdings()):
        holding.erase(key, timezone.now())
    assert not ProviderEvent.objects.exists() and held.export(key) == []

    report(brevo, brevo.complaint, delivery)
    assert delivery.state == "complained" and delivery.subscriber is None
    assert not Suppression.objects.exists()


def test_no_address_stands_in_a_log(esp, settings, caplog):
    caplog.set_level(logging.DEBUG)
    delivery = a_delivery(settings)
    address = delivery.subscriber.address
    for _name, posted in variants(esp, delivery.uuid, address):
        if len(posted["data"]) < 1_000_000:
            esp.send(posted)
    report(esp, esp.hard, delivery)

    # Django's own test client and database speak of what they are told; ours must not.
    ours = [record for record in caplog.records if record.name.startswith(("digests", "newsroom", "subscriptions"))]
    assert ours and not any(address.split("@")[0] in record.getMessage() for record in ours)


def test_two_that_process_at_once_do_each_report_once(brevo, settings, capsys):
    delivery = a_delivery(settings)
    brevo.post(brevo.hard, row=delivery.uuid, to=delivery.subscriber.address)

    call_command("process_events")
    call_command("process_events")

    assert capsys.readouterr().out.splitlines() == ["1 done", "Nothing waits."]
    assert ConsentRecord.objects.filter(type="withdrawn").count() == 1


def test_five_hundred_deliveries_are_told_of_in_one_request(brevo, django_assert_max_num_queries):
    reports = [
        brevo.report(brevo.delivered, row=uuid4(), to="x@leser.example", at=datetime.now(UTC)) for _ in range(500)
    ]
    posted = brevo.signed(json.dumps(reports).encode(), at=datetime.now(UTC))
    with django_assert_max_num_queries(10):
        assert brevo.send(posted).status_code == 200
    with django_assert_max_num_queries(80):
        assert process()["unmatched"] == 500


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_three_days_reported_at_the_same_moment_are_counted_together(brevo, settings):
    from threading import Barrier, Thread

    delivery = a_delivery(settings)
    for days in range(3):
        at = datetime.now(UTC) - timedelta(days=days)
        brevo.post(brevo.soft, row=delivery.uuid, to=delivery.subscriber.address, at=at)
    pks = list(ProviderEvent.objects.values_list("pk", flat=True))
    barrier = Barrier(3)

    def one(pk):
        barrier.wait()
        events._take_up([ProviderEvent.objects.get(pk=pk)], now=timezone.now())
        connection.close()

    threads = [Thread(target=one, args=(pk,)) for pk in pks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert states(delivery) == ("paused", "paused")


def test_staff_see_what_was_reported_and_never_whose_mail_it_was(brevo, settings, admin_client):
    delivery = a_delivery(settings)
    report(brevo, brevo.hard, delivery)
    brevo.post({"event": "hard_bounce", "ts_epoch": "when?"}, row=delivery.uuid, to=delivery.subscriber.address)
    process()

    listed = admin_client.get("/admin/digests/providerevent/").content.decode()
    page = admin_client.get(f"/admin/digests/digest/{delivery.digest.pk}/change/").content.decode()

    assert "5.1.1" in listed and delivery.subscriber.address not in listed
    assert str(delivery.uuid) not in listed + page
    assert outcomes.feedback(delivery.digest)["bounced"] == 1 and 'data-part="numbers"' in page


def test_staff_are_alarmed_of_reports_that_wait_and_of_those_nobody_understands(brevo, settings):
    brevo.post({"event": "hard_bounce", "ts_epoch": "when?"}, row=uuid4())
    now = timezone.now()
    assert list(events.find_alarms(now)) == []
    assert [alarm.key for alarm in events.find_alarms(now + timedelta(minutes=20))] == ["events-wait"]

    process()

    assert [alarm.key for alarm in events.find_alarms(now + timedelta(minutes=20))] == ["events-unreadable"]
    assert list(events.find_alarms(now + timedelta(days=2))) == []
