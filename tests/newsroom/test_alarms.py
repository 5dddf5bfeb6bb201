"""What is wrong stands on the admin's start page while it lasts, and is mailed once where it cannot wait."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone

from newsroom import tasks
from newsroom.mail import alarms, outbox
from newsroom.mail.alarms import Alarm
from newsroom.mail.models import OutboxMail, StaffAlarm
from tests.stand_ins import SmtpStandIn

NOW = timezone.now()
MINUTE = timedelta(minutes=1)
PUMP = Alarm(key="pump", text="Die Pumpe steht.", url="/admin/digests/", mail_after=timedelta())

pytestmark = pytest.mark.django_db


@pytest.fixture
def wrong(monkeypatch):
    """What a source of the test's own says is wrong now."""
    now_wrong: list[Alarm] = []
    monkeypatch.setattr(alarms, "_sources", {"test": lambda now: list(now_wrong)})
    return now_wrong


@pytest.fixture
def mailbox(settings):
    with SmtpStandIn() as server:
        server.configure(settings)
        yield server


def send(at):
    alarms.watch(at)
    outbox.send_due(max(at, NOW))


@pytest.mark.django_db(transaction=True)
def test_staff_are_mailed_once_when_it_begins_and_once_when_it_is_over(wrong, mailbox, settings):
    settings.ALARM_EMAIL = "dienst@wochenblitz.example"
    wrong.append(PUMP)
    for minute in range(3):
        send(NOW + minute * MINUTE)
    assert [mail.recipients for mail in mailbox.received] == [["dienst@wochenblitz.example"]]
    assert "Die Pumpe steht." in mailbox.received[0].text
    assert "http://localhost:8000/admin/digests/" in mailbox.received[0].text

    wrong.clear()
    for minute in range(3, 6):
        send(NOW + minute * MINUTE)

    assert len(mailbox.received) == 2
    assert "Die Pumpe steht." in mailbox.received[1].text


def test_what_passes_before_its_time_is_not_mailed(wrong):
    wrong.append(Alarm(key="pump", text="Die Pumpe stockt.", mail_after=5 * MINUTE))
    alarms.watch(NOW)
    alarms.watch(NOW + 4 * MINUTE)
    wrong.clear()
    alarms.watch(NOW + 6 * MINUTE)

    assert not OutboxMail.objects.exists()
    assert StaffAlarm.objects.get().ended_at == NOW + 6 * MINUTE


def test_what_comes_and_goes_is_one_alarm(wrong):
    for minute in range(0, 40, 4):
        wrong[:] = [PUMP]
        alarms.watch(NOW + minute * MINUTE)
        wrong.clear()
        alarms.watch(NOW + (minute + 2) * MINUTE)
    assert StaffAlarm.objects.count() == OutboxMail.objects.filter(kind="alarm").count() == 1

    wrong[:] = [PUMP]
    alarms.watch(NOW + timedelta(hours=3))

    assert StaffAlarm.objects.count() == OutboxMail.objects.filter(kind="alarm").count() == 2


def test_the_start_page_shows_what_is_wrong_to_those_it_concerns(wrong, client):
    user = User.objects.create_user("redaktion", password="ein-langes-wort", is_staff=True)
    client.force_login(user)
    page = reverse("admin:index")
    wrong += [PUMP, Alarm(key="secret", text="Nur für Versender.", permission="digests.send_digest")]

    shown = client.get(page).content.decode()
    user.user_permissions.add(Permission.objects.get(codename="send_digest"))
    shown_to_senders = client.get(page).content.decode()
    wrong.clear()

    assert "Die Pumpe steht." in shown and 'href="/admin/digests/"' in shown
    assert "Nur für Versender." not in shown
    assert "Nur für Versender." in shown_to_senders
    assert "Die Pumpe steht." not in client.get(page).content.decode()


def test_what_the_audit_finds_is_an_alarm_until_it_finds_nothing(monkeypatch):
    monkeypatch.setattr(tasks, "AUDITS", [lambda now: ["batch 7: its fence fell below 3"]])
    for _hour in range(3):
        tasks.audit()
        alarms.watch(timezone.now())
    assert [alarm for alarm in alarms.current(timezone.now()) if "fence fell" in alarm.text]
    assert OutboxMail.objects.filter(kind="alarm").count() == 1

    monkeypatch.setattr(tasks, "AUDITS", [])
    tasks.audit()

    assert not [alarm for alarm in alarms.current(timezone.now()) if "fence fell" in alarm.text]
