import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.conf import settings
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from newsroom.mail.addresses import canonicalise
from newsroom.mail.models import OutboxMail
from subscriptions import consent, ledger, statements, wording
from subscriptions.consent import Origin
from subscriptions.models import ConsentPayload, ConsentRecord, Newsletter, RequestCount, SignUp
from subscriptions.statements import Visit
from subscriptions.wording import Offer
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form, stamp

ORIGIN = Origin(source="form", url="http://localhost:8000/newsletter/", ip="203.0.113.77")
# SQLite writes five tables one by one, in a transaction that is a savepoint here.
STATEMENTS = {"postgresql": 1, "sqlite": 3 + 8}


@pytest.mark.django_db
def test_a_sign_up_takes_few_statements():
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)  # writes the texts
    data = {"email": "leserin@example.com", "newsletters": [newsletter.slug], "stamp": stamp(), "url": ""}

    with CaptureQueriesContext(connection) as asked:
        answer = a_reader().post("/newsletter/", data)

    assert answer.status_code == 303
    assert len(asked) <= STATEMENTS[connection.vendor], asked.captured_queries


@pytest.mark.django_db
def test_more_newsletters_and_older_texts_take_no_more_statements():
    newsletters = [make_newsletter() for _ in range(4)]
    wording.revise(newsletters[0], language="de", wording="Neu.", now=timezone.now())
    send_form("erste@example.com", *newsletters)
    data = {"email": "leserin@example.com", "newsletters": [new.slug for new in newsletters], "stamp": stamp()}

    with CaptureQueriesContext(connection) as asked:
        a_reader().post("/newsletter/", data)

    assert len(asked) <= STATEMENTS[connection.vendor]


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["words", "newsletter", "closed", "another", "text"])
def test_an_offer_that_changed_since_this_process_read_it_is_shown_anew_and_counted_once(change):
    newsletter, _other, now = make_newsletter(), make_newsletter(), timezone.now()
    send_form("erste@example.com", newsletter)
    rows, shown = Newsletter.objects.filter(pk=newsletter.pk), stamp()
    last_read = wording.last_offer("de")
    {
        "words": lambda: wording.revise(newsletter, language="de", wording="Erscheint stündlich.", now=now),
        "newsletter": lambda: rows.update(name="Ganz anders"),
        "closed": lambda: rows.update(state=Newsletter.State.CLOSED),
        "another": make_newsletter,
        "text": lambda: wording.revise(None, language="de", wording="Ja, alles.", now=now),
    }[change]()
    assert wording.last_offer("de") is last_read and last_read.narrowed([newsletter.slug]).is_borne

    answer = _send_as_shown("zweite@example.com", newsletter, shown)

    assert answer.status_code == (400 if change == "closed" else 200)
    assert "zweite@example.com" in answer.content.decode()
    assert [row.address for row in SignUp.objects.all()] == ["erste@example.com"]
    assert RequestCount.objects.get().count == 2


@pytest.mark.django_db
def test_words_that_are_new_to_this_process_alone_are_agreed_to_at_once():
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)
    last_read = wording.last_offer("de")
    wording.revise(newsletter, language="de", wording="Erscheint stündlich.", now=timezone.now())
    shown = stamp(fingerprint=_as_another_process_shows_it())
    assert wording.last_offer("de") is last_read

    answer = _send_as_shown("zweite@example.com", newsletter, shown)

    assert answer.status_code == 303
    [agreed] = ledger.evidence("zweite@example.com")[0]["newsletters"]
    assert agreed["wording"] == "Erscheint stündlich." and RequestCount.objects.get().count == 2


@pytest.mark.django_db
def test_first_words_that_become_others_in_the_very_moment_are_shown_anew():
    newsletter, shown = make_newsletter(), stamp()
    revised: list[object] = []

    def revise_after_the_look(execute, statement, *rest):
        found = execute(statement, *rest)
        if "subscriptions_consenttextuse used" in statement and not revised:
            revised.append(wording.revise(newsletter, language="de", wording="Stündlich.", now=timezone.now()))
        return found

    with connection.execute_wrapper(revise_after_the_look):
        answer = _send_as_shown("leserin@example.com", newsletter, shown)

    assert revised and answer.status_code == 200 and "Stündlich." in answer.content.decode()
    assert not SignUp.objects.exists() and RequestCount.objects.get().count == 1


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_nobody_closes_a_newsletter_between_the_look_at_the_offer_and_the_form():
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)
    shown, closers, states = stamp(), [], []

    def close() -> None:
        Newsletter.objects.update(state=Newsletter.State.CLOSED)
        connection.close()

    def watch(execute, statement, *rest):
        if statement.startswith('INSERT INTO "subscriptions_signup"'):
            states.append(Newsletter.objects.get(pk=newsletter.pk).state)
        found = execute(statement, *rest)
        if "subscriptions_consenttextuse used" in statement:
            closers.append(threading.Thread(target=close))
            closers[-1].start()
            closers[-1].join(timeout=1)
        return found

    with connection.execute_wrapper(watch):
        answer = _send_as_shown("zweite@example.com", newsletter, shown)
    for closer in closers:
        closer.join()

    assert answer.status_code == 303 and len(closers) == 1
    assert states == [Newsletter.State.OPEN]
    assert Newsletter.objects.get().state == Newsletter.State.CLOSED


@pytest.mark.django_db(transaction=True)
def test_forms_of_a_network_at_the_same_moment_are_kept_up_to_its_limit(settings):
    settings.REQUESTS_PER_NETWORK = (8, timedelta(hours=1))
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)
    shown, answers = stamp(), []

    def send(number: int) -> None:
        for part in range(3):
            answers.append(_send_as_shown(f"leserin{number}-{part}@example.com", newsletter, shown).status_code)
        connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [303] * 7 + [429] * 5
    assert RequestCount.objects.get().count == 13
    assert [model.objects.count() for model in (SignUp, ConsentRecord, ConsentPayload, OutboxMail)] == [8, 8, 8, 8]


def _send_as_shown(address: str, newsletter: Newsletter, shown: str):
    """Send the form without a look at the offer, which `send_form` takes to make its stamp."""
    data = {"email": address, "newsletters": newsletter.slug, "stamp": shown, "url": ""}
    return a_reader().post("/newsletter/", data)


def _as_another_process_shows_it() -> str:
    kept = dict(wording._last_offers)
    try:
        return wording.offer("de").fingerprint
    finally:
        wording._last_offers.update(kept)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [{}, {"email": "leserin"}, {"newsletters": "keiner"}, {"stamp": "forged"}, {"url": "https://spam.example"}],
)
def test_every_form_counts_once_whatever_becomes_of_it(fields):
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)

    send_form("zweite@example.com", newsletter, **fields)

    assert RequestCount.objects.get().count == 2


@pytest.mark.django_db
@pytest.mark.parametrize("fields", [{}, {"email": "leserin"}, {"stamp": "forged"}, {"url": "https://spam.example"}])
def test_a_refused_form_leaves_its_count_and_nothing_else(settings, fields):
    settings.REQUESTS_PER_NETWORK = (1, timedelta(hours=1))
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)

    answers = [send_form("zweite@example.com", newsletter, **fields).status_code for _ in range(2)]

    assert answers == [429, 429] and RequestCount.objects.get().count == 3
    kept = [model.objects.count() for model in (SignUp, ConsentRecord, ConsentPayload, OutboxMail)]
    assert kept == [1, 1, 1, 1]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_what_follows_a_refused_form_waits_for_the_disk_as_ever(settings):
    settings.REQUESTS_PER_NETWORK = (1, timedelta(hours=1))
    newsletter = make_newsletter()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
    send_form("erste@example.com", newsletter)

    assert send_form("zweite@example.com", newsletter).status_code == 429

    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)


@pytest.mark.django_db(transaction=True)
def test_the_second_reader_leaves_the_same_rows_as_the_first():
    first, second = make_newsletter(), make_newsletter()

    for address in ("erste@example.com", "zweite@example.com"):
        assert send_form(address, first, second).status_code == 303

    rows = [_rows(address) for address in ("erste@example.com", "zweite@example.com")]
    assert rows[0] == rows[1]
    assert rows[0]["newsletters"] == [first.pk, second.pk] and len(rows[0]["texts"]) == 3
    assert ledger.verify() == []


def _rows(address: str) -> dict:
    sign_up = SignUp.objects.get(address=address)
    payload = ConsentPayload.objects.get(address_key=address)
    record, mail = payload.record, OutboxMail.objects.get(reference=sign_up.uuid)
    assert record.subject == sign_up.uuid and record.at == sign_up.requested_at == mail.created_at
    said = {name: value for name, value in payload.body.items() if not name.startswith("address")}
    return {
        "newsletters": sorted(sign_up.newsletters.values_list("pk", flat=True)),
        "texts": sorted(sign_up.consent_texts.values_list("pk", flat=True)),
        "form": (sign_up.form_url, sign_up.ip, sign_up.language, sign_up.confirmed_at),
        "record": (record.type, said),
        "mail": (mail.kind, mail.state, mail.attempts, mail.fence, mail.reason, mail.sent_at),
    }


@pytest.mark.django_db(transaction=True)
def test_a_sign_up_is_written_whole_or_not_at_all():
    newsletter, now = make_newsletter(), timezone.now()
    address = canonicalise("leserin@example.com")
    consent.request_sign_up(address, wording.offer("de"), origin=ORIGIN, now=now)
    offer = wording.offer("de")
    twice = Offer("de", offer.declaration, offer.choices * 2, offer.mark)  # the last of its rows cannot be written
    visit = Visit("a network", now, 30)

    with pytest.raises(IntegrityError):
        consent.request_sign_up(address, twice, origin=ORIGIN, now=now)
    with pytest.raises(IntegrityError):
        consent.request_sign_up_of(visit, address, twice, origin=ORIGIN, now=now)

    assert list(newsletter.consent_texts.values_list("signup__address", flat=True)) == [address.canonical]
    assert not RequestCount.objects.exists()
    assert [model.objects.count() for model in (SignUp, ConsentRecord, ConsentPayload, OutboxMail)] == [1, 1, 1, 1]


@pytest.mark.django_db(transaction=True)
def test_requests_at_the_same_moment_are_all_counted():
    hour = datetime(2026, 11, 22, 10, tzinfo=UTC)

    threads = [threading.Thread(target=_count_five, args=(hour,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert RequestCount.objects.get().count == 20
    assert statements.count_request(Visit("a network", hour, 30)) == 21


def _count_five(hour: datetime) -> None:
    for _ in range(5):
        statements.count_request(Visit("a network", hour, 30))
    connection.close()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_closed_meanwhile_is_replaced():
    newsletter = make_newsletter()
    send_form("erste@example.com", newsletter)
    kept = connection.connection
    kept_pid = kept.info.backend_pid
    connection.health_check_enabled, connection.health_check_done = True, False
    database = settings.DATABASES["default"]
    with psycopg.connect(
        host=database["HOST"],
        port=database["PORT"],
        user=database["USER"],
        password=database["PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [kept_pid])

    assert statements.read_offer("de")
    assert connection.connection is not kept


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_kept_connection_that_is_quiet_is_not_asked_first():
    make_newsletter()
    statements.read_offer("de")
    connection.health_check_enabled, connection.health_check_done = True, False

    connection.close_if_health_check_failed()

    assert connection.health_check_done and connection.connection is not None
