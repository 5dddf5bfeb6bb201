"""The invariants of delivery (reliability.md 2.9): each broken one is a sentence staff can act on."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Count, Exists, F, Min, OuterRef, Q

from digests.models import OUTCOME, Delivery, DeliveryAttempt, DeliveryBatch, Digest
from digests.outcomes import KINDS, counts
from subscriptions.models import AddressChange

LONGEST_LEASE = timedelta(minutes=10)
# A withdrawal bears the time at which it was asked for, and may then wait for the database; it holds when committed.
LONGEST_WAIT = timedelta(seconds=30)


def broken_invariants(now: datetime) -> Iterator[str]:
    """Yield a sentence for each invariant that does not hold."""
    yield from _twice()  # I1, I2
    yield from _sums()  # I3
    yield from _finished_too_early()
    yield from _calls_without_intent()  # I4, I8
    yield from _mailed_after_leaving()  # I5
    yield from _gone_back()  # I6
    yield from _stuck(now)  # I7


def _twice() -> Iterator[str]:
    """Constraints refuse both; but a constraint can be lost in a restore or by hand."""
    dates = Digest.objects.values("newsletter", "date").annotate(count=Count("id")).filter(count__gt=1).order_by()
    for date in dates:
        yield f"newsletter {date['newsletter']}: {date['count']} digests of {date['date']}"
    copies = Delivery.objects.filter(subscriber__isnull=False).values("digest", "subscriber")
    for copy in copies.annotate(count=Count("pk")).filter(count__gt=1).order_by():
        yield f"digest {copy['digest']}: {copy['count']} deliveries of one reader"


def _sums() -> Iterator[str]:
    for digest in Digest.objects.filter(audience_frozen_at__isnull=False, final_counts__isnull=True):
        standing = counts(digest)
        if sum(standing[kind] for kind in KINDS) != digest.expected_count or min(standing.values()) < 0:
            yield f"digest {digest.pk}: its readers add up to {standing}"


def _finished_too_early() -> Iterator[str]:
    open_batches = Count("batches", filter=Q(batches__state__in=DeliveryBatch.OPEN_STATES))
    for digest in Digest.objects.filter(state=Digest.State.FINISHED).annotate(open=open_batches).filter(open__gt=0):
        yield f"digest {digest.pk}: finished with {digest.open} batches open"
    uncertain = Delivery.objects.uncertain().filter(digest__state=Digest.State.FINISHED)
    for digest_id in uncertain.values_list("digest", flat=True).distinct().order_by("digest"):
        yield f"digest {digest_id}: finished with uncertain deliveries"


def _calls_without_intent() -> Iterator[str]:
    with_attempt = DeliveryAttempt.objects.values("batch")
    handed_over = DeliveryBatch.objects.filter(state__in=["submitting", "done"], size__gt=0)
    for batch in handed_over.exclude(pk__in=with_attempt):
        yield f"batch {batch.pk}: handed over without a recorded attempt"
    for attempt in DeliveryAttempt.objects.filter(fence__gt=F("batch__fence")):
        yield f"batch {attempt.batch_id}: its fence fell below {attempt.fence}"


def _mailed_after_leaving() -> Iterator[str]:
    """Nobody is handed over whose subscription had ended before that began."""
    handed_over = ("accepted", "bounced", "complained")
    accepted = Delivery.objects.annotate(outcome=OUTCOME).filter(outcome__in=handed_over)
    left = accepted.filter(
        subscriber__subscriptions__newsletter=F("digest__newsletter"), subscriber__subscriptions__state="ended"
    ).annotate(left_at=F("subscriber__subscriptions__ended_at"), begun_at=Min("batch__tries__started_at"))
    # A second try tells of a mail that went out before, if it did.
    too_late = left.filter(
        Q(batch__is_second_try=False, left_at__lt=F("begun_at") - LONGEST_WAIT)
        | Q(batch__is_second_try=True, left_at__lt=F("created_at") - LONGEST_WAIT)
    )
    # What was sent to another reader, of whom a change of address has made this one, kept to that one's consent.
    moved = AddressChange.objects.filter(subscriber=OuterRef("subscriber"), confirmed_at__gt=OuterRef("created_at"))
    for delivery in too_late.exclude(Exists(moved)):
        yield f"delivery {delivery.pk}: handed over after its reader had unsubscribed"


def _gone_back() -> Iterator[str]:
    done = DeliveryAttempt.objects.filter(ended_at__isnull=False, acknowledged__gt=0)
    for batch in DeliveryBatch.objects.open().filter(pk__in=done.values("batch")):
        yield f"batch {batch.pk}: {batch.state} again, though readers of it were handed over"


def _stuck(now: datetime) -> Iterator[str]:
    held = DeliveryBatch.objects.filter(state__in=["leased", "submitting"], lease_until__lt=now - LONGEST_LEASE)
    for batch in held:
        yield f"batch {batch.pk}: {batch.state} since its lease ended at {batch.lease_until:%Y-%m-%d %H:%M}"
