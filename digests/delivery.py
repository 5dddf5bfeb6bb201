"""Claim → intent → call → result: how a batch of readers is handed their digest.

The database is the queue. A worker claims a batch by a guarded update with a lease and a fence, commits what it is
about to do before it does it, does it with no transaction open, and commits what came of it. What a dead worker leaves
behind is found by the sweeper: what it had not begun waits again, what it may have sent is `uncertain`.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic, sleep

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.utils.translation import gettext as _

from digests import audience, handover, providers, restoring
from digests.clock import database_now, let_others_write
from digests.handover import Letter
from digests.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryBatch,
    DeliveryBatchQuerySet,
    DeliveryQuerySet,
    Digest,
    DigestChange,
    Provider,
)
from newsroom.mail import gate, transport
from newsroom.mail.transport import Outcome, Result
from subscriptions.models import Subscriber, Subscription

log = logging.getLogger(__name__)

# Readers whose mail may be on its way unrecorded when a worker dies: the price of a kill, against a commit per group.
GROUP_SIZE = 10

# How long a claim takes up readers: with the longest call after it, short of the time limit at which Celery would break
# into the middle of one. Those left wait for the next claim.
LONGEST_TURN = timedelta(seconds=40)

# Long enough for greylisting (RFC 6647 advises at least a minute); the attempts cap ends it after an hour or so.
POSTPONEMENT = timedelta(minutes=5)


class ClaimLost(Exception):
    """Somebody else works on the batch, or may soon: nothing more may be sent or written in its name."""


class NotSending(Exception):
    """The digest was paused or cancelled, or its time is over."""


class TurnOver(Exception):
    """The claim has had its time; nobody is at fault, and the readers left wait for the next one."""


@dataclass(slots=True)
class Claim:
    """A batch this process may work on while its lease lasts; every later write names the fence."""

    batch: DeliveryBatch
    provider: Provider
    fence: int
    begun_at: float = field(default_factory=monotonic)
    renewed_at: float = field(default_factory=monotonic)
    deliveries: dict[int, int] = field(default_factory=dict)  # by the readers they were written for

    @property
    def rows(self) -> DeliveryBatchQuerySet:
        return DeliveryBatch.objects.filter(pk=self.batch.pk, fence=self.fence)

    @property
    def is_over(self) -> bool:
        """Whether during one more call another worker might take over, or this one be broken off."""
        now = monotonic()
        return (
            now - self.renewed_at > settings.DELIVERY_LEASE.total_seconds() / 2
            or now - self.begun_at > LONGEST_TURN.total_seconds()
        )


@dataclass(slots=True)
class Progress:
    """How far a claim has come: readers done in the batch's order, and outcomes that differ from the batch's own."""

    done: int = 0
    own: dict[int, tuple[Delivery.State, str]] = field(default_factory=dict)
    stopped_by: Result | None = None
    refused_up_to: int = 0  # a call for many was refused as a whole: the bad one is among those up to here
    not_before: datetime | None = None  # the pace or the day has no room earlier


def deliver(batch_id: int) -> bool:
    """Hand one batch over if it is due, free, and the provider takes mail; return whether it was worked on."""
    claim = _claim(batch_id)
    if claim is None:
        return False
    progress = Progress()
    try:
        _hand_over(claim, progress)
    except ClaimLost:
        log.warning("batch %s: claim lost, nothing more is sent", batch_id)
        return True
    except transport.CannotConnect as error:
        progress.stopped_by = error.result
    except providers.NoRoom as error:
        progress.not_before = error.until
    except (NotSending, TurnOver):
        pass
    _settle(claim, progress)
    return True


def deliver_due(*, clock: Callable[[], datetime] = database_now) -> int:
    """Work on each batch that is due now, once; return how many were worked on."""
    due = DeliveryBatch.objects.due(clock()).order_by("next_attempt_at", "id").values_list("id", flat=True)
    return sum(deliver(batch_id) for batch_id in list(due))


def _claim(batch_id: int) -> Claim | None:
    now = database_now()
    provider = providers.current()
    batch = DeliveryBatch.objects.due(now).filter(pk=batch_id).select_related("digest__newsletter").first()
    if batch is None or gate.is_closed() or not providers.passes(provider, now=now) or restoring.find_obstacle():
        return None
    # Guarded by the batch's own columns alone: a condition on the digest would not be looked at again after a wait.
    free = DeliveryBatch.objects.filter(pk=batch.pk, state=batch.state, fence=batch.fence)
    if batch.attempts >= settings.DELIVERY_MAX_ATTEMPTS:
        if free.update(state=DeliveryBatch.State.FAILED, reason="attempts"):
            log.error("batch %s: gave up after %s attempts", batch.pk, batch.attempts)
        return None
    if not _is_safe_to_repeat(batch, provider, now=now):
        if free.update(state=DeliveryBatch.State.FAILED, reason="key"):
            log.warning("batch %s: not asked again, the provider may not know the key", batch.pk)
        return None
    with transaction.atomic():
        claimed = free.update(
            state=DeliveryBatch.State.LEASED,
            owner=f"{socket.gethostname()}:{os.getpid()}"[:100],
            lease_until=now + settings.DELIVERY_LEASE,
            fence=batch.fence + 1,
            attempts=batch.attempts + 1,
        )
        if claimed and not providers.enter(provider, now=now):
            transaction.set_rollback(True)  # another batch tries already
            return None
    return Claim(batch, provider, batch.fence + 1) if claimed else None


def _is_safe_to_repeat(batch: DeliveryBatch, provider: Provider, *, now: datetime) -> bool:
    """Whether a batch that goes out again for its keys' sake still may: a pause, a gate or a deploy takes its time."""
    if batch.keyed_until is None:
        return True
    last = DeliveryAttempt.objects.filter(batch__in=[batch.pk, batch.parent_id]).order_by("-started_at").first()
    return now < batch.keyed_until and last is not None and last.provider_id == provider.pk


def _hand_over(claim: Claim, progress: Progress) -> None:
    size = len(claim.batch.reader_ids)
    most = settings.DELIVERY_CALL_SIZE if handover.takes_many() else GROUP_SIZE
    send = _send_in_one_call if handover.takes_many() else _send_one_by_one
    with transport.open_connection() as connection:
        claim.begun_at = monotonic()
        while progress.done < size and progress.stopped_by is None:
            end = min(progress.done + providers.group_size(claim.provider, most=most), size)
            _keep_pace(claim, progress, count=end - progress.done)
            letters = _commit_intent(claim, progress, end=end)
            if letters:
                send(claim, progress, letters, connection)
            if progress.stopped_by is None:
                progress.done = end
            let_others_write()


def _keep_pace(claim: Claim, progress: Progress, *, count: int) -> None:
    """Wait until the provider may be given so many mails; those handed over already are written down before."""
    if claim.is_over:
        raise TurnOver
    wait = providers.reserve(claim.provider, count, now=database_now())
    if not wait:
        return
    if progress.done:
        _acknowledge(claim, progress)
    sleep(min(wait, settings.DELIVERY_LEASE / 4).total_seconds())
    if claim.is_over:
        raise TurnOver


def _acknowledge(claim: Claim, progress: Progress) -> None:
    """Commit that what was handed over so far is done, with nobody in flight, and renew the lease."""
    with transaction.atomic():
        now = database_now()
        if not claim.rows.filter(state=DeliveryBatch.State.SUBMITTING, lease_until__gt=now).update(
            lease_until=now + settings.DELIVERY_LEASE
        ):
            raise ClaimLost
        _write_outcomes(progress)
        DeliveryAttempt.objects.filter(batch=claim.batch, fence=claim.fence).update(
            acknowledged=progress.done, in_flight=0
        )
    claim.renewed_at = monotonic()


def _commit_intent(claim: Claim, progress: Progress, *, end: int) -> list[Letter]:
    """Write down who is about to be mailed, and return their letters; who is not eligible any more gets none."""
    batch = claim.batch
    with transaction.atomic():
        now = database_now()
        if not Digest.objects.sending().filter(pk=batch.digest_id, not_after__gt=now).exists():
            raise NotSending
        if not claim.rows.filter(
            state__in=[DeliveryBatch.State.LEASED, DeliveryBatch.State.SUBMITTING], lease_until__gt=now
        ).update(state=DeliveryBatch.State.SUBMITTING, lease_until=now + settings.DELIVERY_LEASE):
            raise ClaimLost
        if progress.done == 0:
            _write_deliveries(batch, now=now)
            written = batch.deliveries.filter(subscriber__isnull=False)
            claim.deliveries = dict(written.values_list("subscriber", "pk"))
        _write_outcomes(progress)
        DeliveryAttempt.objects.update_or_create(
            batch=batch,
            fence=claim.fence,
            defaults={"acknowledged": progress.done, "in_flight": end - progress.done},
            create_defaults={"started_at": now, "in_flight": end, "provider": claim.provider},
        )
        letters = _letters(claim, range(progress.done, end), now=now)
    claim.renewed_at = monotonic()
    return letters


def _write_deliveries(batch: DeliveryBatch, *, now: datetime) -> None:
    """Insert the batch's deliveries; who has one of this digest already keeps it and is not mailed again."""
    if batch.deliveries.exists():
        _part_from(batch, batch.deliveries.all())
        return
    # Locked, so that none is erased between the look and the insert.
    readers = Subscriber.objects.filter(pk__in=batch.reader_ids).select_for_update(no_key=True).order_by("pk")
    known = set(readers.values_list("pk", flat=True))
    Delivery.objects.bulk_create(
        [
            Delivery(digest=batch.digest, batch=batch, subscriber_id=reader_id, created_at=now)
            if reader_id in known
            else Delivery(
                digest=batch.digest, batch=batch, state=Delivery.State.SUPPRESSED, reason="erased", created_at=now
            )
            for reader_id in batch.reader_ids
        ],
        ignore_conflicts=True,
    )


def _part_from(batch: DeliveryBatch, unsent: DeliveryQuerySet) -> None:
    """Heed that readers of deliveries not made were erased, or became one with another reader, who then waits anew."""
    unsent.filter(subscriber=None, state="").update(state=Delivery.State.SUPPRESSED, reason="erased")
    others = unsent.filter(subscriber__isnull=False, state="").exclude(subscriber__in=batch.reader_ids)
    others.update(state=Delivery.State.POSTPONED, reason="moved")


def _part_from_rest(claim: Claim, reader_ids: Iterable[int]) -> None:
    rows = [claim.deliveries[reader_id] for reader_id in reader_ids if reader_id in claim.deliveries]
    if rows:
        _part_from(claim.batch, Delivery.objects.filter(pk__in=rows))


def _letters(claim: Claim, positions: range, *, now: datetime) -> list[Letter]:
    batch = claim.batch
    readers = {batch.reader_ids[position]: position for position in positions}
    subscriptions = audience.eligible(batch.digest, readers)
    # A second try is for those it is uncertain of; an event may have told of some since.
    waiting = batch.deliveries.filter(
        subscriber__in=readers, state=Delivery.State.UNCERTAIN if batch.is_second_try else ""
    )
    if len(subscriptions) < len(readers):
        _part_from_rest(claim, set(readers) - set(subscriptions))
        _leave_out(batch, set(readers) - set(subscriptions), now=now)
    letters = [
        Letter(
            delivery_id=delivery_id,
            delivery=uuid,
            reader_id=reader_id,
            position=readers[reader_id],
            address=subscriptions[reader_id].subscriber.address,
            subscription=subscriptions[reader_id].uuid,
            written_at=written_at,
        )
        for delivery_id, uuid, reader_id, written_at in waiting.values_list("id", "uuid", "subscriber", "created_at")
        if reader_id in subscriptions
    ]
    audience.note_sent((subscriptions[letter.reader_id] for letter in letters), now=now)
    return sorted(letters, key=lambda letter: letter.position)


def _leave_out(batch: DeliveryBatch, reader_ids: set[int], *, now: datetime) -> None:
    """Say of deliveries that are not made why: the consent lapsed while they waited, or ended."""
    waiting = batch.deliveries.filter(subscriber__in=reader_ids, state="")
    lapsed = Subscription.objects.lapsed(now).filter(newsletter=batch.digest.newsletter_id, subscriber__in=reader_ids)
    waiting.filter(subscriber__in=lapsed.values("subscriber")).update(state=Delivery.State.SUPPRESSED, reason="lapsed")
    waiting.update(state=Delivery.State.SUPPRESSED, reason="not subscribed")


def _send_one_by_one(claim: Claim, progress: Progress, letters: Sequence[Letter], connection: BaseEmailBackend) -> None:
    for letter in letters:
        if claim.is_over:
            progress.done = letter.position
            raise TurnOver
        result = _send(claim, letter, connection)
        if result is None:
            if not claim.batch.is_second_try:
                _part_from_rest(claim, [letter.reader_id])
                progress.own[letter.delivery_id] = (Delivery.State.SUPPRESSED, "not subscribed")
            continue
        match result.outcome:
            case Outcome.ACCEPTED if not claim.batch.is_second_try:
                continue
            case Outcome.ACCEPTED:
                progress.own[letter.delivery_id] = (Delivery.State.ACCEPTED, "")
                continue
            case Outcome.THROTTLED | Outcome.NOT_SENT if not result.is_general:
                # Only this reader's mailbox asked for patience. What was uncertain stays so.
                if not claim.batch.is_second_try:
                    progress.own[letter.delivery_id] = (Delivery.State.POSTPONED, result.detail)
                continue
            case Outcome.REFUSED:
                progress.own[letter.delivery_id] = (Delivery.State.REFUSED, result.detail)
                continue
            case Outcome.AMBIGUOUS:
                if not claim.batch.is_second_try:
                    progress.own[letter.delivery_id] = (Delivery.State.UNCERTAIN, result.detail)
                progress.done = letter.position + 1
            case _:
                progress.done = letter.position
        progress.stopped_by = result
        return


def _send(claim: Claim, letter: Letter, connection: BaseEmailBackend) -> Result | None:
    """Hand over one copy; None, and nothing sent, for a reader who has left since the group was begun."""
    try:
        message = handover.message_for(claim.batch.digest, letter)
    except ValueError as error:  # a reader whose copy cannot be built must not keep the others waiting
        return Result(Outcome.REFUSED, type(error).__name__)
    if not audience.is_eligible(claim.batch.digest, letter.reader_id):
        return None
    return transport.hand_over(message, connection=connection)


def _send_in_one_call(
    claim: Claim, progress: Progress, letters: Sequence[Letter], connection: BaseEmailBackend
) -> None:
    result = transport.hand_over(handover.message_for_many(claim.batch.digest, letters), connection=connection)
    end = letters[-1].position + 1
    match result.outcome:
        case Outcome.ACCEPTED:
            refused = {address for address, outcome in (result.recipients or {}).items() if outcome != Outcome.ACCEPTED}
            if claim.batch.is_second_try:
                progress.own |= {letter.delivery_id: (Delivery.State.ACCEPTED, "") for letter in letters}
            progress.own |= {
                letter.delivery_id: (Delivery.State.REFUSED, result.detail)
                for letter in letters
                if letter.address in refused
            }
        case Outcome.REFUSED if len(letters) == 1:
            progress.own[letters[0].delivery_id] = (Delivery.State.REFUSED, result.detail)
        case Outcome.REFUSED:
            progress.refused_up_to = end
            progress.stopped_by = result
        case Outcome.AMBIGUOUS:
            if not claim.batch.is_second_try:
                progress.own |= {letter.delivery_id: (Delivery.State.UNCERTAIN, result.detail) for letter in letters}
            progress.done = end
            progress.stopped_by = result
        case _:
            progress.stopped_by = result


def _write_outcomes(progress: Progress) -> None:
    by_outcome: dict[tuple[Delivery.State, str], list[int]] = {}
    for delivery_id, outcome in progress.own.items():
        by_outcome.setdefault(outcome, []).append(delivery_id)
    for (state, reason), ids in by_outcome.items():
        # What an event told of in between stands.
        Delivery.objects.filter(pk__in=ids, state__in=["", Delivery.State.UNCERTAIN]).update(state=state, reason=reason)


def _settle(claim: Claim, progress: Progress) -> None:
    """Commit what came of a claim; what was surely not sent waits again, in this batch or in a new one."""
    with transaction.atomic():
        now = database_now()
        held = claim.rows.filter(state__in=[DeliveryBatch.State.LEASED, DeliveryBatch.State.SUBMITTING])
        batch = held.select_for_update().first()
        if batch is None:
            log.warning("batch %s: result came after the lease was lost", claim.batch.pk)
            return
        retry_at = _tell_provider(claim, progress, now=now)
        _write_outcomes(progress)
        end_attempt(batch, progress, now=now)
        _part_from_rest(claim, batch.reader_ids[progress.done :])
        close_or_divide(batch, progress, retry_at=retry_at)
    finish(claim.batch.digest_id, now=now)
    let_others_write()


def _tell_provider(claim: Claim, progress: Progress, *, now: datetime) -> datetime:
    if progress.stopped_by is None and progress.done == 0:
        return progress.not_before or now
    speed = progress.done / max(monotonic() - claim.begun_at, 0.1) * max(1, _count_of_workers())
    result = progress.stopped_by or Result(Outcome.ACCEPTED, "")
    return max(providers.note(claim.provider, result, now=now, speed=speed), progress.not_before or now)


def _count_of_workers() -> int:
    return DeliveryBatch.objects.filter(state=DeliveryBatch.State.SUBMITTING).count()


def end_attempt(batch: DeliveryBatch, progress: Progress, *, now: datetime) -> None:
    """Close the record of the call with what is known of it."""
    result = progress.stopped_by
    is_whole = progress.done == len(batch.reader_ids)
    DeliveryAttempt.objects.filter(batch=batch, fence=batch.fence).update(
        ended_at=now,
        acknowledged=progress.done,
        in_flight=0,
        outcome=result.outcome if result else Outcome.ACCEPTED if is_whole else "stopped",
        detail=result.detail if result else "",
    )


def close_or_divide(batch: DeliveryBatch, progress: Progress, *, retry_at: datetime) -> None:
    """Close a batch whose readers are done; readers that are not wait again, behind done ones in a new batch."""
    suspects = batch.reader_ids[progress.done : progress.refused_up_to]
    rest = batch.reader_ids[progress.done :]
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
    batch.save()


def _move_postponed(batch: DeliveryBatch, *, at: datetime) -> None:
    """Let readers whose mailbox asked for patience wait in a batch of their own; the attempt counts."""
    postponed = batch.deliveries.filter(state=Delivery.State.POSTPONED)
    postponed.filter(subscriber=None).update(state=Delivery.State.SUPPRESSED, reason="erased")
    if reader_ids := list(postponed.order_by("id").values_list("subscriber", flat=True)):
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
    digest = Digest.objects.get(pk=digest_id)
    if digest.state != Digest.State.SENDING or digest.batches.open().exists():
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
