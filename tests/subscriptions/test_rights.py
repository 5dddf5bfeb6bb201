from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from newsroom import persons
from subscriptions import links
from subscriptions.models import ConsentRecord, PrivacyRequest, SignUp, Subscription
from tests.makers import make_newsletter, make_subscriber
from tests.subscriptions.reading import (
    a_reader,
    exported,
    form_token,
    last_mail,
    link_in,
    mails_to,
    open_rights_page,
    stamp,
    subscribe,
)

pytestmark = pytest.mark.django_db


def ask(address: str):
    return a_reader().post("/meine-daten/", {"email": address, "stamp": stamp(fingerprint="rights")})


def test_the_answer_is_the_same_for_known_and_unknown_addresses():
    make_subscriber("known@example.com")

    answers = [ask("known@example.com"), ask("unknown@example.com")]

    assert {(answer.status_code, answer["Location"], answer.content) for answer in answers} == {
        (303, "/meine-daten/angefordert/", b"")
    }
    assert a_reader().get("/meine-daten/angefordert/").status_code == 200


def test_a_known_address_gets_a_link_and_an_unknown_one_a_negative_answer():
    make_subscriber("known@example.com")

    ask("known@example.com")
    ask("unknown@example.com")

    [link], [answer] = mails_to("known@example.com"), mails_to("unknown@example.com")
    assert "/meine-daten/" in link.body
    assert "/meine-daten/" not in answer.body


def test_a_link_opens_by_its_button_and_only_once():
    make_subscriber("leserin@example.com")
    ask("leserin@example.com")
    link = link_in(last_mail(), "/meine-daten/")

    for _time in range(5):
        assert a_reader().get(link).status_code == 200
    opened = a_reader().post(link)
    again = a_reader().post(link)

    assert opened.status_code == 200 and "leserin@example.com" in opened.content.decode()
    assert opened["Cache-Control"] == "no-store" and not opened.cookies
    assert again.status_code == 410 and "leserin@example.com" not in again.content.decode()
    assert a_reader().get(link).status_code == 410


@pytest.mark.parametrize("method", ["head", "options", "get"])
def test_looking_at_a_link_does_not_use_it_up(method):
    make_subscriber("leserin@example.com")
    ask("leserin@example.com")
    link = link_in(last_mail(), "/meine-daten/")

    answer = getattr(a_reader(), method)(link)

    assert "leserin@example.com" not in answer.content.decode()
    assert PrivacyRequest.objects.get().state == PrivacyRequest.State.REQUESTED


def test_a_newer_link_replaces_the_older_only_when_it_was_mailed():
    make_subscriber("leserin@example.com")
    ask("leserin@example.com")
    older = link_in(last_mail(), "/meine-daten/")
    PrivacyRequest.objects.update(requested_at=timezone.now() - timedelta(hours=1))

    ask("leserin@example.com")
    assert a_reader().get(older).status_code == 200

    newer = link_in(last_mail(), "/meine-daten/")
    assert a_reader().get(older).status_code == 410
    assert a_reader().get(newer).status_code == 200


def test_an_expired_link_opens_nothing():
    make_subscriber("leserin@example.com")
    ask("leserin@example.com")
    link = link_in(last_mail(), "/meine-daten/")
    PrivacyRequest.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert a_reader().post(link).status_code == 410


@pytest.mark.parametrize("path", ["newsletter", "export", "loeschen"])
@pytest.mark.parametrize("token", ["", "forged", "unsubscribe"])
def test_nothing_works_without_the_proof_of_an_opened_page(path, token):
    subscribe("leserin@example.com", make_newsletter())
    if token == "unsubscribe":
        token = links.unsubscribe_token(Subscription.objects.get().uuid)

    answer = a_reader().post(f"/meine-daten/{path}/", {"token": token, "sure": "yes", "act": "leave_all"})

    assert answer.status_code == 410
    assert Subscription.objects.active().exists()
    assert a_reader().get(f"/meine-daten/{path}/").status_code == 303


def test_an_opened_page_closes_after_half_an_hour(settings, time_machine):
    time_machine.move_to("2026-11-22T10:00:00Z", tick=False)
    make_subscriber("leserin@example.com")
    reader, page = open_rights_page("leserin@example.com")
    token = form_token(page)

    time_machine.shift(settings.RIGHTS_FORM_LIFETIME)
    assert reader.post("/meine-daten/export/", {"token": token}).status_code == 200
    time_machine.shift(timedelta(seconds=1))
    assert reader.post("/meine-daten/export/", {"token": token}).status_code == 410


def test_the_export_is_one_file_with_everything_and_what_the_law_wants_said():
    newsletter = make_newsletter()
    subscribe("Leserin@example.com", newsletter)
    reader, page = open_rights_page("Leserin@example.com")

    answer = reader.post("/meine-daten/export/", {"token": form_token(page)})

    data = exported(answer)
    assert answer["Content-Type"] == "application/zip"
    assert answer["Content-Disposition"].startswith("attachment") and answer["Cache-Control"] == "no-store"
    assert set(data["data"]) == {holding.name for holding in persons.holdings()}
    assert data["data"]["readers"][0]["subscriptions"][0]["newsletter"] == newsletter.name
    assert [record["act"] for record in data["data"]["consent_records"]] == ["requested", "mail_sent", "confirmed"]
    assert data["data"]["sign_ups"] and data["data"]["service_mails"] and data["data"]["privacy_requests"]
    assert {"controller", "purposes", "recipients", "source", "rights", "complaints_to"} <= set(data["about"])


def test_the_export_holds_nobody_elses_data():
    newsletter = make_newsletter()
    subscribe("other@example.com", newsletter)
    subscribe("leserin@example.com", newsletter)
    reader, page = open_rights_page("leserin@example.com")

    answer = reader.post("/meine-daten/export/", {"token": form_token(page)})

    for name in ("daten.json", "lesen.html", "LIESMICH.txt"):
        text = str(exported(answer, name))
        assert "leserin@example.com" in text and "other@example.com" not in text


def test_newsletters_can_be_changed_on_the_opened_page():
    newsletter = make_newsletter()
    subscribe("leserin@example.com", newsletter)
    reader, page = open_rights_page("leserin@example.com")

    answer = reader.post(
        "/meine-daten/newsletter/", {"token": form_token(page), "act": "leave", "newsletter": newsletter.slug}
    )

    assert answer.status_code == 200 and form_token(answer)
    assert not Subscription.objects.active().exists()


def test_erasure_asks_back_and_says_what_stays():
    subscribe("leserin@example.com", make_newsletter())
    reader, page = open_rights_page("leserin@example.com")

    asked_back = reader.post("/meine-daten/loeschen/", {"token": form_token(page)})

    assert Subscription.objects.active().exists()
    for sentence in (holding.kept() for holding in persons.holdings()):
        assert sentence.replace("'", "&#x27;") in asked_back.content.decode()


def test_someone_with_an_unconfirmed_sign_up_alone_sees_and_erases_that():
    from tests.subscriptions.reading import send_form

    send_form("leserin@example.com", make_newsletter())
    reader, page = open_rights_page("leserin@example.com")

    export = exported(reader.post("/meine-daten/export/", {"token": form_token(page)}))
    reader.post("/meine-daten/loeschen/", {"token": form_token(page), "sure": "yes"})

    assert len(export["data"]["sign_ups"]) == 1
    assert not SignUp.objects.exists()
    assert not ConsentRecord.objects.filter(payload__isnull=False).exists()


def test_repeats_are_silent():
    make_subscriber("leserin@example.com")

    for _time in range(5):
        assert ask("leserin@example.com").status_code == 303

    assert len(mails_to("leserin@example.com")) == 1
    assert len(mail.outbox) == 1
