"""What is written down after a call: outcomes, and what becomes of a batch and of its digest."""

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from digests import audience, statements
from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest, DigestChange
from newsroom.mail.outcomes import Outcome, Result

log = logging.getLogger(__name__)

# Long enough for greylisting (RFC 6647 advises at least a minute); the attempts cap ends it after an hour or so.
POSTPONEMENT = timedelta(minutes=5)


@dataclass(slots=True)
class Progress:
    """How far a claim has come: readers done in the batch's order, and outcomes that differ from the batch's own."""

    done: int = 0
    unsent: list[int] = field(default_factory=list)  # readers before that place whose copies surely did not go
    own: dict[UUID, tuple[Delivery.State, str]] = field(default_factory=dict)
    stopped_by: Result | None = None
    refused_up_to: int = 0  # a call for many was refused as a whole: the bad one is among those up to here
    not_before: datetime | None = None  # the pace or the day has no room earlier

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to tell of single readers, and nothing stood in the way."""
        return not (self.unsent or self.own or self.stopped_by)

    def rest(self, batch: DeliveryBatch) -> list[int]:
        """Return the readers who surely have not been sent anything."""
        return [*self.unsent, *batch.reader_ids[self.done :]]


def write_outcomes(progress: Progress) -> None:
    by_outcome: dict[tuple[Delivery.State, str], list[UUID]] = {}
    for delivery, outcome in progress.own.items():
        by_outcome.setdefault(outcome, []).append(delivery)
    for (state, reason), ids in by_outcome.items():
        # What an event told of in between stands.
        Delivery.objects.filter(pk__in=ids, state__in=["", Delivery.State.UNCERTAIN]).update(state=state, reason=reason)


def end_attempt(batch: DeliveryBatch, progress: Progress, *, now: datetime) -> None:
    """Close the record of the call with what is known of it."""
    result = progress.stopped_by
    is_whole = not progress.rest(batch)
    DeliveryAttempt.objects.filter(batch=batch, fence=batch.fence).update(
        ended_at=now,
        acknowledged=progress.done - len(progress.unsent),
        in_flight=0,
        outcome=result.outcome if result else Outcome.ACCEPTED if is_whole else "stopped",
        detail=result.detail if result else "",
    )


def close_or_divide(batch: DeliveryBatch, progress: Progress, *, retry_at: datetime) -> None:
    """Close a batch whose readers are done; readers that are not wait again, behind done ones in a new batch."""
    before = len(batch.reader_ids)
    suspects = batch.reader_ids[progress.done : progress.refused_up_to]
    rest = progress.rest(batch)
    half, others = rest[: len(suspects) // 2], rest[len(suspects) // 2 :]
    _move_postponed(batch, at=retry_at + POSTPONEMENT * batch.attempts)
    if rest and progress.done:
        for part in (half, others):
            _move(batch, part, at=retry_at, attempts=batch.attempts if batch.is_second_try else 0)
    elif half:
        _move(batch, others, at=retry_at, attempts=0)
    if rest and not progress.done:
        # No attempt is counted: the fault was the provider's or another reader's, and no worker died of it.
        batch.state, batch.next_attempt_at = DeliveryBatch.State.PENDING, retry_at
        batch.attempts = 0 if suspects else max(0, batch.attempts - 1)
    else:
        batch.state = DeliveryBatch.State.DONE
    batch.lease_until, batch.hinted_at, batch.owner = None, None, ""
    fields = ["size", "state", "next_attempt_at", "attempts", "lease_until", "hinted_at", "owner"]
    if len(batch.reader_ids) < before:  # they are most of the row
        fields.append("reader_ids")
    batch.save(update_fields=fields)


def _move_postponed(batch: DeliveryBatch, *, at: datetime) -> None:
    """Let readers whose mailbox asked for patience wait in a batch of their own; the attempt counts."""
    postponed = batch.deliveries.filter(state=Delivery.State.POSTPONED)
    postponed.filter(subscriber=None).update(state=Delivery.State.SUPPRESSED, reason="erased")
    if reader_ids := list(postponed.order_by("subscriber_id").values_list("subscriber", flat=True)):
        postponed.update(state="", reason="")
        _move(batch, reader_ids, at=at, attempts=batch.attempts)


def _move(batch: DeliveryBatch, reader_ids: list[int], *, at: datetime, attempts: int) -> None:
    """Move readers to a new batch, with the deliveries they have; an erased one's delivery stays where it is."""
    moving = set(batch.deliveries.filter(subscriber__in=reader_ids).values_list("subscriber", flat=True))
    if moving:
        new = audience.add_batch(batch.digest, [pk for pk in reader_ids if pk in moving], at=at, parent=batch)
        DeliveryBatch.objects.filter(pk=new.pk).update(
            attempts=attempts, is_second_try=batch.is_second_try, keyed_until=batch.keyed_until
        )
        batch.deliveries.filter(subscriber__in=moving).update(batch=new)
    leaving = set(reader_ids)
    batch.reader_ids = [pk for pk in batch.reader_ids if pk not in leaving]
    batch.size -= len(moving)


def finish(digest_id: int, *, now: datetime) -> bool:
    """Finish a digest whose readers all have a definite outcome; return whether it was finished now."""
    # After each batch, so the batches come first: the digest's row has its text in it.
    if statements.has_open_batches(digest_id):
        return False
    digest = Digest.objects.get(pk=digest_id)
    if digest.state != Digest.State.SENDING:
        return False
    if uncertain := digest.deliveries.uncertain().count():
        reason = _("%(count)s uncertain deliveries wait for a decision.") % {"count": uncertain}
        Digest.objects.sending().filter(pk=digest_id).exclude(state_reason=reason).update(state_reason=reason)
        return False
    with transaction.atomic():
        # Latecomers lock the digest, too: none is added between the look and the change.
        digest = Digest.objects.select_for_update().get(pk=digest_id)
        if digest.state != Digest.State.SENDING or digest.batches.open().exists():
            return False
        Digest.objects.filter(pk=digest_id).update(state=Digest.State.FINISHED, state_reason="", finished_at=now)
        DigestChange.objects.create(digest=digest, state=Digest.State.FINISHED, at=now)
    log.info("digest %s finished", digest_id)
    return True
