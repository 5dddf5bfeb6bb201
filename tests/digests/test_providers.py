"""A digest through each way of sending: readers get the same, and what the provider answers is understood."""

import re

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from digests import audit, delivery, release, rendering
from digests.models import Delivery, DeliveryBatch, Provider
from subscriptions import links
from subscriptions.models import Subscriber
from tests.makers import make_article, make_digest, make_entry, make_sending_digest, make_subscriptions, standing
from tests.stand_ins import MailgunStandIn, PostmarkStandIn, SmtpStandIn

pytestmark = pytest.mark.django_db


@pytest.fixture
def mailgun(settings):
    with MailgunStandIn() as stand_in:
        stand_in.configure(settings)
        yield stand_in


@pytest.fixture
def postmark(settings):
    with PostmarkStandIn() as stand_in:
        stand_in.configure(settings)
        yield stand_in


@pytest.fixture
def smtp(settings):
    with SmtpStandIn() as stand_in:
        stand_in.configure(settings)
        yield stand_in


def own_links(digest):
    """Return each reader's unsubscribe URL by address."""
    subscriptions = digest.newsletter.subscriptions.select_related("subscriber")
    return {each.subscriber.address: links.unsubscribe_url(each.uuid) for each in subscriptions}


def neutral(text):
    """Take out of a mail what belongs to one reader."""
    return re.sub(r"(/newsletter/(?:abmelden|einstellungen|warum)/)[\w-]+", r"\1…", text)


def deliver_all():
    for _ in range(20):
        DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())
        Provider.objects.update(resume_at=timezone.now())
        if not delivery.deliver_due():
            return


def test_mailgun_carries_many_readers_in_one_call_each_with_own_links(mailgun):
    digest = make_sending_digest(readers=12)

    delivery.deliver_due()

    expected = own_links(digest)
    assert len(mailgun.requests) == 1
    assert {mail.to: mail.headers["List-Unsubscribe"] for mail in mailgun.delivered} == {
        address: f"<{url}>" for address, url in expected.items()
    }
    assert all(expected[mail.to] in mail.html and expected[mail.to] in mail.text for mail in mailgun.delivered)
    assert len({neutral(mail.html) for mail in mailgun.delivered}) == 1
    assert len({mail.headers["Message-ID"] for mail in mailgun.delivered}) == 12
    assert {mail.metadata["delivery"] for mail in mailgun.delivered} == {
        str(uuid) for uuid in digest.deliveries.values_list("uuid", flat=True)
    }
    assert standing(digest) == {"expected": 12, "accepted": 12}


def test_a_word_that_looks_like_a_slot_of_mailgun_stays_a_word(mailgun):
    digest = make_digest(articles=0)
    make_subscriptions(digest.newsletter, 2)
    make_entry(digest, position=1, article=make_article(headline="Wie %recipient.unsubscribe% zur Falle wird"))
    rendering.store(digest)
    release.start_sending(digest, now=timezone.now())

    delivery.deliver_due()

    for mail in mailgun.delivered:
        assert "zur Falle wird" in mail.html
        assert mail.html.count(own_links(digest)[mail.to]) == mail.text.count(own_links(digest)[mail.to])


def test_one_address_mailgun_does_not_take_is_found_and_the_others_get_their_copy(mailgun):
    digest = make_sending_digest(readers=30)
    bad = digest.newsletter.subscriptions.order_by("id")[17].subscriber.address
    mailgun.rejected = {bad}

    deliver_all()

    assert standing(digest) == {"expected": 30, "accepted": 29, "refused": 1}
    assert digest.deliveries.get(state=Delivery.State.REFUSED).subscriber.address == bad
    assert len(mailgun.delivered) == len({mail.to for mail in mailgun.delivered}) == 29
    assert len(mailgun.requests) <= 2 * 5 + 1
    assert not list(audit.broken_invariants(timezone.now()))


@pytest.mark.parametrize("mode", ["hang", "drop"])
def test_a_call_to_mailgun_that_is_not_answered_leaves_its_readers_uncertain(mailgun, mode):
    mailgun.mode = mode
    digest = make_sending_digest(readers=5)

    deliver_all()

    assert len(mailgun.requests) == 1
    assert standing(digest) == {"expected": 5, "uncertain": 5}


def test_postmark_gets_one_message_per_reader_with_all_headers(postmark):
    digest = make_sending_digest(readers=5)

    delivery.deliver_due()

    expected = own_links(digest)
    assert {mail.to: mail.headers["List-Unsubscribe"] for mail in postmark.delivered} == {
        address: f"<{url}>" for address, url in expected.items()
    }
    for mail in postmark.delivered:
        assert mail.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert mail.headers["List-Id"]
        assert expected[mail.to] in mail.html and expected[mail.to] in mail.text
    assert len({neutral(mail.html) for mail in postmark.delivered}) == 1
    assert standing(digest) == {"expected": 5, "accepted": 5}


def test_an_address_postmark_has_closed_is_refused_alone(postmark):
    digest = make_sending_digest(readers=5)
    postmark.rejected = {digest.newsletter.subscriptions.first().subscriber.address}

    delivery.deliver_due()

    assert standing(digest) == {"expected": 5, "accepted": 4, "refused": 1}


def test_postmark_asking_for_patience_costs_nobody_a_mail(postmark):
    postmark.mode = "throttle"
    digest = make_sending_digest(readers=5)
    delivery.deliver_due()
    assert standing(digest) == {"expected": 5, "waiting": 5}
    resume_at = Provider.objects.get().resume_at
    assert 4 <= (resume_at - timezone.now()).total_seconds() <= 7

    postmark.mode = "ok"
    deliver_all()

    assert standing(digest) == {"expected": 5, "accepted": 5}
    assert len(postmark.delivered) == 5


def test_a_fault_among_calls_side_by_side_leaves_that_reader_in_doubt_and_the_others_served(postmark, monkeypatch):
    digest = make_sending_digest(readers=12)
    unlucky, take = Subscriber.objects.order_by("pk")[1].address, postmark._take
    monkeypatch.setattr(
        postmark, "_take", lambda request: (500, {}) if unlucky in request.body.decode() else take(request)
    )

    delivery.deliver_due()
    after_the_fault = standing(digest)
    deliver_all()

    assert after_the_fault["uncertain"] == 1 and after_the_fault["waiting"] >= 2  # a group is of ten at first
    assert standing(digest) == {"expected": 12, "accepted": 11, "uncertain": 1}
    assert len(postmark.delivered) == len({mail.to for mail in postmark.delivered}) == 11


def test_a_wrong_key_stops_everything_and_loses_nothing(postmark):
    postmark.mode = "deny"
    digest = make_sending_digest(readers=5)

    delivery.deliver_due()
    DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())
    delivery.deliver_due()

    assert len(postmark.requests) <= django_settings.DELIVERY_CONNECTIONS  # those under way at that moment
    assert Provider.objects.get().gate == Provider.Gate.CLOSED
    assert standing(digest) == {"expected": 5, "waiting": 5}


def test_an_answer_postmark_garbled_counts_as_accepted(postmark):
    postmark.mode = "garbage"
    digest = make_sending_digest(readers=2)

    deliver_all()

    assert standing(digest) == {"expected": 2, "accepted": 2}
    assert len(postmark.delivered) == 2


def test_smtp_readers_get_equal_mails_with_own_links(smtp):
    digest = make_sending_digest(readers=5)

    delivery.deliver_due()

    expected = own_links(digest)
    assert {mail.recipients[0]: mail.message["List-Unsubscribe"].strip() for mail in smtp.received} == {
        address: f"<{url}>" for address, url in expected.items()
    }
    assert all(len(mail.recipients) == 1 and mail.message["To"] == mail.recipients[0] for mail in smtp.received)
    assert not any(mail.message["Cc"] or mail.message["Bcc"] for mail in smtp.received)
    assert len({neutral(mail.html) for mail in smtp.received}) == 1
    assert len({neutral(mail.text) for mail in smtp.received}) == 1
    assert smtp.sessions == 1


def test_an_smtp_server_that_refuses_one_address_gets_the_others(smtp):
    digest = make_sending_digest(readers=5)
    smtp.refused = {digest.newsletter.subscriptions.first().subscriber.address: "550 5.1.1 no such user"}

    delivery.deliver_due()

    assert standing(digest) == {"expected": 5, "accepted": 4, "refused": 1}
    assert len(smtp.received) == 4


def test_an_smtp_server_that_ends_sessions_early_gets_all_in_the_end(smtp):
    smtp.per_session = 3
    digest = make_sending_digest(readers=10)

    deliver_all()

    assert standing(digest) == {"expected": 10, "accepted": 10}
    assert len(smtp.received) == len({mail.recipients[0] for mail in smtp.received}) == 10


def test_a_connection_lost_after_the_dot_is_uncertain_and_lost_before_it_is_not(smtp):
    digest = make_sending_digest(readers=1)
    smtp.drop = "before"
    deliver_all()
    assert standing(digest) == {"expected": 1, "waiting": 1}

    smtp.drop = "after"
    deliver_all()

    assert standing(digest) == {"expected": 1, "uncertain": 1}
    assert len(smtp.received) == 1


def test_a_server_that_is_not_there_loses_nothing(smtp):
    digest = make_sending_digest(readers=3)
    smtp.stop()

    delivery.deliver_due()

    assert standing(digest) == {"expected": 3, "waiting": 3}
    assert digest.batches.get().attempts == 0
