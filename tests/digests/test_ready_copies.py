"""Copies made ready of one model: the provider is asked for the very same as by Anymail's own hand."""

import json
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from uuid import uuid4

import pytest
from anymail.signals import pre_send
from django.core.mail import get_connection
from django.utils import timezone
from requests.structures import CaseInsensitiveDict

from digests import carriers, rendering
from digests.handover import Copies, CopiesForMany, Letter, ReadyCopies
from newsroom.mail import payloads, transport
from newsroom.mail.outcomes import Outcome
from tests.makers import make_article, make_digest, make_entry
from tests.stand_ins import MailgunStandIn, PostmarkStandIn, form_fields

pytestmark = pytest.mark.django_db

HEADLINE = 'Ä€😀 "%recipient.why%" \\u0022 & <b>%s</b> {0} \\ reader@to.slot.invalid'
STAND_INS = {"postmark": PostmarkStandIn, "mailgun": MailgunStandIn}


@pytest.fixture(params=STAND_INS)
def provider(request, settings):
    with STAND_INS[request.param]() as stand_in:
        stand_in.configure(settings)
        yield stand_in


@pytest.fixture
def digest():
    digest = make_digest(articles=2)
    make_entry(digest, position=3, article=make_article(headline=HEADLINE))
    rendering.store(digest)
    return digest


def make_letters(count, **values):
    letters = [
        Letter(uuid4(), number, number, f"o'leserin+{number}%41@leser.example", uuid4(), timezone.now())
        for number in range(count)
    ]
    return [letter._replace(**values) for letter in letters]


@contextmanager
def line_to(digest):
    with carriers.Lines() as lines:
        yield lines.carrier_for(digest)


def send_ready(digest, letters):
    with line_to(digest) as carrier:
        return carrier.hand_over(letters, may_go=lambda letter: True)


def send_by_anymail(digest, letters, settings):
    with get_connection(settings.EMAIL_BACKEND) as connection:
        if "mailgun" in settings.EMAIL_BACKEND:
            messages = [CopiesForMany(digest).message(letters)]
        else:
            messages = [Copies(digest).message(letter) for letter in letters]
        for message in messages:
            transport.leave_untracked(message, connection)
        connection.send_messages(messages)


def asked(request):
    """Return what a call asks for, in whichever encoding, without the moment at which it was made."""
    headers = CaseInsensitiveDict(request.headers)
    if "json" in headers["Content-Type"]:
        content = json.loads(request.body)
        dates = [
            content["Headers"].pop(place) for place, each in enumerate(content["Headers"]) if each["Name"] == "Date"
        ]
    else:
        content = form_fields(request)
        dates = content.pop("h:Date")
        content["recipient-variables"] = json.loads(content["recipient-variables"][0])
        del headers["Content-Type"]
    assert len(dates) == 1
    for name in ("Content-Length",):
        del headers[name]
    return request.path, dict(headers), content


@pytest.mark.parametrize("count", [1, 7])
def test_what_is_asked_is_what_anymail_would_ask(provider, digest, settings, count):
    letters = make_letters(count)

    results = send_ready(digest, letters)
    ready, provider.requests = provider.requests, []
    send_by_anymail(digest, letters, settings)

    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * count
    assert sorted(map(asked, ready), key=str) == sorted(map(asked, provider.requests), key=str)


def test_defaults_of_anymail_hold_for_copies_too(provider, digest, settings):
    settings.ANYMAIL |= {"SEND_DEFAULTS": {"tags": ["täglich"], "metadata": {"house": "3"}, "track_opens": True}}
    letters = make_letters(2)

    send_ready(digest, letters)
    ready, provider.requests = provider.requests, []
    send_by_anymail(digest, letters, settings)

    assert "house" in str(asked(ready[0]))
    assert sorted(map(asked, ready), key=str) == sorted(map(asked, provider.requests), key=str)


def test_copies_are_not_built_one_by_one(provider, digest):
    with transport.open_connection() as connection:
        message = ReadyCopies(digest, connection).message_for(make_letters(1))

    assert isinstance(message, payloads.Copy)


def test_an_address_out_of_the_ordinary_arrives_as_it_is(provider, digest):
    odd, *others = make_letters(3)
    odd = odd._replace(address="leserin@LESER.example")

    results = send_ready(digest, [odd, *others])

    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3
    assert sorted(mail.to for mail in provider.delivered) == sorted(letter.address for letter in [odd, *others])


@pytest.mark.parametrize("address", ["zwei@leser.example, drei@leser.example", "nul\0@leser.example", "ohne", "a@b\n"])
def test_what_is_no_address_goes_nowhere_and_is_found_alone(provider, digest, address):
    results = send_ready(digest, make_letters(1, address=address))

    assert [result.outcome for result in results] == [Outcome.REFUSED]
    assert not provider.requests


def test_one_bad_address_among_many_speaks_against_the_call_as_a_whole(settings, digest):
    with MailgunStandIn() as provider:
        provider.configure(settings)
        bad, *others = make_letters(3)
        with pytest.raises(carriers.RefusedAsWhole):
            send_ready(digest, [bad._replace(address="ohne"), *others])

    assert not provider.requests


def test_who_listens_to_anymail_sees_whole_messages(provider, digest):
    seen = []

    def listen(sender, message, **others):
        seen.append(message.subject)

    pre_send.connect(listen)
    try:
        send_ready(digest, make_letters(1))
    finally:
        pre_send.disconnect(listen)

    assert len(seen) == len(provider.delivered) == 1
    assert seen[0].startswith(digest.newsletter.name)


@pytest.mark.parametrize(
    "defaults", [{"attachments": [("a.txt", b"a", "text/plain")]}, {"to": ["archiv@blitz.example"]}]
)
def test_where_a_model_cannot_be_cut_messages_are_built(provider, digest, settings, defaults):
    """Postmark's call has room for both; Mailgun's form would have to be another."""
    settings.ANYMAIL |= {"SEND_DEFAULTS": defaults}
    letters = make_letters(1)

    send_ready(digest, letters)
    ready, provider.requests = provider.requests, []
    send_by_anymail(digest, letters, settings)

    assert list(map(asked, ready)) == list(map(asked, provider.requests))


def test_postmark_as_one_bulk_call_gets_built_messages(settings, digest):
    with PostmarkStandIn() as provider:
        provider.configure(settings)
        settings.ANYMAIL |= {"POSTMARK_USE_BULK_API": True}
        with transport.open_connection() as connection:
            message = ReadyCopies(digest, connection).message_for(make_letters(1))

    assert not isinstance(message, payloads.Copy)


def test_one_readers_own_words_never_become_part_of_what_all_get(settings, digest):
    (nobody,) = make_letters(1)
    words = [nobody.address, str(nobody.delivery)]
    with MailgunStandIn() as provider:
        provider.configure(settings)
        with transport.open_connection() as connection:
            message = CopiesForMany(digest).message([nobody])
            assert payloads.make_model(message, words, connection)
            message.subject = f"Für {nobody.address}"
            assert payloads.make_model(message, words, connection) is None


@pytest.mark.parametrize(
    "word", ['https://a.example/"', "https://a.example/\\", "https://a.example/<b>", "a&b", "a\nb", "ä", "a\x7f"]
)
def test_words_that_could_break_out_of_a_slot_do_not_fit(word):
    assert payloads.fits(["leserin@leser.example", "https://a.example/"])
    assert not payloads.fits(["leserin@leser.example", "https://a.example/", word])


def test_a_form_fills_each_place_of_each_slot():
    form = payloads.Form("<one> and two, {<one>}: %s \\1 ä", ["<one>", "two"])

    assert form.fill(["two", "\\1"]) == "two and \\1, {two}: %s \\1 ä".encode()


def test_a_form_misses_no_slot():
    with pytest.raises(ValueError, match="missing"):
        payloads.Form("<one>", ["<one>", "two"])


def test_copies_bear_a_date_of_this_minute_however_long_the_same_lines_serve(
    provider, digest, monkeypatch, time_machine
):
    monkeypatch.setattr(carriers, "monotonic", lambda: timezone.now().timestamp())
    time_machine.move_to("2030-01-01T10:00:00+00:00", tick=False)
    with carriers.Lines() as lines:
        lines.carrier_for(digest).hand_over(make_letters(1), may_go=lambda letter: True)
        time_machine.shift(600)
        lines.carrier_for(digest).hand_over(make_letters(1), may_go=lambda letter: True)

    first, second = (parsedate_to_datetime(mail.headers["Date"]) for mail in provider.delivered)
    assert second - first == timedelta(minutes=10)


def test_defaults_that_cannot_be_cut_stop_no_copy(provider, digest, settings):
    settings.ANYMAIL |= {"SEND_DEFAULTS": {"esp_extra": {"o:none": None, "o:share": 0.5}}}

    results = send_ready(digest, make_letters(2))

    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2
