import re
from datetime import timedelta

import pytest
from django.utils import timezone

from digests import delivery
from subscriptions import ledger
from subscriptions.models import Subscriber, Subscription
from tests.compliance.post import ENTER, LEAVE, enter_letter, freeze, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def header_path(mail):
    [uri] = re.findall(r"<https?://[^/]+(/[^>]+)>", mail.message["List-Unsubscribe"])
    return uri


def test_r22_leaving_takes_two_requests_and_nothing_else(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    link = link_in(post.issue(newsletter)[0], LEAVE)
    reader = a_reader()

    page = reader.get(link)
    fields = re.findall(r"<input\b[^>]*>", page.content.decode())
    [button] = re.findall(r'<button[^>]*name="(\w+)" value="(\w+)"', page.content.decode())
    done = reader.post(link, dict([button]))

    assert all('type="hidden"' in field for field in fields)
    assert (page.status_code, done.status_code) == (200, 200) and not reader.cookies
    assert not Subscription.objects.active().exists()


def test_r23_every_issue_shows_each_reader_a_way_out_that_works(post):
    newsletter = make_newsletter()
    for number in range(2):
        post.subscribe(f"leserin{number}@leser.example", newsletter)

    mails = post.issue(newsletter)

    links = [link_in(mail, LEAVE) for mail in mails]
    assert len(set(links)) == 2
    for mail, link in zip(mails, links, strict=True):
        assert "abmelden" in mail.text and re.search(rf'<a\s[^>]*{link}"[^>]*>[^<]*abmelden', mail.html)
        assert header_path(mail) == link
        assert a_reader().post(link, ONE_CLICK).status_code == 200
    assert not Subscription.objects.active().exists()


def test_r24_one_click_leaves_this_newsletter_and_one_more_leaves_all(post):
    one, other = make_newsletter(), make_newsletter()
    post.subscribe(ADDRESS, one, other)
    link = link_in(post.issue(one)[0], LEAVE)

    a_reader().post(link, ONE_CLICK)
    assert list(Subscription.objects.active().values_list("newsletter", flat=True)) == [other.pk]

    page = a_reader().get(link).content.decode()
    button = re.findall(r'<button[^>]*name="(\w+)" value="(all)"', page)
    assert other.name in page and button
    assert a_reader().post(link, dict(button)).status_code == 200
    assert not Subscription.objects.active().exists()


def test_r25_who_leaves_while_an_issue_is_under_way_does_not_get_it(post, settings):
    newsletter = make_newsletter()
    for number in range(3):
        post.subscribe(f"leserin{number}@leser.example", newsletter)
    link = link_in(post.issue(newsletter, date="2026-01-01")[1], LEAVE)
    freeze(newsletter)
    before = len(post.all())

    a_reader().post(link, ONE_CLICK)
    delivery.deliver_due()

    assert [mail.recipients[0] for mail in post.all()[before:]] == ["leserin0@leser.example", "leserin2@leser.example"]


@pytest.mark.parametrize("way", ["letter", "call", "mail", "fax"])
def test_r26_a_letter_counts_like_a_click(post, admin_client, admin_user, way):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    before = len(post.all())

    enter_letter(admin_client, ADDRESS, "withdraw_all", way=way, received_on="2026-03-05")

    assert post.issue(newsletter) == [] and len(post.all()) == before
    withdrawn = ledger.evidence(ADDRESS)[-1]
    said = (withdrawn["act"], withdrawn["actor"], withdrawn["source"], withdrawn["received_on"])
    assert said == ("withdrawn", f"staff:{admin_user.pk}", way, "2026-03-05")


def test_r26_the_proof_of_a_letter_is_that_of_a_click_but_for_who_acted_and_when_it_came(post, admin_client):
    newsletter = make_newsletter()
    other = "andere@leser.example"
    post.subscribe(ADDRESS, newsletter)
    post.subscribe(other, newsletter)
    link = link_in(post.issue(newsletter)[0], LEAVE)

    a_reader().post(link, ONE_CLICK)
    enter_letter(admin_client, other, "withdraw", newsletters=[newsletter.pk])

    click, letter = ledger.evidence(ADDRESS)[-1], ledger.evidence(other)[-1]
    assert click["act"] == letter["act"] and click["newsletters"] == letter["newsletters"]
    assert set(letter) - set(click) == {"received_on"}
    assert not Subscription.objects.active().exists()


def test_r26_entering_a_letter_takes_one_page_and_one_click_from_where_staff_are(post, admin_client):
    post.subscribe(ADDRESS, make_newsletter())
    reader = Subscriber.objects.get()

    pages = [admin_client.get(path).content.decode() for path in ("/admin/", "/admin/subscriptions/subscriber/")]
    [path] = re.findall(rf'href="({ENTER}\?reader={reader.pk})"', pages[1])
    form = admin_client.get(path).content.decode()

    assert all(f'href="{ENTER}"' in page for page in pages)
    assert ADDRESS in form and ADDRESS not in path


def test_r27_no_mail_follows_a_withdrawal(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    link = link_in(post.issue(newsletter)[0], LEAVE)
    before = len(post.all())

    answer = a_reader().post(link, ONE_CLICK)

    assert answer.status_code == 200 and len(post.all()) == before


def test_r28_a_second_click_an_old_link_and_a_strange_one_are_answered_kindly(post, time_machine):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    link = link_in(post.issue(newsletter)[0], LEAVE)
    time_machine.move_to(timezone.now() + timedelta(days=366))

    answers = [a_reader().post(link, ONE_CLICK) for _ in range(3)]
    stranger = a_reader().post(f"{LEAVE}{'x' * 48}/", ONE_CLICK)

    assert [answer.status_code for answer in answers] == [200] * 3
    assert not Subscription.objects.active().exists()
    assert stranger.status_code in {200, 404} and "@leser.example" not in stranger.content.decode()
    assert len([act for act in ledger.evidence(ADDRESS) if act["act"] == "withdrawn"]) == 1
