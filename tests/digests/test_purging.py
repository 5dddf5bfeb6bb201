from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from digests import audit, delivery, outcomes
from digests.models import Delivery, DeliveryBatch, Digest
from newsroom.tasks import purge_all
from tests.backends import ScriptedBackend
from tests.makers import make_sending_digest

pytestmark = pytest.mark.django_db

JUST_BEFORE = settings.DELIVERY_RETENTION - timedelta(minutes=2)
JUST_AFTER = settings.DELIVERY_RETENTION + timedelta(minutes=2)


@pytest.fixture
def sent(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    digest.refresh_from_db()
    return digest


@pytest.mark.parametrize(("age", "left"), [(JUST_BEFORE, 3), (JUST_AFTER, 0)])
def test_who_got_which_digest_is_forgotten_after_the_retention_period(sent, age, left):
    purge_all(sent.due_at + age)

    assert Delivery.objects.count() == left
    assert DeliveryBatch.objects.exists() == bool(left)


def test_the_sums_stay(sent):
    before = outcomes.counts(sent)

    assert purge_all(sent.due_at + JUST_AFTER)["deliveries"] == 3

    sent.refresh_from_db()
    assert outcomes.counts(sent) == before
    assert not list(audit.broken_invariants(timezone.now()))


def test_a_digest_that_is_still_being_sent_keeps_its_deliveries(sent):
    Digest.objects.filter(pk=sent.pk).update(state=Digest.State.SENDING)

    assert purge_all(sent.due_at + JUST_AFTER)["deliveries"] == 0


def test_purging_twice_does_nothing_more(sent):
    purge_all(sent.due_at + JUST_AFTER)

    assert purge_all(sent.due_at + JUST_AFTER)["deliveries"] == 0


def test_a_purge_in_chunks_misses_nobody(settings):
    settings.PURGE_CHUNK = 2
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=9)
    delivery.deliver_due()
    restricted = digest.deliveries.order_by("pk")[4].subscriber
    type(restricted).objects.filter(pk=restricted.pk).update(restricted_at=timezone.now())

    assert purge_all(digest.due_at + JUST_AFTER)["deliveries"] == 8

    assert Delivery.objects.get().subscriber == restricted


def test_r34_what_is_held_about_a_restricted_reader_stays_until_the_restriction_ends(sent):
    reader = sent.newsletter.subscriptions.first().subscriber
    type(reader).objects.filter(pk=reader.pk).update(restricted_at=timezone.now())
    before = outcomes.counts(sent)

    assert purge_all(sent.due_at + JUST_AFTER)["deliveries"] == 2
    assert Delivery.objects.get().subscriber == reader
    assert DeliveryBatch.objects.get().reader_ids == []
    type(reader).objects.filter(pk=reader.pk).update(restricted_at=None)

    assert purge_all(sent.due_at + JUST_AFTER)["deliveries"] == 1
    sent.refresh_from_db()
    assert outcomes.counts(sent) == before
    assert not DeliveryBatch.objects.exists()
