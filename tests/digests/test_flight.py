"""Who leaves while copies are on their way is mailed before the answer, or not at all."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from digests import delivery
from digests.flight import is_in_flight
from digests.models import DeliveryAttempt, DeliveryBatch
from newsroom.mail import flight
from newsroom.mail.addresses import canonicalise
from subscriptions import consent, links, rectifying
from subscriptions.consent import Origin
from subscriptions.models import Subscriber, Subscription
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest

ORIGIN = Origin(source="unsubscribe_page")


def make_group_in_flight(*, lease):
    """A batch whose worker is at its third and fourth of six readers; return the readers' ids."""
    batch = make_sending_digest(readers=6).batches.get()
    values = {"state": "submitting", "fence": 1, "lease_until": timezone.now() + lease}
    DeliveryBatch.objects.filter(pk=batch.pk).update(**values)
    DeliveryAttempt.objects.create(batch=batch, fence=1, started_at=timezone.now(), acknowledged=2, in_flight=2)
    return batch.reader_ids


def leave(reader_id):
    """Return how many seconds the answer took."""
    started = time.monotonic()
    consent.withdraw(Subscription.objects.get(subscriber=reader_id), origin=ORIGIN, now=timezone.now())
    return time.monotonic() - started


@pytest.mark.django_db
def test_in_flight_is_the_group_a_living_worker_is_at():
    reader_ids = make_group_in_flight(lease=timedelta(minutes=1))

    assert [reader_id for reader_id in reader_ids if is_in_flight(reader_id)] == reader_ids[2:4]


@pytest.mark.django_db
def test_a_dead_worker_keeps_nobody_in_flight():
    reader_ids = make_group_in_flight(lease=timedelta(seconds=-1))

    assert not any(is_in_flight(reader_id) for reader_id in reader_ids)


@pytest.mark.django_db(transaction=True)
def test_the_answer_waits_for_a_copy_on_its_way_but_not_for_ever_and_for_no_other(monkeypatch):
    monkeypatch.setattr(flight, "PATIENCE", 0.7)
    reader_ids = make_group_in_flight(lease=timedelta(minutes=1))

    assert leave(reader_ids[2]) >= 0.7
    monkeypatch.setattr(flight, "PATIENCE", 60)  # longer than a busy machine takes for the rest
    assert leave(reader_ids[5]) < 60


@pytest.fixture
def waited_for(monkeypatch):
    """Whose copies on their way were waited for."""
    readers: list[int] = []
    monkeypatch.setattr(flight, "_wait", readers.append)
    return readers


@pytest.mark.django_db(transaction=True)
def test_the_second_answer_waits_as_the_first_does(waited_for):
    """A mail program's one-click and the reader's own may come at once."""
    reader_id = make_group_in_flight(lease=timedelta(minutes=1))[2]

    leave(reader_id)
    leave(reader_id)

    assert waited_for == [reader_id, reader_id]


@pytest.mark.django_db(transaction=True)
def test_who_pauses_is_answered_when_no_copy_is_on_its_way(waited_for):
    reader_id = make_group_in_flight(lease=timedelta(minutes=1))[2]
    subscription = Subscription.objects.get(subscriber=reader_id)

    until = timezone.localdate() + timedelta(days=7)
    assert consent.pause(subscription, until=until, origin=ORIGIN, now=timezone.now())

    assert waited_for == [reader_id]


@pytest.mark.django_db(transaction=True)
def test_who_moves_to_the_address_of_another_is_answered_when_no_copy_to_either_is_on_its_way(waited_for):
    reader, other = Subscriber.objects.filter(pk__in=make_group_in_flight(lease=timedelta(minutes=1))[2:4])
    reader_ids = {reader.pk, other.pk}
    now = timezone.now()
    change = rectifying.request_change(reader, canonicalise(other.address), origin=ORIGIN, now=now)
    token = links.derive_token(
        links.Purpose.ADDRESS, change.uuid, links.TokenSeed(nonce=change.nonce, token_hash=change.token_hash)
    )

    assert rectifying.confirm(token, origin=ORIGIN, now=now) == consent.Confirmation.CONFIRMED

    assert set(waited_for) == reader_ids


@pytest.mark.django_db
def test_who_leaves_while_others_of_the_group_are_mailed_is_not_mailed(settings, monkeypatch):
    monkeypatch.setattr(delivery, "FRESHNESS", timedelta())  # as if each copy took longer than that
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    digest = make_sending_digest(readers=4)
    leaving = digest.batches.get().reader_ids[2]

    def leave_at_the_first(message, number):
        if number == 0:
            leave(leaving)

    ScriptedBackend.reset(leave_at_the_first)
    delivery.deliver_due()

    assert len(addresses()) == 3
    assert digest.deliveries.get(subscriber=leaving).state == "suppressed"
