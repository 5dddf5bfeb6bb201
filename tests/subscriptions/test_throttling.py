from datetime import timedelta

import pytest
from django.core import mail
from django.test import RequestFactory
from django.utils import timezone

from subscriptions import throttling
from subscriptions.models import RequestCount, SignUp
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, at, mails_to, send_form, stamp

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _within_an_hour(time_machine):
    """Requests are counted by the hour: a test that began in its last second would see two."""
    time_machine.move_to(timezone.now().replace(minute=30))


def client_ip(trusted: int, settings, forwarded: str = "", remote: str = "198.51.100.1") -> str:
    settings.TRUSTED_PROXY_COUNT = trusted
    return str(throttling.client_ip(RequestFactory().get("/", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)))


def test_only_trusted_proxies_are_believed(settings):
    forged = "1.2.3.4, 203.0.113.9"

    assert client_ip(0, settings, forged) == "198.51.100.1"
    assert client_ip(1, settings, forged) == "203.0.113.9"
    assert client_ip(2, settings, forged) == "1.2.3.4"
    assert client_ip(3, settings, forged) == "198.51.100.1"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("nonsense", "None"),
        ("", "198.51.100.1"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(settings, written, read):
    assert client_ip(1, settings, written) == read


def test_a_network_that_asks_too_often_is_told_how_long_to_wait(settings):
    settings.REQUESTS_PER_NETWORK = (3, timedelta(hours=1))
    newsletter = make_newsletter()

    answers = [send_form(f"leserin{number}@example.com", newsletter) for number in range(5)]

    assert [answer.status_code for answer in answers] == [303, 303, 303, 429, 429]
    assert 0 < int(answers[-1]["Retry-After"]) <= 3600
    assert SignUp.objects.count() == 3


def test_random_forwarded_headers_open_no_new_account(settings):
    settings.REQUESTS_PER_NETWORK = (3, timedelta(hours=1))
    newsletter = make_newsletter()
    data = {"email": "leserin@example.com", "newsletters": newsletter.slug, "stamp": stamp()}

    answers = [
        a_reader().post("/newsletter/", data, HTTP_X_FORWARDED_FOR=f"10.0.{number}.1").status_code
        for number in range(5)
    ]

    assert answers.count(429) == 2


def test_a_neighbour_in_the_same_network_shares_the_limit_and_another_network_does_not(settings):
    settings.REQUESTS_PER_NETWORK = (1, timedelta(hours=1))
    factory, now = RequestFactory(), timezone.now()

    def admit(ip: str) -> bool:
        return throttling.admit(factory.post("/", REMOTE_ADDR=ip), now) is None

    assert admit("203.0.113.1") and not admit("203.0.113.254") and admit("203.0.114.1")
    assert admit("2001:db8:0:1::1") and not admit("2001:db8:0:1:ffff::1") and admit("2001:db8:0:2::1")


def test_the_same_gate_stands_before_both_forms(settings):
    settings.REQUESTS_PER_NETWORK = (1, timedelta(hours=1))
    send_form("leserin@example.com", make_newsletter())

    answer = a_reader().post("/meine-daten/", {"email": "leserin@example.com", "stamp": stamp(fingerprint="rights")})

    assert answer.status_code == 429


def test_the_next_hour_begins_anew_and_no_address_is_kept(settings):
    settings.REQUESTS_PER_NETWORK = (1, timedelta(hours=1))
    request = RequestFactory().post("/", REMOTE_ADDR="203.0.113.1")

    assert throttling.admit(request, at("2026-11-22T10:59")) is None
    assert throttling.admit(request, at("2026-11-22T10:59:30")) == timedelta(seconds=30)
    assert throttling.admit(request, at("2026-11-22T11:00")) is None
    assert "203.0.113" not in str(list(RequestCount.objects.values()))


def test_a_victim_of_sign_up_bombing_gets_one_mail_in_ten_minutes_and_three_a_day(time_machine):
    newsletter = make_newsletter()
    received = {}

    for minute in (0, 5, 9, 11, 12, 30, 31, 45, 60, 600, 1430, 1442):
        time_machine.move_to(at("2026-11-22T10:00") + timedelta(minutes=minute), tick=False)
        assert send_form("victim@example.com", newsletter).status_code == 303
        received[minute] = len(mails_to("victim@example.com"))

    assert received == {0: 1, 5: 1, 9: 1, 11: 2, 12: 2, 30: 3, 31: 3, 45: 3, 60: 3, 600: 3, 1430: 3, 1442: 4}


def test_the_limit_of_one_address_is_nobody_elses():
    newsletter = make_newsletter()

    for _time in range(3):
        send_form("victim@example.com", newsletter)
    send_form("leserin@example.com", newsletter)

    assert len(mails_to("victim@example.com")) == 1
    assert len(mails_to("leserin@example.com")) == 1
    assert len(mail.outbox) == 2


def test_writing_the_address_differently_does_not_help():
    newsletter = make_newsletter()

    for address in ("victim@example.com", "VICTIM@example.com", "Victim@EXAMPLE.com"):
        assert send_form(address, newsletter).status_code == 303

    mails_to("victim@example.com")
    assert len(mail.outbox) == 1
