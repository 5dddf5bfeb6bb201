from datetime import timedelta

import pytest
from django.utils import timezone

from digests import audience, delivery, outcomes
from digests.models import Digest
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_sending_digest, make_subscription

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _scripted(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()


def make_sent_digest(**values):
    digest = make_sending_digest(**values)
    delivery.deliver_due()
    digest.refresh_from_db()
    return digest


def confirm_late(digest):
    return make_subscription(digest.newsletter, active_since=timezone.now()).subscriber.address


@pytest.mark.parametrize("readers", [0, 3])
def test_a_reader_who_confirms_after_the_digest_has_gone_gets_it_once(readers):
    digest = make_sent_digest(readers=readers) if readers else make_empty_digest()
    latecomer = confirm_late(digest)

    for _ in range(3):
        audience.add_latecomers(timezone.now())
        delivery.deliver_due()

    digest.refresh_from_db()
    assert addresses().count(latecomer) == 1
    assert digest.expected_count == readers + 1 == outcomes.counts(digest)["accepted"]
    assert digest.state == Digest.State.FINISHED


def make_empty_digest():
    digest = make_sending_digest(readers=0)
    delivery.finish(digest.pk, now=timezone.now())
    digest.refresh_from_db()
    return digest


def test_a_latecomer_of_a_digest_that_is_being_sent_is_in_one_batch():
    digest = make_sending_digest(readers=3)
    latecomer = confirm_late(digest)

    audience.add_latecomers(timezone.now())
    audience.add_latecomers(timezone.now())
    delivery.deliver_due()

    assert addresses().count(latecomer) == 1
    assert len(addresses()) == 4


def test_a_reader_who_left_and_came_back_is_not_mailed_twice():
    digest = make_sent_digest(readers=2)
    digest.newsletter.subscriptions.update(active_since=timezone.now())

    assert audience.add_latecomers(timezone.now()) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"state": Digest.State.CANCELLED},
        {"state": Digest.State.SKIPPED},
        {"state": Digest.State.PAUSED},
        {"not_after": timezone.now() - timedelta(minutes=1)},
        {"date": timezone.localdate() - timedelta(days=1)},
    ],
)
def test_nobody_is_added_to_a_digest_that_is_over(change):
    digest = make_sent_digest(readers=1)
    Digest.objects.filter(pk=digest.pk).update(**change)
    confirm_late(digest)

    assert audience.add_latecomers(timezone.now()) == 0


def test_latecomers_wait_for_the_next_digest_if_the_schedule_says_so():
    digest = make_sent_digest(readers=1)
    type(digest.schedule).objects.update(latecomers="next")
    confirm_late(digest)

    assert audience.add_latecomers(timezone.now()) == 0
