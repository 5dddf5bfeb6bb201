from datetime import timedelta

import pytest
from django.utils import timezone

from newsroom.tasks import purge_all
from subscriptions import consent, ledger, links, suppression
from subscriptions.consent import Origin
from subscriptions.models import ConsentRecord, Subscriber, Subscription, Suppression
from tests.makers import make_newsletter, make_subscription
from tests.subscriptions.reading import a_reader, form_token, open_rights_page, send_form, subscribe

pytestmark = pytest.mark.django_db

ADDRESS = "leserin@example.com"


def tomorrow(days: int = 1) -> str:
    return (timezone.localdate() + timedelta(days=days)).isoformat()


def pause(subscription: Subscription, until: str) -> str:
    path = f"/newsletter/einstellungen/{links.preferences_token(subscription.uuid)}/"
    answer = a_reader().post(path, {"act": "pause", "newsletter": subscription.newsletter.slug, "until": until})
    assert answer.status_code == 200
    return answer.content.decode()


def changes(subscription: Subscription) -> list[tuple[str, str]]:
    records = ledger.evidence(subscription.subscriber.address_key)
    return [(record["change"], record["actor"]) for record in records if record["act"] == ConsentRecord.Type.CHANGED]


def test_a_paused_newsletter_goes_to_nobody_until_its_day_and_then_by_itself(time_machine):
    time_machine.move_to(timezone.now(), tick=False)
    paused, other = make_subscription(), make_subscription()
    day = timezone.localdate() + timedelta(days=10)

    page = pause(paused, day.isoformat())

    assert 'value="resume"' in page and 'value="leave"' in page
    assert list(Subscription.objects.mailable()) == [other]
    paused.refresh_from_db()
    assert (paused.state, paused.paused_until) == (Subscription.State.PAUSED, day)
    time_machine.shift(timedelta(days=9))
    purge_all(timezone.now())
    assert list(Subscription.objects.mailable()) == [other]
    time_machine.shift(timedelta(days=1))
    assert purge_all(timezone.now())["pauses_ended"] == 1
    assert set(Subscription.objects.mailable()) == {paused, other}
    assert changes(paused) == [("paused", "reader"), ("resumed", "system")]
    assert purge_all(timezone.now())["pauses_ended"] == 0


def test_the_reader_ends_his_pause_himself_and_remains_as_old_a_reader_as_he_was():
    subscription = make_subscription()
    since = Subscription.objects.get().active_since
    pause(subscription, tomorrow(30))

    path = f"/newsletter/einstellungen/{links.preferences_token(subscription.uuid)}/"
    a_reader().post(path, {"act": "resume", "newsletter": subscription.newsletter.slug})

    assert Subscription.objects.mailable().get().active_since == since  # so he is no latecomer to today's issue
    assert changes(subscription) == [("paused", "reader"), ("resumed", "reader")]


@pytest.mark.parametrize("until", ["", "x", "\x00", "2026-02-30", "1999-01-01", "today", "9999-12-31"])
def test_a_pause_needs_a_day_that_is_to_come(until):
    subscription = make_subscription()

    page = pause(subscription, tomorrow(0) if until == "today" else until)

    assert "notice-bad" in page
    assert Subscription.objects.mailable().get() == subscription
    assert not ConsentRecord.objects.exists()


def test_a_paused_newsletter_can_be_left():
    subscription = make_subscription()
    pause(subscription, tomorrow())

    consent.withdraw_all(subscription.subscriber, origin=Origin(source="test"), now=timezone.now())

    ended = Subscription.objects.get()
    assert (ended.state, ended.paused_until) == (Subscription.State.ENDED, None)
    assert consent.resume_due(timezone.now() + timedelta(days=3)) == 0


def test_a_sign_up_ends_a_pause(time_machine):
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    pause(Subscription.objects.get(), tomorrow(5))

    time_machine.move_to(timezone.now() + timedelta(hours=1))  # past the limit of mails to one address
    subscribe(ADDRESS, newsletter)

    assert Subscription.objects.mailable().get().paused_until is None


def test_a_pause_ends_not_while_processing_is_restricted():
    subscription = make_subscription()
    pause(subscription, tomorrow())
    consent.restrict(subscription.subscriber, origin=Origin(source="test"), now=timezone.now())
    later = timezone.now() + timedelta(days=3)

    assert consent.resume_due(later) == 0
    consent.lift_restriction(subscription.subscriber, origin=Origin(source="test"), now=later)
    assert consent.resume_due(later) == 1


def test_r34_the_reader_restricts_the_processing_and_lifts_it():
    subscribe(ADDRESS, make_newsletter())
    reader, page = open_rights_page(ADDRESS)

    page = reader.post("/meine-daten/newsletter/", {"token": form_token(page), "act": "restrict"})

    assert Subscriber.objects.get().restricted_at
    assert not Subscription.objects.mailable().exists()
    assert 'value="lift_restriction"' in page.content.decode()
    page = reader.post("/meine-daten/newsletter/", {"token": form_token(page), "act": "lift_restriction"})
    assert Subscription.objects.mailable().count() == 1
    assert 'value="restrict"' in page.content.decode()
    assert changes(Subscription.objects.get()) == [("restricted", "reader"), ("restriction lifted", "reader")]


def test_r34_the_link_in_every_issue_does_not_restrict():
    subscription = make_subscription()

    a_reader().post(f"/newsletter/einstellungen/{links.preferences_token(subscription.uuid)}/", {"act": "restrict"})

    assert Subscription.objects.mailable().exists()


def test_r35_an_objection_ends_everything_at_once_and_keeps_the_address_from_being_mailed():
    subscribe(ADDRESS, make_newsletter(), make_newsletter())
    reader, page = open_rights_page(ADDRESS)

    page = reader.post("/meine-daten/newsletter/", {"token": form_token(page), "act": "object"})

    assert page.status_code == 200 and 'value="object"' not in page.content.decode()
    assert not Subscription.objects.exclude(state=Subscription.State.ENDED).exists()
    assert suppression.find(ADDRESS).reason == Suppression.Reason.OBJECTION
    acts = [record["act"] for record in ledger.evidence(ADDRESS)]
    assert acts[-2:] == ["withdrawn", "changed"]


def test_r35_who_never_confirmed_can_object_as_well():
    send_form(ADDRESS, make_newsletter())
    reader, page = open_rights_page(ADDRESS)

    reader.post("/meine-daten/newsletter/", {"token": form_token(page), "act": "object"})

    assert suppression.is_suppressed(ADDRESS)
