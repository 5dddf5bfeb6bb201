from datetime import time

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone

from digests.models import Digest, DigestSchedule, DigestTest, Provider
from newsroom.articles.models import Article
from tests.makers import (
    make_article,
    make_digest,
    make_newsletter,
    make_schedule,
    make_sending_digest,
    make_subscriptions,
)

pytestmark = pytest.mark.django_db

State = Digest.State


def log_in(client, *permissions, **values):
    user = User.objects.create_user("redaktion", "redaktion@wochenblitz.example", is_staff=True, **values)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return user


@pytest.fixture
def chief(client):
    return log_in(client, is_superuser=True)


def url(name, digest, *arguments):
    return reverse(f"admin:digests_digest_{name}", args=[digest.pk, *arguments])


def test_the_page_shows_state_articles_and_history(client, chief):
    digest = make_digest(articles=3)

    page = client.get(url("change", digest)).text

    for entry in digest.entries.all():
        assert entry.headline in page
    assert digest.subject in page
    assert url("act", digest, "approve") in page


@pytest.mark.parametrize("name", ["abc", "1_5F", "99999"])
def test_an_address_of_no_digest_is_not_found(name, client, chief):
    assert client.get(f"/admin/digests/digest/{name}/change/").status_code == 404


@pytest.mark.parametrize("state", State.values)
def test_the_page_works_in_every_state(client, chief, state):
    digest = make_sending_digest(readers=2)
    Digest.objects.update(state=state, state_reason="Weil es so ist", finished_at=timezone.now())

    for name in ("change", "progress", "preview"):
        assert client.get(url(name, digest)).status_code == 200
    assert "Weil es so ist" in client.get(url("change", digest)).text


def test_the_numbers_are_shown_while_it_is_being_sent(client, chief):
    digest = make_sending_digest(readers=7)

    page = client.get(url("change", digest)).text

    assert "<dd>7</dd>" in page
    assert url("progress", digest) in page
    assert 'http-equiv="refresh"' in page


def test_asking_before_a_step_names_the_readers_and_changes_nothing(client, chief):
    digest = make_digest()
    make_subscriptions(digest.newsletter, 5)

    page = client.get(url("act", digest, "send-now")).text

    assert "<b>5</b>" in page
    assert Digest.objects.get().state == State.COMPILED


def test_the_step_is_taken_by_the_button(client, chief):
    digest = make_digest()
    make_subscriptions(digest.newsletter, 5)

    client.post(url("act", digest, "send-now"))

    assert Digest.objects.get().state == State.SENDING
    assert Digest.objects.get().expected_count == 5
    assert digest.changes.last().actor == chief


def test_cancelling_needs_a_reason(client, chief):
    digest = make_digest()

    assert client.post(url("act", digest, "cancel"), {"reason": ""}).status_code == 200
    assert Digest.objects.get().state == State.COMPILED
    client.post(url("act", digest, "cancel"), {"reason": "Falscher Aufmacher"})

    assert Digest.objects.get().state == State.CANCELLED
    assert digest.changes.last().reason == "Falscher Aufmacher"


def test_a_step_that_is_no_longer_possible_says_so(client, chief):
    digest = make_digest(state=State.FINISHED)

    response = client.post(url("act", digest, "approve"), follow=True)

    assert Digest.objects.get().state == State.FINISHED
    assert response.context["messages"]


def test_entries_are_moved_taken_out_and_put_in(client, chief):
    digest = make_digest(articles=3)
    first, second, third = digest.entries.all()
    late = make_article()

    client.post(url("edit_entry", digest, third.pk, "first"))
    client.post(url("edit_entry", digest, second.pk, "remove"))
    client.post(url("add_article", digest, late.pk))

    assert [entry.article for entry in digest.entries.all()] == [third.article, first.article, late]


def test_a_changed_article_is_shown_and_taken_over(client, chief):
    digest = make_digest(articles=1)
    Article.objects.update(headline="Ganz anders")
    entry = digest.entries.get()

    assert "Ganz anders" in client.get(url("change", digest)).text
    client.post(url("edit_entry", digest, entry.pk, "take-over"))

    assert digest.entries.get().headline == "Ganz anders"


def test_an_article_that_was_taken_down_since_is_shown_as_a_draft(client, chief):
    digest = make_digest(articles=1)
    Article.objects.update(state="draft")

    assert str(Article.State.DRAFT.label) + "." in client.get(url("change", digest)).text


def test_a_test_mail_is_asked_for_by_a_button(client, chief):
    digest = make_digest()

    client.post(url("test", digest))

    assert DigestTest.objects.get().user == chief


def test_a_preview_runs_nothing_and_leads_nowhere(client, chief):
    digest = make_digest()

    page = client.get(url("preview", digest))
    frame = client.get(url("preview_html", digest))

    assert 'sandbox=""' in page.text
    assert digest.text.splitlines()[0] in page.text
    assert frame["X-Frame-Options"] == "SAMEORIGIN"
    policy = frame["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "slot.invalid" not in frame.text


@pytest.mark.parametrize(("scheme", "expected"), [("", "@media not all"), ("?scheme=dark", "@media all")])
def test_a_preview_is_light_or_dark_as_asked(client, chief, scheme, expected):
    frame = client.get(url("preview_html", make_digest()) + scheme)

    assert expected in frame.text


GETTABLE = ["change", "progress", "preview", "preview_html"]


@pytest.mark.parametrize("name", GETTABLE)
def test_looking_changes_nothing_and_needs_the_permission(client, name):
    digest = make_digest()
    log_in(client)

    assert client.get(url(name, digest)).status_code == 403
    client.logout()
    assert client.get(url(name, digest)).status_code == 302


def posts(digest):
    entry = digest.entries.first()
    return {
        "send_digest": [url("act", digest, "approve"), url("act", digest, "cancel"), url("act", digest, "send-now")],
        "change_digest": [
            url("edit_entry", digest, entry.pk, "down"),
            url("edit_entry", digest, entry.pk, "remove"),
            url("add_article", digest, make_article().pk),
            reverse("admin:digests_digestschedule_make", args=[digest.schedule.pk]),
        ],
    }


@pytest.mark.parametrize(("held", "missing"), [("send_digest", "change_digest"), ("change_digest", "send_digest")])
def test_every_step_needs_its_own_permission(client, held, missing):
    digest = make_digest(articles=3)
    before = list(digest.entries.values_list("pk", "position"))
    log_in(client, "view_digest", held)

    for address in posts(digest)[missing]:
        assert client.post(address, {"reason": "Probe"}).status_code == 403

    assert Digest.objects.get().state == State.COMPILED
    assert list(digest.entries.values_list("pk", "position")) == before


def test_a_step_is_never_taken_by_opening_a_link(client, chief):
    digest = make_digest(articles=3)
    everything = posts(digest)

    for address in everything["send_digest"]:
        client.get(address)
    for address in [*everything["change_digest"], url("test", digest)]:
        assert client.get(address).status_code == 403

    assert Digest.objects.get().state == State.COMPILED
    assert digest.entries.count() == 3
    assert not DigestTest.objects.exists()


def test_a_digest_is_neither_added_nor_deleted_by_hand(client, chief):
    digest = make_digest()

    assert client.get(reverse("admin:digests_digest_add")).status_code == 403
    assert client.post(url("delete", digest), {"post": "yes"}).status_code == 403


def schedule_form(newsletter, **values):
    return {
        "newsletter": newsletter.pk,
        "state": "running",
        "weekdays": [0, 1, 2, 3, 4],
        "local_time": "06:30",
        "time_zone": "Europe/Berlin",
        "minimum_articles": 1,
        "maximum_articles": 30,
        "approval": "required",
        "latecomers": "included",
        "uncertain_policy": "wait",
    } | values


def test_a_schedule_is_made_in_the_admin(client, chief):
    newsletter = make_newsletter()

    client.post(reverse("admin:digests_digestschedule_add"), schedule_form(newsletter))

    schedule = DigestSchedule.objects.get()
    assert (schedule.weekdays, schedule.local_time, schedule.approval) == (0b0011111, time(6, 30), "required")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"weekdays": []}, "weekdays"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"not_later_than": "06:00"}, "not_later_than"),
        ({"minimum_articles": 0}, "minimum_articles"),
        ({"minimum_articles": 5, "maximum_articles": 3}, "maximum_articles"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_at_its_field(client, chief, values, field):
    form = schedule_form(make_newsletter(), **values)

    response = client.post(reverse("admin:digests_digestschedule_add"), form)

    assert field in response.context["adminform"].form.errors
    assert not DigestSchedule.objects.exists()


@pytest.mark.parametrize(("frequency", "weekdays"), [("weekly", [0, 1]), ("weekdays", [5])])
def test_no_more_digests_are_planned_than_readers_agreed_to(client, chief, frequency, weekdays):
    form = schedule_form(make_newsletter(frequency=frequency), weekdays=weekdays)

    response = client.post(reverse("admin:digests_digestschedule_add"), form)

    assert "weekdays" in response.context["adminform"].form.errors


def test_a_schedule_shows_its_weekdays_again(client, chief):
    schedule = make_schedule(weekdays=0b0010101)

    page = client.get(reverse("admin:digests_digestschedule_change", args=[schedule.pk]))

    assert page.context["adminform"].form["weekdays"].value() == [0, 2, 4]


def test_todays_digest_is_made_ahead_from_its_schedule(client, chief):
    schedule = make_schedule(local_time=time(23, 59))
    make_article()

    response = client.post(reverse("admin:digests_digestschedule_make", args=[schedule.pk]))

    digest = Digest.objects.get()
    assert response.headers["Location"] == url("change", digest)
    assert digest.state == State.COMPILED


def test_a_schedule_that_has_made_a_digest_is_not_deleted(client, chief):
    digest = make_digest()
    address = reverse("admin:digests_digestschedule_delete", args=[digest.schedule.pk])

    assert client.post(address, {"post": "yes"}).status_code == 403


def test_the_lists_can_be_searched(client, chief):
    digest = make_digest()

    page = client.get(reverse("admin:digests_digest_changelist"), {"q": digest.entries.first().headline})

    assert page.status_code == 200
    assert digest.subject in page.text
    assert client.get(reverse("admin:digests_digestschedule_changelist")).status_code == 200
    assert client.get(reverse("admin:digests_provider_changelist")).status_code == 200


def test_a_closed_gate_is_opened_by_who_may_send(client):
    provider = Provider.objects.create(name="mailgun", gate=Provider.Gate.CLOSED, reason="Schlüssel abgelehnt")
    form = {"action": "let_mail_pass", "_selected_action": [provider.pk]}
    address = reverse("admin:digests_provider_changelist")

    log_in(client, "view_provider")
    client.post(address, form)
    assert Provider.objects.get().gate == Provider.Gate.CLOSED
    User.objects.get().user_permissions.add(Permission.objects.get(codename="send_digest"))
    client.post(address, form)

    assert Provider.objects.get().gate == Provider.Gate.OPEN
