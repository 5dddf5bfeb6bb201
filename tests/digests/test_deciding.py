"""Staff decide about deliveries that did not come to a good end: again, left, or waited for; each once, each noted."""

import smtplib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Event
from time import sleep

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from digests import audit, delivery, outcomes, release, sweeping, uncertain
from digests.models import Delivery, DeliveryBatch, Digest, DigestSchedule, Provider
from subscriptions.models import Subscriber
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest, standing

pytestmark = pytest.mark.django_db
REASON = "Beim Versender nachgefragt."


@pytest.fixture(autouse=True)
def _scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    settings.DELIVERY_BATCH_SIZE = 10
    ScriptedBackend.reset()


@pytest.fixture
def chief():
    return User.objects.create_superuser("leitung")


def decide(call, digest, actor, **values):
    return call(digest, now=timezone.now(), actor=actor, reason=REASON, **values)


def deliver_all():
    """Hand over what waits, as if all pauses were over."""
    for _turn in range(30):
        Provider.objects.update(gate="open", failures=0, resume_at=None)
        DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now() - timedelta(seconds=1))
        if not delivery.deliver_due():
            return


def give_batches_up(digest):
    """Let the digest's batches fail as those do on which worker after worker died."""
    digest.batches.update(attempts=1000)
    delivery.deliver_due()
    sweeping.sweep(timezone.now())


def lose_everything(digest):
    """Let every mail time out, as if the provider never answered."""

    def time_out(message, call):
        raise TimeoutError

    ScriptedBackend.reset(time_out)
    deliver_all()
    assert digest.deliveries.uncertain().count() == digest.expected_count
    ScriptedBackend.reset()


def is_sound():
    return not list(audit.broken_invariants(timezone.now()))


def test_failed_batches_are_tried_again_and_the_finished_digest_goes_on(chief):
    digest = make_sending_digest(readers=25)
    give_batches_up(digest)
    assert standing(digest) == {"expected": 25, "failed": 25} and digest.state == Digest.State.FINISHED

    assert decide(outcomes.retry_failed, digest, chief) == 25
    assert standing(digest) == {"expected": 25, "waiting": 25} and digest.state == Digest.State.SENDING
    deliver_all()

    assert standing(digest) == {"expected": 25, "accepted": 25} and digest.state == Digest.State.FINISHED
    assert len(addresses()) == len(set(addresses())) == 25
    again = digest.changes.get(actor=chief)
    assert again.state == Digest.State.SENDING and "25" in again.reason and REASON in again.reason
    assert is_sound()


def test_what_was_left_by_decision_is_not_tried_again_as_failed(chief):
    digest = make_sending_digest(readers=10)
    lose_everything(digest)
    assert decide(outcomes.give_up_uncertain, digest, chief) == 10

    assert decide(outcomes.retry_failed, digest, chief) == 0

    assert standing(digest) == {"expected": 10, "failed": 10} and digest.state == Digest.State.FINISHED
    assert digest.changes.filter(actor=chief).count() == 1


def test_refused_readers_are_mailed_again_once_the_fault_is_mended(chief):
    digest = make_sending_digest(readers=12)
    refuse(digest)
    assert standing(digest) == {"expected": 12, "refused": 12}

    assert decide(outcomes.retry_refused, digest, chief) == 12
    deliver_all()

    assert standing(digest) == {"expected": 12, "accepted": 12}
    assert len(set(addresses())) == len(addresses()) == 12
    assert is_sound()


def test_who_was_erased_before_the_refused_are_mailed_again_keeps_one_delivery_that_says_so(chief):
    digest = make_sending_digest(readers=12)
    refuse(digest)
    decide(outcomes.retry_refused, digest, chief)
    Subscriber.objects.first().delete()

    deliver_all()

    assert len(set(addresses())) == len(addresses()) == 11
    assert digest.deliveries.count() == 12 and digest.deliveries.get(subscriber=None).reason == "erased"
    assert standing(digest) == {"expected": 12, "accepted": 11, "suppressed": 1}
    assert is_sound()


def test_who_left_meanwhile_is_not_mailed_by_a_second_try(chief):
    digest = make_sending_digest(readers=10)
    give_batches_up(digest)
    gone = digest.newsletter.subscriptions.first()
    digest.newsletter.subscriptions.filter(pk=gone.pk).update(state="ended", ended_at=timezone.now())

    decide(outcomes.retry_failed, digest, chief)
    deliver_all()

    assert standing(digest) == {"expected": 10, "accepted": 9, "suppressed": 1}
    assert gone.subscriber.address not in addresses()


def test_uncertain_readers_stay_so_until_the_second_mail_has_gone(chief):
    digest = make_sending_digest(readers=25)
    lose_everything(digest)

    assert decide(outcomes.resend_uncertain, digest, chief) == 25
    assert standing(digest) == {"expected": 25, "uncertain": 25}
    assert max(digest.batches.filter(state="pending").values_list("size", flat=True)) == 10
    deliver_all()

    assert standing(digest) == {"expected": 25, "accepted": 25} and digest.state == Digest.State.FINISHED
    assert is_sound()


def test_whom_the_provider_reported_on_meanwhile_is_not_mailed_again(chief):
    digest = make_sending_digest(readers=5)
    lose_everything(digest)
    decide(outcomes.resend_uncertain, digest, chief)
    told = digest.deliveries.first()
    Delivery.objects.filter(pk=told.pk).update(state=Delivery.State.ACCEPTED)

    deliver_all()

    assert len(addresses()) == 4 and told.subscriber.address not in addresses()
    assert standing(digest) == {"expected": 5, "accepted": 5}


def test_waiting_for_the_provider_changes_nothing_and_is_noted(chief):
    digest = make_sending_digest(readers=3)
    lose_everything(digest)

    assert decide(outcomes.wait_for_uncertain, digest, chief) == 3

    assert standing(digest) == {"expected": 3, "uncertain": 3}
    noted = digest.changes.get(actor=chief)
    assert "3" in noted.reason and REASON in noted.reason


@pytest.mark.parametrize("call", [outcomes.retry_failed, outcomes.retry_refused, outcomes.resend_uncertain])
def test_nothing_is_begun_once_the_time_is_over(chief, call):
    digest = make_sending_digest(readers=3)
    give_batches_up(digest)
    digest.deliveries.update(state="uncertain")

    assert call(digest, now=digest.not_after, actor=chief, reason=REASON) == 0

    assert not digest.changes.filter(actor=chief).exists()


def fail(digest):
    give_batches_up(digest)
    return outcomes.retry_failed


def refuse(digest):
    def script(message, call):
        raise smtplib.SMTPRecipientsRefused({message.to[0]: (550, b"sender not verified")})

    ScriptedBackend.reset(script)
    deliver_all()
    ScriptedBackend.reset()
    return outcomes.retry_refused


def lose(digest):
    lose_everything(digest)
    return outcomes.resend_uncertain


def lose_for_good(digest):
    lose_everything(digest)
    return outcomes.give_up_uncertain


def start(digest):
    return release.pause


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("prepare", [fail, refuse, lose, lose_for_good, start])
def test_of_two_who_press_at_once_one_decides(chief, prepare):
    digest = make_sending_digest(readers=12)
    call = prepare(digest)
    barrier = Barrier(2)

    def press(_number):
        try:
            mine = Digest.objects.get(pk=digest.pk)
            barrier.wait(20)
            return int(decide(call, mine, chief))
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        results = sorted(pool.map(press, range(2)))

    assert results[0] == 0 and results[1] > 0
    assert digest.changes.filter(actor=chief).count() == 1
    if prepare is not start:
        deliver_all()
        assert len(set(addresses())) == len(addresses()) == (0 if prepare is lose_for_good else 12)
    assert is_sound()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("by", ["schedule", "staff"])
def test_what_a_provider_tells_of_while_the_others_are_left_stands(chief, by):
    digest = make_sending_digest(readers=12)
    lose_everything(digest)
    DigestSchedule.objects.update(uncertain_policy="leave")
    told = digest.deliveries.first()
    has_begun = Event()

    def leave():
        try:
            has_begun.set()
            if by == "staff":
                decide(outcomes.give_up_uncertain, digest, chief)
            else:
                uncertain.resolve(timezone.now() + timedelta(hours=2))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Delivery.objects.filter(pk=told.pk).update(state=Delivery.State.ACCEPTED)
            leaving = pool.submit(leave)
            has_begun.wait(20)
            sleep(1)  # it waits for the row by now
        leaving.result(60)

    assert standing(digest) == {"expected": 12, "accepted": 1, "failed": 11}
    assert "11" in digest.changes.order_by("pk").first().reason


def test_a_paused_digest_keeps_waiting_when_its_failed_ones_are_to_be_tried_again(chief):
    digest = make_sending_digest(readers=15)
    digest.batches.filter(number=1).update(attempts=1000)
    delivery.deliver(digest.batches.get(number=1).pk)
    decide(release.pause, digest, chief)

    assert decide(outcomes.retry_failed, digest, chief) == 10
    deliver_all()

    assert standing(digest) == {"expected": 15, "waiting": 15} and digest.state == Digest.State.PAUSED
    assert addresses() == []
