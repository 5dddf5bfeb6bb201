"""Whether what should be gone is gone: the purge runs, and leaves nothing behind."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from newsroom import retention
from newsroom.mail.alarms import Alarm
from newsroom.retention.models import PurgeRun

# Beat purges every hour; who runs it by hand or by cron has a weekend.
LONGEST_SILENCE = timedelta(days=2)
JUST_NOW = timedelta(hours=3)


def broken_invariants(now: datetime) -> Iterator[str]:
    """Yield a sentence for each promise of deletion that does not hold."""
    if since := silent_since(now):
        yield f"What is due is not deleted: no purge was complete since {since:%Y-%m-%d %H:%M}."
    yield from _overdue(now)


def silent_since(now: datetime) -> datetime | None:
    """Return when a purge was last complete, or first begun, if that is too long ago; a new site has had none."""
    last = (
        PurgeRun.objects.complete().order_by("-started_at").first() or PurgeRun.objects.order_by("started_at").first()
    )
    return last.started_at if last and last.started_at < now - LONGEST_SILENCE else None


def alarms(now: datetime) -> Iterator[Alarm]:
    if since := silent_since(now):
        yield Alarm(
            key="retention",
            text=_("What is due is not deleted any more: the last complete purge was on %(day)s.")
            % {"day": date_format(localtime(since), "DATETIME_FORMAT")},
            url=reverse("admin:retention_purgerun_changelist"),
            mail_after=timedelta(),
        )


def _overdue(now: datetime) -> Iterator[str]:
    """Yield what is due for long and still there, unless a purge has just found nothing left.

    Then it came to be due at once, as when a restriction is lifted, and goes with the next one.
    """
    if PurgeRun.objects.complete().filter(started_at__gt=now - JUST_NOW).exists():
        return
    for rule in retention.purged_rules():
        assert rule.store
        if count := rule.store.count_due(now - settings.PURGE_GRACE):
            yield f"{count} of {rule.name} are still here, though due for more than {settings.PURGE_GRACE.days} days."
