import re

import pytest
from django.utils import timezone

from subscriptions import consent, ledger, links, suppression, wording
from subscriptions.consent import Origin
from subscriptions.models import ConsentRecord, Newsletter, Subscriber, Subscription, Suppression, lapse_limit
from tests.makers import make_newsletter, make_subscriber, make_subscription
from tests.subscriptions.reading import a_reader

pytestmark = pytest.mark.django_db


def path_of(subscription: Subscription) -> str:
    return f"/newsletter/einstellungen/{links.preferences_token(subscription.uuid)}/"


def test_the_page_shows_what_one_has_and_what_one_can_add_but_no_address():
    subscription, offered = make_subscription(), make_newsletter()
    closed = make_newsletter(state=Newsletter.State.CLOSED)

    page = a_reader().get(path_of(subscription)).content.decode()

    assert subscription.newsletter.name in page and offered.name in page
    assert closed.name not in page
    assert subscription.subscriber.address not in page
    assert not ConsentRecord.objects.exists()


def test_adding_a_newsletter_is_a_consent_of_its_own():
    subscription, offered = make_subscription(), make_newsletter()
    shown = re.findall(r'name="shown" value="(\w+)"', a_reader().get(path_of(subscription)).content.decode())[0]

    a_reader().post(path_of(subscription), {"act": "add", "newsletter": offered.slug, "shown": shown})

    assert Subscription.objects.mailable().filter(newsletter=offered).exists()
    [record] = ledger.evidence(subscription.subscriber.address_key)
    assert (record["act"], record["newsletters"][0]["name"]) == ("added", offered.name)
    assert record["declaration"]["wording"] == wording.offer("de").declaration.wording


def test_nothing_is_added_on_words_that_have_changed():
    subscription, offered = make_subscription(), make_newsletter()

    a_reader().post(path_of(subscription), {"act": "add", "newsletter": offered.slug, "shown": "of-yesterday"})

    assert not Subscription.objects.filter(newsletter=offered).exists()


def test_nothing_is_added_for_who_was_erased_in_the_same_moment():
    reader, offered = make_subscriber(), make_newsletter()
    [choice] = [choice for choice in wording.offer("de").choices if choice.newsletter == offered]
    Subscriber.objects.filter(pk=reader.pk).delete()

    added = consent.add_newsletter(reader, choice, origin=Origin(source="rights_page"), now=timezone.now())

    assert not added
    assert not Subscription.objects.exists() and not ConsentRecord.objects.exists()


def test_leaving_one_keeps_the_others_and_leaving_all_keeps_none():
    reader = make_subscriber()
    first, second = make_subscription(subscriber=reader), make_subscription(subscriber=reader)

    a_reader().post(path_of(first), {"act": "leave", "newsletter": first.newsletter.slug})
    assert list(Subscription.objects.active()) == [second]

    a_reader().post(path_of(first), {"act": "leave_all"})
    assert not Subscription.objects.active().exists()


def test_a_blocked_address_adds_nothing():
    subscription, offered = make_subscription(), make_newsletter()
    suppression.note(subscription.subscriber.address_key, Suppression.Reason.COMPLAINT, timezone.now())

    shown = wording.offer("de").fingerprint
    a_reader().post(path_of(subscription), {"act": "add", "newsletter": offered.slug, "shown": shown})

    assert not Subscription.objects.filter(newsletter=offered).exists()


@pytest.mark.parametrize("token", ["x", "A" * 48])
def test_a_forged_link_shows_nothing(token):
    subscription = make_subscription()

    answer = a_reader().post(f"/newsletter/einstellungen/{token}/", {"act": "leave_all"})

    assert answer.status_code == 404
    assert Subscription.objects.get() == subscription
    assert Subscription.objects.active().exists()


@pytest.mark.parametrize("act", ["leave", "add", "\x00", ""])
def test_garbage_changes_nothing(act):
    subscription = make_subscription()

    answer = a_reader().post(path_of(subscription), {"act": act, "newsletter": "\x00", "shown": "\x00"})

    assert answer.status_code == 200
    assert Subscription.objects.active().exists()


def test_a_lapsed_consent_is_shown_as_one_and_given_anew_by_a_button():
    subscription = make_subscription(active_since=lapse_limit(timezone.now()))
    page = a_reader().get(path_of(subscription)).content.decode()

    assert "Ruht" in page and 'value="pause"' not in page and 'value="leave"' in page
    shown = re.findall(r'name="shown" value="(\w+)"', page)[0]
    act = {"act": "add", "newsletter": subscription.newsletter.slug, "shown": shown}
    page = a_reader().post(path_of(subscription), act).content.decode()

    assert "notice-good" in page and "Ruht" not in page
    assert Subscription.objects.mailable().get() == subscription
    [record] = ledger.evidence(subscription.subscriber.address_key)
    assert record["act"] == "added" and record["newsletters"][0]["wording"] and record["declaration"]["wording"]


def test_a_lapsed_consent_to_a_closed_newsletter_can_only_be_left():
    newsletter = make_newsletter(state=Newsletter.State.CLOSED)
    subscription = make_subscription(newsletter, active_since=lapse_limit(timezone.now()))

    page = a_reader().get(path_of(subscription)).content.decode()

    assert 'value="leave"' in page and 'value="add"' not in page


def test_some_newsletters_are_left_at_once_and_none_is_ticked_beforehand():
    reader = make_subscriber()
    first, second, third = (make_subscription(subscriber=reader) for _number in range(3))
    page = a_reader().get(path_of(first)).content.decode()

    assert page.count('name="ticked"') == 3 and "checked" not in page
    ticked = [first.newsletter.slug, third.newsletter.slug]
    a_reader().post(path_of(first), {"act": "leave_some", "ticked": ticked})

    assert list(Subscription.objects.active()) == [second]
    [record] = ledger.evidence(reader.address_key)
    assert {newsletter["slug"] for newsletter in record["newsletters"]} == set(ticked)


def test_who_ticks_nothing_is_told_so():
    reader = make_subscriber()
    subscriptions = [make_subscription(subscriber=reader) for _number in range(3)]

    page = a_reader().post(path_of(subscriptions[0]), {"act": "leave_some"}).content.decode()

    assert "notice-bad" in page and Subscription.objects.active().count() == 3


@pytest.mark.parametrize("count", [1, 2])
def test_with_few_newsletters_there_is_nothing_to_tick(count):
    reader = make_subscriber()
    subscriptions = [make_subscription(subscriber=reader) for _number in range(count)]

    page = a_reader().get(path_of(subscriptions[0])).content.decode()

    assert 'name="ticked"' not in page and page.count('value="leave_all"') == count - 1
