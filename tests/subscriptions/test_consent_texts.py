"""Staff write the words readers agree to: seen before they are in force, never changed after, counted, compared."""

import html
import re
import threading

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from subscriptions import ledger, versions, wording
from subscriptions.models import ConsentText, SignUp, Subscription
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, form_token, open_rights_page, send_form, stamp, subscribe

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
DAILY = wording.FREQUENCY["de"]["daily"]
WORDS = f"Unser Morgenbrief mit dem Wichtigsten vom Tage. Erscheint {DAILY}."


def compose_path(newsletter=None, language="de"):
    return f"/admin/subscriptions/consenttext/new/{newsletter.pk if newsletter else 0}/{language}/"


def fields(page):
    """The hidden fields of the form as the page holds them."""
    found = dict(re.findall(r'<input type="hidden" name="(after|seen)" value="([^"]*)"', page.text))
    assert "after" in found
    return found


def look(client, words, newsletter=None, language="de"):
    """Open the form, write and ask for the preview."""
    path = compose_path(newsletter, language)
    return client.post(path, fields(client.get(path)) | {"wording": words})


def put_in_force(client, words, newsletter=None, language="de"):
    seen = look(client, words, newsletter, language)
    return client.post(compose_path(newsletter, language), fields(seen) | {"wording": words}, follow=True)


def frames(page):
    return [html.unescape(src) for src in re.findall(r'<iframe class="[\w-]+" src="([^"]+)" sandbox=""', page.text)]


def log_in(client, *permissions):
    user = User.objects.create_user("redaktion", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)


def test_a_new_version_begins_with_the_words_in_force(admin_client):
    newsletter = make_newsletter()
    wording.revise(newsletter, language="de", wording=WORDS, now=timezone.now())

    page = admin_client.get(compose_path(newsletter))

    assert page.context["form"]["wording"].value() == WORDS
    assert fields(page) == {"after": "1", "seen": ""}


def test_nothing_is_in_force_before_it_was_seen(admin_client):
    newsletter = make_newsletter()

    page = look(admin_client, WORDS, newsletter)

    assert not ConsentText.objects.exists()
    assert WORDS not in a_reader().get("/newsletter/").text
    assert len(frames(page)) == 3


def test_the_preview_is_the_readers_own_page_and_runs_nothing(admin_client):
    newsletter = make_newsletter()
    own = a_reader().get("/newsletter/").text
    before = wording.offer("de").choices[0].text.wording

    phone, desktop, _english = frames(look(admin_client, WORDS, newsletter))
    frame = admin_client.get(phone)

    volatile = r'name="stamp" value="[^"]*"'
    assert re.sub(volatile, "", frame.text) == re.sub(volatile, "", own).replace(before, WORDS)
    assert phone == desktop
    policy = frame["Content-Security-Policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy and "form-action 'none'" in policy
    assert "script-src" not in policy
    assert frame["X-Frame-Options"] == "SAMEORIGIN" and "no-store" in frame["Cache-Control"]


def test_the_preview_shows_the_other_language_as_it_stands(admin_client):
    newsletter = make_newsletter()

    *_german, english = frames(look(admin_client, WORDS, newsletter))
    frame = admin_client.get(english)

    assert '<html lang="en">' in frame.text and "Sign up" in frame.text
    assert wording.offer("en").choices[0].text.wording in html.unescape(frame.text)


def test_the_preview_shows_the_declaration_and_a_newsletter_that_is_closed(admin_client, settings):
    make_newsletter()
    closed = make_newsletter(state="closed")
    declared = f"Ja, {settings.PUBLISHER['name']} darf mir schreiben, bis ich es widerrufe."

    assert declared in admin_client.get(frames(look(admin_client, declared))[0]).text
    assert WORDS in admin_client.get(frames(look(admin_client, WORDS, closed))[0]).text


def test_a_preview_is_for_who_may_write_texts_and_of_words_typed_here(client, admin_client):
    address = frames(look(admin_client, WORDS, make_newsletter()))[0]
    forged = address[:-4] + "AAA/"

    assert admin_client.get(forged).status_code == 404
    log_in(client, "view_consenttext")
    assert client.get(address).status_code == 403
    client.logout()
    assert client.get(address).status_code == 302


def test_what_was_seen_is_put_in_force_and_other_words_are_shown_first(admin_client):
    newsletter = make_newsletter()
    seen = fields(look(admin_client, WORDS, newsletter))

    again = admin_client.post(compose_path(newsletter), seen | {"wording": WORDS + " Kostenlos."})
    assert not ConsentText.objects.exists() and len(frames(again)) == 3
    admin_client.post(compose_path(newsletter), fields(again) | {"wording": WORDS + " Kostenlos."})

    text = ConsentText.objects.get()
    assert (text.version, text.wording) == (1, WORDS + " Kostenlos.")
    assert text.wording in a_reader().get("/newsletter/").text
    assert LogEntry.objects.get().object_id == str(text.pk)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "required"),
        ("   ", "required"),
        ("Erscheint, wann wir wollen.", None),
        ("x" * 2001, "max_length"),
    ],
)
def test_words_that_cannot_bear_a_consent_are_refused_at_their_field(admin_client, words, problem):
    newsletter = make_newsletter()

    page = look(admin_client, words, newsletter)

    [error] = page.context["form"].errors.as_data()["wording"]
    assert error.code == problem
    assert DAILY in str(error.message % (error.params or {})) or problem
    assert not ConsentText.objects.exists() and frames(page) == []


@pytest.mark.parametrize("missing", ["publisher", "withdrawal"])
def test_r05_a_declaration_names_the_publisher_and_the_right_to_withdraw(admin_client, settings, missing):
    publisher = settings.PUBLISHER["name"]
    words = "Ja, man darf mir schreiben, bis ich widerrufe." if missing == "publisher" else f"Ja, {publisher} darf es."

    page = look(admin_client, words)

    assert page.context["form"].errors["wording"] and frames(page) == []


def test_r06_a_text_states_the_frequency_the_newsletter_is_held_to(admin_client):
    newsletter = make_newsletter(frequency="weekly")

    page = look(admin_client, WORDS, newsletter)  # which promises it daily

    assert "einmal in der Woche" in page.text and frames(page) == []


def test_the_words_in_force_are_no_new_version(admin_client):
    newsletter = make_newsletter()
    put_in_force(admin_client, WORDS, newsletter)

    page = look(admin_client, f"  {WORDS}\n", newsletter)

    assert page.context["form"].errors["wording"]
    assert ConsentText.objects.count() == 1


def test_of_two_who_write_at_once_the_second_is_told(admin_client):
    newsletter = make_newsletter()
    slow = fields(look(admin_client, WORDS, newsletter))
    put_in_force(admin_client, WORDS + " Kostenlos.", newsletter)

    page = admin_client.post(compose_path(newsletter), slow | {"wording": WORDS})

    assert page.context["form"].errors["after"]
    assert wording.in_force(newsletter, "de").wording == WORDS + " Kostenlos."


def test_r07_a_new_version_touches_no_consent_and_each_counts_its_own(admin_client):
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    subscribe("zweite@leser.example", newsletter)
    records, rows = ledger.evidence(ADDRESS), list(Subscription.objects.values())
    first = ConsentText.objects.get(newsletter=newsletter)

    put_in_force(admin_client, WORDS, newsletter)
    assert ledger.evidence(ADDRESS) == records and list(Subscription.objects.values()) == rows
    subscribe("dritte@leser.example", newsletter)

    counted = ConsentText.objects.with_standing().filter(newsletter=newsletter).order_by("version")
    assert [(text.version, text.consents) for text in counted] == [(1, 2), (2, 1)]
    assert counted[0].replaced_at == counted[1].created_at and counted[1].replaced_at is None
    page = admin_client.get(f"/admin/subscriptions/consenttext/{first.pk}/change/").text
    assert first.wording in page and "2 Einwilligungen" in page
    assert ledger.verify() == []


def test_a_consent_that_ended_is_counted_no_more_and_one_given_anew_counts_for_the_new_words(admin_client):
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    put_in_force(admin_client, WORDS, newsletter)

    def counts():
        texts = ConsentText.objects.with_standing().filter(newsletter=newsletter).order_by("version")
        return [text.consents for text in texts]

    Subscription.objects.update(state="ended", ended_at=timezone.now())
    assert counts() == [0, 0]
    SignUp.objects.all().delete()  # else the second mail to the address would have to wait
    subscribe(ADDRESS, newsletter)
    assert counts() == [0, 1]
    declaration = ConsentText.objects.with_standing().get(newsletter=None)
    assert declaration.consents == 1


def test_a_newsletter_added_later_is_borne_by_the_words_shown_then(admin_client):
    one, other = make_newsletter(), make_newsletter()
    subscribe(ADDRESS, one)
    put_in_force(admin_client, WORDS, other)
    reader, page = open_rights_page(ADDRESS)

    act = {"token": form_token(page), "act": "add", "newsletter": other.slug, "shown": wording.offer("de").fingerprint}
    assert reader.post("/meine-daten/newsletter/", act).status_code < 400

    assert Subscription.objects.get(newsletter=other).consent_text.wording == WORDS


def test_any_two_versions_are_compared_in_words(admin_client):
    newsletter = make_newsletter()
    for kind in ("ein Brief", "ein langer Brief", "kein Brief"):
        wording.revise(newsletter, language="de", wording=f"Das ist {kind}.", now=timezone.now())
    last = wording.in_force(newsletter, "de")

    page = admin_client.get(f"/admin/subscriptions/consenttext/{last.pk}/change/", {"with": "1"})

    assert [(piece.change, piece.words) for piece in page.context["pieces"]] == [
        ("none", "Das ist "),
        ("gone", "ein "),
        ("new", "kein "),
        ("none", "Brief."),
    ]
    assert re.search(r"<del><span class=\"visually-hidden\"[^>]*>\[[^<]+</span>ein <span", page.text)
    assert re.search(r"<ins><span class=\"visually-hidden\"[^>]*>\[[^<]+</span>kein <span", page.text)
    previous = admin_client.get(f"/admin/subscriptions/consenttext/{last.pk}/change/")
    assert previous.context["other"].version == 2


@pytest.mark.parametrize("nonsense", ["99", "x", "3", ""])
def test_comparing_with_no_version_compares_with_the_one_before(admin_client, nonsense):
    for number in (1, 2, 3):
        text = wording.revise(None, language="de", wording=f"Fassung {number}.", now=timezone.now())

    page = admin_client.get(f"/admin/subscriptions/consenttext/{text.pk}/change/", {"with": nonsense})

    assert page.context["other"].version == 2


def test_words_are_never_lost_in_a_comparison():
    old, new = "Ja, ich will. Immer!", "Nein, ich will das nicht. Immer!"

    pieces = versions.differences(old, new)

    assert "".join(piece.words for piece in pieces if piece.change != "new") == old
    assert "".join(piece.words for piece in pieces if piece.change != "gone") == new


def test_r07_an_unused_version_is_discarded_and_the_one_before_is_in_force_again(admin_client):
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    used = wording.in_force(newsletter, "de")
    put_in_force(admin_client, WORDS, newsletter)
    unused = wording.in_force(newsletter, "de")

    assert "/discard/" in admin_client.get(f"/admin/subscriptions/consenttext/{unused.pk}/change/").text
    admin_client.post(f"/admin/subscriptions/consenttext/{unused.pk}/discard/")

    assert wording.in_force(newsletter, "de") == used
    assert WORDS not in a_reader().get("/newsletter/").text


def test_r07_a_version_that_somebody_agreed_to_stays_for_good(admin_client):
    newsletter = make_newsletter()
    put_in_force(admin_client, WORDS, newsletter)
    subscribe(ADDRESS, newsletter)
    used = wording.in_force(newsletter, "de")
    Subscription.objects.all().delete()  # the reader is gone, the proof is not

    admin_client.post(f"/admin/subscriptions/consenttext/{used.pk}/discard/")

    for statement in ("DELETE FROM subscriptions_consenttext", "DELETE FROM subscriptions_consenttextuse"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        ConsentText.objects.filter(pk=used.pk).update(wording="Alles.")
    assert wording.in_force(newsletter, "de") == used


def test_r07_an_older_version_is_not_discarded(admin_client):
    newsletter = make_newsletter()
    for words in (WORDS, WORDS + " Kostenlos."):
        put_in_force(admin_client, words, newsletter)
    older = ConsentText.objects.get(version=1)

    admin_client.post(f"/admin/subscriptions/consenttext/{older.pk}/discard/")

    assert ConsentText.objects.count() == 2


def test_an_unused_version_is_not_changed_either():
    wording.revise(None, language="de", wording="Ja.", now=timezone.now())

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        ConsentText.objects.update(wording="Nein.")


def test_a_form_that_showed_a_discarded_version_is_shown_anew(admin_client):
    newsletter = make_newsletter()
    put_in_force(admin_client, WORDS, newsletter)
    shown = wording.offer("de").fingerprint
    wording.discard(wording.in_force(newsletter, "de"))

    answer = send_form(ADDRESS, newsletter, stamp=stamp(fingerprint=shown))

    assert answer.status_code == 200 and not ConsentText.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_who_agrees_while_staff_discard_keeps_the_words():
    newsletter = make_newsletter()
    text = wording.revise(newsletter, language="de", wording=WORDS, now=timezone.now())
    start, discarded = threading.Barrier(2), []

    def discard():
        try:
            start.wait()
            discarded.append(wording.discard(text))
        finally:
            connection.close()

    thread = threading.Thread(target=discard)
    thread.start()
    start.wait()
    kept = wording.keep(text, now=timezone.now())
    thread.join()

    assert ConsentText.objects.get(pk=kept.pk).wording == WORDS
    assert ConsentText.objects.get(pk=kept.pk).use


def test_staff_are_told_of_a_text_written_in_one_language_only(admin_client):
    newsletter = make_newsletter(name="Der Morgen")
    assert versions.gaps() == []

    put_in_force(admin_client, WORDS, newsletter)
    [gap] = versions.gaps()
    assert (gap.newsletter, gap.language) == (newsletter, "en")
    for path in ("consenttext/", f"newsletter/{newsletter.pk}/change/"):
        assert "Englisch" in admin_client.get(f"/admin/subscriptions/{path}").text

    daily = wording.FREQUENCY["en"]["daily"]
    put_in_force(admin_client, f"Our morning letter. Appears {daily}.", newsletter, "en")
    assert versions.gaps() == []


def test_the_newsletters_page_shows_its_texts_in_each_language(admin_client):
    newsletter = make_newsletter()
    put_in_force(admin_client, WORDS, newsletter)

    page = admin_client.get(f"/admin/subscriptions/newsletter/{newsletter.pk}/change/").text

    assert WORDS in page and wording.in_force(newsletter, "en").wording in html.unescape(page)
    assert compose_path(newsletter) in page and compose_path(newsletter, "en") in page


def test_every_text_can_be_chosen_for_a_new_version(admin_client):
    newsletter = make_newsletter()

    page = admin_client.get("/admin/subscriptions/consenttext/add/").text

    for path in (compose_path(), compose_path(None, "en"), compose_path(newsletter), compose_path(newsletter, "en")):
        assert f'href="{path}"' in page
        assert admin_client.get(path).status_code == 200


@pytest.mark.parametrize("path", [compose_path(language="fr"), "/admin/subscriptions/consenttext/new/999/de/"])
def test_a_text_that_does_not_exist_is_not_found(admin_client, path):
    assert admin_client.get(path).status_code == 404


def test_writing_and_discarding_need_their_permissions(client):
    text = wording.revise(None, language="de", wording="Ja.", now=timezone.now())
    page = f"/admin/subscriptions/consenttext/{text.pk}/change/"
    log_in(client, "view_consenttext")

    assert client.get(page).status_code == 200
    assert "/discard/" not in client.get(page).text and "/new/" not in client.get(page).text
    assert client.get(compose_path()).status_code == 403
    assert client.get("/admin/subscriptions/consenttext/add/").status_code == 403
    assert client.post(f"/admin/subscriptions/consenttext/{text.pk}/discard/").status_code == 403
    assert client.post(page, {"wording": "x"}).status_code == 403
    User.objects.get().user_permissions.set(Permission.objects.filter(codename="delete_consenttext"))
    assert client.get(f"/admin/subscriptions/consenttext/{text.pk}/discard/").status_code == 403
    assert ConsentText.objects.count() == 1


def change(client, newsletter, **values):
    data = {"name": newsletter.name, "description": newsletter.description, "slug": newsletter.slug, "position": 0}
    data |= {"frequency": newsletter.frequency, "state": newsletter.state} | values
    assert client.post(f"/admin/subscriptions/newsletter/{newsletter.pk}/change/", data).status_code == 302


def test_r06_words_of_ones_own_survive_a_new_description_and_state_a_new_frequency(admin_client):
    newsletter = make_newsletter()
    put_in_force(admin_client, WORDS, newsletter)

    change(admin_client, newsletter, description="Etwas anderes.")
    assert wording.in_force(newsletter, "de").wording == WORDS
    change(admin_client, newsletter, frequency="weekly")

    words = wording.in_force(newsletter, "de").wording
    assert words == WORDS.replace(DAILY, wording.FREQUENCY["de"]["weekly"]) != WORDS
    assert ConsentText.objects.filter(newsletter=newsletter).count() == 2


def test_the_standard_wording_follows_the_newsletters_description(admin_client):
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)

    change(admin_client, newsletter, description="Etwas anderes.")

    assert wording.in_force(newsletter, "de").wording.startswith("Etwas anderes.")
