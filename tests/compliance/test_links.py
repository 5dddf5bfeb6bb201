import re

import pytest

from subscriptions.models import PrivacyRequest, SignUp, Subscription
from tests.compliance.post import CONFIRM, LEAVE, RIGHTS, WHY, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form, stamp

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"


def test_e39_twenty_looks_at_every_link_change_nothing_and_send_nothing(post):
    newsletter, pending = make_newsletter(), make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    issue = post.issue(newsletter)[0]
    leave, why = link_in(issue, LEAVE), link_in(issue, WHY)
    a_reader().post(RIGHTS, {"email": ADDRESS, "stamp": stamp(fingerprint="rights")})
    rights = link_in(post.to(ADDRESS)[-1], RIGHTS)
    send_form("andere@leser.example", pending)
    confirm = link_in(post.to("andere@leser.example")[-1], CONFIRM)
    before = len(post.all())

    for link in (leave, why, rights, confirm):
        for method in ["get"] * 20 + ["head", "options"]:
            assert getattr(a_reader(), method)(link).status_code < 500

    assert len(post.all()) == before
    assert Subscription.objects.active().count() == 1 and SignUp.objects.unconfirmed().count() == 1
    assert PrivacyRequest.objects.get().state == PrivacyRequest.State.REQUESTED


def test_e40_pages_with_a_token_are_kept_and_named_nowhere(post):
    newsletter = make_newsletter()
    send_form(ADDRESS, newsletter)
    link = link_in(post.to(ADDRESS)[0], CONFIRM)

    page = a_reader().get(link)

    token = link.split("/")[-2]
    assert len(token) >= 22 and token not in str(SignUp.objects.values().get())
    assert page["Cache-Control"] == "no-store" and page["Referrer-Policy"] == "no-referrer"
    assert "noindex" in page["X-Robots-Tag"]
    assert token not in re.findall(r"<title>(.*?)</title>", page.content.decode(), re.DOTALL)[0]


def test_e41_after_the_button_the_address_bar_holds_no_token(post):
    send_form(ADDRESS, make_newsletter())
    link = link_in(post.to(ADDRESS)[0], CONFIRM)

    answer = a_reader().post(link)

    assert (answer.status_code, answer["Location"]) == (303, "/newsletter/bestaetigt/")


def test_e44_a_reader_who_signs_up_again_learns_it_by_one_mail_only(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    SignUp.objects.all().delete()
    before = len(post.to(ADDRESS))

    answers = [send_form(address, newsletter) for address in (ADDRESS, ADDRESS, "neu@leser.example")]

    assert len({answer.content for answer in answers}) == 1
    [mail] = post.to(ADDRESS)[before:]
    assert CONFIRM not in mail.text
