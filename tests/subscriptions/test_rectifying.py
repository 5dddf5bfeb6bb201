import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from digests import audience, claiming, delivery, events, outcomes, release
from digests import audit as digests_audit
from digests.models import Delivery, DeliveryBatch, Digest
from newsroom.mail.addresses import canonicalise
from newsroom.mail.models import OutboxMail
from newsroom.tasks import purge_all
from subscriptions import audit, consent, erasures, evidence, ledger, links, persons, rectifying, replaying, suppression
from subscriptions.consent import Origin
from subscriptions.models import (
    AddressChange,
    ConsentPayload,
    ConsentRecord,
    PrivacyRequest,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from tests.esp_reports import Postmark
from tests.makers import make_digest, make_newsletter, make_subscriber, make_subscription
from tests.subscriptions.reading import (
    a_reader,
    form_token,
    last_mail,
    link_in,
    mails_to,
    open_rights_page,
    send_form,
    sign_up,
    subscribe,
)

pytestmark = pytest.mark.django_db

OLD, NEW = "alt@example.com", "neu@example.com"
LINK = "/meine-daten/adresse/"
ORIGIN = Origin(source="rights_page")


def ask(subscriber, new=NEW):
    return rectifying.request_change(subscriber, canonicalise(new), origin=ORIGIN, now=timezone.now())


def asked(old=OLD, new=NEW):
    """Ask for the change and return the path of the link in the mail to the new address."""
    ask(Subscriber.objects.get(address_key=old), new)
    return link_in(mails_to(new)[-1], LINK)


def move(old=OLD, new=NEW):
    assert a_reader().post(asked(old, new)).status_code == 303


def give_issue(newsletter):
    """Let an issue come out and return whom it went to."""
    before = len(mail.outbox)
    assert release.start_sending(make_digest(newsletter), now=timezone.now())
    delivery.deliver_due()
    return [message.to[0] for message in mail.outbox[before:]]


def words(page):
    return re.sub(r'value="[^"]*"', "", page.content.decode())


# The way through


def test_the_old_address_is_used_until_the_new_one_is_confirmed_and_then_the_new_one_alone():
    first, second = make_newsletter(), make_newsletter()
    subscribe(OLD, first, second)
    link = asked()
    assert give_issue(first) == [OLD]

    answer = a_reader().post(link)

    assert (answer.status_code, answer["Location"]) == (303, "/meine-daten/adresse/geaendert/")
    assert a_reader().get(answer["Location"]).status_code == 200
    assert give_issue(second) == [NEW]
    assert Subscriber.objects.get().address == NEW


def test_the_reader_asks_on_his_page_and_sees_what_waits():
    subscribe(OLD, make_newsletter())
    reader, page = open_rights_page(OLD)

    page = reader.post(LINK, {"token": form_token(page), "new_address": "  Neu@Example.com "})

    assert page.status_code == 200 and "Neu@example.com" in page.content.decode()
    assert "notice-good" in page.content.decode() and not page.cookies
    assert link_in(last_mail(), LINK) and last_mail().to == ["Neu@example.com"]
    kept = reader.post(LINK, {"token": form_token(page), "act": "keep"})
    assert "Neu@example.com" not in kept.content.decode().split("<dl")[0]
    assert a_reader().get(link_in(last_mail(), LINK)).status_code == 410


def test_the_old_address_is_told_once_without_a_link_that_does_anything_and_without_the_new_one():
    subscribe(OLD, make_newsletter())
    link = asked()
    before = len(mails_to(OLD))

    for _time in range(3):
        a_reader().post(link)

    [told] = mails_to(OLD)[before:]
    html = told.alternatives[0][0]
    assert "neu@" not in (told.subject + told.body + html).lower()
    paths = set(re.findall(r"http://localhost:8000(/[\w/-]*)", told.body + html))
    assert {path for path in paths if not path.startswith("/newsletter/warum/")} == {"/impressum/", "/datenschutz/"}
    assert "datenschutz@wochenblitz.example" in told.body


def test_the_mail_to_the_new_address_asks_and_nothing_else():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    asked()

    message = mails_to(NEW)[0]
    html = message.alternatives[0][0]

    assert OLD not in message.body + html and newsletter.name not in message.body + html
    assert "<img" not in html and "List-Unsubscribe" not in message.extra_headers
    assert len(set(re.findall(r"/meine-daten/adresse/[\w-]+/", message.body + html))) == 1


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_scanners_that_open_every_link_change_nothing(method):
    subscribe(OLD, make_newsletter())
    link = asked()

    for _time in range(5):
        answer = getattr(a_reader(), method)(link)

    assert OLD not in answer.content.decode()
    assert method == "options" or (answer["Cache-Control"], answer["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert AddressChange.objects.get().state == AddressChange.State.REQUESTED
    assert Subscriber.objects.get().address == OLD


def test_links_in_mails_already_sent_go_on_working():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    token = links.unsubscribe_token(Subscription.objects.get().uuid)
    move()

    a_reader().post(f"/newsletter/abmelden/{token}/", {"List-Unsubscribe": "One-Click"})

    assert not Subscription.objects.active().exists()


def test_an_issue_on_its_way_goes_to_one_of_the_two_addresses():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    digest = make_digest(newsletter)
    assert release.start_sending(digest, now=timezone.now())
    before = len(mail.outbox)

    move()
    delivery.deliver_due()

    issues = [message.to[0] for message in mail.outbox[before:] if "List-Unsubscribe" in message.extra_headers]
    assert issues == [NEW]
    assert Delivery.objects.get().subscriber.address == NEW


# What stands in the way


@pytest.mark.parametrize(
    "typed", ["", "niemand", "a@b", "a b@example.com", "ä@example.com", f"{'x' * 400}@example.com"]
)
def test_what_cannot_be_mailed_is_said_at_its_field(typed):
    subscribe(OLD, make_newsletter())
    reader, page = open_rights_page(OLD)

    page = reader.post(LINK, {"token": form_token(page), "new_address": typed})

    assert page.status_code == 400
    assert 'id="new-address-error"' in page.content.decode() and 'aria-invalid="true"' in page.content.decode()
    assert not AddressChange.objects.exists()
    assert form_token(page)


def test_the_present_address_is_no_new_one_but_another_spelling_of_it_is():
    subscribe(OLD, make_newsletter())
    reader = Subscriber.objects.get()

    with pytest.raises(rectifying.ChangeRefused):
        ask(reader, OLD)
    move(OLD, "Alt@example.com")

    assert (Subscriber.objects.get().address, Subscriber.objects.get().address_key) == ("Alt@example.com", OLD)
    assert [record["act"] for record in ledger.evidence(OLD)].count("address_changed") == 1


def test_the_page_answers_the_same_whatever_the_new_address_is(time_machine):
    time_machine.move_to("2026-11-22T10:00:00Z", tick=False)
    newsletter = make_newsletter()
    subscribe("bekannt@example.com", newsletter)
    suppression.note("beschwert@example.com", Suppression.Reason.COMPLAINT, timezone.now())
    answers = set()

    for number, new in enumerate(["bekannt@example.com", "fremdes@example.com", "beschwert@example.com"]):
        old = f"leser{number}@example.com"
        make_subscription(newsletter, make_subscriber(old))
        reader, page = open_rights_page(old)
        with CaptureQueriesContext(connection) as queries:
            answer = reader.post(LINK, {"token": form_token(page), "new_address": new})
        mails_to(new)  # what can be sent is sent
        later = reader.post("/meine-daten/newsletter/", {"token": form_token(page)})
        known_to_him = rf"{new}|{old}|<dd>\d+</dd>|[0-9a-f]{{8}}-[0-9a-f-]{{27}}"  # the last: numbers of rows
        pages = [re.sub(known_to_him, "", words(each)) for each in (answer, later)]
        answers.add((answer.status_code, len(queries), *pages))

    assert len(mails_to("beschwert@example.com")) == 0 and len(answers) == 1


@pytest.mark.parametrize("reason", [Suppression.Reason.COMPLAINT, Suppression.Reason.OBJECTION])
def test_whoever_complained_or_objected_is_not_written_to(reason):
    subscribe(OLD, make_newsletter())
    suppression.note(NEW, reason, timezone.now())

    ask(Subscriber.objects.get())

    assert mails_to(NEW) == []


@pytest.mark.parametrize("barred", [OLD, NEW])
def test_who_objects_before_the_button_is_pressed_ends_the_change(barred):
    subscribe(OLD, make_newsletter())
    link = asked()

    consent.suppress(barred, Suppression.Reason.OBJECTION, origin=ORIGIN, now=timezone.now())

    assert a_reader().post(link).status_code == 403
    assert Subscriber.objects.get().address == OLD


def test_from_an_address_that_objected_nobody_moves():
    subscribe(OLD, make_newsletter())
    consent.suppress(OLD, Suppression.Reason.OBJECTION, origin=ORIGIN, now=timezone.now())
    _reader, page = open_rights_page(OLD)

    assert 'id="new-address"' not in page.content.decode()
    with pytest.raises(rectifying.ChangeRefused):
        ask(Subscriber.objects.get())


def test_the_owners_button_lifts_an_erasure_of_the_new_address():
    subscribe(OLD, make_newsletter())
    suppression.note(NEW, Suppression.Reason.ERASURE, timezone.now())

    move()

    assert not suppression.is_suppressed(NEW)


def test_an_old_address_that_does_not_exist_is_not_told():
    subscribe(OLD, make_newsletter())
    link = asked()
    suppression.note(OLD, Suppression.Reason.HARD_BOUNCE, timezone.now())
    before = len(mails_to(OLD))

    a_reader().post(link)

    assert len(mails_to(OLD)) == before and suppression.is_suppressed(OLD)


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_expired_link_changes_nothing(method):
    subscribe(OLD, make_newsletter())
    link = asked()
    AddressChange.objects.update(expires_at=timezone.now())

    assert getattr(a_reader(), method)(link).status_code == 410
    assert Subscriber.objects.get().address == OLD


def test_a_mistyped_address_is_out_as_soon_as_another_is_given():
    subscribe(OLD, make_newsletter())
    mistyped = asked(new="nue@example.com")
    right = asked()

    assert a_reader().post(mistyped).status_code == 410
    assert a_reader().post(right).status_code == 303
    assert Subscriber.objects.get().address == NEW


@pytest.mark.parametrize("token", ["x", "A" * 43, "not-ours-é"])
def test_a_forged_link_gets_a_plain_page(token):
    subscribe(OLD, make_newsletter())
    asked()

    assert a_reader().get(f"{LINK}{token}/").status_code == 404
    assert a_reader().post(f"{LINK}{token}/").status_code == 404


def test_a_token_of_another_purpose_changes_nothing():
    subscribe(OLD, make_newsletter())
    asked()
    change, subscription = AddressChange.objects.get(), Subscription.objects.get()
    others = [links.unsubscribe_token(subscription.uuid), links.why_token(change.uuid)]

    assert {a_reader().post(f"{LINK}{token}/").status_code for token in others} == {404}


def test_an_address_gets_one_mail_in_ten_minutes_whoever_asks():
    for number in range(3):
        subscribe(f"leser{number}@example.com", make_newsletter())
        ask(Subscriber.objects.get(address_key=f"leser{number}@example.com"))

    assert len(mails_to(NEW)) == 1


def test_a_reader_cannot_have_strangers_written_to_without_end(settings):
    subscribe(OLD, make_newsletter())
    reader, page = open_rights_page(OLD)
    limit, _window = settings.ADDRESS_CHANGES_PER_READER

    for number in range(limit):
        page = reader.post(LINK, {"token": form_token(page), "new_address": f"fremde{number}@example.com"})
        assert page.status_code == 200
    page = reader.post(LINK, {"token": form_token(page), "new_address": "noch-eine@example.com"})

    assert page.status_code == 400 and 'id="new-address-error"' in page.content.decode()


def test_a_network_cannot_either(settings, time_machine):
    time_machine.move_to(timezone.now().replace(minute=30))  # within one hour, by which requests are counted
    settings.REQUESTS_PER_NETWORK = (2, timedelta(hours=1))
    subscribe(OLD, make_newsletter())
    reader, page = open_rights_page(OLD)

    answer = reader.post(LINK, {"token": form_token(page), "new_address": NEW})

    assert answer.status_code == 429 and not AddressChange.objects.exists()


@pytest.mark.parametrize("token", ["", "forged"])
def test_nobody_asks_without_the_opened_page(token):
    subscribe(OLD, make_newsletter())

    assert a_reader().post(LINK, {"token": token, "new_address": NEW}).status_code == 410
    assert not AddressChange.objects.exists()


def test_after_the_change_the_old_mailbox_opens_nothing_of_the_reader():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    reader, page = open_rights_page(OLD)
    move()

    assert reader.post("/meine-daten/export/", {"token": form_token(page)}).status_code == 410
    PrivacyRequest.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    _reader, page = open_rights_page(OLD)
    assert newsletter.name not in page.content.decode().split("<dl")[0] and NEW not in page.content.decode()


# Two readers who are one


def test_a_reader_who_moves_to_an_address_known_already_is_one_reader_with_all_he_ordered():
    both, at_old, at_new = make_newsletter(), make_newsletter(), make_newsletter()
    subscribe(OLD, both, at_old)
    subscribe(NEW, both, at_new)
    tokens = [links.unsubscribe_token(each.uuid) for each in Subscription.objects.filter(newsletter=both)]

    move()

    reader = Subscriber.objects.get()
    active = Subscription.objects.mailable()
    assert reader.address == NEW
    assert sorted(each.newsletter_id for each in active) == [both.pk, at_old.pk, at_new.pk]
    assert give_issue(both) == [NEW]
    for token in tokens:  # the links in mails to either address lead to the one order
        assert both.name in a_reader().get(f"/newsletter/abmelden/{token}/").content.decode()
    a_reader().post(f"/newsletter/abmelden/{tokens[0]}/", {"scope": "this"})
    assert "Sie sind nicht" in a_reader().get(f"/newsletter/abmelden/{tokens[1]}/").content.decode()
    assert Subscription.objects.active().count() == 2
    assert audit.broken_invariants(timezone.now()) == []


def test_preferences_links_of_both_lead_to_the_one_reader():
    both = make_newsletter()
    old, new = make_subscription(both, make_subscriber(OLD)), make_subscription(both, make_subscriber(NEW))

    move()

    for subscription in (old, new):
        page = a_reader().get(f"/newsletter/einstellungen/{links.preferences_token(subscription.uuid)}/")
        assert page.status_code == 200


@pytest.mark.parametrize(
    ("left_days_ago", "stands"), [(5, False), (20, True)], ids=["withdrawn after", "withdrawn before"]
)
def test_what_was_withdrawn_at_one_address_after_the_consent_at_the_other_stays_withdrawn(left_days_ago, stands):
    newsletter, now = make_newsletter(), timezone.now()
    make_subscription(newsletter, make_subscriber(OLD), active_since=now - timedelta(days=10))
    make_subscription(
        newsletter,
        make_subscriber(NEW),
        active_since=now - timedelta(days=30),
        state="ended",
        ended_at=now - timedelta(days=left_days_ago),
    )
    link = asked()

    assert (newsletter.name in a_reader().get(link).content.decode()) == stands
    a_reader().post(link)

    assert Subscription.objects.mailable().exists() == stands
    assert Subscription.objects.count() == 1


def test_a_pause_at_either_address_holds():
    newsletter, day = make_newsletter(), timezone.localdate() + timedelta(days=9)
    make_subscription(newsletter, make_subscriber(OLD))
    make_subscription(newsletter, make_subscriber(NEW), state="paused", paused_until=day)

    move()

    assert (Subscription.objects.get().state, Subscription.objects.get().paused_until) == ("paused", day)


@pytest.mark.parametrize("restricted", [OLD, NEW])
def test_a_restriction_of_either_holds(restricted):
    for address in (OLD, NEW):
        make_subscription(subscriber=make_subscriber(address))
    consent.restrict(Subscriber.objects.get(address=restricted), origin=ORIGIN, now=timezone.now())

    move()

    assert Subscriber.objects.get().restricted_at
    assert not Subscription.objects.mailable().exists()


def test_what_either_was_handed_stays_with_the_reader_and_no_issue_comes_twice():
    newsletter = make_newsletter()
    for address in (OLD, NEW):
        make_subscription(newsletter, make_subscriber(address))
    at_new = make_subscription(subscriber=Subscriber.objects.get(address=NEW)).newsletter
    assert sorted(give_issue(newsletter)) == [OLD, NEW]
    assert give_issue(at_new) == [NEW]

    move()

    reader = Subscriber.objects.get()
    assert Delivery.objects.filter(subscriber=reader).count() == 2
    assert Delivery.objects.count() == 3


def test_a_running_issue_reaches_two_who_became_one_only_once():
    newsletter = make_newsletter()
    for address in (OLD, NEW):
        make_subscription(newsletter, make_subscriber(address))
    assert release.start_sending(make_digest(newsletter), now=timezone.now())
    before = len(mail.outbox)

    move()
    delivery.deliver_due()

    issues = [message.to[0] for message in mail.outbox[before:] if "List-Unsubscribe" in message.extra_headers]
    assert issues == [NEW]


def test_an_issue_that_only_one_of_two_had_left_breaks_no_promise_when_they_become_one():
    newsletter, now = make_newsletter(), timezone.now()
    make_subscription(subscriber=make_subscriber(OLD))
    left = {"state": "ended", "active_since": now - timedelta(days=300), "ended_at": now - timedelta(days=1)}
    make_subscription(newsletter, Subscriber.objects.get(), **left)
    make_subscription(newsletter, make_subscriber(NEW), active_since=now - timedelta(days=400))
    assert give_issue(newsletter) == [NEW]

    move()

    assert not list(digests_audit.broken_invariants(timezone.now()))


@pytest.mark.parametrize("was_delivered", [True, False])
def test_what_only_the_new_address_was_to_get_today_comes_once(was_delivered):
    at_new = make_newsletter()
    make_subscription(subscriber=make_subscriber(OLD))
    make_subscription(at_new, make_subscriber(NEW))
    assert release.start_sending(make_digest(at_new), now=timezone.now())
    if was_delivered:
        delivery.deliver_due()

    move()
    delivery.deliver_due()
    audience.add_latecomers(timezone.now())
    delivery.deliver_due()

    assert [message.to[0] for message in mail.outbox if "List-Unsubscribe" in message.extra_headers] == [NEW]
    assert Delivery.objects.get(subscriber__isnull=False).subscriber.address == NEW


@pytest.mark.parametrize("place", [4, 12], ids=["the same group", "a later group"])
def test_who_moves_to_a_reader_whose_copy_is_next_gets_that_copy(monkeypatch, place):
    at_new = make_newsletter()
    moved: list[object] = []
    make_subscription(subscriber=make_subscriber(OLD))
    change = asked()
    others = [make_subscription(at_new) for _ in range(place)]
    make_subscription(at_new, make_subscriber(NEW))
    assert release.start_sending(make_digest(at_new), now=timezone.now())
    hand_over = delivery.transport.hand_over
    mail.outbox.clear()

    def move_meanwhile(message, *, connection):
        if not moved:
            moved.append(a_reader().post(change))
        return hand_over(message, connection=connection)

    monkeypatch.setattr(delivery.transport, "hand_over", move_meanwhile)
    delivery.deliver_due()
    audience.add_latecomers(timezone.now())
    DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())
    delivery.deliver_due()

    issues = [message.to[0] for message in mail.outbox if "List-Unsubscribe" in message.extra_headers]
    assert sorted(issues) == sorted([NEW, *(each.subscriber.address for each in others)])
    digest = Digest.objects.get()
    assert digest.state == "finished" and outcomes.counts(digest)["accepted"] == place + 1
    assert not list(digests_audit.broken_invariants(timezone.now()))


def test_who_moves_to_a_reader_while_the_rest_of_the_batch_waits_gets_that_copy(monkeypatch):
    at_new = make_newsletter()
    make_subscription(subscriber=make_subscriber(OLD))
    change = asked()
    for _ in range(3):
        make_subscription(at_new)
    make_subscription(at_new, make_subscriber(NEW))
    assert release.start_sending(make_digest(at_new), now=timezone.now())
    with monkeypatch.context() as patch:
        patch.setattr(claiming, "LONGEST_TURN", timedelta(seconds=-1))
        patch.setattr(delivery, "_keep_pace", lambda *args, **values: None)
        delivery.deliver_due()  # who was to be mailed is written down, and nobody was
    assert Delivery.objects.count() == 4 and DeliveryBatch.objects.get().state == "pending"
    mail.outbox.clear()

    assert a_reader().post(change).status_code == 303
    for _ in range(2):
        DeliveryBatch.objects.filter(state="pending").update(next_attempt_at=timezone.now())
        delivery.deliver_due()

    issues = [message.to[0] for message in mail.outbox if "List-Unsubscribe" in message.extra_headers]
    assert len(issues) == 4 and issues.count(NEW) == 1


@pytest.mark.parametrize("had_left", [False, True], ids=["both were to get it", "one had left"])
@pytest.mark.parametrize("size", [26, 13], ids=["one batch", "two batches"])
def test_who_moves_to_a_reader_who_has_it_already_does_not_get_it_again(monkeypatch, settings, size, had_left):
    settings.DELIVERY_BATCH_SIZE = size
    newsletter, now = make_newsletter(), timezone.now()
    moved: list[object] = []
    for address in (NEW, *(f"leser{number}@example.com" for number in range(24)), OLD):
        make_subscription(newsletter, make_subscriber(address))
    change = asked()
    assert release.start_sending(make_digest(newsletter), now=now)
    if had_left:
        left = {"state": "ended", "active_since": now - timedelta(days=300), "ended_at": now - timedelta(days=200)}
        Subscription.objects.filter(subscriber__address=OLD).update(**left)
    hand_over = delivery.transport.hand_over
    mail.outbox.clear()

    def move_meanwhile(message, *, connection):
        if not moved and Delivery.objects.filter(subscriber__address=OLD).exists() and NEW not in message.to:
            moved.append(a_reader().post(change))
        return hand_over(message, connection=connection)

    monkeypatch.setattr(delivery.transport, "hand_over", move_meanwhile)
    for _ in range(2):
        delivery.deliver_due()
        audience.add_latecomers(timezone.now())

    issues = [message.to[0] for message in mail.outbox if "List-Unsubscribe" in message.extra_headers]
    assert len(issues) == len(set(issues)) == 25 and NEW in issues
    digest = Digest.objects.get()
    assert moved and digest.state == "finished"
    assert (outcomes.counts(digest)["accepted"], outcomes.counts(digest)["suppressed"]) == (25, 1)
    assert not list(digests_audit.broken_invariants(timezone.now()))


def test_who_moves_to_a_reader_who_was_to_get_it_later_gets_it_once(monkeypatch):
    newsletter = make_newsletter()
    moved: list[object] = []
    for address in (OLD, *(f"leser{number}@example.com" for number in range(14)), NEW):
        make_subscription(newsletter, make_subscriber(address))
    change = asked()
    assert release.start_sending(make_digest(newsletter), now=timezone.now())
    hand_over = delivery.transport.hand_over
    mail.outbox.clear()

    def move_meanwhile(message, *, connection):
        if not moved and OLD not in message.to:
            moved.append(a_reader().post(change))
        return hand_over(message, connection=connection)

    monkeypatch.setattr(delivery.transport, "hand_over", move_meanwhile)
    delivery.deliver_due()

    issues = [message.to[0] for message in mail.outbox if "List-Unsubscribe" in message.extra_headers]
    assert len(issues) == len(set(issues)) == 15 and moved and OLD in issues


@pytest.mark.parametrize("confirmed_first", ["sign-up", "change"])
def test_a_sign_up_from_the_new_address_meanwhile_makes_no_second_reader(confirmed_first):
    kept, added = make_newsletter(), make_newsletter()
    subscribe(OLD, kept)
    pending = sign_up(NEW, added)
    change = asked()

    for link in [pending, change] if confirmed_first == "sign-up" else [change, pending]:
        assert a_reader().post(link).status_code == 303

    assert Subscriber.objects.get().address == NEW
    assert Subscription.objects.mailable().count() == 2


def test_a_sign_up_from_the_old_address_afterwards_is_another_reader():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    move()
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))

    subscribe(OLD, newsletter)

    assert sorted(Subscriber.objects.values_list("address", flat=True)) == [OLD, NEW]


# The proof


def recomputed(address):
    """Recompute every commitment as a third person would, from what the evidence gives out."""
    found = evidence.collect(address, address, now=timezone.now())
    for entry in found.entries:
        digest = hashlib.sha256((entry.salt + entry.committed).encode()).hexdigest()
        assert digest == entry.facts["commitment"]
    return [entry.facts["act"] for entry in found.entries]


HISTORY = ["requested", "mail_sent", "confirmed", "changed", "mail_sent", "address_changed"]


def test_the_proof_of_the_new_address_is_whole_and_can_be_recomputed():
    subscribe(OLD, make_newsletter())
    move()
    ledger.seal(timezone.now())

    assert recomputed(NEW) == HISTORY
    assert "neu@" not in str(ledger.evidence(OLD)).lower()
    assert [record["act"] for record in ledger.evidence(OLD)] == [*HISTORY[:4], "address_changed"]
    assert audit.broken_invariants(timezone.now()) == []


def test_the_proof_goes_along_through_several_changes():
    first, second = make_newsletter(), make_newsletter()
    subscribe("a@example.com", first)
    subscribe("b@example.com", second)
    move("a@example.com", "b@example.com")  # one reader from here
    move("b@example.com", "c@example.com")
    AddressChange.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    move("c@example.com", "a@example.com")

    confirmed = [record for record in ledger.evidence("a@example.com") if record["act"] == "confirmed"]
    assert {record["newsletters"][0]["name"] for record in confirmed} == {first.name, second.name}
    assert len(recomputed("a@example.com")) == len({record["record"] for record in ledger.evidence("a@example.com")})
    assert set(rectifying.former_addresses("a@example.com")) == {"b@example.com", "c@example.com"}


def test_who_moves_to_and_fro_has_one_copy_of_each_proof_carried_at_an_address(settings):
    settings.ADDRESS_CHANGES_PER_READER = (99, timedelta(days=1))
    settings.SIGN_UPS_PER_ADDRESS = [(99, timedelta(days=1))]
    subscribe(OLD, make_newsletter())
    sizes = []
    for _round in range(6):
        move(OLD, NEW)
        move(NEW, OLD)
        sizes.append(sum(len(json.dumps(payload.body)) for payload in ConsentPayload.objects.all()))

    growth = [later - earlier for earlier, later in pairwise(sizes)]
    assert max(growth[1:]) < 1.2 * growth[0]
    for address in (OLD, NEW):
        carried = [entry["record"] for payload in ConsentPayload.objects.filter(address_key=address)
                   for entry in payload.body.get(ledger.CARRIED, [])]  # fmt: skip
        assert len(carried) == len(set(carried)) > 10
        assert recomputed(address).count("confirmed") == 1
    ledger.seal(timezone.now())
    assert audit.broken_invariants(timezone.now()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda carried: carried[0]["body"].update(ip="192.0.2.1"),
        lambda carried: carried[0].update(salt="0" * 64),
        lambda carried: carried.pop(),
        lambda carried: carried.append(carried[0]),
        lambda carried: carried.__setitem__(0, carried[0]["record"]),
        lambda carried: carried[-1].pop("salt"),
        lambda carried: carried[0]["body"].update(carried=[{"record": "x"}]),
    ],
)
def test_the_audit_finds_what_was_changed_in_the_proof_that_came_along(spoil):
    subscribe(OLD, make_newsletter())
    move()
    ledger.seal(timezone.now())
    [row] = ConsentPayload.objects.filter(address_key=NEW, record__type="address_changed").values()
    ledger.forget(ConsentPayload.objects.filter(pk=row["record_id"]))
    spoil(row["body"][ledger.CARRIED])
    ConsentPayload.objects.create(**row)

    assert [found.record for found in ledger.find_breaks()] == [row["record_id"]]


def test_a_sign_up_that_was_never_confirmed_is_not_carried_along():
    subscribe(OLD, make_newsletter())
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    send_form(OLD, make_newsletter())

    move()

    assert [record["act"] for record in ledger.evidence(NEW)] == HISTORY


def test_the_proof_outlives_that_of_the_old_address_as_long_as_the_reader_stays(time_machine):
    time_machine.move_to("2026-11-22T10:00:00Z", tick=False)
    subscribe(OLD, make_newsletter())
    move()
    time_machine.move_to("2030-01-02T10:00:00Z", tick=False)

    purge_all(timezone.now())

    assert not ConsentPayload.objects.filter(address_key=OLD).exists()
    assert sorted(recomputed(NEW)) == sorted(HISTORY)
    ledger.seal(timezone.now())
    assert audit.broken_invariants(timezone.now()) == []


def test_the_export_shows_the_change_to_the_reader_and_half_of_it_to_each_mailbox():
    subscribe(OLD, make_newsletter())
    move()

    [reader] = persons.ADDRESS_CHANGES.export(NEW)
    [other] = persons.ADDRESS_CHANGES.export(OLD)

    assert (reader["old_address"], reader["new_address"], reader["state"]) == (OLD, NEW, "confirmed")
    assert (other["old_address"], other["new_address"]) == (OLD, None)


def test_a_stranger_who_is_asked_learns_nothing_of_the_reader():
    subscribe(OLD, make_newsletter())
    asked()

    [held] = persons.ADDRESS_CHANGES.export(NEW)

    assert (held["old_address"], held["new_address"]) == (None, NEW)
    assert OLD not in str(ledger.evidence(NEW))


# What goes


def erase(address):
    PrivacyRequest.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    reader, page = open_rights_page(address)
    assert reader.post("/meine-daten/loeschen/", {"token": form_token(page), "sure": "yes"}).status_code == 200


def rows_with(text, *, but=("subscriptions_consentpayload",)):
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            if table not in but and (hits := sum(text in str(row).lower() for row in cursor.fetchall())):
                found[table] = hits
    return found


def test_erasing_the_new_address_erases_what_the_old_one_left():
    subscribe(OLD, make_newsletter())
    open_rights_page(OLD)
    move()

    erase(NEW)

    assert rows_with(OLD) == {} and rows_with(NEW) == {}
    assert suppression.is_suppressed(OLD) and suppression.is_suppressed(NEW)


def test_erasing_the_old_address_afterwards_leaves_the_reader_at_the_new_one():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    move()

    erase(OLD)

    assert rows_with(OLD) == {}
    assert give_issue(newsletter) == [NEW]
    assert audit.broken_invariants(timezone.now()) == []


def test_a_stranger_has_the_question_erased_and_its_link_works_no_more():
    subscribe(OLD, make_newsletter())
    link = asked()

    erase(NEW)

    assert rows_with(NEW) == {}
    assert not ConsentPayload.objects.filter(address_key=NEW).exists()
    assert a_reader().post(link).status_code == 404
    assert Subscriber.objects.get().address == OLD


def test_a_backup_from_before_the_change_brings_nobody_back_who_was_erased_after_it():
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    move()
    erase(NEW)
    erasures.set_replayed(erasures.Position(), at=timezone.now())
    # As in the backup: the reader at his former address, and no memory of the change or the erasure.
    make_subscription(newsletter, make_subscriber(OLD, created_at=timezone.now() - timedelta(days=30)))
    Suppression.objects.all().delete()

    replaying.replay(timezone.now())

    assert not Subscriber.objects.exists() and suppression.is_suppressed(OLD)


def test_replaying_spares_who_moved_to_an_address_that_was_erased_before():
    erasures.note(NEW, at=timezone.now() - timedelta(days=3))
    make_subscription(subscriber=make_subscriber(OLD, created_at=timezone.now() - timedelta(days=30)))
    move()
    erasures.set_replayed(erasures.Position(), at=timezone.now())

    replaying.replay(timezone.now())

    assert Subscriber.objects.get().address == NEW


def test_an_unconfirmed_change_goes_with_its_mail_and_a_confirmed_one_later(settings, time_machine):
    time_machine.move_to("2026-11-22T10:00:00Z", tick=False)
    subscribe(OLD, make_newsletter())
    asked(new="nie@example.com")
    move()

    time_machine.shift(settings.SIGN_UP_RETENTION)
    purge_all(timezone.now())

    assert AddressChange.objects.get().new_address == NEW
    assert rows_with("nie@example.com", but=()) == {}
    time_machine.shift(settings.ADDRESS_CHANGE_RETENTION)
    purge_all(timezone.now())
    assert not AddressChange.objects.exists()


def test_a_question_to_a_stranger_does_not_outlive_the_reader_who_had_it_asked(settings):
    subscribe(OLD, make_newsletter())
    consent.withdraw_all(Subscriber.objects.get(), origin=ORIGIN, now=timezone.now() - timedelta(days=200))
    Subscriber.objects.update(created_at=timezone.now() - timedelta(days=300))
    asked()

    purge_all(timezone.now())

    assert not Subscriber.objects.exists()
    assert rows_with(NEW, but=()) == {}


def test_nothing_about_a_restricted_readers_change_is_purged(settings):
    subscribe(OLD, make_newsletter())
    move()
    consent.restrict(Subscriber.objects.get(), origin=ORIGIN, now=timezone.now())

    purge_all(timezone.now() + settings.ADDRESS_CHANGE_RETENTION + timedelta(days=1))

    assert AddressChange.objects.exists()
    assert OutboxMail.objects.filter(kind=rectifying.ASKED).exists()


@pytest.mark.parametrize(("said", "reason"), [("complaint", "complaint"), ("hard", "hard_bounce")])
def test_what_is_reported_late_of_a_mail_to_the_old_address_does_not_end_what_comes_to_the_new_one(said, reason):
    newsletter = make_newsletter()
    subscribe(OLD, newsletter)
    assert give_issue(newsletter) == [OLD]
    move()

    report = Postmark().report(getattr(Postmark, said), row=Delivery.objects.get().uuid, to=OLD, at=timezone.now())
    events.store("postmark", {"a report": json.dumps(report)}, now=timezone.now())
    events.process(timezone.now())

    assert suppression.find(OLD).reason == reason and not suppression.is_suppressed(NEW)
    assert Subscription.objects.mailable().exists()


def test_who_reports_the_question_as_spam_is_not_asked_again():
    subscribe(OLD, make_newsletter())
    link = asked()

    row = OutboxMail.objects.get(kind=rectifying.ASKED).uuid
    report = Postmark().report(Postmark.complaint, row=row, to=NEW, at=timezone.now())
    events.store("postmark", {"a report": json.dumps(report)}, now=timezone.now())
    events.process(timezone.now())

    assert suppression.find(NEW).reason == Suppression.Reason.COMPLAINT
    assert a_reader().post(link).status_code == 403
    assert Subscriber.objects.get().address == OLD and Subscription.objects.mailable().exists()


def test_a_bounce_is_put_to_the_address_the_mail_went_to():
    subscribe(OLD, make_newsletter())
    before = timezone.now()
    move()
    reader = Subscriber.objects.get()

    assert rectifying.address_key_at(reader, before) == OLD
    assert rectifying.address_key_at(reader, timezone.now()) == NEW


def test_no_log_line_names_an_address_or_a_token(caplog):
    caplog.set_level("DEBUG")
    subscribe(OLD, make_newsletter())
    link = asked()
    a_reader().post(link)

    assert AddressChange.objects.get().confirmed_at
    assert "@example.com" not in caplog.text and link.split("/")[3] not in caplog.text


# At the same moment


def at_once(*acts):
    def run(act):
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


@pytest.mark.django_db(transaction=True)
def test_twenty_presses_at_once_change_the_address_once():
    subscribe(OLD, make_newsletter())
    link = asked()
    before = len(mails_to(OLD))

    answers = at_once(*[lambda: a_reader().post(link).status_code] * 20)

    assert set(answers) == {303}
    assert ConsentRecord.objects.filter(type="address_changed").count() == 2
    assert len(mails_to(OLD)) == before + 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("erased", [OLD, NEW])
def test_an_erasure_and_the_confirmation_at_once_leave_no_half(erased):
    subscribe(OLD, make_newsletter())
    link = asked()
    PrivacyRequest.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    reader, page = open_rights_page(erased)
    token = form_token(page)

    confirmed, done = at_once(
        lambda: a_reader().post(link).status_code,
        lambda: reader.post("/meine-daten/loeschen/", {"token": token, "sure": "yes"}).status_code,
    )

    assert confirmed in {303, 404, 403}
    assert rows_with(erased) == {} or done == 410  # the change was first, and the old mailbox's page closed with it
    left = Subscriber.objects.first()
    assert left is None or left.address_key in {OLD, NEW} - ({erased} if done == 200 else set())


@pytest.mark.django_db(transaction=True)
def test_a_sign_up_and_the_change_confirmed_at_once_are_one_reader():
    subscribe(OLD, make_newsletter())
    pending, change = sign_up(NEW, make_newsletter()), asked()

    answers = at_once(lambda: a_reader().post(pending).status_code, lambda: a_reader().post(change).status_code)

    assert answers == [303, 303]
    assert Subscriber.objects.get().address == NEW
    assert Subscription.objects.active().count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_sign_up_from_the_old_address_and_the_change_at_once_mix_no_addresses():
    subscribe(OLD, make_newsletter())
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    pending, change = sign_up(OLD, make_newsletter()), asked()

    answers = at_once(lambda: a_reader().post(pending).status_code, lambda: a_reader().post(change).status_code)

    assert answers == [303, 303]
    readers = set(Subscriber.objects.values_list("address", "address_key"))
    assert readers in [{(NEW, NEW)}, {(NEW, NEW), (OLD, OLD)}]
    assert Subscription.objects.active().count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_who_swap_their_addresses_at_once_end_as_one_reader():
    subscribe(OLD, make_newsletter())
    subscribe(NEW, make_newsletter())
    there, back = asked(OLD, NEW), asked(NEW, OLD)

    answers = at_once(lambda: a_reader().post(there).status_code, lambda: a_reader().post(back).status_code)

    assert sorted(answers) == [303, 410]
    assert Subscriber.objects.count() == 1 and Subscription.objects.active().count() == 2


# For staff


def test_staff_find_a_change_by_either_address_and_see_neither(admin_client):
    subscribe(OLD, make_newsletter())
    move()

    for address in (OLD, NEW):
        page = admin_client.get("/admin/subscriptions/addresschange/", {"q": address}).content.decode()
        assert "a…@e….com" in page and "n…@e….com" in page and f">{address}<" not in page
        assert str(AddressChange.objects.get().uuid) in page
    other = admin_client.get("/admin/subscriptions/addresschange/", {"q": "dritte@example.com"}).content.decode()
    assert "n…@e….com" not in other
    assert (
        NEW
        not in admin_client.get(
            f"/admin/subscriptions/addresschange/{AddressChange.objects.get().pk}/change/"
        ).content.decode()
    )
