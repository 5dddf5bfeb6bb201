"""After a restored backup or a jump of the clock, digests wait for a person, and nothing goes out twice."""

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone
from kombu.transport.memory import Channel

from digests import delivery, restoring, tasks
from digests.models import Digest, HighWater
from newsroom.celery import app
from newsroom.mail import alarms
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_article, make_newsletter, make_schedule, make_sending_digest, make_subscriptions

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def hints(monkeypatch):
    """Return how many hints workers were given, and forget them; Celery's broker within a process keeps them."""
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "memory://")
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    Channel.queues.clear()

    def take():
        queue = Channel.queues.get("send")
        return sum(queue.get() is not None for _each in range(queue.qsize())) if queue else 0

    yield take
    Channel.queues.clear()


@pytest.fixture(autouse=True)
def _scripted(settings, tmp_path):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    settings.HIGH_WATER_MARK = tmp_path / "high-water.json"
    ScriptedBackend.reset()


def count(times=1):
    for _ in range(times):
        assert restoring.count(timezone.now())


def restore(number, *, hours=5):
    """Put the database back to where it stood at that count, so many hours ago."""
    HighWater.objects.update(number=number, at=timezone.now() - timedelta(hours=hours))


def change_mark(settings, **values):
    path = Path(settings.HIGH_WATER_MARK)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def due_newsletter(*, readers=2):
    """A newsletter whose digest of today is due, with an article and readers."""
    newsletter = make_newsletter()
    make_schedule(newsletter)
    make_subscriptions(newsletter, readers)
    make_article()
    return newsletter


def test_a_database_that_counts_on_sends(hints):
    newsletter = due_newsletter()

    tasks.tick()
    assert hints() == 1  # and not only with the next sweep
    delivery.deliver_due()
    tasks.tick()

    assert len(addresses()) == 2
    assert newsletter.digests.get().state == Digest.State.FINISHED


def test_after_a_restore_nothing_is_made_or_handed_over_until_somebody_says_so(hints):
    count(7)
    newsletter, digest = due_newsletter(), make_sending_digest(readers=3)
    restore(5)

    tasks.tick()
    tasks.sweep()
    assert hints() == 0
    assert delivery.deliver_due() == 0
    assert not newsletter.digests.exists() and addresses() == []
    assert any("wiederhergestellt" in each.text or "restored" in each.text for each in alarms.current(timezone.now()))

    call_command("release_digests")
    tasks.tick()
    delivery.deliver_due()

    assert len(addresses()) == 2  # today's; what was being sent is paused
    digest.refresh_from_db()
    assert digest.state == Digest.State.PAUSED and digest.state_reason


def test_the_command_that_delivers_says_why_it_does_not():
    count(3)
    make_sending_digest(readers=2)
    restore(1)

    with pytest.raises(CommandError, match=r"\w"):
        call_command("deliver")

    assert addresses() == []


def test_a_digest_that_went_out_after_the_backup_does_not_go_out_again():
    newsletter = due_newsletter()
    tasks.tick()
    delivery.deliver_due()
    assert len(addresses()) == 2
    count(3)

    Digest.objects.all().delete()  # the backup is of this morning
    newsletter.schedule.__class__.objects.update(last_date=None)
    restore(1)
    call_command("release_digests")
    tasks.tick()
    delivery.deliver_due()

    assert len(addresses()) == 2
    assert newsletter.digests.get().state == Digest.State.SKIPPED


def test_a_file_that_is_gone_holds_a_database_nobody_counted_on_lately(settings):
    count()
    Path(settings.HIGH_WATER_MARK).unlink()
    assert restoring.find_obstacle() == ""  # one more host of a living database

    restore(1)

    assert restoring.find_obstacle()


def test_the_mark_of_another_database_says_nothing(settings):
    count(5)
    change_mark(settings, lineage="5e0a0d2c-6f4b-4f0e-9a53-9d0d1c3b1f00")
    restore(2)

    assert restoring.find_obstacle() == ""


def test_a_broken_file_is_a_missing_one(settings):
    count()
    restore(1)
    Path(settings.HIGH_WATER_MARK).write_text("{")

    assert restoring.find_obstacle()


def test_a_clock_set_back_holds_digests_until_released(settings):
    count()
    ahead = timezone.now() + timedelta(days=2)
    change_mark(settings, at=ahead.isoformat(), boot="")

    assert not restoring.count(timezone.now())
    restoring.release(now=timezone.now())

    assert restoring.count(timezone.now())


def test_a_clock_set_forward_while_the_machine_runs_holds_digests(settings):
    count()
    two_days = timedelta(days=2)
    before = timezone.now() - two_days
    HighWater.objects.update(at=before)
    change_mark(settings, at=before.isoformat())
    assert restoring.find_obstacle()  # an hour of uptime, two days of clock

    change_mark(settings, uptime=time.clock_gettime(time.CLOCK_BOOTTIME) - two_days.total_seconds())

    assert restoring.find_obstacle() == ""  # the worker merely stood still for so long


def test_the_page_shows_what_is_known_and_releases(client, settings):
    newsletter = make_newsletter(name="Der Morgen")
    count(5)
    change_mark(settings, started={str(newsletter.pk): "2026-11-20"})
    restore(2)
    user = User.objects.create_user("redaktion", password="ein-langes-wort", is_staff=True)
    client.force_login(user)
    page = reverse("admin:digests_digest_held")
    assert client.get(page).status_code == 403
    user.user_permissions.add(
        *Permission.objects.filter(codename__in=["send_digest", "view_digest"], content_type__app_label="digests")
    )

    shown = client.get(page).content.decode()
    assert "Der Morgen" in shown
    assert restoring.find_obstacle()  # looking changes nothing
    client.post(page)

    assert restoring.find_obstacle() == ""
    assert newsletter.digests.get().state == Digest.State.SKIPPED
