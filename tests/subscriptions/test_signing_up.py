import re
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from newsroom.mail.models import OutboxMail
from subscriptions import ledger, wording
from subscriptions.models import ConsentText, Newsletter, SignUp, Subscriber, Subscription, Suppression
from subscriptions.reader_forms import read_stamp
from subscriptions.suppression import note
from tests.makers import make_article, make_newsletter
from tests.subscriptions.reading import IP, a_reader, last_mail, mails_to, send_form, sign_up, stamp, subscribe

pytestmark = pytest.mark.django_db
STAMP = re.compile(rb'name="stamp" value="[^"]+"')


def test_nothing_is_ticked_and_only_the_address_is_required():
    make_newsletter()

    page = a_reader().get("/newsletter/").content.decode()

    assert " checked" not in page
    assert page.count("required") == 1
    assert 'type="email"' in page and 'autocomplete="email"' in page


def test_the_form_names_publisher_frequency_and_privacy_notice(settings):
    newsletter = make_newsletter(frequency=Newsletter.Frequency.WEEKLY)

    page = a_reader().get("/newsletter/").content.decode()

    assert settings.PUBLISHER["name"] in page
    assert newsletter.description in page and "einmal in der Woche" in page
    assert 'href="/datenschutz/"' in page


def test_looking_at_the_form_writes_nothing_and_sets_no_cookie():
    make_newsletter()

    page = a_reader().get("/newsletter/")

    assert not page.cookies
    assert not ConsentText.objects.exists()


def test_a_form_becomes_a_sign_up_a_proof_and_a_mail_to_come():
    newsletter = make_newsletter()

    answer = send_form("Leserin@Example.COM", newsletter)

    assert (answer.status_code, answer["Location"]) == (303, "/newsletter/fast-geschafft/")
    assert a_reader().get(answer["Location"]).status_code == 200
    sign_up = SignUp.objects.get()
    assert (sign_up.address_typed, sign_up.address) == ("Leserin@Example.COM", "Leserin@example.com")
    assert OutboxMail.objects.get().reference == sign_up.uuid
    assert not Subscriber.objects.exists()
    assert not mail.outbox


def test_the_proof_holds_the_words_that_were_shown():
    newsletter, other = make_newsletter(), make_newsletter()
    offer = wording.offer("de")

    send_form("leserin@example.com", newsletter, stamp=stamp(page="/artikel/hafen/"))

    [record] = ledger.evidence("leserin@example.com")
    [agreed] = record["newsletters"]
    assert record["act"] == "requested"
    assert record["declaration"]["wording"] == offer.declaration.wording
    assert (agreed["name"], agreed["frequency"]) == (newsletter.name, "daily")
    assert agreed["wording"] == offer.choices[0].text.wording
    assert record["page"].endswith("/artikel/hafen/")
    assert record["ip"] == IP
    assert record["form_version"] and record["privacy_notice_version"]
    assert other.name not in str(record)


@pytest.mark.parametrize(("kept", "shown"), [("full", IP), ("truncated", "203.0.113.0"), ("none", None)])
def test_the_proof_holds_as_much_of_the_ip_as_configured(settings, kept, shown):
    settings.EVIDENCE_IP = kept

    send_form("leserin@example.com", make_newsletter())

    assert ledger.evidence("leserin@example.com")[0]["ip"] == shown
    assert SignUp.objects.get().ip == shown


def test_the_answer_is_the_same_for_known_unknown_and_suppressed_addresses():
    newsletter = make_newsletter()
    subscribe("known@example.com", newsletter)
    note("gone@example.com", Suppression.Reason.ERASURE, timezone.now())
    note("angry@example.com", Suppression.Reason.COMPLAINT, timezone.now())

    answers = [send_form(f"{name}@example.com", newsletter) for name in ("known", "unknown", "gone", "angry", "known")]

    seen = {(answer.status_code, answer.content, tuple(sorted(answer.items()))) for answer in answers}
    assert len(seen) == 1


def test_the_same_number_of_queries_answers_every_address(django_assert_num_queries):
    newsletter = make_newsletter()
    subscribe("known@example.com", newsletter)
    send_form("warm@example.com", newsletter)

    with django_assert_num_queries(_queries(send_form, "unknown@example.com", newsletter)):
        send_form("known@example.com", newsletter)


def _queries(act, *arguments) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        act(*arguments)
    return len(captured)


def test_error_pages_differ_in_nothing_but_the_stamp():
    newsletter = make_newsletter()
    subscribe("known@example.com", newsletter)

    pages = [send_form(address).content for address in ("known@example.com", "known@example.com")]

    assert STAMP.sub(b"", pages[0]) == STAMP.sub(b"", pages[1])


def test_an_error_keeps_what_the_reader_typed_and_ticked():
    newsletter, other = make_newsletter(), make_newsletter()

    answer = send_form("leserin.example.com", newsletter)

    page = answer.content.decode()
    assert answer.status_code == 400
    assert 'value="leserin.example.com"' in page
    assert re.findall(r'value="([\w-]+)" checked', page) == [newsletter.slug]
    assert 'aria-describedby="email-error"' in page and 'id="email-error"' in page
    assert 'role="alert"' in page and 'href="#email"' in page
    assert other.slug in page
    assert not SignUp.objects.exists()


def test_without_a_newsletter_nothing_is_signed_up():
    make_newsletter()

    answer = send_form("leserin@example.com")

    assert answer.status_code == 400
    assert 'id="newsletters-error"' in answer.content.decode()
    assert not SignUp.objects.exists()


def test_a_closed_newsletter_cannot_be_chosen():
    closed = make_newsletter(state=Newsletter.State.CLOSED)
    make_newsletter()

    assert send_form("leserin@example.com", closed).status_code == 400
    assert closed.name not in a_reader().get("/newsletter/").content.decode()


@pytest.mark.parametrize("value", ["", "forged", "1795366495:AAAA"])
def test_a_missing_or_forged_stamp_shows_the_filled_form_again(value):
    newsletter = make_newsletter()

    answer = send_form("leserin@example.com", newsletter, stamp=value)

    assert answer.status_code == 200
    assert 'value="leserin@example.com"' in answer.content.decode()
    assert f'value="{newsletter.slug}" checked' in answer.content.decode()
    assert not SignUp.objects.exists()


def test_every_word_of_a_stamp_is_signed():
    made_at, fingerprint, page, signature = stamp(page="/artikel/hafen/", fingerprint="abc").split(":")

    assert read_stamp(":".join((made_at, fingerprint, page, signature))).page == "/artikel/hafen/"
    for forged in (
        (str(int(made_at) + 1), fingerprint, page, signature),
        (made_at, "abd", page, signature),
        (made_at, fingerprint, "/", signature),
        (made_at, fingerprint, page, signature[:-1]),
        (made_at, fingerprint, page, ""),
    ):
        assert read_stamp(":".join(forged)) is None


def test_a_stamp_outlives_the_change_to_a_new_key(settings):
    shown = stamp(fingerprint="abc")

    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "a new key"
    assert read_stamp(shown)
    settings.SECRET_KEY_FALLBACKS = []
    assert read_stamp(shown) is None


def test_a_page_that_stayed_open_for_a_day_still_works_and_a_longer_one_asks_again(settings):
    newsletter = make_newsletter()
    day = settings.FORM_STAMP_LIFETIME

    late = send_form("late@example.com", newsletter, stamp=stamp(age=day - timedelta(minutes=1)))
    too_late = send_form("later@example.com", newsletter, stamp=stamp(age=day + timedelta(minutes=1)))

    assert late.status_code == 303
    assert too_late.status_code == 200
    assert list(SignUp.objects.values_list("address", flat=True)) == ["late@example.com"]


def test_a_form_sent_faster_than_anyone_reads_asks_again(settings):
    settings.FORM_MINIMUM_FILL_TIME = timedelta(seconds=3)

    answer = send_form("leserin@example.com", make_newsletter(), stamp=stamp(age=timedelta(0)))

    assert answer.status_code == 200
    assert not SignUp.objects.exists()


def test_nobody_agrees_to_words_he_was_not_shown():
    newsletter = make_newsletter()
    shown = stamp()
    wording.revise(newsletter, language="de", wording="Erscheint zweimal täglich.", now=timezone.now())

    answer = send_form("leserin@example.com", newsletter, stamp=shown)

    assert answer.status_code == 200
    assert "Erscheint zweimal täglich." in answer.content.decode()
    assert not SignUp.objects.exists()


def test_a_robot_that_fills_the_hidden_field_gets_the_usual_answer_and_nothing_else():
    answer = send_form("leserin@example.com", make_newsletter(), url="https://spam.example")

    assert (answer.status_code, answer["Location"]) == (303, "/newsletter/fast-geschafft/")
    assert not SignUp.objects.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_ORIGIN": "https://evil.example"},
    ],
)
def test_a_form_on_another_site_is_refused(headers):
    newsletter = make_newsletter()
    data = {"email": "leserin@example.com", "newsletters": newsletter.slug, "stamp": stamp()}

    answer = a_reader().post("/newsletter/", data, **headers)

    assert answer.status_code == 403
    assert not SignUp.objects.exists()


@pytest.mark.parametrize(
    "headers",
    [{}, {"HTTP_ORIGIN": "null"}, {"HTTP_ORIGIN": "http://testserver"}, {"HTTP_SEC_FETCH_SITE": "same-origin"}],
)
def test_our_own_form_is_accepted_whatever_the_browser_tells(headers):
    newsletter = make_newsletter()
    data = {"email": "leserin@example.com", "newsletters": newsletter.slug, "stamp": stamp()}

    assert a_reader().post("/newsletter/", data, **headers).status_code == 303


def test_whoever_has_it_already_is_told_by_mail_that_there_is_nothing_to_do():
    newsletter = make_newsletter()
    subscribe("leserin@example.com", newsletter)
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))

    send_form("leserin@example.com", newsletter)

    told = last_mail()
    assert len(mails_to("leserin@example.com")) == 2
    assert "/newsletter/einstellungen/" in told.body and "/newsletter/bestaetigen/" not in told.body
    assert Subscription.objects.count() == 1


def test_a_second_newsletter_is_confirmed_like_the_first():
    first, second = make_newsletter(), make_newsletter()
    subscribe("leserin@example.com", first)
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))

    link = sign_up("leserin@example.com", first, second)

    assert Subscription.objects.active().count() == 1
    a_reader().post(link)
    assert Subscription.objects.active().count() == 2


def test_whoever_complained_gets_no_mail_and_whoever_was_erased_may_come_back():
    newsletter = make_newsletter()
    note("angry@example.com", Suppression.Reason.COMPLAINT, timezone.now())
    note("back@example.com", Suppression.Reason.ERASURE, timezone.now())

    send_form("angry@example.com", newsletter)
    send_form("back@example.com", newsletter)

    assert len(mails_to("angry@example.com")) == 0
    assert len(mails_to("back@example.com")) == 1


@pytest.mark.parametrize("field", ["email", "newsletters", "stamp", "url"])
@pytest.mark.parametrize(
    "value", ["\x00", "a\x00b@example.com", "\ud800".encode("utf-8", "surrogatepass"), "x" * 50_000]
)
def test_garbage_is_answered_like_any_mistake(field, value):
    newsletter = make_newsletter()

    answer = send_form("leserin@example.com", newsletter, **{field: value})

    assert answer.status_code in {200, 303, 400}
    assert not SignUp.objects.exists()


def test_the_form_under_an_article_leads_to_the_same_place_and_is_remembered():
    newsletter, article = make_newsletter(), make_article()
    page = a_reader().get(article.get_absolute_url()).content.decode()
    shown = re.findall(r'name="stamp" value="([^"]+)"', page)[0]

    send_form("leserin@example.com", newsletter, stamp=shown)

    assert 'action="/newsletter/"' in page and " checked" not in page
    assert SignUp.objects.get().form_url.endswith(article.get_absolute_url())
