import re
from uuid import uuid4

import pytest
from django.core import mail
from django.db import connection
from django.test import Client

from newsroom.mail.models import OutboxMail
from subscriptions import ledger, links
from subscriptions.models import ConsentRecord, Subscription
from tests.makers import make_newsletter, make_subscriber, make_subscription
from tests.subscriptions.reading import a_reader

pytestmark = pytest.mark.django_db
ONE_CLICK = "List-Unsubscribe=One-Click"
ACTIVE = Subscription.State.ACTIVE


def path_of(subscription: Subscription) -> str:
    return f"/newsletter/abmelden/{links.unsubscribe_token(subscription.uuid)}/"


def multipart() -> tuple[str, str]:
    body = '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
    return body, "multipart/form-data; boundary=b"


@pytest.mark.parametrize(("body", "content_type"), [(ONE_CLICK, "application/x-www-form-urlencoded"), multipart()])
def test_one_click_by_a_mail_program_ends_this_subscription_only(body, content_type):
    reader = make_subscriber()
    leaving, staying = make_subscription(subscriber=reader), make_subscription(subscriber=reader)

    answer = a_reader().post(path_of(leaving), body, content_type=content_type)

    assert answer.status_code == 200
    assert not answer.cookies and "Location" not in answer
    assert list(Subscription.objects.active()) == [staying]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (ONE_CLICK, "application/x-www-form-urlencoded; charset=iso-8859-1"),
        (ONE_CLICK, "application/x-www-form-urlencoded; charset=us-ascii"),
        (ONE_CLICK + "\r\n", "application/x-www-form-urlencoded"),
        (ONE_CLICK, "text/plain"),
        (ONE_CLICK, ""),
    ],
)
def test_one_click_counts_however_a_program_labels_it(body, content_type):
    subscription = make_subscription()

    answer = a_reader().generic("POST", path_of(subscription), body, content_type=content_type)

    assert answer.status_code == 200
    assert not Subscription.objects.active().exists()


def test_one_click_may_be_repeated_and_leaves_one_record():
    subscription = make_subscription()

    answers = [a_reader().post(path_of(subscription), {"List-Unsubscribe": "One-Click"}) for _time in range(3)]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert ConsentRecord.objects.filter(type="withdrawn").count() == 1


def test_the_withdrawal_is_on_record():
    subscription = make_subscription()

    a_reader().post(path_of(subscription), {"List-Unsubscribe": "One-Click"})

    [record] = ledger.evidence(subscription.subscriber.address_key)
    assert (record["act"], record["source"]) == ("withdrawn", "one_click")
    assert record["newsletters"][0]["name"] == subscription.newsletter.name


@pytest.mark.parametrize("token", ["x", "A" * 48, "é" * 48])
def test_an_unknown_token_gets_the_same_neutral_answer(token):
    subscription = make_subscription()

    unknown = a_reader().post(f"/newsletter/abmelden/{token}/", {"List-Unsubscribe": "One-Click"})
    known = a_reader().post(path_of(subscription), {"List-Unsubscribe": "One-Click"})

    assert (unknown.status_code, unknown.content) == (known.status_code, known.content)
    assert a_reader().get(f"/newsletter/abmelden/{token}/").status_code == 200


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_looking_at_the_link_changes_nothing(method):
    subscription = make_subscription()

    for _time in range(20):
        getattr(a_reader(), method)(path_of(subscription))

    assert Subscription.objects.get().state == ACTIVE
    assert not ConsentRecord.objects.exists()


def test_from_the_mail_to_done_in_two_requests_without_a_mail():
    subscription = make_subscription()
    reader = a_reader()

    page = reader.get(path_of(subscription))
    done = reader.post(path_of(subscription), dict(re.findall(r'name="(scope)" value="(this)"', page.content.decode())))

    assert page.content.decode().count("<button") == 1
    assert (page.status_code, done.status_code) == (200, 200)
    assert not reader.cookies
    assert not Subscription.objects.mailable().exists()
    assert not OutboxMail.objects.exists() and not mail.outbox


def test_one_more_button_leaves_all_newsletters():
    reader = make_subscriber()
    subscription, _other = make_subscription(subscriber=reader), make_subscription(subscriber=reader)

    assert a_reader().get(path_of(subscription)).content.decode().count("<button") == 2
    a_reader().post(path_of(subscription), {"scope": "all"})

    assert not Subscription.objects.active().exists()
    [record] = ledger.evidence(reader.address_key)
    assert len(record["newsletters"]) == 2


def test_a_post_that_says_nothing_we_know_changes_nothing():
    subscription = make_subscription()

    answer = a_reader().post(path_of(subscription), {"anything": "else"})

    assert answer.status_code == 400
    assert Subscription.objects.get().state == ACTIVE


def test_the_link_of_an_erased_reader_is_neutral():
    subscription = make_subscription()
    path = path_of(subscription)
    subscription.subscriber.delete()

    assert a_reader().get(path).status_code == 200
    assert a_reader().post(path, {"List-Unsubscribe": "One-Click"}).status_code == 200


def test_one_click_over_plain_http_is_not_redirected(settings):
    settings.SECURE_SSL_REDIRECT = True

    answer = Client().post(path_of(make_subscription()), {"List-Unsubscribe": "One-Click"})

    assert answer.status_code == 200


def test_mail_providers_that_send_many_from_one_address_are_not_limited(settings):
    settings.REQUESTS_PER_NETWORK = (1, settings.REQUESTS_PER_NETWORK[1])
    newsletter = make_newsletter()
    subscriptions = [make_subscription(newsletter) for _number in range(5)]

    answers = [a_reader().post(path_of(sub), {"List-Unsubscribe": "One-Click"}).status_code for sub in subscriptions]

    assert answers == [200] * 5


@pytest.mark.postgresql
def test_a_click_reads_one_subscription_however_many_there_are():
    asked = Subscription.objects.linked_by(uuid4())
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # the few rows of a test would be read through

    assert "Seq Scan" not in asked.explain()
