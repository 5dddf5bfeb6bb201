"""Each invariant of delivery is found broken when it is broken, and only then."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from digests import audit, delivery
from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest
from tests.backends import ScriptedBackend
from tests.makers import make_sending_digest

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


@pytest.fixture
def digest(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=5)
    delivery.deliver_due()
    assert found() == []
    digest.refresh_from_db()
    assert digest.state == Digest.State.FINISHED
    return digest


def found():
    return list(audit.broken_invariants(timezone.now()))


def without_constraint(model, name):
    """Take a constraint away, as a careless restore does."""
    constraint = next(each for each in model._meta.constraints if each.name == name)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # no table is altered with checks outstanding
    with connection.schema_editor() as editor:
        editor.remove_constraint(model, constraint)


@pytest.mark.postgresql
def test_two_digests_of_one_date_are_found(digest):
    without_constraint(Digest, "one_digest_per_newsletter_and_local_date")
    values = {"newsletter": digest.newsletter, "date": digest.date, "state": Digest.State.SKIPPED}
    Digest.objects.create(**values, due_at=digest.due_at, not_after=digest.not_after, created_at=digest.created_at)

    assert any("2 digests of" in sentence for sentence in found())


@pytest.mark.postgresql
def test_two_deliveries_of_one_reader_are_found(digest):
    without_constraint(Delivery, "one_delivery_per_reader_and_digest")
    one = digest.deliveries.first()
    Delivery.objects.create(
        digest=digest, batch=one.batch, subscriber=one.subscriber, state="refused", created_at=one.created_at
    )

    assert any("2 deliveries of one reader" in sentence for sentence in found())


def test_readers_who_do_not_add_up_are_found(digest):
    digest.batches.update(size=4)

    assert any("add up" in sentence for sentence in found())


def test_a_digest_finished_with_open_batches_is_found(digest):
    digest.batches.update(state="leased", lease_until=timezone.now())

    assert any("batches open" in sentence for sentence in found())


def test_a_digest_finished_with_uncertain_deliveries_is_found(digest):
    Delivery.objects.filter(pk=digest.deliveries.first().pk).update(state="uncertain")

    assert any("uncertain" in sentence for sentence in found())


def test_a_call_without_a_committed_attempt_is_found(digest):
    DeliveryAttempt.objects.all().delete()

    assert any("without a recorded attempt" in sentence for sentence in found())


def test_a_reader_mailed_after_leaving_is_found(digest):
    subscription = digest.newsletter.subscriptions.first()
    rows = type(subscription).objects.filter(pk=subscription.pk)
    rows.update(state="ended", ended_at=timezone.now() + SECOND)
    assert found() == []

    rows.update(ended_at=timezone.now() - timedelta(hours=1))

    assert [sentence for sentence in found() if "unsubscribed" in sentence]


def test_what_was_handed_over_and_waits_again_is_found(digest):
    Digest.objects.update(state=Digest.State.SENDING)
    digest.batches.update(state=DeliveryBatch.State.PENDING)

    assert any("again" in sentence for sentence in found())


@pytest.mark.parametrize("state", ["leased", "submitting"])
def test_a_batch_nobody_holds_any_more_is_found_after_ten_minutes(digest, state):
    Digest.objects.update(state=Digest.State.SENDING)
    digest.batches.update(state=state, lease_until=timezone.now() - timedelta(minutes=9))
    assert not any("since its lease ended" in sentence for sentence in found())

    digest.batches.update(lease_until=timezone.now() - timedelta(minutes=11))

    assert any("since its lease ended" in sentence for sentence in found())


def test_a_fence_that_fell_is_found(digest):
    DeliveryBatch.objects.update(fence=0)

    assert any("fence fell" in sentence for sentence in found())


def test_the_command_ends_with_one_and_names_what_is_broken(digest, capsys):
    DeliveryBatch.objects.update(fence=0)

    with pytest.raises(SystemExit) as end:
        call_command("audit")

    assert end.value.code == 1
    assert "fence fell" in capsys.readouterr().out
