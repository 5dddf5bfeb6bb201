from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from subscriptions import ledger, links, suppression
from subscriptions.models import ConsentRecord, SignUp, Subscriber, Subscription, Suppression
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, last_mail, send_form, sign_up, subscribe

pytestmark = pytest.mark.django_db


def test_pressing_the_button_subscribes_to_just_what_was_chosen():
    chosen, _other = make_newsletter(), make_newsletter()
    link = sign_up("Leserin@example.com", chosen)

    answer = a_reader().post(link)

    assert (answer.status_code, answer["Location"]) == (303, "/newsletter/bestaetigt/")
    assert a_reader().get("/newsletter/bestaetigt/").status_code == 200
    subscription = Subscription.objects.mailable().get()
    assert subscription.newsletter == chosen
    assert (subscription.subscriber.address, subscription.subscriber.address_key) == (
        "Leserin@example.com",
        "leserin@example.com",
    )


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_scanners_that_open_every_link_confirm_nothing(method):
    link = sign_up("leserin@example.com", make_newsletter())
    records = ConsentRecord.objects.count()

    for _time in range(20):
        getattr(a_reader(), method)(link)

    assert SignUp.objects.get().confirmed_at is None
    assert not Subscriber.objects.exists()
    assert ConsentRecord.objects.count() == records


def test_the_page_of_a_link_is_kept_nowhere_and_sets_no_cookie():
    link = sign_up("leserin@example.com", make_newsletter())

    page = a_reader().get(link)

    assert page["Cache-Control"] == "no-store"
    assert page["Referrer-Policy"] == "no-referrer"
    assert "noindex" in page["X-Robots-Tag"]
    assert not page.cookies
    assert link.split("/")[3] not in page.content.decode()


def test_the_evidence_holds_request_mail_and_confirmation_with_a_hash_for_the_token():
    newsletter = make_newsletter()
    link = sign_up("leserin@example.com", newsletter)
    a_reader().post(link)

    requested, sent, confirmed = ledger.evidence("leserin@example.com")

    token = link.split("/")[3]
    assert [requested["act"], sent["act"], confirmed["act"]] == ["requested", "mail_sent", "confirmed"]
    assert newsletter.name in " ".join(sent["text"].split())
    assert links.hash_token(token) in sent["text"]
    assert token not in str([requested, sent, confirmed])
    assert sent["message_id"] == last_mail().extra_headers["Message-ID"]
    assert sent["mail_subject"] == last_mail().subject and sent["subject"] == requested["subject"]
    assert [newsletter["name"] for newsletter in sent["newsletters"]] == [newsletter.name]
    assert sent["address_typed"] == requested["address_typed"]
    assert confirmed["newsletters"][0]["wording"] == requested["newsletters"][0]["wording"]
    assert confirmed["declaration"] == requested["declaration"]


def test_a_used_link_says_so_and_changes_nothing():
    link = sign_up("leserin@example.com", make_newsletter())
    a_reader().post(link)
    records = ConsentRecord.objects.count()

    assert a_reader().get(link).status_code == 200
    assert a_reader().post(link).status_code == 303
    assert ConsentRecord.objects.count() == records


def test_a_used_link_does_not_bring_back_who_has_left():
    link = sign_up("leserin@example.com", make_newsletter())
    a_reader().post(link)
    Subscription.objects.update(state=Subscription.State.ENDED, ended_at=timezone.now())

    a_reader().post(link)

    assert not Subscription.objects.active().exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_expired_link_says_what_to_do(method):
    link = sign_up("leserin@example.com", make_newsletter())
    SignUp.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    answer = getattr(a_reader(), method)(link)

    assert answer.status_code == 410
    assert 'href="/newsletter/"' in answer.content.decode()
    assert not Subscriber.objects.exists()


@pytest.mark.parametrize("token", ["x", "A" * 43, "not-ours-é"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_forged_link_gets_a_plain_page(token, method):
    sign_up("leserin@example.com", make_newsletter())

    answer = getattr(a_reader(), method)(f"/newsletter/bestaetigen/{token}/")

    assert answer.status_code == 404
    assert 'href="/newsletter/"' in answer.content.decode()
    assert not Subscriber.objects.exists()


def test_an_unsubscribe_token_confirms_nothing():
    newsletter = make_newsletter()
    sign_up("leserin@example.com", newsletter)
    token = links.unsubscribe_token(SignUp.objects.get().uuid)

    assert a_reader().post(f"/newsletter/bestaetigen/{token}/").status_code == 404


def test_a_newer_sign_up_leaves_the_older_link_valid():
    newsletter = make_newsletter()
    older = sign_up("leserin@example.com", newsletter)
    send_form("leserin@example.com", newsletter)

    assert a_reader().post(older).status_code == 303
    assert Subscription.objects.mailable().count() == 1


def test_confirming_anew_brings_back_an_ended_subscription():
    newsletter = make_newsletter()
    subscribe("leserin@example.com", newsletter)
    Subscription.objects.update(state=Subscription.State.ENDED, ended_at=timezone.now())
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))

    subscribe("leserin@example.com", newsletter)

    assert Subscription.objects.get().state == Subscription.State.ACTIVE
    assert Subscription.objects.get().ended_at is None


@pytest.mark.parametrize("reason", ["erasure", "objection", "hard_bounce"])
def test_confirming_lifts_a_suppression(reason):
    suppression.note("leserin@example.com", Suppression.Reason(reason), timezone.now())

    subscribe("leserin@example.com", make_newsletter())

    assert not suppression.is_suppressed("leserin@example.com")


def test_confirming_does_not_undo_a_complaint():
    link = sign_up("leserin@example.com", make_newsletter())
    suppression.note("leserin@example.com", Suppression.Reason.COMPLAINT, timezone.now())

    answer = a_reader().post(link)

    assert answer.status_code == 403
    assert not Subscription.objects.exists()
    assert suppression.is_suppressed("leserin@example.com")


@pytest.mark.django_db(transaction=True)
def test_fifty_presses_at_once_are_one_confirmation():
    link = sign_up("leserin@example.com", make_newsletter())

    def press(_number: int) -> int:
        try:
            return a_reader().post(link).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(press, range(50)))

    assert set(answers) == {303}
    assert ConsentRecord.objects.filter(type="confirmed").count() == 1
    assert Subscription.objects.count() == Subscriber.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_sign_ups_of_one_reader_confirmed_at_once_are_one_reader():
    first, second = make_newsletter(), make_newsletter()
    older = sign_up("leserin@example.com", first)
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    newer = sign_up("Leserin@example.com", first, second)

    def press(link: str) -> int:
        try:
            return a_reader().post(link).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(press, [older, newer])) == [303, 303]

    assert Subscriber.objects.count() == 1
    assert Subscription.objects.active().count() == 2
