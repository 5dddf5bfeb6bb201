"""The sweeper: the only recovery that is relied on. Any number of hosts may run it at once."""

import logging
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from digests import uncertain
from digests.clock import let_others_write
from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest
from digests.settling import Progress, close_or_divide, end_attempt, finish
from newsroom.mail.transport import Outcome, Result

log = logging.getLogger(__name__)


def sweep(now: datetime) -> None:
    """Take over from dead workers, close what cannot be sent any more, and finish what is complete."""
    for batch_id in DeliveryBatch.objects.lost(now).values_list("id", flat=True):
        recover(batch_id, now=now)
    close_unsendable(now)
    uncertain.resolve(now)
    for digest_id in Digest.objects.sending().values_list("id", flat=True):
        finish(digest_id, now=now)


def recover(batch_id: int, *, now: datetime) -> bool:
    """Settle a batch whose worker died while it was sending; return whether this process did it.

    Readers before the last commit are done. The group behind it may have been mailed: uncertain. Those behind the
    group were surely not mailed.
    """
    with transaction.atomic():
        batch = DeliveryBatch.objects.lost(now).select_for_update(of=("self",)).filter(pk=batch_id).first()
        if batch is None:
            return False
        attempt = DeliveryAttempt.objects.get(batch=batch, fence=batch.fence)
        in_flight = batch.reader_ids[attempt.acknowledged : attempt.acknowledged + attempt.in_flight]
        progress = Progress(
            done=attempt.acknowledged + len(in_flight), stopped_by=Result(Outcome.AMBIGUOUS, "worker lost")
        )
        _mark_uncertain(batch, in_flight)
        end_attempt(batch, progress, now=now)
        # A reader whose copy kills the worker must come to an end, so here the attempt does count; but not where others
        # went before, for then the killing group is out of the way, and the rest is not to pay for it.
        attempts = 0 if attempt.acknowledged and not batch.is_second_try else batch.attempts
        close_or_divide(batch, progress, retry_at=now)
        batch.children.filter(state=DeliveryBatch.State.PENDING, attempts=0).update(attempts=attempts)
        DeliveryBatch.objects.filter(pk=batch.pk, state=DeliveryBatch.State.PENDING).update(attempts=attempts)
    log.error("batch %s: its worker died while sending, %s readers in flight", batch_id, len(in_flight))
    let_others_write()
    return True


def _mark_uncertain(batch: DeliveryBatch, reader_ids: list[int]) -> None:
    """Who was erased, or became one with another reader, has lost the place in the batch: uncertain, too."""
    placeless = Q(subscriber=None) | ~Q(subscriber__in=batch.reader_ids)
    batch.deliveries.filter(Q(subscriber__in=reader_ids) | placeless, state="").update(
        state=Delivery.State.UNCERTAIN, reason="worker lost"
    )


def close_unsendable(now: datetime) -> int:
    """Close waiting batches of cancelled digests and of those whose time is over; return how many.

    What a dead worker had claimed and not begun waits again, for while its digest is not sent nobody else claims it.
    """
    lost = DeliveryBatch.objects.filter(state=DeliveryBatch.State.LEASED, lease_until__lt=now)
    lost.exclude(digest__state=Digest.State.SENDING).update(
        state=DeliveryBatch.State.PENDING, lease_until=None, owner="", hinted_at=None
    )
    waiting = DeliveryBatch.objects.filter(state=DeliveryBatch.State.PENDING)
    cancelled = waiting.filter(digest__state=Digest.State.CANCELLED)
    expired = waiting.filter(digest__state__in=[Digest.State.SENDING, Digest.State.PAUSED], digest__not_after__lte=now)
    return cancelled.update(state=DeliveryBatch.State.CANCELLED) + expired.update(state=DeliveryBatch.State.EXPIRED)


def due_for_a_hint(now: datetime, *, limit: int) -> list[int]:
    """Return due batches to tell workers of, and remember that they were told."""
    due = list(
        DeliveryBatch.objects.waiting_for_hint(now)
        .order_by("next_attempt_at", "id")
        .values_list("id", flat=True)[:limit]
    )
    if due:
        DeliveryBatch.objects.filter(pk__in=due).update(hinted_at=now)
    return due
