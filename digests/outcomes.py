"""What became of a digest's deliveries: the sums, and staff's decision about uncertain ones."""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Sum
from django.utils.translation import ngettext

from digests import audience
from digests.models import Delivery, DeliveryBatch, DeliveryBatchQuerySet, DeliveryQuerySet, Digest, DigestChange
from digests.settling import finish

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
# So many ids go into one statement.
CHUNK = 5000
# What was reported of a mail later does not undo that it was handed over; `feedback` counts it.
FEEDBACK = ("bounced", "complained")
HANDED_OVER = ("accepted", *FEEDBACK)
OF_OWN = {Own.POSTPONED.value: "waiting", **dict.fromkeys(FEEDBACK, "accepted")}
KINDS = ("waiting", "sending", "accepted", "uncertain", "refused", "failed", "suppressed", "expired")


def counts(digest: Digest) -> dict[str, int]:
    """Return how many of the digest's readers stand where: `expected`, and by kind; the kinds add up to it."""
    if digest.final_counts:
        return {kind: int(digest.final_counts.get(kind, 0)) for kind in ("expected", *KINDS)}
    result = {"expected": digest.expected_count, **dict.fromkeys(KINDS, 0)}
    for state, size in digest.batches.values_list("state").annotate(Sum("size")).order_by():
        result[OF_BATCH[state]] += size
    own = digest.deliveries.exclude(state="").values_list("batch__state", "state").annotate(Count("pk")).order_by()
    for batch_state, state, count in own:
        result[OF_BATCH[batch_state]] -= count
        result[OF_OWN.get(state, state)] += count
    return result


def feedback(digest: Digest) -> dict[str, int]:
    """Return how many of the mails handed over came back, or were called spam; whose they were is not told."""
    if digest.final_counts:
        return {kind: int(digest.final_counts.get(kind, 0)) for kind in FEEDBACK}
    states = digest.deliveries.filter(state__in=FEEDBACK).values_list("state").annotate(Count("pk")).order_by()
    return dict.fromkeys(FEEDBACK, 0) | dict(states)


def retriable(digest: Digest) -> int:
    """Return how many readers stand in batches that were given up, and so surely got nothing."""
    failed = _failed_batches(digest)
    own = digest.deliveries.exclude(state="").filter(batch__in=failed).count()
    return int(failed.aggregate(size=Sum("size"))["size"] or 0) - own


def leave(uncertain: DeliveryQuerySet) -> int:
    """Close uncertain deliveries as failed, nobody knowing better; return how many. Belongs into a transaction.

    They are locked first: an update by way of their batches would not look again at what somebody else just closed, or
    a provider just told of.
    """
    rows = list(uncertain.order_by("pk").select_for_update(of=("self",)).values_list("pk", flat=True))
    return sum(
        Delivery.objects.filter(pk__in=rows[start : start + CHUNK]).update(state=Own.FAILED, reason="given up")
        for start in range(0, len(rows), CHUNK)
    )


def give_up_uncertain(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Close the uncertain deliveries as failed, by somebody's decision; return how many.

    Those that are being asked again at this moment stay: what comes of it will be known.
    """
    with transaction.atomic():
        asked = [Batch.LEASED, Batch.SUBMITTING]
        count = leave(digest.deliveries.uncertain().exclude(batch__state__in=asked))
        if count:
            _note(digest, _gave_up(count), actor=actor, reason=reason, now=now)
    finish(digest.pk, now=now)
    return count


def resend_uncertain(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Mail the uncertain deliveries' readers again, by somebody's decision; return how many.

    Some will then hold the digest twice. The deliveries keep their ids, so the second copy has the same Message-ID, and
    stay uncertain until it is known what came of it. None once the digest's time is over: nobody would be mailed.
    """
    if now >= digest.not_after:
        return 0
    with transaction.atomic():
        count = _again(digest, Own.UNCERTAIN, now=now)
        if count:
            _note(digest, _mails_again(count), actor=actor, reason=reason, now=now)
    return count


def wait_for_uncertain(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Write down that somebody looked at the uncertain deliveries and waits for word of them; return how many."""
    count = digest.deliveries.uncertain().count()
    if count:
        with transaction.atomic():
            _note(digest, _waits(count), actor=actor, reason=reason, now=now)
    return count


def retry_failed(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Let the batches that were given up wait again; return how many readers that are. They surely got nothing."""
    if now >= digest.not_after:
        return 0
    with transaction.atomic():
        locked = list(_failed_batches(digest).select_for_update().order_by("pk").values_list("pk", flat=True))
        count = retriable(digest)
        if not count:
            return 0
        DeliveryBatch.objects.filter(pk__in=locked, state=Batch.FAILED).update(
            state=Batch.PENDING, reason="", attempts=0, next_attempt_at=now, hinted_at=None, lease_until=None, owner=""
        )
        _go_on(digest, _mails_again(count), actor=actor, reason=reason, now=now)
    return count


def retry_refused(digest: Digest, *, now: datetime, actor: "User", reason: str) -> int:
    """Mail those readers once more whom the provider refused for good; return how many.

    For faults that were ours: a sender it did not know, a sentence it did not like. It got none of these mails.
    """
    if now >= digest.not_after:
        return 0
    with transaction.atomic():
        count = _again(digest, Own.REFUSED, now=now)
        if count:
            _go_on(digest, _mails_again(count), actor=actor, reason=reason, now=now)
    return count


def _failed_batches(digest: Digest) -> DeliveryBatchQuerySet:
    return DeliveryBatch.objects.filter(digest=digest, state=Batch.FAILED, is_second_try=False)


def _again(digest: Digest, state: Delivery.State, *, now: datetime) -> int:
    """Move the deliveries with an outcome of their own to new batches that are due; return how many.

    Batches are locked before the digest, as everybody does who adds one. Whoever comes second finds nothing to move.
    """
    found = digest.deliveries.filter(state=state, subscriber__isnull=False)
    batches = DeliveryBatch.objects.filter(pk__in=found.values("batch")).exclude(state__in=DeliveryBatch.OPEN_STATES)
    settled = {batch.pk: batch for batch in batches.select_for_update().order_by("pk")}
    rows = list(
        found.filter(batch__in=settled)
        .select_for_update(of=("self",))
        .order_by("pk")
        .values_list("pk", "batch", "subscriber")
    )
    for start in range(0, len(rows), settings.DELIVERY_BATCH_SIZE):
        _move(digest, rows[start : start + settings.DELIVERY_BATCH_SIZE], settled, state=state, now=now)
    return len(rows)


def _move(
    digest: Digest,
    rows: list[tuple[UUID, int, int]],
    settled: dict[int, DeliveryBatch],
    *,
    state: Delivery.State,
    now: datetime,
) -> None:
    new = audience.add_batch(digest, [reader for _, _, reader in rows], at=now)
    moving = Delivery.objects.filter(pk__in=[pk for pk, _, _ in rows], state=state)
    if state == Own.UNCERTAIN:
        DeliveryBatch.objects.filter(pk=new.pk).update(is_second_try=True)
        moving.update(batch=new)
    else:
        moving.update(batch=new, state="", reason="")
    for batch_id in {batch for _, batch, _ in rows}:
        leaving = {reader for _, batch, reader in rows if batch == batch_id}
        batch = settled[batch_id]
        batch.reader_ids = [pk for pk in batch.reader_ids if pk not in leaving]
        batch.size -= len(leaving)
        batch.save(update_fields=["reader_ids", "size"])


def _go_on(digest: Digest, what: str, *, actor: "User", reason: str, now: datetime) -> None:
    """Let a digest that may have been finished be sent again; a paused one stays paused."""
    Digest.objects.filter(pk=digest.pk, state=Digest.State.FINISHED).update(
        state=Digest.State.SENDING, finished_at=None
    )
    digest.refresh_from_db(fields=["state", "finished_at"])
    _note(digest, what, actor=actor, reason=reason, now=now)


def _note(digest: Digest, what: str, *, actor: "User", reason: str, now: datetime) -> None:
    words = f"{what} {reason}"[:300]
    DigestChange.objects.create(digest=digest, state=digest.state, at=now, actor=actor, reason=words)
    Digest.objects.filter(pk=digest.pk).update(state_reason="")


def _mails_again(count: int) -> str:
    return ngettext("%(count)d reader is mailed again:", "%(count)d readers are mailed again:", count) % {
        "count": count
    }


def _gave_up(count: int) -> str:
    return ngettext("%(count)d uncertain reader left:", "%(count)d uncertain readers left:", count) % {"count": count}


def _waits(count: int) -> str:
    return ngettext("Waiting for %(count)d uncertain reader:", "Waiting for %(count)d uncertain readers:", count) % {
        "count": count
    }
