"""Who gets a digest: frozen when it starts, asked again before each group is handed over, opened for latecomers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, Max, OuterRef
from django.utils.translation import gettext as _

from digests import sets
from digests.models import Delivery, DeliveryBatch, Digest, DigestChange, DigestSchedule
from subscriptions.models import AddressChange, Subscription, SubscriptionQuerySet

# A confirmation stamped before the freeze may commit after it; who is in a batch already is left out anyway.
COMMIT_DELAY = timedelta(minutes=10)

LATECOMERS_AT_ONCE = 1000

# A write for each reader and digest would only serve to know the day a consent lapses on. It lapses so much earlier at
# most, and only when nothing is sent any more.
SENT_PRECISION = timedelta(days=30)


def freeze(digest: Digest, *, now: datetime) -> int:
    """Write the digest's readers down as batches and return how many there are.

    Belongs into the transaction that starts the sending.
    """
    count = sets.write_batches(
        digest,
        Subscription.objects.mailable().filter(newsletter=digest.newsletter_id),
        first_number=_next_number(digest),
        size=settings.DELIVERY_BATCH_SIZE,
        at=now,
    )
    Digest.objects.filter(pk=digest.pk).update(audience_frozen_at=now, expected_count=count)
    return count


def count_lapsed(digest: Digest, *, now: datetime) -> int:
    """Return how many readers are left out because they were not sent the newsletter for too long."""
    return Subscription.objects.lapsed(now).filter(newsletter=digest.newsletter_id).count()


@dataclass(frozen=True, slots=True)
class Recipient:
    """A reader who may get a digest, by the subscription that allows it."""

    subscription: int
    uuid: UUID
    address: str = field(repr=False)
    last_sent_at: datetime | None


def note_sent(recipients: Iterable[Recipient], *, now: datetime) -> None:
    """Remember that the readers are sent the newsletter, once a month: consents lapse after many months."""
    limit = now - SENT_PRECISION
    stale = [each.subscription for each in recipients if each.last_sent_at is None or each.last_sent_at < limit]
    if stale:
        Subscription.objects.filter(pk__in=stale).update(last_sent_at=now)


def eligible(digest: Digest, reader_ids: Iterable[int]) -> dict[int, Recipient]:
    """Return who may still get the digest, by reader, their subscriptions locked until the transaction ends.

    An unsubscription that commits first is seen; one that comes later waits for the lock, and its page for the
    commit of our intent.
    """
    rows = (
        _mailable(digest, reader_ids)
        .select_for_update(of=("self",), no_key=True)
        .order_by("id")
        .values_list("subscriber_id", "id", "uuid", "subscriber__address", "last_sent_at")
    )
    return {row[0]: Recipient(row[1], row[2], row[3], row[4]) for row in rows}


def still_eligible(digest: Digest, reader_ids: Iterable[int]) -> set[int]:
    """Return who of the readers may still get the digest, asked again while a group of copies takes its time."""
    return set(_mailable(digest, reader_ids).values_list("subscriber_id", flat=True))


def _mailable(digest: Digest, reader_ids: Iterable[int]) -> SubscriptionQuerySet:
    return Subscription.objects.mailable().filter(newsletter=digest.newsletter_id, subscriber__in=list(reader_ids))


def add_latecomers(now: datetime) -> int:
    """Give today's digests that are out or going out to the readers who confirmed since; return how many."""
    candidates = Digest.objects.filter(
        state__in=[Digest.State.SENDING, Digest.State.FINISHED],
        schedule__latecomers=DigestSchedule.Latecomers.INCLUDED,
        audience_frozen_at__isnull=False,
        not_after__gt=now,
    ).select_related("schedule")
    return sum(_add_latecomers_of(digest, now=now) for digest in candidates if _is_of_today(digest, now))


def _is_of_today(digest: Digest, now: datetime) -> bool:
    assert digest.schedule is not None
    return digest.date == now.astimezone(ZoneInfo(digest.schedule.time_zone)).date()


def _add_latecomers_of(digest: Digest, *, now: datetime) -> int:
    if not _find_latecomers(digest):
        return 0
    with transaction.atomic():
        # Whoever else ticks at this moment waits here, and then finds these readers in a batch.
        digest = Digest.objects.select_for_update().get(pk=digest.pk)
        if digest.state not in {Digest.State.SENDING, Digest.State.FINISHED}:
            return 0
        count = sets.add_batches(
            digest,
            _find_latecomers(digest),
            first_number=_next_number(digest),
            size=settings.DELIVERY_BATCH_SIZE,
            at=now,
        )
        Digest.objects.filter(pk=digest.pk).update(expected_count=F("expected_count") + count)
        if count and digest.state == Digest.State.FINISHED:
            Digest.objects.filter(pk=digest.pk).update(state=Digest.State.SENDING, finished_at=None)
            DigestChange.objects.create(digest=digest, state=Digest.State.SENDING, at=now, reason=_("latecomers"))
    return count


def _find_latecomers(digest: Digest) -> list[int]:
    """Return some of those who may get the digest, confirmed since its freeze, and neither have it nor wait for it."""
    assert digest.audience_frozen_at is not None
    since = digest.audience_frozen_at - COMMIT_DELAY
    written = Delivery.objects.filter(digest=digest, subscriber=OuterRef("subscriber"))
    unserved = Subscription.objects.mailable().filter(~Exists(written), newsletter=digest.newsletter_id)
    # Of two readers who became one (`subscriptions.rectifying`), the one that was placed may be the one that is gone.
    moved = list(AddressChange.objects.filter(confirmed_at__gte=since).values_list("subscriber", flat=True))
    # Asked apart: with an OR between them, no index would serve either.
    found = [unserved.filter(active_since__gte=since), unserved.filter(subscriber__in=moved)]
    latecomers: set[int] = set()
    for each in found:
        if each.exists():  # the batches need not be looked through for nobody
            latecomers.update(sets.without_placed(digest, each, most=LATECOMERS_AT_ONCE))
    return sorted(latecomers)


def add_batch(
    digest: Digest, reader_ids: list[int], *, at: datetime, parent: DeliveryBatch | None = None
) -> DeliveryBatch:
    """Add a batch to a digest, due at `at`. Needs a transaction: whoever else adds one at this moment waits."""
    Digest.objects.select_for_update().get(pk=digest.pk)
    number = _next_number(digest)
    return DeliveryBatch.objects.create(
        digest=digest, number=number, parent=parent, reader_ids=reader_ids, size=len(reader_ids), next_attempt_at=at
    )


def _next_number(digest: Digest) -> int:
    return (digest.batches.aggregate(last=Max("number"))["last"] or 0) + 1
