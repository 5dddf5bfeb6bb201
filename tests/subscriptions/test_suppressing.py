"""R-38: who must not be mailed is known by a keyed hash, and only the person's own confirmed act lifts it."""

import hashlib
import hmac

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from subscriptions import suppression
from subscriptions.models import Subscriber, Suppression
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form, sign_up, subscribe

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@example.com"
Reason = Suppression.Reason


def suppress(reason):
    suppression.note(ADDRESS, reason, timezone.now())


def change_key(settings, key="a new key"):
    settings.SUPPRESSION_KEY_FALLBACKS = [settings.SUPPRESSION_KEY, *settings.SUPPRESSION_KEY_FALLBACKS]
    settings.SUPPRESSION_KEY = key


def test_r38_an_entry_is_a_keyed_hash_and_no_bare_one():
    suppress(Reason.OBJECTION)

    entry = Suppression.objects.get()
    keyed = hmac.new(django_settings.SUPPRESSION_KEY.encode(), ADDRESS.encode(), hashlib.sha256).hexdigest()
    assert entry.address_hash == keyed != hashlib.sha256(ADDRESS.encode()).hexdigest()


@pytest.mark.parametrize("reason", [Reason.ERASURE, Reason.OBJECTION, Reason.HARD_BOUNCE])
def test_r38_only_the_confirmation_lifts_not_the_form(reason):
    suppress(reason)
    link = sign_up(ADDRESS, make_newsletter())
    assert suppression.find(ADDRESS).reason == reason

    assert a_reader().get(link).status_code == 200
    assert suppression.is_suppressed(ADDRESS)

    assert a_reader().post(link).status_code == 303
    assert not suppression.is_suppressed(ADDRESS)


def test_r38_a_complaint_is_not_lifted_by_the_reader(mailoutbox):
    link = sign_up(ADDRESS, make_newsletter())
    suppress(Reason.COMPLAINT)

    a_reader().post(link)
    suppression.lift(ADDRESS)

    assert suppression.find(ADDRESS).reason == Reason.COMPLAINT
    assert not Subscriber.objects.exists()


@pytest.mark.parametrize("stronger", [Reason.ERASURE, Reason.OBJECTION, Reason.COMPLAINT])
def test_r38_what_lasts_is_not_hidden_by_a_bounce_that_ends_after_a_year(stronger):
    suppress(Reason.HARD_BOUNCE)
    suppress(stronger)
    suppress(Reason.HARD_BOUNCE)

    assert Suppression.objects.get().reason == stronger


def test_r38_an_objection_after_an_erasure_counts_and_an_erasure_after_an_objection_takes_nothing_back():
    suppress(Reason.ERASURE)
    suppress(Reason.OBJECTION)
    suppress(Reason.ERASURE)

    assert Suppression.objects.get().reason == Reason.OBJECTION


def test_r38_after_a_change_of_the_key_an_entry_is_still_found_and_takes_the_new_key(settings):
    suppress(Reason.COMPLAINT)
    change_key(settings)
    change_key(settings, "the newest key")
    assert suppression.is_blocked(ADDRESS)

    suppress(Reason.OBJECTION)

    entry = Suppression.objects.get()
    assert (entry.reason, entry.address_hash) == (Reason.COMPLAINT, suppression.address_hash(ADDRESS))
    settings.SUPPRESSION_KEY_FALLBACKS = []
    assert suppression.is_blocked(ADDRESS)


def test_r38_after_a_change_of_the_key_the_confirmation_still_lifts(settings):
    suppress(Reason.ERASURE)
    change_key(settings)

    subscribe(ADDRESS, make_newsletter())

    assert not Suppression.objects.exists()


def test_r38_without_its_key_an_address_is_not_recognised(settings):
    suppress(Reason.COMPLAINT)
    settings.SUPPRESSION_KEY = "a new key"

    assert not suppression.is_suppressed(ADDRESS)
    assert send_form(ADDRESS, make_newsletter()).status_code == 303
