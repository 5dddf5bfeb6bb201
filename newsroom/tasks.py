"""Upkeep that spans all apps. Logs and output carry counts, never an address."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from celery import shared_task
from django.utils import timezone

import digests.audit
import digests.retention
import subscriptions.audit
import subscriptions.retention
from newsroom.mail import outbox

logger = logging.getLogger(__name__)

PURGES: list[Callable[[datetime], dict[str, int]]] = [
    # Deliveries first: a reader without subscription goes when the list of his deliveries has gone.
    digests.retention.purge,
    subscriptions.retention.purge,
    outbox.purge,
]
AUDITS: list[Callable[[datetime], Iterable[str]]] = [
    subscriptions.audit.broken_invariants,
    digests.audit.broken_invariants,
]


@shared_task
def purge() -> None:
    logger.info("Purged: %s", purge_all(timezone.now()))


@shared_task
def audit() -> None:
    for sentence in broken_invariants(timezone.now()):
        logger.error("Audit: %s", sentence)


def purge_all(now: datetime) -> dict[str, int]:
    """Delete everything whose retention has ended and return how many rows went from where."""
    counts: dict[str, int] = {}
    for purge_some in PURGES:
        counts |= purge_some(now)
    return counts


def broken_invariants(now: datetime) -> list[str]:
    """Return a sentence for each promise that does not hold; none if all do."""
    return [sentence for audit_some in AUDITS for sentence in audit_some(now)]
