"""What audit says of the ledger beyond the chain itself: where it breaks first, what is missing, what was changed."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from newsroom.tasks import broken_invariants, purge_all
from subscriptions import consent, ledger, privacy, wording
from subscriptions.consent import Origin
from subscriptions.models import ConsentPayload, ConsentText, SignUp, Subscriber
from tests.makers import make_newsletter, make_subscription
from tests.subscriptions.reading import at, sign_up, subscribe
from tests.subscriptions.test_ledger import tamper, write

pytestmark = pytest.mark.django_db

ADDRESS = "leserin@example.com"
ORIGIN = Origin(source="test")
DAY = timedelta(days=1)


def payload_of(act: str) -> ConsentPayload:
    return ConsentPayload.objects.filter(record__type=act).latest("record_id")


def forget(*acts: str) -> list[str]:
    """Delete what these acts said through the door, as somebody might by hand, and return what is to be found."""
    keys = [payload_of(act).pk for act in acts]
    ledger.forget(ConsentPayload.objects.filter(pk__in=keys))
    return [f"What record {pk} said was deleted before its time." for pk in sorted(keys)]


def found() -> list[str]:
    ledger.seal(timezone.now())
    return broken_invariants(timezone.now())


def test_r11_the_first_break_of_the_chain_is_named_however_many_follow():
    for _number in range(3):
        write(2)
        ledger.seal(timezone.now())
    second, last = (ConsentPayload.objects.filter(record__sealed__seal__number=number).last() for number in (2, 3))

    tamper(
        *(f"UPDATE subscriptions_consentpayload SET salt = 'x' WHERE record_id = {each.pk}" for each in (last, second))
    )

    first, *others = broken_invariants(timezone.now())
    said = f"Record {second.pk} does not say what it said when it was written."
    assert first == f"First in the chain (before seal 2 it is whole): {said}"
    assert others == [said, f"Record {last.pk} does not say what it said when it was written."]


def test_r11_a_break_in_what_is_not_sealed_yet_is_named_as_such():
    write(1)
    ledger.seal(timezone.now())
    [tail] = write(1)

    tamper(f"UPDATE subscriptions_consentpayload SET salt = 'x' WHERE record_id = {tail.pk}")

    assert broken_invariants(timezone.now())[0].startswith("First in the chain (up to the newest seal it is whole)")


@pytest.mark.parametrize("act", ["confirmed", "added", "changed", "withdrawn"])
def test_r13_what_an_act_said_is_missed_when_it_goes_before_its_time(act):
    first, second = make_newsletter(), make_newsletter()
    subscribe(ADDRESS, first)
    reader, offer, now = Subscriber.objects.get(), wording.offer("de"), timezone.now()
    [choice] = offer.narrowed([second.slug]).choices
    consent.add_newsletter(reader, choice, origin=ORIGIN, now=now)
    consent.restrict(reader, origin=ORIGIN, now=now)
    consent.lift_restriction(reader, origin=ORIGIN, now=now)
    consent.withdraw_all(reader, origin=ORIGIN, now=now)
    assert found() == []

    assert forget(act) == found()


def test_r13_that_an_erasure_was_recorded_is_missed_as_well():
    subscribe(ADDRESS, make_newsletter())
    privacy.erase_everywhere(ADDRESS, origin=ORIGIN, now=timezone.now())
    assert found() == []

    assert forget("erased") == found()


@pytest.mark.parametrize("acts", [["requested"], ["mail_sent"], ["requested", "mail_sent"]])
def test_r13_the_sign_up_is_missed_as_long_as_its_confirmation_is_there(acts):
    subscribe(ADDRESS, make_newsletter())
    purge_all(timezone.now() + 8 * DAY)
    assert not SignUp.objects.exists() and found() == []

    assert forget(*acts) == found()


def test_r13_what_an_unconfirmed_sign_up_said_goes_with_it_and_not_before():
    sign_up(ADDRESS, make_newsletter())
    purge_all(timezone.now() + 8 * DAY)
    assert not ConsentPayload.objects.exists() and found() == []

    sign_up("leserin2@example.com", make_newsletter())
    assert forget("requested") == found()


def test_r13_a_present_readers_consent_is_missed_however_old_it_is(time_machine):
    time_machine.move_to("2026-02-01T10:00:00Z", tick=False)
    subscribe(ADDRESS, make_newsletter())
    reader = Subscriber.objects.get()
    consent.restrict(reader, origin=ORIGIN, now=timezone.now())
    time_machine.move_to("2036-02-01T10:00:00Z", tick=False)
    purge_all(timezone.now())
    assert found() == []

    assert forget("changed")[0] in found()


def test_r13_a_purge_at_the_end_of_the_third_year_is_not_reported(time_machine):
    time_machine.move_to("2026-02-01T10:00:00Z", tick=False)
    subscribe(ADDRESS, make_newsletter())
    consent.withdraw_all(Subscriber.objects.get(), origin=ORIGIN, now=at("2026-03-01T10:00"))
    time_machine.move_to("2029-12-31T23:01:00Z", tick=False)  # a minute into 2030 in Berlin

    assert purge_all(timezone.now())["evidence"] == 4

    assert found() == []


def test_r05_a_text_that_was_changed_after_readers_agreed_to_it_is_found():
    subscribe(ADDRESS, newsletter := make_newsletter())
    declaration = ConsentText.objects.get(newsletter=None)
    assert found() == []

    tamper(
        f"UPDATE subscriptions_consenttext SET wording = 'Ja zu allem.' WHERE id = {declaration.pk}",
        "UPDATE subscriptions_consenttext SET wording = 'Ja, stündlich.' WHERE newsletter_id IS NOT NULL",
    )

    assert found() == [
        "The consent text beside the button (de, v1) is not the one that readers agreed to.",
        f"The consent text of “{newsletter.slug}” (de, v1) is not the one that readers agreed to.",
    ]


def test_r10_lapsed_consents_are_told_and_break_no_promise(capsys, settings):
    subscribe(ADDRESS, newsletter := make_newsletter())
    ledger.seal(timezone.now())
    Subscriber.objects.get().subscriptions.update(active_since=timezone.now() - 800 * DAY)

    call_command("audit")

    said = capsys.readouterr().out
    assert "All promises hold." in said and "Note: 1 consents have lapsed" in said
    assert make_subscription(newsletter) and "without a consent on record" in " ".join(found())


def test_thousands_of_missing_proofs_fill_no_log():
    write(30)
    ledger.seal(timezone.now())
    tamper("UPDATE subscriptions_consentrecord SET type = 'withdrawn'")
    ledger.forget(ConsentPayload.objects.all())

    missing = [sentence for sentence in found() if "before its time" in sentence or "other records" in sentence]

    assert len(missing) == 21 and missing[-1] == "And so was what 10 other records said."
