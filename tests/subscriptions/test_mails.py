import re

import pytest
from django.utils import timezone

from newsroom.mail import outbox
from subscriptions.models import SignUp
from tests.makers import make_newsletter, make_subscriber
from tests.subscriptions.reading import a_reader, last_mail, mails_to, send_form, sign_up, stamp, subscribe

pytestmark = pytest.mark.django_db
FORBIDDEN = re.compile(r"willkommen|welcome|angebot|jetzt lesen|folgen sie|\bapp\b|\babo|dear|liebe", re.IGNORECASE)


def html_of(message) -> str:
    [alternative] = message.alternatives
    return alternative.content


def confirmation(settings):
    settings.SITE_URL = "https://www.example.com"
    send_form("leserin@example.com", make_newsletter(name="Der Tag & die Nacht"))
    return last_mail()


def test_the_confirmation_mail_is_bare(settings):
    message = confirmation(settings)
    html = html_of(message)

    for part in (message.body, html, message.subject):
        assert not FORBIDDEN.search(part)
    assert "<img" not in html and "background=" not in html and "url(" not in html
    assert len(message.body) < 1500


def test_the_confirmation_mail_links_to_what_it_needs_and_why_it_came_and_nowhere_else(settings):
    message = confirmation(settings)

    for part in (message.body, html_of(message)):
        targets = set(re.findall(r"https?://www\.example\.com[^\s\"<>]*", part))
        assert len(targets) == 4
        places = r"/(bestaetigen/[\w-]{43}|newsletter/warum/[\w-]{48}|impressum|datenschutz)/$"
        assert all(re.search(places, target) for target in targets)


def test_the_confirmation_mail_says_what_was_asked_and_when(settings):
    message = confirmation(settings)

    words = " ".join(message.body.split())
    assert "Der Tag & die Nacht" in words and "Der Tag &amp; die Nacht" in html_of(message)
    local = timezone.localtime(SignUp.objects.get().requested_at)
    assert f"{local:%H:%M}" in words and str(local.year) in words


def test_service_mails_are_no_list_mail(settings):
    headers = {name.lower(): value for name, value in confirmation(settings).message().items()}

    assert headers["auto-submitted"] == "auto-generated"
    assert not [name for name in headers if name.startswith("list-")] and "precedence" not in headers
    assert headers["to"] == "leserin@example.com" and "cc" not in headers and "bcc" not in headers


@pytest.mark.parametrize("kind", ["already", "rights", "nothing"])
def test_every_service_mail_says_who_sends_it_in_both_parts(settings, kind):
    newsletter = make_newsletter()
    if kind == "already":
        subscribe("leserin@example.com", newsletter)
        SignUp.objects.update(requested_at="2026-01-01T00:00Z")
        send_form("leserin@example.com", newsletter)
    else:
        make_subscriber("leserin@example.com" if kind == "rights" else "other@example.com")
        a_reader().post("/meine-daten/", {"email": "leserin@example.com", "stamp": stamp(fingerprint="rights")})

    message = last_mail()

    for part in (" ".join(message.body.split()), " ".join(html_of(message).split())):
        for field in ("name", "street", "city", "email", "phone", "register", "vat_id", "represented_by"):
            assert settings.PUBLISHER[field] in part
    assert message.subject


def test_a_mail_that_is_asked_for_twice_goes_once():
    sign_up("leserin@example.com", make_newsletter())

    outbox.send_due(timezone.now())
    outbox.send_due(timezone.now())

    assert len(mails_to("leserin@example.com")) == 1


def test_a_mail_is_not_sent_once_its_link_has_expired():
    send_form("leserin@example.com", make_newsletter())
    SignUp.objects.update(expires_at=timezone.now())

    assert mails_to("leserin@example.com") == []


def test_the_mail_speaks_the_language_of_the_form(settings):
    send_form("leserin@example.com", make_newsletter())

    assert last_mail().extra_headers["Content-Language"] == "de"
