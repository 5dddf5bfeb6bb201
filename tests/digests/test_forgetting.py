import pytest
from django.utils import timezone

from digests import delivery, outcomes, persons
from newsroom.persons import holdings
from tests.backends import ScriptedBackend
from tests.makers import make_sending_digest

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=3)
    delivery.deliver_due()
    digest.refresh_from_db()
    return digest


def test_a_reader_sees_which_digests_were_handed_over(sent):
    reader = sent.newsletter.subscriptions.first().subscriber

    assert [
        (each["newsletter"], each["date"], each["outcome"]) for each in persons.export_deliveries(reader.address_key)
    ] == [(sent.newsletter.name, sent.date.isoformat(), "accepted")]


def test_an_erased_reader_is_in_no_delivery_and_the_counts_stay(sent):
    reader = sent.newsletter.subscriptions.first().subscriber
    before = outcomes.counts(sent)

    persons.forget_deliveries(reader.address_key, timezone.now())
    reader.delete()

    assert sent.deliveries.filter(subscriber=None).count() == 1
    assert outcomes.counts(sent) == before


def test_deliveries_stand_in_the_registry():
    assert "deliveries" in [holding.name for holding in holdings()]
