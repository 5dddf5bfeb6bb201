"""What a worker's turn keeps from one batch to the next, and what it asks anew."""

from datetime import timedelta
from time import monotonic

import pytest
from django.db import connection
from django.utils import timezone

from digests import claiming, delivery, steps
from digests.carriers import Lines
from digests.models import DeliveryBatch, Digest, Provider
from newsroom.mail import gate
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest, standing

pytestmark = pytest.mark.django_db


@pytest.fixture
def turn(settings):
    """A turn whose first batch is done; its digest has two more of five readers."""
    settings.DELIVERY_BATCH_SIZE = 5
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=15)
    with Lines() as lines:
        turn = claiming.Turn(lines, begun_at=monotonic())
        assert delivery._deliver(numbered(digest, 1).pk, turn)
        yield turn


def numbered(digest, number):
    return digest.batches.get(number=number)


def the_digest():
    return Digest.objects.get()


def test_the_next_batch_of_a_turn_is_claimed_like_the_first(turn):
    second = numbered(the_digest(), 2)

    claim = claiming.claim(second.pk, turn)

    assert claim is not None and claim.fence == 1 and claim.batch.reader_ids == second.reader_ids
    second.refresh_from_db()
    assert (second.state, second.fence, second.attempts) == (DeliveryBatch.State.LEASED, 1, 1)
    assert second.owner and second.lease_until > timezone.now()
    assert claiming.claim(second.pk, turn) is None


@pytest.mark.postgresql
def test_a_batch_that_goes_well_takes_few_statements(turn):
    second, asked = numbered(the_digest(), 2), []

    def count(execute, words, *arguments):
        asked.append(words)
        return execute(words, *arguments)

    with connection.execute_wrapper(count):
        assert delivery._deliver(second.pk, turn)

    # Claim; transaction, attempt, whether there are others, deliveries, readers, commit; addresses; end, the month's
    # mail, and whether it was the last.
    assert len(asked) <= 11, asked
    assert len(addresses()) == 10


def test_a_digest_paused_between_two_batches_of_a_turn_is_not_claimed(turn):
    steps.take(the_digest(), steps.PAUSE, now=timezone.now(), reason="halt")

    assert claiming.claim(numbered(the_digest(), 2).pk, turn) is None
    assert numbered(the_digest(), 2).attempts == 0


def test_a_digest_paused_after_the_claim_is_not_begun(turn):
    claim = claiming.claim(numbered(the_digest(), 2).pk, turn)
    steps.take(the_digest(), steps.PAUSE, now=timezone.now(), reason="halt")

    with pytest.raises(delivery.NotSending):
        delivery._hand_over(claim, delivery.Progress())
    assert len(addresses()) == 5 and the_digest().deliveries.count() == 5


def test_a_batch_attempted_too_often_is_given_up_in_a_turn_too(turn, settings):
    digest = the_digest()
    digest.batches.filter(number=2).update(attempts=settings.DELIVERY_MAX_ATTEMPTS)

    assert claiming.claim(numbered(digest, 2).pk, turn) is None
    assert numbered(digest, 2).state == DeliveryBatch.State.FAILED


def test_a_batch_whose_keys_the_provider_forgot_is_given_up_in_a_turn_too(turn):
    digest = the_digest()
    digest.batches.filter(number=2).update(keyed_until=timezone.now() - timedelta(hours=1))

    assert claiming.claim(numbered(digest, 2).pk, turn) is None
    assert numbered(digest, 2).state == DeliveryBatch.State.FAILED


def test_after_a_fault_a_turn_asks_the_gate_anew(turn):
    Provider.objects.update(gate=Provider.Gate.CLOSED, resume_at=timezone.now() + timedelta(hours=1))

    turn.stop()

    assert claiming.claim(numbered(the_digest(), 2).pk, turn) is None


def test_leave_to_send_holds_for_a_moment_only(turn, monkeypatch):
    monkeypatch.setitem(gate._obstacles, "test", lambda: "Closed for the night.")
    later = monotonic() + claiming.LEAVE.total_seconds()
    monkeypatch.setattr(claiming, "monotonic", lambda: later)

    assert claiming.claim(numbered(the_digest(), 2).pk, turn) is None


def test_a_pace_is_asked_for_with_each_batch(turn):
    Provider.objects.update(most_per_day=5, counted_on=timezone.now().date(), count_of_day=5)
    turn.stop()
    assert turn.ask(now=timezone.now()) is None

    Provider.objects.update(most_per_day=1000)
    assert turn.ask(now=timezone.now()) is not None and turn.allowed is None


def test_a_batch_with_readers_who_wait_again_is_not_closed_as_a_whole(turn):
    claim = claiming.claim(numbered(the_digest(), 2).pk, turn)
    progress = delivery.Progress()
    delivery._hand_over(claim, progress)
    waiting = the_digest().deliveries.filter(batch=claim.batch).first()
    type(waiting).objects.filter(pk=waiting.pk).update(state="postponed", reason="moved")

    delivery._settle(claim, progress)

    last = the_digest().batches.latest("id")
    assert last.reader_ids == [waiting.subscriber_id] and last.state == DeliveryBatch.State.PENDING
    assert standing(the_digest()) == {"expected": 15, "accepted": 9, "waiting": 6}
