"""What is uncertain is asked again where the provider knows its keys, and else decided by the schedule's rule."""

from datetime import timedelta
from time import sleep

import pytest
from django.utils import timezone

from digests import audit, delivery, outcomes, sweeping
from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest, DigestSchedule, Provider
from newsroom.mail import repeating
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest, standing
from tests.stand_ins import BrevoStandIn, MailgunStandIn, ResendStandIn

pytestmark = pytest.mark.django_db

State = Delivery.State


@pytest.fixture(params=[ResendStandIn, BrevoStandIn])
def keyed(request, settings):
    with request.param() as stand_in:
        stand_in.configure(settings)
        yield stand_in


@pytest.fixture
def scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()


@pytest.fixture
def scripted_after(settings):
    """Change to a provider without keys, in the middle of things."""

    def change():
        settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
        ScriptedBackend.reset()

    return change


def go_on(rounds=30):
    """Let time pass until nothing is left to do: pauses end, the sweeper runs, batches are delivered."""
    for _ in range(rounds):
        sweeping.sweep(timezone.now())
        Provider.objects.update(resume_at=timezone.now())
        DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())
        if not delivery.deliver_due() and not DeliveryBatch.objects.open().exists():
            return


def age(**period):
    Delivery.objects.update(created_at=timezone.now() - timedelta(**period))


def set_policy(digest, policy):
    DigestSchedule.objects.filter(pk=digest.schedule_id).update(uncertain_policy=policy)


def make_uncertain(*, readers=3, policy="wait"):
    """A digest of which the last mail's answer was lost, at a provider without keys."""

    def lose_the_last(message, call):
        if call == readers - 1:
            raise TimeoutError

    ScriptedBackend.reset(lose_the_last)
    digest = make_sending_digest(readers=readers)
    set_policy(digest, policy)
    delivery.deliver_due()
    assert standing(digest) == {"expected": readers, "accepted": readers - 1, "uncertain": 1}
    return digest


@pytest.mark.parametrize("mode", ["drop", "garbage"])
def test_an_unanswered_mail_is_asked_again_with_the_same_key_and_arrives_once(keyed, mode):
    keyed.mode = mode
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()

    keyed.mode = "ok"
    go_on()

    assert standing(digest) == {"expected": 3, "accepted": 3}
    assert digest.state == Digest.State.FINISHED
    assert len(keyed.delivered) == len({mail.to for mail in keyed.delivered}) == 3
    assert not list(audit.broken_invariants(timezone.now()))


def test_a_mail_the_provider_took_without_an_answer_is_repeated_to_the_last_letter(keyed):
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)
    delivery.deliver_due()
    keyed.mode = "ok"
    sleep(1.1)  # a date is told in seconds
    go_on()

    first, second = keyed.requests
    assert first.body == second.body
    assert len(keyed.delivered) == 1
    assert str(digest.deliveries.get().uuid) in keyed.keys


def test_a_dead_workers_mails_are_asked_again_with_their_keys(keyed):
    digest = make_sending_digest(readers=5)
    delivery.deliver_due()  # all five are out, and then the worker dies before it says so
    DeliveryBatch.objects.update(state="submitting", lease_until=timezone.now() - timedelta(seconds=1))
    DeliveryAttempt.objects.update(acknowledged=0, in_flight=5, ended_at=None, outcome="")
    Digest.objects.update(state=Digest.State.SENDING, finished_at=None)

    sweeping.sweep(timezone.now())
    assert standing(digest) == {"expected": 5, "uncertain": 5}
    go_on()

    assert standing(digest) == {"expected": 5, "accepted": 5}
    assert len(keyed.requests) == 10 and len(keyed.delivered) == 5


def test_nobody_is_asked_again_when_the_provider_may_have_forgotten_the_key(keyed):
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)
    delivery.deliver_due()
    age(seconds=repeating.lifetime().total_seconds() + 1)
    keyed.mode = "ok"

    go_on(3)

    assert standing(digest) == {"expected": 1, "uncertain": 1}
    assert len(keyed.requests) == 1


def test_nobody_is_asked_again_at_another_provider(keyed, settings):
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)
    delivery.deliver_due()

    other = {ResendStandIn: BrevoStandIn, BrevoStandIn: ResendStandIn}[type(keyed)]
    with other() as new_provider:
        new_provider.configure(settings)
        go_on(3)
        assert new_provider.requests == []

    assert standing(digest) == {"expected": 1, "uncertain": 1}


def wait_to_be_asked_again(keyed):
    """A digest whose one mail is uncertain and waits to go out again with its key."""
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)
    delivery.deliver_due()
    sweeping.sweep(timezone.now())
    assert DeliveryBatch.objects.open().get().is_second_try
    keyed.mode = "ok"
    return digest


def test_a_pause_may_outlast_the_key_and_then_nobody_is_asked_again(keyed):
    digest = wait_to_be_asked_again(keyed)

    DeliveryBatch.objects.update(keyed_until=timezone.now() - timedelta(seconds=1))
    age(seconds=repeating.lifetime().total_seconds() + 1)
    go_on(3)

    assert len(keyed.requests) == 1
    assert standing(digest) == {"expected": 1, "uncertain": 1}
    assert not list(audit.broken_invariants(timezone.now()))


def test_the_key_is_known_for_as_long_as_the_provider_says_from_the_first_attempt(keyed):
    digest = wait_to_be_asked_again(keyed)

    written_at = digest.deliveries.get().created_at
    assert DeliveryBatch.objects.open().get().keyed_until == written_at + repeating.lifetime()


def test_a_deploy_with_another_provider_keeps_what_waits_for_its_key_from_going_out(keyed, scripted_after):
    digest = wait_to_be_asked_again(keyed)

    scripted_after()
    go_on(3)

    assert addresses() == []
    assert standing(digest) == {"expected": 1, "uncertain": 1}


def test_staff_may_mail_again_what_its_key_did_not_tell_of(keyed, scripted_after, admin_user):
    digest = wait_to_be_asked_again(keyed)
    scripted_after()
    go_on(3)

    assert outcomes.resend_uncertain(digest, now=timezone.now(), actor=admin_user, reason="Anbieter gewechselt") == 1
    go_on()

    assert len(addresses()) == 1
    assert standing(digest) == {"expected": 1, "accepted": 1}


def test_who_unsubscribed_meanwhile_is_not_asked_again_and_stays_uncertain(keyed):
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)
    delivery.deliver_due()
    subscription = digest.newsletter.subscriptions.get()
    type(subscription).objects.filter(pk=subscription.pk).update(state="ended", ended_at=timezone.now())
    keyed.mode = "ok"

    go_on(3)

    assert standing(digest) == {"expected": 1, "uncertain": 1}
    assert len(keyed.requests) == 1


def test_a_provider_that_never_answers_is_asked_a_few_times_only(keyed, settings):
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)

    go_on(12)

    assert len(keyed.requests) == settings.DELIVERY_MAX_ATTEMPTS
    assert standing(digest) == {"expected": 1, "uncertain": 1}


def test_an_event_that_tells_in_between_is_believed(keyed):
    keyed.mode = "drop"
    digest = make_sending_digest(readers=1)
    delivery.deliver_due()
    sweeping.sweep(timezone.now())
    Delivery.objects.update(state=State.ACCEPTED)  # as the provider's event does
    keyed.mode = "ok"

    go_on(3)

    assert standing(digest) == {"expected": 1, "accepted": 1}
    assert len(keyed.requests) == 1


def test_without_keys_it_waits_for_somebody_if_the_schedule_says_so(scripted):
    digest = make_uncertain(policy="wait")
    age(hours=5)

    go_on(3)

    assert standing(digest) == {"expected": 3, "accepted": 2, "uncertain": 1}
    assert digest.state == Digest.State.SENDING


def test_at_the_deadline_the_schedule_may_leave_them_and_says_so(scripted):
    digest = make_uncertain(policy="leave")
    age(minutes=29)
    go_on(3)
    assert standing(digest) == {"expected": 3, "accepted": 2, "uncertain": 1}

    age(minutes=31)
    go_on(3)

    assert standing(digest) == {"expected": 3, "accepted": 2, "failed": 1}
    assert digest.state == Digest.State.FINISHED
    assert digest.changes.filter(actor=None, reason__contains="1 ").exists()


def test_at_the_deadline_the_schedule_may_mail_them_once_more(scripted):
    digest = make_uncertain(policy="resend")
    age(minutes=31)
    ScriptedBackend.reset()

    go_on()

    assert len(addresses()) == 1
    assert standing(digest) == {"expected": 3, "accepted": 3}
    assert digest.state == Digest.State.FINISHED
    assert not list(audit.broken_invariants(timezone.now()))


def test_what_is_uncertain_a_second_time_is_not_mailed_a_third(scripted):
    digest = make_uncertain(policy="resend")
    age(minutes=31)

    def never_answer(message, call):
        raise TimeoutError

    ScriptedBackend.reset(never_answer)
    go_on(10)

    assert ScriptedBackend.calls == 1
    assert standing(digest) == {"expected": 3, "accepted": 2, "uncertain": 1}


def test_nobody_is_mailed_once_more_when_it_is_too_late(scripted):
    digest = make_uncertain(policy="resend")
    age(minutes=31)
    Digest.objects.update(not_after=timezone.now() - timedelta(seconds=1))
    ScriptedBackend.reset()

    go_on(3)

    assert addresses() == []
    assert standing(digest) == {"expected": 3, "accepted": 2, "uncertain": 1}


def test_a_second_try_that_is_too_late_stays_uncertain(scripted):
    digest = make_uncertain(policy="resend")
    age(minutes=31)
    ScriptedBackend.reset()
    sweeping.sweep(timezone.now())
    Digest.objects.update(not_after=timezone.now() - timedelta(seconds=1))

    sweeping.sweep(timezone.now())

    assert standing(digest) == {"expected": 3, "accepted": 2, "uncertain": 1}
    assert addresses() == []


def test_an_unanswered_call_for_many_leaves_but_one_call_uncertain(settings):
    settings.DELIVERY_CALL_SIZE = 25
    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        mailgun.mode = "drop"
        digest = make_sending_digest(readers=60)
        delivery.deliver_due()
        assert standing(digest) == {"expected": 60, "uncertain": 25, "waiting": 35}

        mailgun.mode = "ok"
        go_on()

        assert standing(digest) == {"expected": 60, "accepted": 35, "uncertain": 25}
        assert len({mail.to for mail in mailgun.delivered}) == len(mailgun.delivered)
