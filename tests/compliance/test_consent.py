import logging
import re
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone

from newsroom.tasks import purge_all
from subscriptions import ledger, wording
from subscriptions.models import ConsentPayload, ConsentText, Newsletter, SignUp, Subscription
from tests.compliance.post import CONFIRM, LEAVE, link_in
from tests.makers import make_digest, make_newsletter
from tests.subscriptions.reading import IP, a_reader, at, send_form

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"


def inputs(page: str) -> list[str]:
    return re.findall(r"<(?:input|select|textarea)\b[^>]*>", page)


def test_r01_nobody_gets_an_issue_before_confirming(post):
    newsletter = make_newsletter()
    send_form(ADDRESS, newsletter)

    issue = post.issue(newsletter)

    [only] = post.to(ADDRESS)
    assert issue == [] and CONFIRM in only.text


@pytest.mark.parametrize("chosen", [{}, {"newsletters": ""}, {"newsletters": "no-such-newsletter"}])
def test_r02_no_box_is_ticked_and_without_a_choice_there_is_no_mail(post, chosen):
    make_newsletter()
    page = a_reader().get("/newsletter/").content.decode()
    boxes = [field for field in inputs(page) if 'type="checkbox"' in field]

    answer = send_form(ADDRESS, **chosen)

    assert boxes and not re.search(r"\b(checked|selected)\b", "".join(inputs(page)))
    assert answer.status_code == 400 and "field-error" in answer.content.decode()
    assert post.to(ADDRESS) == []


def test_r03_consent_to_one_newsletter_is_none_to_another(post):
    one, other = make_newsletter(), make_newsletter()
    post.subscribe(ADDRESS, one)

    assert [mail.recipients for mail in post.issue(one)] == [[ADDRESS]]
    assert post.issue(other) == []
    [confirmed] = [act for act in ledger.evidence(ADDRESS) if act["act"] == "confirmed"]
    assert [agreed["name"] for agreed in confirmed["newsletters"]] == [one.name]


def test_r03_a_newsletter_added_later_is_a_consent_of_its_own(post):
    one, other = make_newsletter(), make_newsletter()
    post.subscribe(ADDRESS, one)
    reader, token = post.rights_page(ADDRESS)

    act = {"token": token, "act": "add", "newsletter": other.slug, "shown": wording.offer("de").fingerprint}
    assert reader.post("/meine-daten/newsletter/", act).status_code < 400

    added = ledger.evidence(ADDRESS)[-1]
    assert added["act"] == "added" and [agreed["name"] for agreed in added["newsletters"]] == [other.name]
    assert len(post.issue(other)) == 1


def test_r04_nothing_else_need_be_accepted(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)

    page = a_reader().get("/newsletter/").content.decode()
    boxes = [field for field in inputs(page) if 'type="checkbox"' in field]
    assert all('name="newsletters"' in box for box in boxes)
    assert len(post.issue(newsletter)) == 1


@pytest.mark.parametrize("frequency", Newsletter.Frequency.values)
def test_r05_the_form_says_what_one_agrees_to(settings, frequency):
    newsletter = make_newsletter(frequency=frequency)
    text = wording.offer("de").choices[0].text.wording

    page = a_reader().get("/newsletter/").content.decode()

    assert newsletter.description in page and text in page
    assert str(settings.PUBLISHER["name"]) in page and 'href="/datenschutz/"' in page
    assert "widerrufen" in page and text.endswith(
        f"Erscheint {wording.FREQUENCY['de'][Newsletter.Frequency(frequency)]}."
    )


def test_r06_a_newsletter_has_one_issue_a_day(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)

    assert len(post.issue(newsletter)) == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        make_digest(newsletter)
    assert post.issue(make_newsletter()) == []


def test_r07_consents_stay_bound_to_the_words_they_were_given_to(post):
    newsletter = make_newsletter(description="Das Wichtigste vom Tage.")
    post.subscribe(ADDRESS, newsletter)
    used = ConsentText.objects.get(newsletter=newsletter)

    wording.revise(newsletter, language="de", wording="Alles, und Werbung.", now=timezone.now())

    assert "Alles, und Werbung." in a_reader().get("/newsletter/").content.decode()
    confirmed = ledger.evidence(ADDRESS)[-1]
    assert "Das Wichtigste vom Tage." in confirmed["newsletters"][0]["wording"]
    with pytest.raises(DatabaseError), transaction.atomic():
        ConsentText.objects.filter(pk=used.pk).update(wording="Alles, und Werbung.")


def test_r08_the_form_asks_for_the_address_only():
    make_newsletter()

    page = a_reader().get("/newsletter/").content.decode()

    asked = [field for field in inputs(page) if 'type="hidden"' not in field and 'name="url"' not in field]
    assert {re.findall(r'name="(\w+)"', field)[0] for field in asked} == {"email", "newsletters"}
    assert len(re.findall(r"\brequired\b", "".join(inputs(page)))) == 1


def test_r09_a_stranger_can_cause_one_mail_and_learns_nothing(post):
    newsletter = make_newsletter()
    post.subscribe("known@leser.example", newsletter)
    SignUp.objects.all().delete()

    answers = [send_form(address, newsletter) for address in ["known@leser.example", *[ADDRESS] * 5]]

    assert len({(answer.status_code, answer["Location"], answer.content) for answer in answers}) == 1
    assert len(post.to(ADDRESS)) == 1


def test_r11_the_evidence_holds_the_whole_procedure(post, admin_client):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS.replace("leserin", "Leserin"), newsletter)

    requested, mailed, confirmed = ledger.evidence(ADDRESS)

    assert [requested["act"], mailed["act"], confirmed["act"]] == ["requested", "mail_sent", "confirmed"]
    for act in (requested, mailed, confirmed):
        assert act["actor"] and act["address"] == "Leserin@leser.example"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", act["at"])
    for act in (requested, confirmed):
        assert act["address_typed"] == "Leserin@leser.example" and act["ip"] == IP and act["language"] == "de"
        assert act["declaration"]["wording"] == wording.offer("de").declaration.wording
        [agreed] = act["newsletters"]
        assert (agreed["name"], agreed["frequency"]) == (newsletter.name, "daily")
        assert newsletter.description in agreed["wording"] and agreed["version"]
    assert requested["page"] and requested["form_version"] and requested["privacy_notice_version"]
    assert mailed["message_id"] == post.to("Leserin@leser.example")[0].message["Message-ID"]
    assert mailed["subject"] and "{confirm_url}" not in mailed["text"]
    page = admin_client.get(f"/admin/subscriptions/subscriber/{Subscription.objects.get().subscriber_id}/evidence/")
    assert agreed["wording"] in page.content.decode()


@pytest.mark.parametrize(("kept", "shown"), [("full", IP), ("truncated", "203.0.113.0"), ("none", None)])
def test_r12_the_ip_is_kept_as_far_as_configured_and_never_a_forged_one(post, settings, kept, shown):
    settings.EVIDENCE_IP = kept
    newsletter = make_newsletter()
    client = a_reader()
    client.defaults["HTTP_X_FORWARDED_FOR"] = "198.51.100.1"

    send_form(ADDRESS, newsletter, client=client)
    client.post(link_in(post.to(ADDRESS)[-1], CONFIRM))

    acts = [act for act in ledger.evidence(ADDRESS) if act["act"] in {"requested", "confirmed"}]
    assert [act["ip"] for act in acts] == [shown, shown]


def test_r12_an_unconfirmed_sign_up_loses_its_ip(post):
    send_form(ADDRESS, make_newsletter())

    purge_all(timezone.now() + timedelta(days=8))

    assert not ConsentPayload.objects.exists() and not SignUp.objects.exists()


def test_r13_proof_ends_with_the_third_calendar_year_after_withdrawal(post):
    year = timezone.localdate().year
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    a_reader().post(link_in(post.issue(newsletter)[0], LEAVE), {"List-Unsubscribe": "One-Click"})

    purge_all(at(f"{year + 3}-12-31T12:00"))
    assert {"confirmed", "withdrawn"} <= {act["act"] for act in ledger.evidence(ADDRESS)}
    purge_all(at(f"{year + 4}-01-01T12:00"))

    assert ledger.evidence(ADDRESS) == []


def test_r14_evidence_leaves_neither_by_mail_nor_by_log(post, caplog):
    newsletter = make_newsletter()
    with caplog.at_level(logging.DEBUG):
        post.subscribe(ADDRESS, newsletter)
        token = link_in(post.to(ADDRESS)[0], CONFIRM).split("/")[-2]
        issue = post.issue(newsletter)
        call_command("seal")

    assert len(issue) == 1
    assert all(IP not in mail.content.decode() for mail in post.all())
    assert token not in issue[0].content.decode()
    assert IP not in caplog.text and token not in caplog.text
