import json
import re
from datetime import timedelta

import jsonschema_rs
import pytest
from django.core.management import call_command
from django.utils import timezone

from subscriptions import suppression
from subscriptions.models import PrivacyRequest, RightsCase, Subscriber, Subscription
from tests.compliance.post import RIGHTS, enter_letter, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, exported, send_form, stamp

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
STRANGER = "niemand@leser.example"


def ask(address):
    return a_reader().post(RIGHTS, {"email": address, "stamp": stamp(fingerprint="rights")})


def shape(answer):
    return answer.status_code, dict(answer.items()), answer.content


def test_r29_who_reads_the_mailbox_is_the_reader(post):
    post.subscribe(ADDRESS, make_newsletter())
    before = len(post.to(ADDRESS))

    known, unknown = ask(ADDRESS), ask(STRANGER)

    assert shape(known) == shape(unknown)
    [mail] = post.to(ADDRESS)[before:]
    link = link_in(mail, RIGHTS)
    assert ADDRESS not in a_reader().get(link).content.decode()
    assert ADDRESS in a_reader().post(link).content.decode()
    assert a_reader().post(link).status_code == 410


def test_r30_no_form_tells_whether_an_address_is_known(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)

    assert shape(ask(ADDRESS)) == shape(ask(STRANGER))
    assert shape(send_form(ADDRESS, newsletter)) == shape(send_form(STRANGER, newsletter))


def test_r31_the_negative_answer_goes_to_the_mailbox_and_nowhere_else(post):
    ask(STRANGER)
    ask(STRANGER)

    [answer] = post.all()
    assert answer.recipients == [STRANGER] and not re.search(rf"{RIGHTS}[\w-]{{20,}}/", answer.text)


def test_r32_a_change_of_address_is_confirmed_at_the_new_one_and_told_to_the_old_one_once(post):
    newsletter, new = make_newsletter(), "neu@leser.example"
    post.subscribe(ADDRESS, newsletter)
    reader, token = post.rights_page(ADDRESS)
    before = len(post.to(ADDRESS))

    reader.post("/meine-daten/adresse/", {"token": token, "new_address": new})

    [asked] = post.to(new)
    link = link_in(asked, "/meine-daten/adresse/")
    a_reader().get(link)
    assert [issue.recipients for issue in post.issue(newsletter)] == [[ADDRESS]]  # in use until it is confirmed
    assert a_reader().post(link).status_code == a_reader().post(link).status_code == 303
    [_issue, told] = post.to(ADDRESS)[before:]
    assert new not in told.text + told.html and not re.search(rf"{RIGHTS}[\w-]", told.text + told.html)
    assert [issue.recipients for issue in post.issue(newsletter, date="2026-01-01")] == [[new]]


def test_r32_r30_the_page_tells_nothing_of_the_new_address(post):
    newsletter = make_newsletter()
    pages = []
    for number, new in enumerate(["bekannt@leser.example", STRANGER]):
        post.subscribe(f"leser{number}@leser.example", newsletter)
        if new != STRANGER:
            post.subscribe(new, newsletter)
        reader, token = post.rights_page(f"leser{number}@leser.example")
        answer = reader.post("/meine-daten/adresse/", {"token": token, "new_address": new})
        said = re.search(r'<p class="notice[^>]*>(.*?)</p>', answer.content.decode()).group(0)
        pages.append((answer.status_code, said, answer.content.decode().count(new)))

    assert pages[0] == pages[1]


def test_r31_the_reader_takes_along_all_that_is_held_as_one_file_by_its_schema(post):
    newsletter = make_newsletter()
    post.subscribe("Leserin@leser.example", newsletter)
    agreed = Subscription.objects.get().consent_text.wording
    post.issue(newsletter)
    reader, token = post.rights_page(ADDRESS)

    answer = reader.post("/meine-daten/export/", {"token": token})

    assert answer["Cache-Control"] == "no-store" and answer["Content-Disposition"].startswith("attachment;")
    document = exported(answer)
    jsonschema_rs.validate(json.loads(exported(answer, "daten.schema.json")), document)
    held = document["data"]
    assert held["readers"][0]["subscriptions"][0]["newsletter"] == newsletter.name
    assert [act["act"] for act in held["consent_records"]] == ["requested", "mail_sent", "confirmed"]
    assert held["consent_records"][0]["newsletters"][0]["wording"] == agreed
    assert [issue["outcome"] for issue in held["deliveries"]] == ["accepted"]
    assert held["suppressions"] == [] and held["provider_events"] == [] and held["privacy_requests"]
    assert {"purposes", "recipients", "source", "rights", "complaints_to"} <= document["about"].keys()
    assert agreed in exported(answer, "lesen.html")


def test_r31_the_opened_page_tells_in_words_what_is_held_and_why(post):
    post.subscribe(ADDRESS, make_newsletter())
    agreed = Subscription.objects.get().consent_text.wording
    a_reader().post(RIGHTS, {"email": ADDRESS, "stamp": stamp(fingerprint="rights")})

    page = a_reader().post(link_in(post.to(ADDRESS)[-1], RIGHTS)).content.decode()

    for told in ("Nachweis Ihrer Einwilligung", "Rechtsgrundlage", "Wie lange", "Art. 6 Abs. 1 Buchst. a", agreed):
        assert told in page


def test_r33_erasure_leaves_evidence_and_a_hash_and_says_so(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    post.issue(newsletter)
    reader, token = post.rights_page(ADDRESS)

    done = reader.post("/meine-daten/loeschen/", {"token": token, "sure": "yes"})

    assert "Kalenderjahr" in done.content.decode()
    assert not Subscriber.objects.exists() and not PrivacyRequest.objects.exclude(address="").exists()
    assert suppression.is_suppressed(ADDRESS)
    assert post.issue(newsletter, date="2026-01-01") == []


def test_r34_a_restricted_reader_is_neither_mailed_nor_deleted(post, admin_client):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)

    enter_letter(admin_client, ADDRESS, "restrict")

    assert post.issue(newsletter) == []
    assert Subscriber.objects.get().restricted_at


def test_r35_an_objection_ends_everything_and_is_remembered(post, admin_client):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)

    enter_letter(admin_client, ADDRESS, "object")

    assert post.issue(newsletter) == []
    assert suppression.is_suppressed(ADDRESS)


@pytest.fixture
def officer(post, settings):
    """What the officer was mailed by the daily task so far, but for the ledger's head."""

    def mails():
        call_command("warn_of_deadlines")
        return [mail for mail in post.to(settings.DPO["email"]) if "Anliegen" in str(mail.message["Subject"])]

    return mails


def test_r36_after_25_days_staff_and_the_officer_are_warned_and_again_when_it_is_late(
    officer, admin_client, admin_user, time_machine
):
    start = timezone.localtime().replace(month=3, day=5, hour=9)
    time_machine.move_to(start, tick=False)
    admin_client.force_login(admin_user)  # in January and February the session of today would be over by then
    enter_letter(admin_client, ADDRESS, "access", act="note")
    case = RightsCase.objects.get()
    assert (case.due_on.month, case.due_on.day) == (4, 5)

    counts = []
    for day in range(24, 40):
        time_machine.move_to(start + timedelta(days=day), tick=False)
        counts.append(len(officer()))

    # The 25th day is 30 March, the first day too late 6 April: one mail each, however often the task runs.
    assert counts == [0, 1, 1, 1, 1, 1, 1, 1] + [2] * 8
    admin_client.cookies.clear()  # the session of the spring is over


def test_r36_the_warning_names_the_case_and_nobody(officer, admin_client, admin_user, time_machine):
    enter_letter(admin_client, ADDRESS, "access", act="note", note="Frau Muster rief an")
    case = RightsCase.objects.get()
    time_machine.move_to(timezone.now() + timedelta(days=25))

    [warning] = officer()

    path = f"/admin/subscriptions/rightscase/{case.pk}/change/"
    for part in (warning.text, warning.html):
        assert path in part and "leserin" not in part and "Muster rief" not in part
    assert f"Anliegen {case.pk}" in str(warning.message["Subject"])
    admin_client.force_login(admin_user)
    assert "1 bald fällig" in admin_client.get("/admin/").content.decode()
    assert ADDRESS in admin_client.get(path).content.decode()


def test_r36_what_readers_do_themselves_is_a_case_answered_at_once(post):
    post.subscribe(ADDRESS, make_newsletter())
    reader, token = post.rights_page(ADDRESS)

    for _twice in range(2):
        reader.post("/meine-daten/export/", {"token": token})
    for act in ("restrict", "lift_restriction", "object"):
        reader.post("/meine-daten/newsletter/", {"token": token, "act": act})

    cases = RightsCase.objects.order_by("pk")
    assert [case.kind for case in cases] == ["access", "restrict", "lift_restriction", "object"]
    today = timezone.localdate()
    assert {(case.way, case.state, case.received_on, case.closed_by) for case in cases} == {
        ("page", "done", today, "reader")
    }
    reader.post("/meine-daten/loeschen/", {"token": token, "sure": "yes"})
    assert RightsCase.objects.filter(kind="erase", state="done").exists()
    assert not RightsCase.objects.exclude(address="").exists()


def test_r36_an_extension_adds_two_months_and_the_reader_is_told(post, admin_client):
    enter_letter(admin_client, ADDRESS, "access", act="note", received_on="2026-01-31")
    case = RightsCase.objects.get()
    RightsCase.objects.update(received_on=timezone.localdate(), due_on=timezone.localdate() + timedelta(days=28))
    before = case.entered_at

    extend = f"/admin/subscriptions/rightscase/{case.pk}/extend/do/"
    admin_client.post(extend, {"reason": "Ihre Daten liegen zum Teil im Archiv.", "tells": "mail"})

    case.refresh_from_db()
    assert case.extended_at > before and (case.due_on - case.received_on).days >= 89
    [told] = post.to(ADDRESS)
    assert "Ihre Daten liegen zum Teil im Archiv." in " ".join(told.text.split())
