import errno
import smtplib
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.utils import timezone

from digests import audit, carriers, claiming, delivery, outcomes, providers, statements, sweeping
from digests.models import OUTCOME, Delivery, DeliveryAttempt, DeliveryBatch, Digest, Provider
from newsroom.mail import flight
from newsroom.mail.addresses import canonicalise
from subscriptions import links, rectifying
from subscriptions.consent import Confirmation, Origin
from subscriptions.models import Subscriber, Subscription, lapse_limit
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest, make_subscription, standing

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    settings.DELIVERY_BATCH_SIZE = 25
    ScriptedBackend.reset()


def fail_at(number, error):
    def script(message, call):
        if call == number:
            raise error

    return script


def later(minutes=5):
    """Make everything that waits for a later time due, as if that time had come."""
    DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now() - timedelta(seconds=1))
    Provider.objects.update(resume_at=None)


def is_sound(digest):
    return not list(audit.broken_invariants(timezone.now()))


def test_every_reader_gets_one_copy_and_the_digest_is_finished():
    digest = make_sending_digest(readers=60)

    delivery.deliver_due()

    assert len(addresses()) == len(set(addresses())) == 60
    assert standing(digest) == {"expected": 60, "accepted": 60}
    assert digest.state == Digest.State.FINISHED


def test_a_second_worker_does_nothing():
    digest = make_sending_digest(readers=3)
    batch = digest.batches.get()
    delivery.deliver(batch.pk)

    assert delivery.deliver(batch.pk) is False
    assert len(addresses()) == 3


def test_the_ordinary_delivery_row_is_written_once_and_has_no_outcome_of_its_own():
    digest = make_sending_digest(readers=3)

    delivery.deliver_due()

    assert set(digest.deliveries.values_list("state", flat=True)) == {""}
    assert set(digest.deliveries.values_list(OUTCOME, flat=True)) == {"accepted"}


def test_a_refused_address_does_not_keep_the_others_waiting():
    ScriptedBackend.reset(fail_at(4, smtplib.SMTPRecipientsRefused({"x@leser.example": (550, b"no such user")})))
    digest = make_sending_digest(readers=12)

    delivery.deliver_due()

    assert standing(digest) == {"expected": 12, "accepted": 11, "refused": 1}
    assert digest.state == Digest.State.FINISHED


def test_a_mailbox_that_asks_for_patience_delays_only_its_own_reader():
    error = smtplib.SMTPRecipientsRefused({"x@leser.example": (450, b"4.2.0 greylisted")})
    ScriptedBackend.reset(fail_at(4, error))
    digest = make_sending_digest(readers=25)

    delivery.deliver_due()
    assert standing(digest) == {"expected": 25, "accepted": 24, "waiting": 1}
    later()
    delivery.deliver_due()

    assert standing(digest) == {"expected": 25, "accepted": 25}
    assert len(set(addresses())) == 25
    assert is_sound(digest)


def test_who_waits_for_a_mailbox_waits_in_the_order_of_the_audience():
    def always(message, call):
        raise smtplib.SMTPRecipientsRefused({"x@leser.example": (450, b"4.2.0 greylisted")})

    ScriptedBackend.reset(always)
    digest = make_sending_digest(readers=8)
    [audience] = digest.batches.values_list("reader_ids", flat=True)

    delivery.deliver_due()

    assert digest.batches.get(state="pending").reader_ids == audience


def test_a_postponed_reader_is_not_forgotten_when_the_worker_dies_later():
    error = smtplib.SMTPRecipientsRefused({"x@leser.example": (450, b"4.2.0 greylisted")})

    def greylist_then_die(message, call):
        if call == 4:
            raise error
        if call == 15:
            raise KeyboardInterrupt  # what no worker survives

    ScriptedBackend.reset(greylist_then_die)
    digest = make_sending_digest(readers=25)
    with pytest.raises(KeyboardInterrupt):
        delivery.deliver_due()
    digest.batches.update(lease_until=timezone.now() - timedelta(seconds=1))

    sweeping.sweep(timezone.now())

    assert standing(digest) == {"expected": 25, "accepted": 9, "uncertain": 10, "waiting": 6}
    assert is_sound(digest)


def test_a_mailbox_that_never_takes_mail_fails_in_the_end():
    def always(message, call):
        raise smtplib.SMTPRecipientsRefused({"x@leser.example": (452, b"4.2.2 full")})

    ScriptedBackend.reset(always)
    digest = make_sending_digest(readers=1)

    for _ in range(django_settings.DELIVERY_MAX_ATTEMPTS + 1):
        delivery.deliver_due()
        later()

    assert standing(digest) == {"expected": 1, "failed": 1}


def test_what_was_surely_not_sent_waits_again_and_goes_later():
    ScriptedBackend.reset(fail_at(14, ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    digest = make_sending_digest(readers=25)

    delivery.deliver_due()
    assert standing(digest) == {"expected": 25, "accepted": 14, "waiting": 11}
    later()
    delivery.deliver_due()

    assert standing(digest) == {"expected": 25, "accepted": 25}
    assert len(addresses()) == len(set(addresses())) == 25
    assert is_sound(digest)


def test_an_unreachable_provider_costs_no_attempt_and_holds_the_gate():
    ScriptedBackend.reset(fail_at(0, ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    digest = make_sending_digest(readers=2)

    delivery.deliver_due()

    batch = digest.batches.get()
    assert (batch.state, batch.attempts) == (DeliveryBatch.State.PENDING, 0)
    assert not providers.passes(providers.current(), now=timezone.now())


def test_a_lost_answer_makes_one_reader_uncertain_and_nobody_is_mailed_twice():
    ScriptedBackend.reset(fail_at(7, TimeoutError()))
    digest = make_sending_digest(readers=25)

    delivery.deliver_due()
    later()
    delivery.deliver_due()

    assert standing(digest) == {"expected": 25, "accepted": 24, "uncertain": 1}
    assert digest.state == Digest.State.SENDING
    assert len(addresses()) == len(set(addresses())) == 24


def test_a_refused_key_closes_the_gate_until_staff_opens_it():
    ScriptedBackend.reset(fail_at(0, smtplib.SMTPAuthenticationError(535, b"bad")))
    digest = make_sending_digest(readers=2)
    delivery.deliver_due()
    later()
    delivery.deliver_due()
    assert standing(digest) == {"expected": 2, "waiting": 2}

    assert providers.reopen(providers.current())
    delivery.deliver_due()

    assert standing(digest) == {"expected": 2, "accepted": 2}


def test_who_unsubscribed_after_the_freeze_is_not_mailed():
    digest = make_sending_digest(readers=5)
    subscription = digest.newsletter.subscriptions.first()
    digest.newsletter.subscriptions.filter(pk=subscription.pk).update(state="ended", ended_at=timezone.now())

    delivery.deliver_due()

    assert subscription.subscriber.address not in addresses()
    assert standing(digest) == {"expected": 5, "accepted": 4, "suppressed": 1}
    assert digest.state == Digest.State.FINISHED


def test_who_unsubscribes_while_the_batch_is_being_sent_is_not_mailed():
    digest = make_sending_digest(readers=25)
    last = digest.newsletter.subscriptions.last()

    def unsubscribe_in_time(message, call):
        if call == 5:
            digest.newsletter.subscriptions.filter(pk=last.pk).update(state="ended", ended_at=timezone.now())

    ScriptedBackend.reset(unsubscribe_in_time)
    delivery.deliver_due()

    assert last.subscriber.address not in addresses()
    assert standing(digest) == {"expected": 25, "accepted": 24, "suppressed": 1}


def test_an_erased_reader_is_not_mailed_and_stops_nobody():
    digest = make_sending_digest(readers=4)
    subscriber = digest.newsletter.subscriptions.first().subscriber
    subscriber.delete()

    delivery.deliver_due()

    assert standing(digest) == {"expected": 4, "accepted": 3, "suppressed": 1}
    assert digest.state == Digest.State.FINISHED


@pytest.mark.parametrize("place", [5, 15], ids=["the same group", "a later group"])
def test_who_is_erased_in_mid_batch_counts_as_erased_and_not_as_mailed(place, monkeypatch):
    monkeypatch.setattr(delivery, "FRESHNESS", timedelta())  # as if each copy took longer than that

    def erase(message, call):
        if call == 2:
            Subscriber.objects.get(pk=reader_id).delete()

    digest = make_sending_digest(readers=20)
    reader_id = digest.batches.get().reader_ids[place]
    ScriptedBackend.reset(erase)

    delivery.deliver_due()

    assert len(addresses()) == 19
    assert standing(digest) == {"expected": 20, "accepted": 19, "suppressed": 1}
    assert is_sound(digest)


def test_a_restricted_reader_is_not_mailed():
    digest = make_sending_digest(readers=2)
    subscriber = digest.newsletter.subscriptions.first().subscriber
    type(subscriber).objects.filter(pk=subscriber.pk).update(restricted_at=timezone.now())

    delivery.deliver_due()

    assert subscriber.address not in addresses()


CHANGES = {
    "left": lambda mine, now: mine.update(state="ended", ended_at=now),
    "paused": lambda mine, now: mine.update(state="paused", paused_until=now.date() + timedelta(days=9)),
    "lapsed": lambda mine, now: mine.update(active_since=lapse_limit(now) - timedelta(days=1)),
    "restricted": lambda mine, now: Subscriber.objects.filter(subscriptions__in=mine).update(restricted_at=now),
    "is no subscriber": lambda mine, now: mine.delete(),
}


@pytest.mark.parametrize("call", [None, 0, 5], ids=["before", "after an attempt", "meanwhile"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_who_may_not_be_mailed_any_more_is_not_whenever_that_was_said(change, call):
    digest = make_sending_digest(readers=25)
    last = Subscriber.objects.get(pk=digest.batches.get().reader_ids[-1])

    def script(message, number):
        if number == call or call is None:
            change(Subscription.objects.filter(subscriber=last), timezone.now())
        if number == call == 0:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    ScriptedBackend.reset(script)
    if call is None:
        script(None, None)
    delivery.deliver_due()
    later()
    delivery.deliver_due()

    assert len(addresses()) == len(set(addresses())) == 24 and last.address not in addresses()
    assert standing(digest) == {"expected": 25, "accepted": 24, "suppressed": 1}
    assert not Subscription.objects.filter(subscriber=last, last_sent_at__isnull=False).exists()
    assert Subscription.objects.filter(last_sent_at__isnull=False).count() == 24
    assert is_sound(digest)


@pytest.mark.parametrize("state", [Digest.State.PAUSED, Digest.State.CANCELLED])
def test_a_pause_or_cancellation_takes_hold_within_the_batch(state):
    digest = make_sending_digest(readers=25)

    def change_state(message, call):
        if call == 3:
            Digest.objects.filter(pk=digest.pk).update(state=state)

    ScriptedBackend.reset(change_state)
    delivery.deliver_due()

    assert len(addresses()) == carriers.SMALL_GROUP
    assert standing(digest) == {"expected": 25, "accepted": 10, "waiting": 15}


def test_a_paused_digest_goes_on_where_it_stopped():
    digest = make_sending_digest(readers=25)
    ScriptedBackend.reset(
        lambda message, call: (
            Digest.objects.filter(pk=digest.pk, state="sending").update(state="paused") if call == 3 else None
        )
    )
    delivery.deliver_due()
    Digest.objects.filter(pk=digest.pk).update(state=Digest.State.SENDING)
    later()

    delivery.deliver_due()

    assert len(addresses()) == len(set(addresses())) == 25
    assert standing(digest) == {"expected": 25, "accepted": 25}


def lose_worker(digest, *, acknowledged, in_flight, size=25):
    """Leave the rows as a worker does that was killed after its commit of a group's intent."""
    batch = digest.batches.get()
    now = timezone.now()
    batch.state, batch.fence, batch.attempts = DeliveryBatch.State.SUBMITTING, 1, 1
    batch.lease_until = now - timedelta(seconds=1)
    batch.save()
    statements.write_deliveries(batch, at=now)
    DeliveryAttempt.objects.create(batch=batch, fence=1, started_at=now, acknowledged=acknowledged, in_flight=in_flight)


def test_readers_in_flight_when_a_worker_dies_are_uncertain_and_the_rest_is_sent():
    digest = make_sending_digest(readers=25)
    lose_worker(digest, acknowledged=10, in_flight=10)

    sweeping.sweep(timezone.now())
    assert standing(digest) == {"expected": 25, "accepted": 10, "uncertain": 10, "waiting": 5}
    delivery.deliver_due()

    assert len(addresses()) == 5
    assert standing(digest) == {"expected": 25, "accepted": 15, "uncertain": 10}
    assert is_sound(digest)


def test_a_worker_that_died_before_sending_costs_nothing_but_time():
    digest = make_sending_digest(readers=3)
    digest.batches.update(state="leased", fence=1, attempts=1, lease_until=timezone.now() - timedelta(seconds=1))

    delivery.deliver_due()

    assert standing(digest) == {"expected": 3, "accepted": 3}


@pytest.mark.parametrize(("state", "ends_as"), [("cancelled", "cancelled"), ("paused", "expired")])
def test_a_digest_that_ended_leaves_no_claim_of_a_dead_worker_open(state, ends_as):
    digest = make_sending_digest(readers=3)
    over = timezone.now() - timedelta(hours=1)
    digest.batches.update(state="leased", fence=1, attempts=1, lease_until=over)
    Digest.objects.update(state=state, not_after=over)

    sweeping.sweep(timezone.now())

    assert digest.batches.get().state == ends_as
    assert standing(digest) == {"expected": 3, "expired": 3}
    assert is_sound(digest)


def test_a_claim_of_a_dead_worker_waits_through_a_pause_without_an_alarm():
    digest = make_sending_digest(readers=3)
    digest.batches.update(state="leased", fence=1, attempts=1, lease_until=timezone.now() - timedelta(hours=1))
    Digest.objects.update(state="paused")
    sweeping.sweep(timezone.now())
    assert is_sound(digest)

    Digest.objects.update(state="sending")
    delivery.deliver_due()

    assert standing(digest) == {"expected": 3, "accepted": 3}


def test_a_batch_that_kills_each_worker_comes_to_an_end():
    digest = make_sending_digest(readers=3)
    digest.batches.update(
        state="leased",
        fence=5,
        attempts=django_settings.DELIVERY_MAX_ATTEMPTS,
        lease_until=timezone.now() - timedelta(seconds=1),
    )

    delivery.deliver_due()
    sweeping.sweep(timezone.now())

    assert addresses() == []
    assert standing(digest) == {"expected": 3, "failed": 3}


def test_a_batch_that_gets_on_is_not_given_up_however_often_its_worker_dies():
    digest = make_sending_digest(readers=25)
    lose_worker(digest, acknowledged=10, in_flight=10)
    digest.batches.update(attempts=django_settings.DELIVERY_MAX_ATTEMPTS)

    sweeping.sweep(timezone.now())
    delivery.deliver_due()

    assert standing(digest) == {"expected": 25, "accepted": 15, "uncertain": 10}


def test_a_worker_that_lost_its_claim_writes_nothing():
    digest = make_sending_digest(readers=25)

    def lose_claim(message, call):
        if call == 2:
            digest.batches.update(fence=7)

    ScriptedBackend.reset(lose_claim)
    delivery.deliver_due()

    assert len(addresses()) == carriers.SMALL_GROUP
    assert digest.batches.get().state == DeliveryBatch.State.SUBMITTING


@pytest.mark.parametrize("seconds", [2, 4, 24])
def test_a_slow_provider_gets_all_mails_in_turns_and_is_not_taken_for_a_broken_one(seconds, settings, monkeypatch):
    settings.DELIVERY_BATCH_SIZE = 100
    clock = {"seconds": 0.0, "longest turn": 0.0}
    for module in (claiming, delivery):
        monkeypatch.setattr(module, "monotonic", lambda: clock["seconds"])

    def take_time(message, call):
        clock["seconds"] += seconds

    ScriptedBackend.reset(take_time)
    digest = make_sending_digest(readers=40)
    for _turn in range(25):
        begun = clock["seconds"]
        delivery.deliver(digest.batches.latest("id").pk)
        clock["longest turn"] = max(clock["longest turn"], clock["seconds"] - begun)

    assert len(addresses()) == len(set(addresses())) == 40
    assert standing(digest) == {"expected": 40, "accepted": 40}
    assert clock["longest turn"] < django_settings.CELERY["task_soft_time_limit"]
    assert Provider.objects.get().failures == 0


def test_no_transaction_is_open_during_a_call(transactional_db):
    open_ones = []
    ScriptedBackend.reset(lambda message, call: open_ones.append(transaction.get_connection().in_atomic_block))
    make_sending_digest(readers=3)

    delivery.deliver_due()

    assert open_ones == [False, False, False]


def test_what_is_too_late_is_closed_visibly():
    digest = make_sending_digest(readers=3)
    Digest.objects.filter(pk=digest.pk).update(not_after=timezone.now() - timedelta(seconds=1))

    delivery.deliver_due()
    sweeping.sweep(timezone.now())

    assert addresses() == []
    assert standing(digest) == {"expected": 3, "expired": 3}
    assert digest.state == Digest.State.FINISHED


def test_uncertain_deliveries_given_up_let_the_digest_finish(admin_user):
    digest = make_sending_digest(readers=25)
    lose_worker(digest, acknowledged=10, in_flight=15)
    sweeping.sweep(timezone.now())

    assert outcomes.give_up_uncertain(digest, now=timezone.now(), actor=admin_user, reason="no complaints") == 15

    assert standing(digest) == {"expected": 25, "accepted": 10, "failed": 15}
    assert digest.state == Digest.State.FINISHED


def test_uncertain_deliveries_stay_so_when_it_is_too_late_to_send_them_again(admin_user):
    digest = make_sending_digest(readers=25)
    lose_worker(digest, acknowledged=10, in_flight=15)
    sweeping.sweep(timezone.now())

    assert outcomes.resend_uncertain(digest, now=digest.not_after, actor=admin_user, reason="asked") == 0

    assert standing(digest) == {"expected": 25, "accepted": 10, "uncertain": 15}


def test_uncertain_deliveries_can_be_sent_again_with_the_same_message_id(admin_user):
    ScriptedBackend.reset(fail_at(1, TimeoutError()))
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    later()
    delivery.deliver_due()
    uncertain = digest.deliveries.get(state=Delivery.State.UNCERTAIN)

    assert outcomes.resend_uncertain(digest, now=timezone.now(), actor=admin_user, reason="asked") == 1
    later()
    delivery.deliver_due()

    assert str(uncertain.uuid) in ScriptedBackend.accepted[-1].extra_headers["Message-ID"]
    assert standing(digest) == {"expected": 3, "accepted": 3}
    assert is_sound(digest)


def test_a_reader_who_has_a_delivery_already_is_never_mailed_again():
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    reader = digest.newsletter.subscriptions.first().subscriber_id
    digest.batches.create(number=99, reader_ids=[reader], size=1, next_attempt_at=timezone.now())
    Digest.objects.filter(pk=digest.pk).update(state=Digest.State.SENDING)

    delivery.deliver_due()

    assert len(addresses()) == 3


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_reader_in_two_batches_that_are_begun_at_the_same_moment_is_mailed_once():
    digest = make_sending_digest(readers=3)
    first = digest.batches.get()
    second = digest.batches.create(number=2, reader_ids=first.reader_ids[:1], size=1, next_attempt_at=timezone.now())
    thread = threading.Thread(target=deliver_elsewhere, args=[first])

    with transaction.atomic():
        statements.write_deliveries(second, at=timezone.now())
        thread.start()
        time.sleep(0.5)  # until it waits for what was written
    thread.join()
    delivery.deliver(second.pk)

    assert len(addresses()) == len(set(addresses())) == 3
    assert digest.deliveries.count() == 3


def deliver_elsewhere(batch):
    try:
        delivery.deliver(batch.pk)
    finally:
        connection.close()


@pytest.mark.postgresql
@pytest.mark.parametrize("version", [150_000, 180_000])
def test_a_delivery_s_number_begins_with_the_time_whatever_the_server_s_version(version, monkeypatch):
    if connection.pg_version < version:
        pytest.skip("needs a newer server")
    monkeypatch.setattr(connection, "pg_version", version)
    digest = make_sending_digest(readers=3)
    before = timezone.now()

    delivery.deliver_due()

    for number in digest.deliveries.values_list("uuid", flat=True):
        written_at = datetime.fromtimestamp((number.int >> 80) / 1000, tz=UTC)
        assert number.version == 7
        assert before - timedelta(seconds=1) < written_at < timezone.now() + timedelta(seconds=1)


def test_the_audit_names_a_digest_whose_readers_do_not_add_up():
    digest = make_sending_digest(readers=3)
    Digest.objects.filter(pk=digest.pk).update(expected_count=4)

    assert f"digest {digest.pk}" in next(audit.broken_invariants(timezone.now()))


def test_freezing_takes_only_readers_who_may_be_mailed():
    digest = make_sending_digest(readers=2)
    make_subscription(digest.newsletter, state="paused", paused_until=timezone.localdate() + timedelta(days=1))
    make_subscription(digest.newsletter, state="ended", ended_at=timezone.now())

    assert digest.expected_count == 2
    assert sum(len(ids) for ids in digest.batches.values_list("reader_ids", flat=True)) == 2


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_reader_erased_while_the_deliveries_are_written_gets_nothing_and_costs_the_others_nothing(monkeypatch):
    digest = make_sending_digest(readers=25)
    reader = Subscriber.objects.order_by("pk")[3]
    write, erasures = statements.write_deliveries, []

    def erase():
        try:
            erasures.append(Subscriber.objects.get(pk=reader.pk).delete())
        finally:
            connection.close()

    def write_and_let_erase(batch, *, at):
        write(batch, at=at)
        if not erasures:
            thread = threading.Thread(target=erase)
            thread.start()
            thread.join()

    monkeypatch.setattr(statements, "write_deliveries", write_and_let_erase)
    delivery.deliver_due()

    assert len(erasures) == 1
    assert len(addresses()) == len(set(addresses())) == 24 and reader.address not in addresses()
    assert standing(digest) == {"expected": 25, "accepted": 24, "suppressed": 1}
    assert digest.batches.get().attempts == 1
    assert is_sound(digest)


def test_a_copy_goes_to_the_address_that_holds_when_it_goes():
    digest = make_sending_digest(readers=25)
    last = Subscriber.objects.order_by("pk").last()
    moved = Subscriber.objects.filter(pk=last.pk)
    ScriptedBackend.reset(lambda message, call: moved.update(address="neu@leser.example") if call == 3 else None)

    delivery.deliver_due()

    assert len(addresses()) == 25 and "neu@leser.example" in addresses() and last.address not in addresses()
    assert standing(digest) == {"expected": 25, "accepted": 25}


def test_who_moves_while_his_group_goes_out_gets_the_digest_at_the_new_address(monkeypatch):
    monkeypatch.setattr(delivery, "FRESHNESS", timedelta())  # as if each copy took longer than that
    digest = make_sending_digest(readers=4)
    last = Subscriber.objects.order_by("pk").last()
    moved = Subscriber.objects.filter(pk=last.pk)
    ScriptedBackend.reset(lambda message, call: moved.update(address="neu@leser.example") if call == 0 else None)

    delivery.deliver_due()
    DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())
    delivery.deliver_due()

    assert len(addresses()) == 4 and "neu@leser.example" in addresses() and last.address not in addresses()
    assert standing(digest) == {"expected": 4, "accepted": 4}
    assert is_sound(digest)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_readers_become_one_though_a_batch_with_one_of_them_is_begun_at_that_moment(monkeypatch, settings):
    settings.DELIVERY_BATCH_SIZE = 2
    digest = make_sending_digest(readers=4)
    first, second = digest.batches.order_by("number")
    delivery.deliver(first.pk)
    reader = Subscriber.objects.get(pk=second.reader_ids[0])
    token = wish_to_move(reader, to=Subscriber.objects.get(pk=first.reader_ids[0]).address)
    write, answers = statements.write_deliveries, []

    def confirm():
        try:
            answers.append(rectifying.confirm(token, origin=Origin(source="address_page"), now=timezone.now()))
        finally:
            connection.close()

    thread = threading.Thread(target=confirm)

    def write_and_let_confirm(batch, *, at):
        write(batch, at=at)
        thread.start()
        time.sleep(0.5)  # until it waits for what was written

    monkeypatch.setattr(statements, "write_deliveries", write_and_let_confirm)
    delivery.deliver(second.pk)
    thread.join()

    assert answers == [Confirmation.CONFIRMED]
    assert len(addresses()) == len(set(addresses())) == 4
    assert standing(digest) == {"expected": 4, "accepted": 4}
    assert is_sound(digest)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_who_becomes_one_with_a_reader_already_mailed_is_left_out_of_a_group_to_come(monkeypatch):
    monkeypatch.setattr(flight, "PATIENCE", 0.1)  # the other's copy is on its way until this one returns
    digest = make_sending_digest(readers=25)
    reader_ids = digest.batches.get().reader_ids
    other = Subscriber.objects.get(pk=reader_ids[0])
    token = wish_to_move(Subscriber.objects.get(pk=reader_ids[-1]), to=other.address)
    answers = []

    def confirm():
        try:
            answers.append(rectifying.confirm(token, origin=Origin(source="address_page"), now=timezone.now()))
        finally:
            connection.close()

    def move_meanwhile(message, call):
        if call == 5:
            thread = threading.Thread(target=confirm)
            thread.start()
            thread.join()

    ScriptedBackend.reset(move_meanwhile)
    delivery.deliver_due()

    assert answers == [Confirmation.CONFIRMED]
    assert len(addresses()) == len(set(addresses())) == 24 and other.address in addresses()
    assert standing(digest) == {"expected": 25, "accepted": 24, "suppressed": 1}
    assert DeliveryAttempt.objects.get().detail == ""
    assert is_sound(digest)


def test_who_was_refused_stays_so_when_he_becomes_one_with_a_reader_already_mailed():
    digest = make_sending_digest(readers=40)
    first, second = Subscriber.objects.filter(pk__in=digest.batches.first().reader_ids).order_by("pk")[:2]
    token = wish_to_move(first, to=second.address)

    def script(message, call):
        if message.to == [first.address]:
            raise smtplib.SMTPRecipientsRefused({first.address: (550, b"5.1.1 no such user")})
        if call == 22:  # by now it is written down
            rectifying.confirm(token, origin=Origin(source="address_page"), now=timezone.now())

    ScriptedBackend.reset(script)
    delivery.deliver_due()

    assert digest.deliveries.get(subscriber=first).state == Delivery.State.REFUSED
    assert standing(digest) == {"expected": 40, "accepted": 39, "refused": 1}


IS_WAITED_FOR = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_a_deadlocks_victim_begins_anew(monkeypatch):
    digest = make_sending_digest(readers=25)
    reader = Subscriber.objects.order_by("pk").last()
    held, write, calls = threading.Event(), statements.write_deliveries, []

    def lock_the_other_way_round():
        try:
            with transaction.atomic():
                Subscriber.objects.select_for_update().get(pk=reader.pk)
                held.set()
                wait_until_waited_for()  # who began to wait first looks first, and is the victim
                digest.batches.select_for_update().get()
        finally:
            connection.close()

    thread = threading.Thread(target=lock_the_other_way_round)

    def write_after_the_other_has_locked(batch, *, at):
        calls.append(batch.pk)
        if len(calls) == 1:
            thread.start()
            held.wait()
        write(batch, at=at)

    monkeypatch.setattr(statements, "write_deliveries", write_after_the_other_has_locked)
    delivery.deliver_due()
    thread.join()

    assert len(calls) == 2
    assert len(addresses()) == len(set(addresses())) == 25
    assert standing(digest) == {"expected": 25, "accepted": 25} and digest.batches.get().attempts == 1


def wait_until_waited_for():
    for _ in range(1000):
        with connection.cursor() as cursor:
            cursor.execute(IS_WAITED_FOR)
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits for this transaction")


def wish_to_move(reader, *, to):
    """Return the token of the link that confirms it."""
    now, origin = timezone.now(), Origin(source="rights_page")
    change = rectifying.request_change(reader, canonicalise(to), origin=origin, now=now)
    seed = links.TokenSeed(nonce=change.nonce, token_hash=change.token_hash)
    return links.derive_token(links.Purpose.ADDRESS, change.uuid, seed)
