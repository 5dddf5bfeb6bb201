"""The invariants of delivery (reliability.md 2.9): each broken one is a sentence staff can act on."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Count, F, Q

from digests.models import DeliveryAttempt, DeliveryBatch, Digest
from digests.outcomes import KINDS, counts

LONGEST_LEASE = timedelta(minutes=10)


def broken_invariants(now: datetime) -> Iterator[str]:
    """Yield a sentence for each invariant that does not hold."""
    yield from _sums()
    yield from _finished_too_early()
    yield from _calls_without_intent()
    yield from _stuck(now)


def _sums() -> Iterator[str]:
    for digest in Digest.objects.filter(audience_frozen_at__isnull=False, final_counts__isnull=True):
        standing = counts(digest)
        if sum(standing[kind] for kind in KINDS) != digest.expected_count or min(standing.values()) < 0:
            yield f"digest {digest.pk}: its readers add up to {standing}"


def _finished_too_early() -> Iterator[str]:
    open_batches = Count("batches", filter=Q(batches__state__in=DeliveryBatch.OPEN_STATES))
    for digest in Digest.objects.filter(state=Digest.State.FINISHED).annotate(open=open_batches).filter(open__gt=0):
        yield f"digest {digest.pk}: finished with {digest.open} batches open"


def _calls_without_intent() -> Iterator[str]:
    with_attempt = DeliveryAttempt.objects.values("batch")
    for batch in DeliveryBatch.objects.filter(state="submitting").exclude(pk__in=with_attempt):
        yield f"batch {batch.pk}: handed over without a recorded attempt"
    for attempt in DeliveryAttempt.objects.filter(fence__gt=F("batch__fence")):
        yield f"batch {attempt.batch_id}: its fence fell below {attempt.fence}"


def _stuck(now: datetime) -> Iterator[str]:
    held = DeliveryBatch.objects.filter(state__in=["leased", "submitting"], lease_until__lt=now - LONGEST_LEASE)
    for batch in held:
        yield f"batch {batch.pk}: {batch.state} since its lease ended at {batch.lease_until:%Y-%m-%d %H:%M}"
