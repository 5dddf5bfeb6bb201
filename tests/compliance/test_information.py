import re
from datetime import timedelta
from email.utils import parseaddr

import pytest
from django.core.management import call_command
from django.utils import timezone

from newsroom.mail import checks
from newsroom.templatetags.periods import period
from tests.compliance.post import CONFIRM, RIGHTS, WHY, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form, stamp

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
PAGES = [
    "/",
    "/newsletter/",
    "/newsletter/fast-geschafft/",
    "/newsletter/bestaetigt/",
    "/meine-daten/",
    "/datenschutz/",
]


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def one_mail_of_each_kind(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    a_reader().post(RIGHTS, {"email": ADDRESS, "stamp": stamp(fingerprint="rights")})
    a_reader().post(RIGHTS, {"email": "nobody@leser.example", "stamp": stamp(fingerprint="rights")})
    post.issue(newsletter)
    assert len(post.all()) == 4
    return post.all()


def test_r16_the_privacy_notice_tells_the_periods_that_are_enforced(client, settings):
    settings.SIGN_UP_RETENTION, settings.DELIVERY_RETENTION = timedelta(days=11), timedelta(days=77)

    page = words(client.get("/datenschutz/").content.decode())

    for value in (settings.SIGN_UP_RETENTION, settings.DELIVERY_RETENTION, settings.CONFIRMATION_LIFETIME):
        assert str(period(value)) in page
    for item in ("Verantwortlich", settings.PUBLISHER["name"], settings.DPO["email"], "Art. 77", "Art. 6 Abs. 1"):
        assert item in page


def test_r16_the_privacy_notice_tells_of_the_file_and_of_why_a_mail_came(client):
    page = words(client.get("/datenschutz/").content.decode())

    for item in ("Warum bekomme ich diese Mail?", "ZIP-Datei", "Art. 15 und 20", "nennt sie keine Adresse"):
        assert item in page


def test_every_mail_says_why_it_came_and_the_page_names_nobody(post):
    for mail in one_mail_of_each_kind(post):
        link = link_in(mail, WHY)
        assert f'{link}"' in mail.html.replace("&quot;", '"')
        page = a_reader().get(link)
        assert page.status_code == 200 and "Was geschehen ist" in words(page.content.decode())
        assert mail.recipients[0] not in page.content.decode()


def test_r17_the_promise_at_the_form_leads_to_what_backs_it(client):
    make_newsletter()
    page = client.get("/newsletter/").content.decode()

    promise = re.search(r"<p [^>]*>([^<]*DSGVO[^<]*)<a href=\"([^\"]+)\">Datenschutzerklärung</a>", page, re.DOTALL)
    assert promise is not None
    shown = re.search(r"<input[^>]*type=\"checkbox\"[^>]*datenschutz", page, re.IGNORECASE)
    assert shown is None and client.get(promise[2]).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_r18_the_imprint_is_one_click_from_every_page(client, path):
    make_newsletter()

    assert 'href="/impressum/"' in client.get(path).content.decode()


def test_r18_every_mail_says_who_sends_it_in_both_parts(post, settings):
    for mail in one_mail_of_each_kind(post):
        for part in (words(mail.text), words(mail.html)):
            for fact in settings.PUBLISHER.values():
                assert fact in part


def test_r19_every_mail_comes_from_an_address_that_somebody_reads(post, settings):
    for mail in one_mail_of_each_kind(post):
        name, address = parseaddr(mail.message["From"])
        assert name == settings.SITE_NAME and not re.match(r"no-?reply", address)

    settings.DEFAULT_FROM_EMAIL = "Wochenblitz <noreply@wochenblitz.example>"
    assert "mail.W001" in [found.id for found in checks.check_mail()]


def test_r20_confirmation_mail_is_free_of_advertising(post):
    send_form(ADDRESS, make_newsletter(name="Der Tag"))

    [mail] = post.to(ADDRESS)

    assert not re.search(r"<img|background=|url\(", mail.html)
    assert len(mail.text) < 1500
    for part in (mail.text, mail.html, mail.message["Subject"]):
        assert not re.search(r"willkommen|angebot|jetzt lesen|folgen sie|\bapp\b|\babo", part, re.IGNORECASE)
    targets = set(re.findall(r"https?://localhost[^\s\"<>]*", mail.text))
    # Besides the three that R-20 names, the link every mail has to why it came: information, and nothing to buy.
    assert len(targets) == 4 and sum(CONFIRM in target for target in targets) == 1
    assert sum(WHY in target for target in targets) == 1


def test_r21_seven_days_bring_one_mail_and_no_reminder(post, time_machine):
    start = timezone.now()
    send_form(ADDRESS, make_newsletter())
    for day in range(8):
        time_machine.move_to(start + timedelta(days=day))
        post.all()
        call_command("purge")

    assert len(post.all()) == 1
