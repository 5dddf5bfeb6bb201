"""Who gets a digest: frozen when it starts, asked again before each group is handed over, opened for latecomers."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, DateTimeField, Exists, F, Max, OuterRef, Value, When
from django.utils.translation import gettext as _

from digests import sets
from digests.models import Delivery, DeliveryBatch, Digest, DigestChange, DigestSchedule
from newsroom.mail import repeating
from newsroom.postgresql.base import array_of, ask, busy_cursor
from subscriptions.models import AddressChange, Subscription

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


class Recipient(NamedTuple):
    """A reader for whom a delivery is written, and his subscription; whether he may still get it is asked later."""

    delivery: UUID
    written_at: datetime | None
    reader_id: int
    subscription_id: int
    subscription: UUID
    is_noted: bool  # that he is sent the newsletter


# Each is looked up by himself, as LIMIT has it: PostgreSQL expects an index to come from the disk, and for each batch
# would rather read all subscriptions of a newsletter of a hundred thousand anew.
_RECIPIENTS = f"""
    SELECT each.uuid, {{written_at}}, each.subscriber_id, subscription.id, subscription.uuid,
           coalesce(subscription.last_sent_at >= %s, false)
    FROM {Delivery._meta.db_table} AS each
        CROSS JOIN LATERAL (
            SELECT id, uuid, last_sent_at FROM {Subscription._meta.db_table}
            WHERE subscriber_id = each.subscriber_id AND newsletter_id = %s LIMIT 1
        ) AS subscription
    WHERE each.batch_id = %s AND each.state = %s
"""  # noqa: S608


class Audience:
    """Asked once a batch who its readers are, and again and again, for a few at a time, who may get a digest and where.

    What it answers was committed after it was asked. So whoever has committed before which copies go next, and then
    asks, either learns that a reader has left, or is seen by the reader's page, which waits (`newsroom.mail.flight`).
    To build the same words each time anew would cost more than the answer.
    """

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        mailable = Subscription.objects.mailable().filter(newsletter=digest.newsletter_id)
        self._asked = mailable.values_list("subscriber_id", "subscriber__address")
        words, self._values = self._asked.query.sql_with_params()
        self._words = f'{words} AND "subscriptions_subscription"."subscriber_id" = ANY(%s::bigint[])'

    def recipients(self, batch: DeliveryBatch, *, now: datetime) -> list[Recipient]:
        """Return who of a batch has not got its digest: on a second try, of whom that is uncertain.

        When the deliveries were written is told where it has a use: to read a time takes longer than all else of a row.
        """
        state = Delivery.State.UNCERTAIN if batch.is_second_try else ""
        if connection.vendor != "postgresql":
            return self._recipients(batch, state, now=now)
        words = _RECIPIENTS.format(written_at="each.created_at" if repeating.lifetime() else "NULL")
        with busy_cursor() as cursor:
            cursor.execute(words, [now - SENT_PRECISION, self.digest.newsletter_id, batch.pk, state])
            return [Recipient._make(row) for row in cursor.fetchall()]

    def _recipients(self, batch: DeliveryBatch, state: str, *, now: datetime) -> list[Recipient]:
        never = Value(None, output_field=DateTimeField())
        rows = Subscription.objects.filter(
            newsletter=self.digest.newsletter_id,
            subscriber__deliveries__batch=batch,
            subscriber__deliveries__state=state,
        ).values_list(
            "subscriber__deliveries__uuid",
            F("subscriber__deliveries__created_at") if repeating.lifetime() else never,
            "subscriber_id",
            "id",
            "uuid",
            Case(When(last_sent_at__gte=now - SENT_PRECISION, then=True), default=False),
        )
        return [Recipient._make(row) for row in rows]

    def addresses(self, reader_ids: Sequence[int]) -> dict[int, str]:
        """Return the addresses of those among the readers who may get the digest."""
        if connection.vendor != "postgresql":
            return dict(self._asked.filter(subscriber__in=reader_ids))
        return dict(ask(self._words, [*self._values, array_of(reader_ids)]))


def note_sent(subscription_ids: Collection[int], *, now: datetime) -> None:
    """Remember that readers were sent the newsletter, once a month: consents lapse after many months."""
    if subscription_ids:
        Subscription.objects.filter(pk__in=subscription_ids).update(last_sent_at=now)


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
