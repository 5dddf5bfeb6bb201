"""The audience is frozen and opened again in a few statements, however many readers there are."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from digests import audience, delivery, sets
from digests.models import DeliveryBatch, Digest
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_digest, make_newsletter, make_sending_digest, make_subscriber, make_subscription

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()


def freeze(digest):
    with transaction.atomic():
        Digest.objects.filter(pk=digest.pk).update(state=Digest.State.SENDING)
        count = audience.freeze(digest, now=timezone.now())
    digest.refresh_from_db()
    return count


@pytest.mark.parametrize(
    ("readers", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (31, [3] * 10 + [1])]
)
def test_the_batches_hold_each_reader_once_and_add_up_to_the_audience(readers, sizes, settings, monkeypatch):
    monkeypatch.setattr(sets, "BATCHES_AT_ONCE", 4)
    settings.DELIVERY_BATCH_SIZE = 3
    newsletter = make_newsletter()
    chosen = sorted(make_subscription(newsletter).subscriber_id for _ in range(readers))
    make_subscription()  # of another newsletter
    digest = make_digest(newsletter)

    assert freeze(digest) == readers == digest.expected_count

    batches = list(digest.batches.order_by("number"))
    assert [batch.size for batch in batches] == sizes == [len(batch.reader_ids) for batch in batches]
    assert [batch.number for batch in batches] == list(range(1, len(sizes) + 1))
    assert [reader for batch in batches for reader in batch.reader_ids] == chosen


def test_a_frozen_batch_is_what_any_other_new_batch_is():
    digest = make_sending_digest(readers=2)
    frozen = digest.batches.get()
    with transaction.atomic():
        added = audience.add_batch(digest, frozen.reader_ids, at=frozen.next_attempt_at)

    own = {"id", "number"}
    fields = [field.attname for field in DeliveryBatch._meta.concrete_fields if field.attname not in own]
    assert [getattr(frozen, name) for name in fields] == [getattr(added, name) for name in fields]


def test_who_may_not_get_the_digest_is_in_no_batch():
    newsletter, now = make_newsletter(), timezone.now()
    wanted = make_subscription(newsletter)
    make_subscription(newsletter, state="ended", ended_at=now)
    make_subscription(newsletter, state="paused", paused_until=now.date() + timedelta(days=3))
    make_subscription(newsletter, make_subscriber(restricted_at=now))
    make_subscription(newsletter, active_since=now - timedelta(days=3 * 365))
    digest = make_digest(newsletter)

    assert freeze(digest) == 1
    assert digest.batches.get().reader_ids == [wanted.subscriber_id]


@pytest.mark.parametrize("readers", [10, 80])
def test_freezing_takes_a_few_statements_however_many_readers_there_are(readers, settings):
    settings.DELIVERY_BATCH_SIZE = 5
    digest = make_digest()
    for _ in range(readers):
        make_subscription(digest.newsletter)

    with CaptureQueriesContext(connection) as statements, transaction.atomic():
        audience.freeze(digest, now=timezone.now())

    assert len(statements) <= 8, [each["sql"][:100] for each in statements]
    assert digest.batches.count() == readers / 5


def test_many_latecomers_are_divided_into_batches(settings):
    digest = make_sending_digest(readers=2)
    settings.DELIVERY_BATCH_SIZE = 2
    late = {make_subscription(digest.newsletter, active_since=timezone.now()).subscriber_id for _ in range(5)}

    assert audience.add_latecomers(timezone.now()) == 5

    digest.refresh_from_db()
    added = list(digest.batches.filter(number__gt=1).order_by("number"))
    assert [batch.size for batch in added] == [2, 2, 1]
    assert {reader for batch in added for reader in batch.reader_ids} == late
    assert digest.expected_count == 7 == sum(digest.batches.values_list("size", flat=True))


def test_latecomers_behind_many_who_wait_already_are_found(monkeypatch):
    """An import right before the freeze makes everyone look like a latecomer."""
    monkeypatch.setattr(audience, "LATECOMERS_AT_ONCE", 2)
    newsletter, now = make_newsletter(), timezone.now()
    for _ in range(5):
        make_subscription(newsletter, active_since=now)
    digest = make_digest(newsletter)
    freeze(digest)
    late = make_subscription(newsletter, active_since=now + timedelta(seconds=1))

    assert audience.add_latecomers(timezone.now()) == 1
    assert digest.batches.get(number=2).reader_ids == [late.subscriber_id]


def test_readers_of_a_batch_that_was_given_up_are_no_latecomers():
    newsletter = make_newsletter()
    make_subscription(newsletter, active_since=timezone.now())
    digest = make_digest(newsletter)
    freeze(digest)
    digest.batches.update(state="failed", reason="attempts")

    assert audience.add_latecomers(timezone.now()) == 0


def test_looking_for_latecomers_costs_the_same_however_far_the_digest_is():
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    late = make_subscription(digest.newsletter, active_since=timezone.now())

    with CaptureQueriesContext(connection) as statements:
        assert audience.add_latecomers(timezone.now()) == 1
    delivery.deliver_due()

    assert len(statements) <= 16, [each["sql"][:100] for each in statements]
    assert addresses().count(late.subscriber.address) == 1
