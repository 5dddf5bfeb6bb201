"""Letters and calls are entered and done by staff; every exercise of a right has a deadline (R-26, R-36)."""

import io
import logging
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.core import mail
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from newsroom.mail import outbox
from newsroom.mail.addresses import canonicalise, mask
from newsroom.mail.models import OutboxMail
from newsroom.tasks import purge_all
from subscriptions import cases, evidence, ledger, letters, persons, privacy, suppression
from subscriptions.consent import Origin
from subscriptions.models import (
    AddressChange,
    EvidenceView,
    RightsCase,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from tests.makers import make_newsletter, make_subscriber, make_subscription
from tests.subscriptions.reading import (
    a_reader,
    form_token,
    link_in,
    mails_to,
    open_rights_page,
    send_form,
    subscribe,
)

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@example.com"
LIST = "/admin/subscriptions/rightscase/"
ENTER = f"{LIST}add/"
Kind, Way, State = RightsCase.Kind, RightsCase.Way, RightsCase.State


def enter(client, kind, *, act="do", **fields):
    """Send the form as staff would; return the case, or the page if there is none."""
    data = {"uuid": str(uuid4()), "address": ADDRESS, "kind": kind, "way": "letter", "act": act}
    data |= {"received_on": timezone.localdate().isoformat()} | fields
    page = client.post(ENTER, data)
    return RightsCase.objects.order_by("pk").last() if page.status_code == 302 else page


def make_case(**values):
    received = values.pop("received_on", timezone.localdate())
    defaults = {
        "kind": Kind.ACCESS, "way": Way.LETTER, "address": ADDRESS, "address_key": ADDRESS, "received_on": received,
        "due_on": cases.add_months(received, 1), "entered_at": timezone.now(), "entered_by": "staff:1",
    }  # fmt: skip
    return RightsCase.objects.create(**(defaults | values))


def staff(client, *permissions):
    user = User.objects.create_user(f"redaktion{uuid4()}", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def last_act():
    return ledger.evidence(ADDRESS)[-1]


def do(client, case, act, **fields):
    page = client.post(f"{LIST}{case.pk}/{act}/do/", fields)
    case.refresh_from_db()
    return page


@pytest.mark.parametrize(
    ("received", "due", "extended"),
    [
        ("2026-03-05", "2026-04-05", "2026-06-05"),
        ("2026-01-31", "2026-02-28", "2026-04-30"),
        ("2028-01-30", "2028-02-29", "2028-04-30"),
        ("2026-08-31", "2026-09-30", "2026-11-30"),
        ("2026-12-15", "2027-01-15", "2027-03-15"),
        ("2027-11-30", "2027-12-30", "2028-02-29"),
    ],
)
def test_r36_a_month_ends_on_the_day_of_its_number_or_on_the_last(received, due, extended):
    day = date.fromisoformat(received)

    assert cases.add_months(day, 1) == date.fromisoformat(due)
    assert cases.add_months(day, 3) == date.fromisoformat(extended)


# What staff enter has the reader's effect


def test_some_newsletters_end_and_the_proof_names_staff_way_and_day(admin_client, admin_user):
    one, other = make_newsletter(), make_newsletter()
    subscribe(ADDRESS, one, other)
    received = timezone.localdate() - timedelta(days=3)

    case = enter(admin_client, "withdraw", newsletters=[one.pk], way="call", received_on=received.isoformat())

    assert list(Subscription.objects.active().values_list("newsletter", flat=True)) == [other.pk]
    proof = last_act()
    assert (proof["act"], proof["actor"], proof["source"]) == ("withdrawn", f"staff:{admin_user.pk}", "call")
    assert proof["received_on"] == received.isoformat()
    assert (case.state, case.closed_by, case.received_on) == (State.DONE, f"staff:{admin_user.pk}", received)


def test_the_proof_is_the_readers_but_for_who_acted_and_how(admin_client):
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    enter(admin_client, "withdraw", newsletters=[newsletter.pk])
    by_staff = last_act()
    other = "andere@example.com"
    subscribe(other, newsletter)
    reader, page = open_rights_page(other)
    token = page.context["token"]
    reader.post("/meine-daten/newsletter/", {"token": token, "act": "leave", "newsletter": newsletter.slug})
    by_reader = ledger.evidence(other)[-1]

    assert by_staff["act"] == by_reader["act"] and by_staff["newsletters"] == by_reader["newsletters"]
    assert set(by_staff) - set(by_reader) == {"received_on"}


def test_a_pending_sign_up_is_taken_back_with_its_mail(admin_client):
    assert send_form(ADDRESS, make_newsletter()).status_code == 303

    case = enter(admin_client, "forget_sign_up", way="call")

    assert not SignUp.objects.exists() and mails_to(ADDRESS) == []
    assert case.state == State.DONE and ledger.evidence(ADDRESS) == []


def test_an_objection_of_an_unknown_address_is_remembered(admin_client):
    enter(admin_client, "object", address="Niemand@example.com")

    assert suppression.find("niemand@example.com").reason == Suppression.Reason.OBJECTION


def test_restriction_and_its_lifting(admin_client):
    subscribe(ADDRESS, make_newsletter())

    enter(admin_client, "restrict")
    assert Subscriber.objects.get().restricted_at and not Subscription.objects.mailable().exists()
    assert (last_act()["change"], last_act()["source"]) == ("restricted", "letter")
    enter(admin_client, "lift_restriction", way="fax")
    assert Subscriber.objects.get().restricted_at is None
    assert (last_act()["change"], last_act()["source"]) == ("restriction lifted", "fax")


@pytest.mark.parametrize("kind", ["withdraw_all", "restrict", "lift_restriction", "forget_sign_up"])
def test_where_nothing_is_known_staff_are_told_so_and_the_case_is_done(admin_client, kind):
    case = enter(admin_client, kind)

    assert case.state == State.DONE and "nichts zu tun" in case.outcome
    assert not Subscriber.objects.exists() and not Suppression.objects.exists()


def test_erasure_asks_back_and_says_what_stays(admin_client):
    subscribe(ADDRESS, make_newsletter())

    page = enter(admin_client, "erase", note="Ordner 3")

    assert page.status_code == 200 and 'name="sure"' in page.content.decode()
    assert all(sentence in page.content.decode() for sentence in privacy.what_stays())
    assert Subscriber.objects.exists() and not RightsCase.objects.exists()
    back = enter(admin_client, "erase", note="Ordner 3", edit="yes")
    assert f'value="{ADDRESS}"' in back.content.decode() and "Ordner 3" in back.content.decode()


def test_erasure_takes_everything_and_leaves_a_case_that_names_nobody(admin_client, admin_user):
    subscribe(ADDRESS, make_newsletter())
    make_case(kind=Kind.OTHER, note="Ruft wieder an", outcome="")

    case = enter(admin_client, "erase", sure="yes", note="Schreiben in Ordner 3")

    assert not Subscriber.objects.exists() and suppression.is_suppressed(ADDRESS)
    assert (last_act()["act"], last_act()["source"]) == ("erased", "letter")
    assert (case.state, case.closed_by) == (State.DONE, f"staff:{admin_user.pk}")
    for left in RightsCase.objects.all():
        assert (left.state, left.address, left.address_key, left.note, left.new_address) == (State.DONE, "", "", "", "")


def test_erasure_of_what_is_not_held_leaves_no_trace_of_the_address(admin_client):
    case = enter(admin_client, "erase", sure="yes")

    assert (case.state, case.address, case.address_key) == (State.DONE, "", "")
    assert not Suppression.objects.exists()


def test_a_change_of_address_is_asked_at_the_new_one_and_its_confirmation_closes_the_case(admin_client):
    subscribe(ADDRESS, make_newsletter())

    case = enter(admin_client, "rectify", new_address="Neu@example.com")

    assert case.state == State.OPEN and AddressChange.objects.get().new_address == "Neu@example.com"
    [message] = mails_to("Neu@example.com")
    a_reader().post(link_in(message, "/meine-daten/adresse/"))
    case.refresh_from_db()
    assert Subscriber.objects.get().address == "Neu@example.com"
    assert (case.state, case.address_key) == (State.DONE, "neu@example.com")


def test_another_spelling_of_the_address_closes_the_case_as_well(admin_client):
    subscribe(ADDRESS, make_newsletter())
    case = enter(admin_client, "rectify", new_address="Leserin@example.com")

    a_reader().post(link_in(mails_to("Leserin@example.com")[-1], "/meine-daten/adresse/"))

    case.refresh_from_db()
    assert (case.state, case.address) == (State.DONE, "Leserin@example.com")


def test_who_is_named_in_another_readers_letter_is_told_so_and_erased_there(admin_client):
    subscribe(ADDRESS, make_newsletter())
    case = enter(admin_client, "rectify", new_address="Fremd@example.com", note="Wohnt jetzt in Rieth")

    [told] = persons.CASES.export("fremd@example.com")
    assert told["new_address"] == "Fremd@example.com"
    assert not {ADDRESS, "Wohnt jetzt in Rieth"} & set(map(str, told.values()))
    assert "fremd@example.com" in set(persons.CASES.held())
    privacy.erase_address("fremd@example.com", origin=Origin(source="letter"), now=timezone.now())

    case.refresh_from_db()
    assert (case.state, case.address, case.new_address) == (State.OPEN, ADDRESS, "")
    assert persons.CASES.export("fremd@example.com") == []
    do(admin_client, case, "carry-out")
    assert case.state == State.OPEN and not AddressChange.objects.exists()


def test_who_only_looks_sees_neither_address_in_full(client, admin_client):
    case = enter(admin_client, "rectify", new_address="Neu@example.com", act="note")

    page = staff(client, "view_rightscase").get(f"{LIST}{case.pk}/change/").content.decode()

    assert ADDRESS not in page and "Neu@example.com" not in page
    assert mask(ADDRESS) in page and mask("Neu@example.com") in page


def test_the_file_for_a_letter_holds_everything_and_the_look_is_noted(admin_client, admin_user):
    subscribe(ADDRESS, make_newsletter())
    case = enter(admin_client, "access", note="Ordner 3")
    assert case.state == State.OPEN

    answer = admin_client.post(f"{LIST}{case.pk}/export/")

    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    archive = zipfile.ZipFile(io.BytesIO(content))
    said = archive.read("daten.json").decode()
    assert ADDRESS in said and "Ordner 3" in said and admin_user.username not in said
    assert "no-store" in answer["Cache-Control"] and "attachment" in answer["Content-Disposition"]
    view = EvidenceView.objects.get()
    assert (view.way, view.actor) == (EvidenceView.Way.ACCESS, f"staff:{admin_user.pk}")
    do(admin_client, case, "close", outcome="Mit der Post geschickt")
    assert (case.state, case.outcome) == (State.DONE, "Mit der Post geschickt")


def test_access_may_be_answered_by_the_link(admin_client):
    subscribe(ADDRESS, make_newsletter())
    case = enter(admin_client, "access")

    do(admin_client, case, "mail-link")

    assert case.state == State.DONE
    assert link_in(mails_to(ADDRESS)[-1], "/meine-daten/")


def test_the_answer_by_the_link_goes_out_however_often_it_was_asked_for_on_the_page(admin_client):
    subscribe(ADDRESS, make_newsletter())
    open_rights_page(ADDRESS)
    case = enter(admin_client, "access")
    before = len(mails_to(ADDRESS))

    do(admin_client, case, "mail-link")

    assert case.state == State.DONE
    assert len(mails_to(ADDRESS)) == before + 1
    reader, page = a_reader(), mails_to(ADDRESS)[-1]
    page = reader.post(link_in(page, "/meine-daten/"))
    reader.post("/meine-daten/export/", {"token": form_token(page)})
    assert RightsCase.objects.filter(kind=Kind.ACCESS).count() == 1  # the letter's, and no second one


def test_a_form_sent_twice_counts_once(admin_client):
    subscribe(ADDRESS, make_newsletter())
    same = str(uuid4())

    enter(admin_client, "withdraw_all", uuid=same)
    enter(admin_client, "withdraw_all", uuid=same)

    assert RightsCase.objects.count() == 1
    assert [act["act"] for act in ledger.evidence(ADDRESS)].count("withdrawn") == 1


def test_a_form_gone_back_to_for_somebody_else_is_another_letter(admin_client):
    form = {"uuid": str(uuid4())}
    enter(admin_client, "object", **form)

    for _time in range(2):
        enter(admin_client, "object", address="anderer@example.com", **form)

    assert set(RightsCase.objects.values_list("address", flat=True)) == {ADDRESS, "anderer@example.com"}
    assert RightsCase.objects.count() == 2
    assert suppression.is_suppressed("anderer@example.com")


def test_what_is_only_noted_is_done_later(admin_client):
    subscribe(ADDRESS, make_newsletter())

    case = enter(admin_client, "withdraw_all", act="note")
    assert case.state == State.OPEN and Subscription.objects.active().exists()
    assert admin_client.get(f"{LIST}{case.pk}/carry-out/do/").status_code == 200
    assert Subscription.objects.active().exists()
    do(admin_client, case, "carry-out")

    assert case.state == State.DONE and not Subscription.objects.active().exists()


@pytest.mark.django_db(transaction=True)
def test_a_case_that_several_do_at_once_is_done_once():
    subscribe(ADDRESS, make_newsletter())
    case = make_case(kind=Kind.OBJECT)

    def press(number):
        try:
            return letters.carry_out(case, by=f"staff:{number}", now=timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(press, range(10)))

    assert len([outcome for outcome in outcomes if outcome]) == 1
    acts = [act.get("change") or act["act"] for act in ledger.evidence(ADDRESS)]
    assert (acts.count("withdrawn"), acts.count("objected")) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_one_form_sent_several_times_at_once_is_one_letter(admin_user):
    same, received = uuid4(), timezone.localdate()
    letter = cases.Letter(uuid=same, kind=Kind.OTHER, way=Way.CALL, address=canonicalise(ADDRESS), received_on=received)

    def press(number):
        try:
            return cases.enter(letter, by=f"staff:{number}", now=timezone.now())[1]
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(press, range(10))) == [False] * 9 + [True]
    assert RightsCase.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("address", {"address": "leserin"}),
        ("address", {"address": ""}),
        ("received_on", {"received_on": (timezone.localdate() + timedelta(days=2)).isoformat()}),
        ("received_on", {"received_on": "1926-11-22"}),
        ("received_on", {"received_on": "x"}),
        ("way", {"way": "page"}),
        ("kind", {"kind": "x"}),
        ("newsletters", {"kind": "withdraw"}),
        ("new_address", {"kind": "rectify"}),
        ("new_address", {"kind": "rectify", "new_address": ADDRESS}),
        ("new_address", {"kind": "rectify", "new_address": "neu@"}),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_nothing_is_entered(admin_client, field, fields):
    page = enter(admin_client, **({"kind": "withdraw_all"} | fields))

    assert page.status_code == 200 and set(page.context["form"].errors) == {field}
    assert f'id="id_{field}_error"' in page.content.decode()
    assert not RightsCase.objects.exists()


# Who may


def test_entering_needs_its_own_permission(client):
    case = make_case()
    looks = staff(client, "view_subscriber", "change_subscriber", "view_rightscase")

    assert looks.get(ENTER).status_code == 403
    assert enter(looks, "withdraw_all").status_code == 403
    assert looks.post(f"{LIST}{case.pk}/close/do/", {"outcome": "x"}).status_code == 403
    assert looks.post(f"{LIST}{case.pk}/export/").status_code == 403
    page = looks.get(f"{LIST}{case.pk}/change/")
    assert page.status_code == 200 and ADDRESS not in page.content.decode()
    assert ENTER not in looks.get("/admin/subscriptions/subscriber/").content.decode()


def test_the_file_needs_the_permission_to_see_evidence(client):
    case = make_case()
    clerk = staff(client, "handle_cases")

    assert clerk.get(f"{LIST}{case.pk}/change/").status_code == 200
    assert clerk.post(f"{LIST}{case.pk}/export/").status_code == 403
    assert not EvidenceView.objects.exists()


def test_the_page_is_one_click_from_start_list_and_reader(admin_client):
    reader = make_subscription().subscriber

    for path in ("/admin/", "/admin/subscriptions/subscriber/"):
        assert f'href="{ENTER}"' in admin_client.get(path).content.decode()
    page = admin_client.get("/admin/subscriptions/subscriber/").content.decode()
    assert f'href="{ENTER}?reader={reader.pk}"' in page and reader.address not in page
    assert f'value="{reader.address}"' in admin_client.get(f"{ENTER}?reader={reader.pk}").content.decode()


@pytest.mark.parametrize("number", ["x", "", "0", "9" * 30, "²"])
def test_a_strange_number_picks_nobody(admin_client, number):
    assert admin_client.get(ENTER, {"reader": number}).status_code == 200


def test_looking_at_a_case_is_logged_without_the_address(admin_client, caplog):
    case = make_case()

    with caplog.at_level(logging.INFO):
        admin_client.get(f"{LIST}{case.pk}/change/")

    assert f"Case {case.pk} was looked at by staff" in caplog.text and "@" not in caplog.text


# Deadlines


def test_lists_and_start_page_say_how_the_deadlines_stand(admin_client, time_machine):
    today = timezone.localdate()
    make_case(received_on=today - timedelta(days=40))
    make_case(received_on=today - timedelta(days=26))
    make_case(received_on=today)
    make_case(received_on=today - timedelta(days=90), state=State.DONE, closed_at=timezone.now())

    def found(deadline):
        return admin_client.get(LIST, {"deadline": deadline}).context["cl"].result_count

    assert (found("open"), found("soon_due"), found("overdue")) == (3, 1, 1)
    page = admin_client.get(LIST).content.decode()
    assert "case-overdue" in page and "case-soon_due" in page and ADDRESS not in page
    assert "3 offen, davon 1 bald fällig und 1 überfällig" in admin_client.get("/admin/").content.decode()


def test_without_open_cases_the_start_page_says_nothing_of_them(admin_client):
    make_case(state=State.DONE, closed_at=timezone.now())

    assert "deadline=open" not in admin_client.get("/admin/").content.decode()


def test_an_extension_is_told_and_warned_of_anew(admin_client, settings, time_machine):
    subscribe(ADDRESS, make_newsletter())
    case = enter(admin_client, "access", way="mail")
    received = case.received_on

    do(admin_client, case, "extend", reason="Es sind sehr viele Daten.", tells="mail")

    assert case.due_on == cases.add_months(received, 3) and case.extended_at
    told = mails_to(ADDRESS)[-1]
    assert "Es sind sehr viele Daten." in told.body and f"Nr. {case.pk}" in told.subject
    noon = timezone.localtime().replace(hour=12)  # of the day the case came in, which is another one in UTC at night
    assert cases.warn_of_deadlines(noon + timedelta(days=40)) == 0
    assert cases.warn_of_deadlines(noon + (case.due_on - received) - timedelta(days=7)) == 1
    page = do(admin_client, case, "extend", reason="Noch einmal.", tells="mail")
    assert page.status_code == 302 and case.due_on == cases.add_months(received, 3)


def test_after_the_month_nobody_extends_any_more(admin_client):
    case = make_case(received_on=timezone.localdate() - timedelta(days=40))

    do(admin_client, case, "extend", reason="Zu spät.", tells="otherwise")

    assert case.extended_at is None
    with pytest.raises(cases.TooLate):
        cases.extend(case, reason="Zu spät.", tells=False, by="staff:1", now=timezone.now())


def test_a_refusal_is_told_with_the_reason_and_where_to_complain(admin_client, settings):
    settings.SUPERVISORY_AUTHORITY = "Landesbeauftragte von Muster"
    case = make_case(kind=Kind.OTHER)

    do(admin_client, case, "refuse", reason="Das sind nicht Ihre Daten.", tells="mail")

    assert (case.state, case.outcome) == (State.REFUSED, "Das sind nicht Ihre Daten.")
    [told] = mails_to(ADDRESS)
    text = " ".join(told.body.split())
    assert "Das sind nicht Ihre Daten." in text and "Landesbeauftragte von Muster" in text


def test_who_is_told_in_another_way_gets_no_mail(admin_client):
    case = make_case(kind=Kind.OTHER)

    do(admin_client, case, "refuse", reason="Nicht Ihre Daten.", tells="otherwise")

    assert case.state == State.REFUSED and not OutboxMail.objects.exists()


@pytest.mark.parametrize("act", ["extend", "refuse", "close"])
def test_an_answer_needs_its_words(admin_client, act):
    case = make_case()

    page = do(admin_client, case, act)

    assert page.status_code == 200 and page.context["form"].errors
    assert case.state == State.OPEN and case.extended_at is None


@pytest.mark.parametrize("act", ["carry-out", "mail-link", "close", "extend", "refuse"])
def test_a_closed_case_is_not_answered_again(admin_client, act):
    case = make_case(state=State.DONE, closed_at=timezone.now(), closed_by="reader")

    page = do(admin_client, case, act, outcome="x", reason="x", tells="mail")

    assert page.status_code == 302 and (case.state, case.closed_by, case.outcome) == (State.DONE, "reader", "")
    assert not OutboxMail.objects.exists()


def test_the_command_warns_too(capsys):
    make_case(received_on=timezone.localdate() - timedelta(days=26))

    call_command("warn_of_deadlines")

    assert capsys.readouterr().out.startswith("1 ")


def test_a_case_answered_before_its_warning_is_sent_causes_no_mail():
    case = make_case(received_on=timezone.localdate() - timedelta(days=26))
    cases.warn_of_deadlines(timezone.now())
    cases.close(case, outcome="Erledigt", by="staff:1", now=timezone.now())

    outbox.send_due(timezone.now())

    assert mail.outbox == [] and OutboxMail.objects.get().state == OutboxMail.State.WITHHELD


# What is kept


def test_answered_cases_go_after_their_period_and_open_ones_stay(settings):
    now = timezone.now()
    old = now - settings.PRIVACY_REQUEST_RETENTION
    make_case(state=State.DONE, closed_at=old, note="alt")
    make_case(state=State.DONE, closed_at=old + timedelta(seconds=1), note="noch nicht")
    make_case(received_on=timezone.localdate() - timedelta(days=2000), note="offen")

    purge_all(now)

    assert set(RightsCase.objects.values_list("note", flat=True)) == {"noch nicht", "offen"}


def test_the_cases_of_a_restricted_reader_stay(settings):
    now = timezone.now()
    make_subscriber(ADDRESS, restricted_at=now)
    long_ago = now - settings.PRIVACY_REQUEST_RETENTION - timedelta(days=1)
    case = make_case(state=State.DONE, closed_at=long_ago)
    outbox.enqueue("case_refused", reference=case.uuid, now=long_ago)

    purge_all(now)

    assert RightsCase.objects.exists() and OutboxMail.objects.exists()


def test_the_database_refuses_a_closed_case_without_its_time():
    case = make_case()

    with pytest.raises(IntegrityError), transaction.atomic():
        RightsCase.objects.filter(pk=case.pk).update(state=State.DONE)


def test_an_erased_reader_is_found_in_no_case_and_owed_no_answer():
    case = make_case(note="Ruft wieder an")
    origin = Origin(source="rights_page")

    privacy.erase_address(ADDRESS, origin=origin, now=timezone.now())

    case.refresh_from_db()
    assert (case.state, case.closed_by, case.note, case.address_key) == (State.DONE, "system", "", "")
    assert persons.CASES.export(ADDRESS) == []


def test_the_evidence_says_when_a_letter_came(admin_client):
    subscribe(ADDRESS, make_newsletter())
    enter(admin_client, "withdraw_all", received_on="2026-03-05")

    rows = dict(
        row for block in evidence.blocks(evidence.collect(ADDRESS, ADDRESS, now=timezone.now())) for row in block.rows
    )

    assert rows["Eingegangen am"] == "2026-03-05"
