"""Upkeep that spans all apps. Logs and output carry counts, never an address."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from celery import shared_task
from django.utils import timezone
from django.utils.translation import ngettext

import digests.audit
import newsroom.retention.audit
import subscriptions.audit
from newsroom.mail import alarms
from newsroom.retention import purging
from newsroom.retention.models import PurgeRun
from subscriptions import consent

logger = logging.getLogger(__name__)

# A task shares its worker with others, and ends before the time limit of tasks.
PURGE_TIME = timedelta(seconds=45)
AUDITS: list[Callable[[datetime], Iterable[str]]] = [
    subscriptions.audit.broken_invariants,
    digests.audit.broken_invariants,
    newsroom.retention.audit.broken_invariants,
]


@shared_task
def purge() -> None:
    """Delete what is due; what is left after a while goes behind the tasks that wait."""
    _pauses_ended, run = _purge(timezone.now(), time_limit=PURGE_TIME)
    if run.state == PurgeRun.State.UNFINISHED:
        purge.apply_async(expires=3600)


@shared_task
def audit() -> None:
    """Say in the log and to staff which promises do not hold."""
    now = timezone.now()
    broken = broken_invariants(now)
    for sentence in broken:
        logger.error("Audit: %s", sentence)
    alarms.tell("audit", _in_words(broken), now=now)


def _in_words(broken: list[str]) -> str:
    if not broken:
        return ""
    words = ngettext(
        "The hourly audit found %(count)d broken promise: %(first)s. Run “manage.py audit”.",
        "The hourly audit found %(count)d broken promises, the first: %(first)s. Run “manage.py audit”.",
        len(broken),
    )
    return words % {"count": len(broken), "first": broken[0][:200]}


def purge_all(now: datetime) -> dict[str, int]:
    """Delete everything whose retention has ended and return how many rows went from where."""
    pauses_ended, run = _purge(now)
    return {"pauses_ended": pauses_ended, **run.counts}


def _purge(now: datetime, *, time_limit: timedelta | None = None) -> tuple[int, PurgeRun]:
    """End the pauses that are over as well: that, too, is a thing whose time has come."""
    pauses_ended = consent.resume_due(now)
    run = purging.purge(now, time_limit=time_limit)
    logger.info("Purge %s: %s pauses ended, deleted %s", run.state, pauses_ended, run.counts)
    return pauses_ended, run


def broken_invariants(now: datetime) -> list[str]:
    """Return a sentence for each promise that does not hold; none if all do."""
    return [sentence for audit_some in AUDITS for sentence in audit_some(now)]
