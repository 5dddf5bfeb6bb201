"""Claim → intent → call → result: how a batch of readers is handed their digest.

The database is the queue. A worker claims a batch by a guarded update with a lease and a fence, commits what it is
about to do before it does it, does it with no transaction open, and commits what came of it. What a dead worker leaves
behind is found by the sweeper: what it had not begun waits again, what it may have sent is `uncertain`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from time import monotonic, sleep

from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction

from digests import audience, carriers, claiming, providers, statements
from digests.carriers import Carrier, Lines
from digests.claiming import Claim, Turn
from digests.clock import database_clock, database_now, let_others_write
from digests.handover import Letter
from digests.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryBatch,
    DeliveryQuerySet,
    Digest,
)
from digests.settling import Progress, close_or_divide, end_attempt, finish, write_outcomes
from digests.statements import Beginning
from newsroom.mail import flight, transport
from newsroom.mail.transport import Outcome, Result
from newsroom.postgresql.base import is_deadlock
from subscriptions.models import Subscription

log = logging.getLogger(__name__)

# Who leaves is answered when no copy is on its way any more, or after `flight.PATIENCE`. So what was asked this long
# ago of a reader still holds: none has been told since that it is done.
FRESHNESS = timedelta(seconds=flight.PATIENCE / 5)

# Readers may be erased, or become one, while their deliveries are written; then all is written anew.
BEGINNINGS = 3

# A worker that looks for a next batch and finds it taken looks so often.
MISSES = 3


class ClaimLost(Exception):
    """Somebody else works on the batch, or may soon: nothing more may be sent or written in its name."""


class NotSending(Exception):
    """The digest was paused or cancelled, or its time is over."""


class TurnOver(Exception):
    """The claim has had its time; nobody is at fault, and the readers left wait for the next one."""


class Watch:
    """Says right before a copy goes whether it may, and remembers whose reader has left since the group was begun.

    Who has `moved` since is among those who `left`: the copy made for the former address does not go.
    """

    def __init__(self, claim: Claim, letters: Sequence[Letter], *, asked_at: float) -> None:
        self._claim, self._letters = claim, letters
        self._until = claim.ends_at
        self._ask_again_at = asked_at + FRESHNESS.total_seconds()
        self.left: set[int] = set()
        self.moved: set[int] = set()

    def __call__(self, letter: Letter) -> bool:
        now = monotonic()
        if now > self._until:
            return False
        if now > self._ask_again_at:
            self._ask()
        return letter.reader_id not in self.left

    def _ask(self) -> None:
        self._ask_again_at = monotonic() + FRESHNESS.total_seconds()
        addresses = self._claim.audience.addresses([letter.reader_id for letter in self._letters])
        self.left = {each.reader_id for each in self._letters if addresses.get(each.reader_id) != each.address}
        self.moved = self.left & addresses.keys()


def deliver(batch_id: int) -> bool:
    """Hand one batch over if it is due, free, and the provider takes mail; return whether it was worked on."""
    with Lines() as lines:
        return _deliver(batch_id, Turn(lines, begun_at=monotonic()))


def deliver_on(batch_id: int) -> int:
    """Hand one batch over, and then others that are due, until the turn is over; return how many were worked on.

    Hints wake workers up; they need not keep pace with them.
    """
    worked, misses = 0, 0
    with Lines() as lines:
        turn = Turn(lines, begun_at=monotonic())
        next_id: int | None = batch_id
        while next_id is not None and misses < MISSES and (worked == 0 or turn.has_time_for_another):
            if _deliver(next_id, turn):
                worked, misses = worked + 1, 0
            else:
                misses += 1
            next_id = claiming.find_next()
    return worked


def deliver_due(*, clock: Callable[[], datetime] = database_now) -> int:
    """Work on each batch that is due now, once, over the same connections; return how many were worked on."""
    due = DeliveryBatch.objects.due(clock()).order_by("next_attempt_at", "id").values_list("id", flat=True)
    with Lines() as lines:
        turn = Turn(lines, begun_at=monotonic())
        return sum(_deliver(batch_id, turn.begin_anew()) for batch_id in list(due))


def _deliver(batch_id: int, turn: Turn) -> bool:
    claim = claiming.claim(batch_id, turn)
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
    if progress.stopped_by is not None:
        turn.stop()
    _settle(claim, progress)
    return True


def _hand_over(claim: Claim, progress: Progress) -> None:
    size = len(claim.batch.reader_ids)
    carrier = claim.turn.lines.carrier_for(claim.batch.digest)
    claim.begun_at = monotonic()
    while progress.done < size and progress.stopped_by is None:
        group = claim.turn.lines.group_for(carrier)
        end = min(progress.done + providers.group_size(claim.provider, most=group), size)
        _keep_pace(claim, progress, count=end - progress.done)
        _commit_intent(claim, progress, end=end)
        asked_at = monotonic()
        letters = _letters(claim, range(progress.done, end))
        if letters:
            _send(claim, progress, letters, carrier, end=end, asked_at=asked_at)
        else:
            progress.done = end
        let_others_write()


def _keep_pace(claim: Claim, progress: Progress, *, count: int) -> None:
    """Wait until the provider may be given so many mails; those handed over already are written down before."""
    if claim.is_over:
        raise TurnOver
    if not providers.is_limited(claim.provider):
        return
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
        write_outcomes(progress)
        DeliveryAttempt.objects.filter(batch=claim.batch, fence=claim.fence).update(
            acknowledged=progress.done, in_flight=0
        )
    progress.own.clear()
    claim.renewed_at = monotonic()


def _commit_intent(claim: Claim, progress: Progress, *, end: int) -> None:
    """Write down who is about to be mailed, and that those before are done."""
    in_flight = end - progress.done
    if _is_gone_on(claim, progress, in_flight=in_flight):
        return
    for attempt in range(BEGINNINGS):
        try:
            _commit_anew(claim, progress, in_flight=in_flight)
            return
        except DatabaseError as error:
            if attempt == BEGINNINGS - 1 or not _is_worth_repeating(error):
                raise


def _is_worth_repeating(error: DatabaseError) -> bool:
    """Whether a reader was erased, or became one with another, at this moment."""
    return isinstance(error, IntegrityError) or is_deadlock(error)


def _commit_anew(claim: Claim, progress: Progress, *, in_flight: int) -> None:
    attempt_id = claim.attempt_id
    with transaction.atomic():
        if attempt_id is None:
            attempt_id = _begin_attempt(claim, in_flight=in_flight)
        else:
            _renew(claim)
            _go_on_step_by_step(claim, attempt_id, done=progress.done, in_flight=in_flight)
        write_outcomes(progress)
    claim.attempt_id = attempt_id
    progress.own.clear()
    claim.renewed_at = monotonic()


def _renew(claim: Claim) -> datetime:
    """Hold the batch, and return the database's time."""
    now = _check_digest(claim.batch.digest_id)
    if not claim.rows.filter(
        state__in=[DeliveryBatch.State.LEASED, DeliveryBatch.State.SUBMITTING], lease_until__gt=now
    ).update(state=DeliveryBatch.State.SUBMITTING, lease_until=now + settings.DELIVERY_LEASE):
        raise ClaimLost
    return now


def _is_gone_on(claim: Claim, progress: Progress, *, in_flight: int) -> bool:
    if claim.attempt_id is None or not claim.is_fresh or progress.own:
        return False
    return statements.go_on(claim.attempt_id, fence=claim.fence, done=progress.done, in_flight=in_flight)


def _go_on_step_by_step(claim: Claim, attempt_id: int, *, done: int, in_flight: int) -> None:
    attempt = DeliveryAttempt.objects.filter(pk=attempt_id)
    if not attempt.filter(detail="").update(acknowledged=done, in_flight=in_flight):  # `uniting` left word
        attempt.update(acknowledged=done, in_flight=in_flight, detail="")
        unwanted = set(claim.batch.deliveries.filter(state=Delivery.State.SUPPRESSED).values_list("pk", flat=True))
        claim.recipients = {place: each for place, each in claim.recipients.items() if each.delivery not in unwanted}


def _check_digest(digest_id: int) -> datetime:
    """Return the database's time if the digest is being sent now; raise `NotSending` if not."""
    sending = Digest.objects.sending().filter(pk=digest_id).order_by().annotate(now=database_clock())
    for now, not_after in sending.values_list("now", "not_after"):
        if now < not_after:
            return now
    raise NotSending


def _begin_attempt(claim: Claim, *, in_flight: int) -> int:
    """Write the batch's deliveries and the attempt down, and read what there is to send; return the attempt's id."""
    begun = statements.begin_attempt(
        claim.batch, fence=claim.fence, provider=claim.provider, lease=settings.DELIVERY_LEASE, in_flight=in_flight
    )
    begun = begun or _begin_step_by_step(claim, in_flight=in_flight)
    _write_deliveries(claim.batch, begun)
    _find_recipients(claim, now=begun.at)
    return begun.attempt_id


def _begin_step_by_step(claim: Claim, *, in_flight: int) -> Beginning:
    now = _renew(claim)
    attempt = DeliveryAttempt(
        batch=claim.batch, fence=claim.fence, started_at=now, in_flight=in_flight, provider=claim.provider
    )
    attempt.save(force_insert=True)
    return Beginning(attempt.pk, now, claim.batch.deliveries.exists())


def _find_recipients(claim: Claim, *, now: datetime) -> None:
    batch = claim.batch
    places = {reader_id: place for place, reader_id in enumerate(batch.reader_ids)}
    found = [each for each in claim.audience.recipients(batch, now=now) if each.reader_id in places]
    claim.recipients = {places[each.reader_id]: each for each in found}
    claim.deliveries = {each.reader_id: each.delivery for each in found}
    if len(found) < len(places):
        written = batch.deliveries.filter(subscriber__isnull=False)
        claim.deliveries = dict(written.values_list("subscriber", "pk"))


def _write_deliveries(batch: DeliveryBatch, begun: Beginning) -> None:
    """Insert the batch's deliveries; who has one of this digest already keeps it and is not mailed again."""
    if begun.has_deliveries:
        _part_from(batch, batch.deliveries.all())
    else:
        statements.write_deliveries(batch, at=begun.at)


def _part_from(batch: DeliveryBatch, unsent: DeliveryQuerySet) -> None:
    """Heed that readers of deliveries not made were erased, or became one with another reader, who then waits anew."""
    unsent.filter(subscriber=None, state="").update(state=Delivery.State.SUPPRESSED, reason="erased")
    others = unsent.filter(subscriber__isnull=False, state="").exclude(subscriber__in=batch.reader_ids)
    others.update(state=Delivery.State.POSTPONED, reason="moved")


def _part_from_rest(claim: Claim, reader_ids: Iterable[int]) -> None:
    rows = [claim.deliveries[reader_id] for reader_id in reader_ids if reader_id in claim.deliveries]
    if rows:
        _part_from(claim.batch, Delivery.objects.filter(pk__in=rows))


def _letters(claim: Claim, places: range) -> list[Letter]:
    """Return what goes to these places now; who is not eligible any more gets nothing."""
    found = [(place, each) for place in places if (each := claim.recipients.get(place))]
    addresses = claim.audience.addresses([each.reader_id for _place, each in found])
    letters = [
        Letter(each.delivery, each.reader_id, place, address, each.subscription, each.written_at)
        for place, each in found
        if (address := addresses.get(each.reader_id))
    ]
    if len(letters) < len(places):
        left = {claim.batch.reader_ids[place] for place in places} - {letter.reader_id for letter in letters}
        with transaction.atomic():
            _part_from_rest(claim, left)
            _leave_out(claim.batch, left, now=database_now())
    return _still_uncertain(claim.batch, letters) if claim.batch.is_second_try else letters


def _still_uncertain(batch: DeliveryBatch, letters: Sequence[Letter]) -> list[Letter]:
    """Return those of a second try for whom it still is: an event may have told of some since."""
    ids = [letter.delivery for letter in letters]
    uncertain = set(batch.deliveries.uncertain().filter(pk__in=ids).values_list("pk", flat=True))
    return [letter for letter in letters if letter.delivery in uncertain]


def _leave_out(batch: DeliveryBatch, reader_ids: set[int], *, now: datetime) -> None:
    """Say of deliveries that are not made why: the consent lapsed while they waited, or ended."""
    waiting = batch.deliveries.filter(subscriber__in=reader_ids, state="")
    lapsed = Subscription.objects.lapsed(now).filter(newsletter=batch.digest.newsletter_id, subscriber__in=reader_ids)
    waiting.filter(subscriber__in=lapsed.values("subscriber")).update(state=Delivery.State.SUPPRESSED, reason="lapsed")
    waiting.update(state=Delivery.State.SUPPRESSED, reason="not subscribed")


def _send(
    claim: Claim, progress: Progress, letters: Sequence[Letter], carrier: Carrier, *, end: int, asked_at: float
) -> None:
    """Hand a group of copies over, and note what came of each."""
    watch = Watch(claim, letters, asked_at=asked_at)
    try:
        begun_at = monotonic()
        results = carrier.hand_over(letters, may_go=watch)
        claim.turn.lines.learn(len(letters), seconds=monotonic() - begun_at)
    except carriers.RefusedAsWhole as error:
        progress.refused_up_to, progress.stopped_by = end, error.result
        return
    if not claim.batch.is_second_try and _are_accepted(results):
        progress.done = end
        _note_mailed(claim, letters)
        return
    _note_mailed(claim, [each for each, result in zip(letters, results, strict=True) if _may_have_come(result)])
    unsent: list[Letter] = []
    for letter, result in zip(letters, results, strict=True):
        if result is None and letter.reader_id in watch.left:
            _note_left(claim, progress, letter, has_moved=letter.reader_id in watch.moved)
        elif not _note_outcome(claim, progress, letter, result):
            unsent.append(letter)
    progress.stopped_by = gravest(results)
    _note_unsent(progress, letters, unsent, end=end)
    if unsent and progress.stopped_by is None:
        raise TurnOver


def _are_accepted(results: Iterable[Result | None]) -> bool:
    accepted = Outcome.ACCEPTED  # looked up once: for each it would cost more than to compare
    return all(result is not None and result.outcome is accepted for result in results)


def _may_have_come(result: Result | None) -> bool:
    return result is not None and result.outcome in (Outcome.ACCEPTED, Outcome.AMBIGUOUS)


def _note_mailed(claim: Claim, letters: Iterable[Letter]) -> None:
    mailed = (claim.recipients[letter.position] for letter in letters)
    claim.unnoted += [each.subscription_id for each in mailed if not each.is_noted]


def _note_left(claim: Claim, progress: Progress, letter: Letter, *, has_moved: bool) -> None:
    if not claim.batch.is_second_try:
        _part_from_rest(claim, [letter.reader_id])
        outcome = (Delivery.State.POSTPONED, "moved") if has_moved else (Delivery.State.SUPPRESSED, "not subscribed")
        progress.own[letter.delivery] = outcome


def _note_outcome(claim: Claim, progress: Progress, letter: Letter, result: Result | None) -> bool:
    """Note the outcome of one copy where it is not its batch's; return whether there is one at all."""
    is_second_try = claim.batch.is_second_try
    match result:
        case None:
            return False
        case Result(outcome=Outcome.ACCEPTED):
            if is_second_try:
                progress.own[letter.delivery] = (Delivery.State.ACCEPTED, "")
        case Result(outcome=Outcome.REFUSED):
            progress.own[letter.delivery] = (Delivery.State.REFUSED, result.detail)
        case Result(outcome=Outcome.AMBIGUOUS):
            if not is_second_try:
                progress.own[letter.delivery] = (Delivery.State.UNCERTAIN, result.detail)
        case Result(outcome=Outcome.THROTTLED | Outcome.NOT_SENT, is_general=False):
            # Only this reader's mailbox asked for patience. What was uncertain stays so.
            if not is_second_try:
                progress.own[letter.delivery] = (Delivery.State.POSTPONED, result.detail)
        case _:
            return False
    return True


def gravest(results: Iterable[Result | None]) -> Result | None:
    """Return what the provider's gate has to learn from a group of calls; None if all went well."""
    faults = [result for result in results if result is not None and carriers.stops(result)]
    return max(faults, key=lambda result: _GRAVITY.index(result.outcome), default=None)


# A refused key is staff's to mend; an answer says more than silence; and a plea for patience says how long.
_GRAVITY = [Outcome.NOT_SENT, Outcome.AMBIGUOUS, Outcome.THROTTLED, Outcome.DENIED]


def _note_unsent(progress: Progress, letters: Sequence[Letter], unsent: Sequence[Letter], *, end: int) -> None:
    """Say how far the group has come. Side by side a later copy may have gone where an earlier one did not."""
    left = {letter.position for letter in unsent}
    sent = [letter.position for letter in letters if letter.position not in left]
    if not sent and left:
        return
    last = max(sent, default=-1)
    progress.done = min((position for position in left if position > last), default=end)
    progress.unsent = [letter.reader_id for letter in unsent if letter.position < progress.done]


def _settle(claim: Claim, progress: Progress) -> None:
    """Commit what came of a claim; what was surely not sent waits again, in this batch or in a new one."""
    now = _close(claim, progress) or _settle_step_by_step(claim, progress)
    if now is None:
        log.warning("batch %s: result came after the lease was lost", claim.batch.pk)
        return
    audience.note_sent(claim.unnoted, now=now)
    finish(claim.batch.digest_id, now=now)
    let_others_write()


def _close(claim: Claim, progress: Progress) -> datetime | None:
    """Close a batch of which there is nothing to tell but that all went well; None where there is more to it."""
    if claim.attempt_id is None or not progress.is_plain or progress.rest(claim.batch):
        return None
    now = statements.close_batch(claim.attempt_id, fence=claim.fence, done=progress.done)
    if now is not None:
        _tell_provider(claim, progress, now=now)
    return now


def _settle_step_by_step(claim: Claim, progress: Progress) -> datetime | None:
    with transaction.atomic():
        now = database_now()
        held = claim.rows.filter(state__in=[DeliveryBatch.State.LEASED, DeliveryBatch.State.SUBMITTING])
        batch = held.select_for_update().first()
        if batch is None:
            return None
        retry_at = _tell_provider(claim, progress, now=now)
        write_outcomes(progress)
        end_attempt(batch, progress, now=now)
        _part_from_rest(claim, progress.rest(batch))
        close_or_divide(batch, progress, retry_at=retry_at)
    return now


def _tell_provider(claim: Claim, progress: Progress, *, now: datetime) -> datetime:
    if progress.stopped_by is None and progress.done == 0:
        return progress.not_before or now
    result = progress.stopped_by or Result(Outcome.ACCEPTED, "")
    speed = _speed(claim, progress) if result.outcome is Outcome.THROTTLED else 0.0
    return max(providers.note(claim.provider, result, now=now, speed=speed), progress.not_before or now)


def _speed(claim: Claim, progress: Progress) -> float:
    """Return how many mails a second all workers together hand over, if the others are as fast as this one."""
    workers = DeliveryBatch.objects.filter(state=DeliveryBatch.State.SUBMITTING).count()
    return progress.done / max(monotonic() - claim.begun_at, 0.1) * max(1, workers)
