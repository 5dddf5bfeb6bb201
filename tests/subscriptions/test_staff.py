import json
import logging

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.utils import timezone

from subscriptions import ledger, suppression, wording
from subscriptions.models import ConsentText, Newsletter, SignUp, Subscriber, Subscription, Suppression
from tests.makers import make_newsletter
from tests.subscriptions.reading import send_form, subscribe

pytestmark = pytest.mark.django_db
ADDRESS = "Leserin@example.com"


@pytest.fixture
def reader() -> Subscriber:
    subscribe(ADDRESS, make_newsletter())
    return Subscriber.objects.get()


def staff_client(client, *permissions: str):
    user = User.objects.create_user("redaktion", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


@pytest.mark.parametrize(
    "model",
    [
        "newsletter",
        "consenttext",
        "subscriber",
        "signup",
        "consentrecord",
        "consentseal",
        "suppression",
        "privacyrequest",
        "rightscase",
    ],
)
def test_every_list_opens_and_shows_no_address(admin_client, reader, model):
    ledger.seal(timezone.now())
    suppression.note("x@example.com", Suppression.Reason.COMPLAINT, timezone.now())

    page = admin_client.get(f"/admin/subscriptions/{model}/")

    assert page.status_code == 200
    assert "leserin@example.com" not in page.content.decode().lower()


@pytest.mark.parametrize("model", ["subscriber", "signup", "consentrecord"])
def test_a_whole_address_in_any_spelling_finds_its_reader(admin_client, reader, model):
    subscribe("other@example.com", make_newsletter())

    found = admin_client.get(f"/admin/subscriptions/{model}/", {"q": "LESERIN@Example.com"})
    part = admin_client.get(f"/admin/subscriptions/{model}/", {"q": "leserin"})

    assert 0 < found.context["cl"].result_count < found.context["cl"].full_result_count
    assert part.context["cl"].result_count == 0


LISTS = ["subscriber", "signup", "consentrecord", "addresschange", "rightscase", "privacyrequest", "suppression"]


@pytest.mark.parametrize("model", [*LISTS, "evidenceview"])
def test_an_address_looked_for_stands_in_no_url(admin_client, client, reader, model):
    path = f"/admin/subscriptions/{model}/"
    form = admin_client.get(path).content.decode().split('id="changelist-search"')[1].split("</form>")[0]
    assert 'method="post"' in form.split(">")[0] and "csrfmiddlewaretoken" in form

    for typed, has_hits in (("LESERIN@Example.com", model in ("subscriber", "signup", "consentrecord")), ("x", False)):
        answer = admin_client.post(path, {"q": typed})
        assert answer.status_code == 302 and "@" not in answer["Location"]
        page = admin_client.get(answer["Location"])
        assert bool(page.context["cl"].result_count) is has_hits
        assert "example.com" not in page.content.decode().lower().split("<main")[0]

    assert admin_client.post(path, {"q": " "})["Location"] == path
    client.force_login(User.objects.create_user("gast", is_staff=True))
    assert client.post(path, {"q": "leserin@example.com"}).status_code == 403


def test_typing_an_address_tells_whether_it_is_suppressed(admin_client):
    suppression.note("angry@example.com", Suppression.Reason.COMPLAINT, timezone.now())

    def count(address: str) -> int:
        return admin_client.get("/admin/subscriptions/suppression/", {"q": address}).context["cl"].result_count

    assert (count("Angry@example.com"), count("calm@example.com")) == (1, 0)


@pytest.mark.parametrize("model", ["consentrecord", "consentseal", "signup", "privacyrequest"])
def test_nobody_adds_changes_or_deletes_what_use_cases_write(admin_client, reader, model):
    ledger.seal(timezone.now())

    assert admin_client.get(f"/admin/subscriptions/{model}/add/").status_code == 403
    first = admin_client.get(f"/admin/subscriptions/{model}/").context["cl"].queryset.first()
    if first:
        assert admin_client.get(f"/admin/subscriptions/{model}/{first.pk}/change/").status_code == 200
        assert admin_client.post(f"/admin/subscriptions/{model}/{first.pk}/change/", {}).status_code == 403
        assert admin_client.post(f"/admin/subscriptions/{model}/{first.pk}/delete/", {"post": "yes"}).status_code == 403


def test_evidence_needs_its_own_permission_and_prints_the_wording(client, admin_client, reader, settings):
    path = f"/admin/subscriptions/subscriber/{reader.pk}/evidence/"

    page = admin_client.get(path)

    assert wording.DECLARATION["de"].format(publisher=settings.PUBLISHER["name"]) in page.content.decode()
    assert staff_client(client, "view_subscriber").get(path).status_code == 403
    assert client.get(f"/admin/subscriptions/subscriber/{reader.pk}/change/").status_code == 200


def test_looking_at_a_reader_leaves_a_trace_without_the_address(admin_client, reader, caplog):
    with caplog.at_level(logging.INFO, logger="subscriptions"):
        admin_client.get(f"/admin/subscriptions/subscriber/{reader.pk}/change/")

    assert "was looked at by staff" in caplog.text
    assert "@" not in caplog.text


def test_a_new_wording_is_a_new_version_and_the_old_one_stays(admin_client, reader):
    newsletter = Newsletter.objects.get()
    old = ConsentText.objects.get(newsletter=newsletter)

    path = f"/admin/subscriptions/consenttext/new/{newsletter.pk}/de/"
    form = {"wording": f"Neu. {old.wording}", "after": old.version}
    seen = admin_client.post(path, form).context["seen"]
    admin_client.post(path, form | {"seen": seen})

    assert list(newsletter.consent_texts.order_by("version").values_list("version", "wording")) == [
        (1, old.wording),
        (2, f"Neu. {old.wording}"),
    ]
    assert wording.offer("de").choices[0].text.wording == f"Neu. {old.wording}"
    assert ledger.evidence(reader.address_key)[0]["newsletters"][0]["wording"] == old.wording


def test_a_wording_is_never_changed(admin_client, reader):
    text = ConsentText.objects.first()

    assert admin_client.post(f"/admin/subscriptions/consenttext/{text.pk}/change/", {"wording": "x"}).status_code == 403
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        ConsentText.objects.update(wording="x")


def change_newsletter(admin_client, newsletter: Newsletter, **values: str):
    data = {"name": newsletter.name, "description": newsletter.description, "position": 0, "state": "open"}
    data |= {"frequency": newsletter.frequency, "slug": newsletter.slug}
    page = admin_client.post(f"/admin/subscriptions/newsletter/{newsletter.pk}/change/", data | values)
    newsletter.refresh_from_db()
    return page


def test_a_new_description_makes_a_new_text_and_the_short_name_is_fixed_once_read(admin_client, reader):
    newsletter = Newsletter.objects.get()
    slug = newsletter.slug

    change_newsletter(admin_client, newsletter, description="Etwas anderes.", slug="x")

    assert (newsletter.description, newsletter.slug) == ("Etwas anderes.", slug)
    assert "Etwas anderes." in wording.offer("de").choices[0].text.wording


@pytest.mark.parametrize(("before", "after"), [("weekly", "daily"), ("weekly", "weekdays"), ("weekdays", "daily")])
def test_r06_a_newsletter_with_readers_does_not_come_more_often(admin_client, before, after):
    newsletter = make_newsletter(frequency=before)
    subscribe(ADDRESS, newsletter)

    page = change_newsletter(admin_client, newsletter, frequency=after)

    assert newsletter.frequency == before
    assert page.context["adminform"].form.errors["frequency"]


def test_r06_a_newsletter_may_come_less_often_and_without_readers_as_often_as_it_likes(admin_client, reader):
    newsletter, unread = Newsletter.objects.get(), make_newsletter(frequency="weekly")

    change_newsletter(admin_client, newsletter, frequency="weekly")
    change_newsletter(admin_client, unread, frequency="daily")

    assert (newsletter.frequency, unread.frequency) == ("weekly", "daily")


def test_r07_a_changed_offer_touches_no_consent_given(admin_client, reader):
    newsletter = Newsletter.objects.get()
    records, rows = ledger.evidence(reader.address_key), list(Subscription.objects.values())

    change_newsletter(admin_client, newsletter, frequency="weekly", description="Etwas anderes.")

    assert ledger.evidence(reader.address_key) == records
    assert list(Subscription.objects.values()) == rows
    assert newsletter.consent_texts.count() == 2


def test_the_evidence_command_prints_json_or_a_page(capsys, reader):
    call_command("evidence", "LESERIN@example.com")
    records = json.loads(capsys.readouterr().out)["acts"]
    call_command("evidence", ADDRESS, "--html")
    page = capsys.readouterr().out

    assert [record["act"] for record in records] == ["requested", "mail_sent", "confirmed"]
    assert records[0]["declaration"]["wording"].split(".")[0] in page
    assert "<html" in page


def test_the_evidence_command_refuses_what_is_no_address():
    with pytest.raises(CommandError):
        call_command("evidence", "leserin")


def test_the_seal_command_seals(capsys, reader):
    call_command("seal")

    assert capsys.readouterr().out.startswith("3 ")
    assert ledger.verify() == []


def test_staff_find_the_sign_ups_of_a_newsletter(admin_client):
    daily, weekly = make_newsletter(), make_newsletter()
    send_form("eine@example.com", daily)
    send_form("beide@example.com", daily, weekly)

    of_each = [{"consent_texts__newsletter__id__exact": newsletter.pk} for newsletter in (daily, weekly)]
    found = [admin_client.get("/admin/subscriptions/signup/", choice).context["cl"] for choice in of_each]
    both = SignUp.objects.get(address="beide@example.com")
    page = admin_client.get(f"/admin/subscriptions/signup/{both.pk}/change/").content.decode()

    assert [listed.result_count for listed in found] == [2, 1]
    assert f"{daily.name}, {weekly.name}" in page
