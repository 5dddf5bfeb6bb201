import re
from pathlib import Path

import pytest
from django.conf import settings as project
from django.core import mail
from django.utils import timezone

from digests import delivery
from newsroom.mail.addresses import canonicalise
from newsroom.mail.models import OutboxMail
from newsroom.tasks import purge_all
from subscriptions import anchoring, links, rectifying, wording
from subscriptions.consent import Origin
from subscriptions.models import ConsentPayload, PrivacyRequest, SignUp, Subscriber, Subscription
from tests.compliance.post import freeze
from tests.makers import make_newsletter, make_subscription
from tests.subscriptions.reading import (
    a_reader,
    form_token,
    last_mail,
    link_in,
    mails_to,
    open_rights_page,
    send_form,
    sign_up,
    stamp,
    subscribe,
)

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
WHY = "/newsletter/warum/"


def issue_to(address, newsletter):
    freeze(newsletter)
    delivery.deliver_due()
    return mails_to(address)[-1]


def html_of(message):
    return message.alternatives[0][0]


def words_at(path, *, status=200):
    page = a_reader().get(path)
    assert page.status_code == status
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


def test_an_issue_says_what_was_ordered_when_where_and_in_which_words():
    newsletter = make_newsletter(name="Der Tag")
    subscribe(ADDRESS, newsletter)
    agreed = Subscription.objects.get().consent_text.wording

    said = words_at(link_in(issue_to(ADDRESS, newsletter), WHY))

    assert "„Der Tag“" in said and agreed in said
    assert timezone.localdate().strftime("%-d. ") in said and "/newsletter/" in said
    assert wording.offer("de").declaration.wording in said
    assert ADDRESS not in said


def test_the_words_are_those_agreed_to_whatever_is_asked_today():
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    agreed = Subscription.objects.get().consent_text.wording
    wording.revise(newsletter, language="de", wording="Ganz andere Worte.", now=timezone.now())

    said = words_at(link_in(issue_to(ADDRESS, newsletter), WHY))

    assert agreed in said and "Ganz andere Worte." not in said


def test_a_newsletter_added_later_names_the_way_it_was_added():
    first, second = make_newsletter(), make_newsletter()
    subscribe(ADDRESS, first)
    path = link_in(issue_to(ADDRESS, first), "/newsletter/einstellungen/")
    added = {"act": "add", "newsletter": second.slug, "shown": wording.offer("de").fingerprint}
    a_reader().post(path, added)

    said = words_at(link_in(issue_to(ADDRESS, second), WHY))

    assert "Link „Einstellungen“ in einer Ausgabe" in said and "Formular abgeschickt" not in said
    assert first.name not in said


def test_where_the_proof_is_another_one_the_subscription_itself_answers():
    newsletter = make_newsletter()
    text = wording.revise(newsletter, language="de", wording="So war es vereinbart.", now=timezone.now())
    subscription = make_subscription(newsletter, consent_text=text)

    said = words_at(links.why_url(subscription.uuid).removeprefix(project.SITE_URL))

    assert "So war es vereinbart." in said and newsletter.name in said


def test_the_way_out_is_one_click_away_as_long_as_there_is_something_to_leave():
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    link = link_in(issue_to(ADDRESS, newsletter), WHY)
    [way_out] = re.findall(r'href="[^"]*(/newsletter/abmelden/[^"]+)"', a_reader().get(link).content.decode())

    a_reader().post(way_out, {"scope": "this"})

    page = a_reader().get(link).content.decode()
    assert "/newsletter/abmelden/" not in page and "es kommt nichts mehr" in page


def test_an_unconfirmed_sign_up_says_what_was_asked_and_that_nothing_is_ordered():
    newsletter = make_newsletter(name="Der Tag")
    send_form(ADDRESS, newsletter)

    said = words_at(link_in(last_mail(), WHY))

    assert "Der Tag" in said and "es ist also nichts bestellt" in said and "7 Tagen" in said
    assert ADDRESS not in said


def test_a_confirmed_sign_up_says_so_as_long_as_the_reader_is_one():
    path = sign_up(ADDRESS, make_newsletter())
    link = link_in(last_mail(), WHY)
    a_reader().post(path)
    SignUp.objects.all().delete()  # as the purge does after a week

    assert "es ist also nichts bestellt" not in words_at(link)


def test_a_confirmed_sign_up_says_so_also_where_another_reader_moved_in():
    path = sign_up(ADDRESS, make_newsletter())
    link = link_in(last_mail(), WHY)
    a_reader().post(path)
    subscribe("vorher@leser.example", make_newsletter())
    reader = Subscriber.objects.get(address_key="vorher@leser.example")
    rectifying.request_change(reader, canonicalise(ADDRESS), origin=Origin(source="rights_page"), now=timezone.now())
    a_reader().post(link_in(mails_to(ADDRESS)[-1], "/meine-daten/adresse/"))

    assert Subscriber.objects.count() == 1
    assert "vorher@" not in words_at(link)


def test_who_has_the_newsletter_already_reads_that_nothing_was_to_be_confirmed():
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    SignUp.objects.all().delete()
    send_form(ADDRESS, newsletter)

    said = words_at(link_in(last_mail(), WHY))

    assert "nichts zu bestätigen" in said and "nichts bestellt" not in said and newsletter.name in said


def test_after_an_erasure_every_link_answers_kindly_and_tells_nothing():
    newsletter = make_newsletter(name="Der Tag")
    subscribe(ADDRESS, newsletter)
    sent = [*mails_to(ADDRESS), issue_to(ADDRESS, newsletter)]
    reader, page = open_rights_page(ADDRESS)
    sent.append(mails_to(ADDRESS)[-1])
    reader.post("/meine-daten/loeschen/", {"token": form_token(page), "sure": "yes"})

    for path in {link_in(message, WHY) for message in sent}:
        said = words_at(path, status=410)
        assert "nichts mehr gespeichert" in said and "Der Tag" not in said


def test_after_the_purge_the_link_of_a_sign_up_that_was_never_confirmed_answers_kindly():
    send_form(ADDRESS, make_newsletter())
    link = link_in(last_mail(), WHY)

    purge_all(timezone.now() + project.SIGN_UP_RETENTION * 2)

    assert "nichts mehr gespeichert" in words_at(link, status=410)


@pytest.mark.parametrize("make", [links.unsubscribe_token, links.preferences_token])
def test_a_token_of_another_purpose_or_a_forged_one_answers_nothing(make):
    subscription = make_subscription()

    assert subscription.newsletter.name not in words_at(f"{WHY}{make(subscription.uuid)}/", status=404)
    assert subscription.newsletter.name not in words_at(f"{WHY}{'a' * 48}/", status=404)


def test_looking_changes_nothing_leaves_nothing_and_is_named_nowhere():
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    link = link_in(issue_to(ADDRESS, newsletter), WHY)
    before = (list(ConsentPayload.objects.values()), list(Subscription.objects.values()), OutboxMail.objects.count())

    answers = [getattr(a_reader(), method)(link) for method in ("get", "head", "options", "post") * 5]

    assert before == (
        list(ConsentPayload.objects.values()),
        list(Subscription.objects.values()),
        OutboxMail.objects.count(),
    )
    page = answers[0]
    assert page["Referrer-Policy"] == "no-referrer" and page["Cache-Control"] == "no-store"
    assert "noindex" in page["X-Robots-Tag"] and not any(answer.cookies for answer in answers)
    assert {answer.status_code for answer in answers} == {200, 405}


def test_without_a_token_the_page_says_what_holds_for_every_mail():
    assert "Bestellung bestätigt" in words_at(WHY)


def test_a_request_for_data_says_who_may_have_asked():
    a_reader().post("/meine-daten/", {"email": ADDRESS, "stamp": stamp(fingerprint="rights")})

    assert "Meine Daten" in words_at(link_in(last_mail(), WHY)) and PrivacyRequest.objects.count() == 1


def test_a_change_of_address_says_that_without_either_address():
    subscribe(ADDRESS, make_newsletter())
    new = canonicalise("neu@leser.example")
    rectifying.request_change(Subscriber.objects.get(), new, origin=Origin(source="rights_page"), now=timezone.now())

    said = words_at(link_in(last_mail(), WHY))

    assert "andere Adresse" in said and ADDRESS not in said and "neu@" not in said


def test_a_notice_to_staff_says_that_it_is_one():
    subscribe(ADDRESS, make_newsletter())
    anchoring.anchor(timezone.now())

    [notice] = mails_to(project.DPO["email"])
    assert "Betrieb der Website" in words_at(link_in(notice, WHY))


def test_every_kind_of_mail_has_the_link_in_both_parts():
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    for address in (ADDRESS, "niemand@leser.example"):
        a_reader().post("/meine-daten/", {"email": address, "stamp": stamp(fingerprint="rights")})
    SignUp.objects.all().delete()
    send_form(ADDRESS, newsletter)
    anchoring.anchor(timezone.now())
    issue_to(ADDRESS, newsletter)

    assert len(mail.outbox) == 6
    for message in mail.outbox:
        found = re.findall(rf"^{project.SITE_URL}{WHY}[\w-]{{48}}/$", message.body, re.MULTILINE)
        assert len(found) == 1 and f'href="{found[0]}"' in html_of(message)


def test_no_template_of_a_mail_goes_without_the_base_that_holds_the_link():
    bodies = [path for folder in project.TEMPLATES[0]["DIRS"] for path in Path(folder).rglob("*/mail/*")]
    own = [path for path in bodies if path.suffix in {".txt", ".mjml"} and ".subject." not in path.name]

    for path in own:
        text = path.read_text()
        assert '{% extends "mail/service.' in text or "why_slot" in text, path


def test_neither_ledger_nor_outbox_keeps_the_token():
    subscribe(ADDRESS, make_newsletter())
    token = links.why_token(SignUp.objects.get().uuid)

    assert token in mails_to(ADDRESS)[0].body
    kept = str(list(ConsentPayload.objects.values())) + str(list(OutboxMail.objects.values()))
    assert token not in kept and links.hash_token(token) in kept
