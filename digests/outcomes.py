"""What became of a digest's deliveries: the sums, and staff's decision about uncertain ones."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Count, F, Sum

from digests import audience
from digests.delivery import finish
from digests.models import Delivery, DeliveryBatch, Digest, DigestChange

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Batch = DeliveryBatch.State
Own = Delivery.State

# What a batch's state says of its readers who have no outcome of their own.
OF_BATCH = {
    Batch.PENDING: "waiting",
    Batch.LEASED: "sending",
    Batch.SUBMITTING: "sending",
    Batch.DONE: "accepted",
    Batch.FAILED: "failed",
    Batch.EXPIRED: "expired",
    Batch.CANCELLED: "expired",
}
OF_OWN = {Own.POSTPONED.value: "waiting"}
KINDS = ("waiting", "sending", "accepted", "uncertain", "refused", "failed", "suppressed", "expired")


def counts(digest: Digest) -> dict[str, int]:
    """Return how many of the digest's readers stand where: `expected`, and by kind; the kinds add up to it."""
    if digest.final_counts:
        return {str(kind): int(count) for kind, count in digest.final_counts.items()}
    result = {"expected": digest.expected_count, **dict.fromkeys(KINDS, 0)}
    for state, size in digest.batches.values_list("state").annotate(Sum("size")).order_by():
        result[OF_BATCH[state]] += size
    own = digest.deliveries.exclude(state="").values_list("batch__state", "state").annotate(Count("id")).order_by()
    for batch_state, state, count in own:
        result[OF_BATCH[batch_state]] -= count
        result[OF_OWN.get(state, state)] += count
    return result


def give_up_uncertain(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Close the uncertain deliveries as failed, by somebody's decision; return how many."""
    with transaction.atomic():
        count = digest.deliveries.uncertain().update(state=Own.FAILED, reason="given up")
        if count:
            _note(digest, actor=actor, reason=reason, now=now)
    finish(digest.pk, now=now)
    return count


def resend_uncertain(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Mail the uncertain deliveries' readers again, by somebody's decision; return how many.

    Some will then hold the digest twice. The deliveries keep their ids, so the second copy has the same Message-ID.
    None once the digest's time is over: nobody would be mailed, and what is uncertain would be called too late.
    """
    if now >= digest.not_after:
        return 0
    with transaction.atomic():
        Digest.objects.select_for_update().get(pk=digest.pk)
        rows = list(digest.deliveries.uncertain().exclude(subscriber=None).values_list("id", "batch", "subscriber"))
        if rows:
            new = audience.add_batch(digest, [reader for _, _, reader in rows], at=now)
            for _, batch_id, _ in rows:
                DeliveryBatch.objects.filter(pk=batch_id).update(size=F("size") - 1)
            Delivery.objects.filter(pk__in=[pk for pk, _, _ in rows]).update(batch=new, state="", reason="")
            _note(digest, actor=actor, reason=reason, now=now)
    return len(rows)


def _note(digest: Digest, *, actor: "User", reason: str, now: datetime) -> None:
    DigestChange.objects.create(digest=digest, state=digest.state, at=now, actor=actor, reason=reason)
    Digest.objects.filter(pk=digest.pk).update(state_reason="")
