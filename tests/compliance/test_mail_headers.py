import re
from email.utils import parsedate_to_datetime

import pytest
from django.utils import timezone

from subscriptions.models import Subscription
from tests.compliance.post import LEAVE, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"


@pytest.fixture
def issue(post):
    newsletter = make_newsletter(name="Über den Tag")
    post.subscribe(ADDRESS, newsletter)
    return post.issue(newsletter)[0]


def headers_of(mail):
    return {name.lower(): value for name, value in mail.message.items()}


def test_e01_an_issue_has_one_way_out_in_its_header(issue):
    assert issue.message.get_all("List-Unsubscribe-Post") == ["List-Unsubscribe=One-Click"]
    [way_out] = issue.message.get_all("List-Unsubscribe")
    assert re.fullmatch(r"<https?://[!-~]+>", way_out) and len(way_out) < 200
    assert b"=?" not in re.findall(rb"(?im)^list-unsubscribe:[^\r]*(?:\r\n [^\r]*)*", issue.content)[0]


def test_e02_the_way_out_names_the_reader_to_nobody(issue):
    assert "leserin" not in issue.message["List-Unsubscribe"] and "@" not in issue.message["List-Unsubscribe"]
    link = link_in(issue, LEAVE)
    tampered = f"{link[:-2]}{'A' if link[-2] != 'A' else 'B'}/"
    a_reader().post(tampered, {"List-Unsubscribe": "One-Click"})
    assert Subscription.objects.active().exists()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (
            '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_e03_e06_one_click_works_in_both_forms_and_again(issue, body, content_type):
    link = link_in(issue, LEAVE)

    answers = [a_reader().post(link, body, content_type=content_type) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any(answer.cookies for answer in answers) and not Subscription.objects.active().exists()


def test_e04_e08_looking_at_the_way_out_is_safe_and_leads_nowhere_else(issue):
    for method in ("get", "head"):
        assert getattr(a_reader(), method)(link_in(issue, LEAVE)).status_code == 200
    assert Subscription.objects.active().exists()


def test_e09_e14_a_confirmation_mail_is_no_list_mail(post):
    send_form(ADDRESS, make_newsletter())

    headers = headers_of(post.to(ADDRESS)[0])

    assert headers["auto-submitted"] == "auto-generated" and headers["x-auto-response-suppress"] == "All"
    assert not [name for name in headers if name.startswith("list-") or name == "precedence"]


def test_e10_to_e18_an_issue_says_what_it_is(issue):
    headers = headers_of(issue)

    assert re.fullmatch(r"(\"[ -~]+\" )?<[a-z0-9.-]+>", headers["list-id"])
    assert headers["message-id"].endswith("@wochenblitz.example>")
    assert abs((parsedate_to_datetime(headers["date"]) - timezone.now()).total_seconds()) < 60
    assert headers["precedence"] == "bulk" and headers["auto-submitted"] != "no"
    assert headers["content-language"] == "de"
    assert headers["feedback-id"].count(":") == 3 and "leserin" not in headers["feedback-id"]


def test_e13_e19_every_header_stands_once_and_every_line_is_short(issue):
    names = [name.lower() for name in issue.message.keys()]  # noqa: SIM118

    assert len(names) == len(set(names))
    assert {"from", "to", "subject", "date", "message-id", "mime-version"} <= set(names)
    assert max(len(line) for line in issue.content.split(b"\r\n")) <= 998


def test_e38_r44_a_mail_has_one_recipient_and_a_sender_that_takes_bounces(issue):
    assert issue.message["To"] == ADDRESS and issue.recipients == [ADDRESS]
    assert "cc" not in headers_of(issue) and "bcc" not in headers_of(issue)
    assert issue.sender.endswith("@wochenblitz.example")
