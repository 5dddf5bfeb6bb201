"""What each batch and each group of copies asks of the database, in each database's own and fewest words."""

from datetime import datetime

from django.db import connection

from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest
from newsroom.postgresql.base import busy_cursor
from subscriptions.models import Subscriber

_BATCHES, _ATTEMPTS, _DIGESTS = (model._meta.db_table for model in (DeliveryBatch, DeliveryAttempt, Digest))
_DELIVERIES, _READERS = Delivery._meta.db_table, Subscriber._meta.db_table

# Numbers that begin with the time (RFC 9562 section 5.7), so that their index grows at its end. The reader's own key is
# what keeps him from being erased, or becoming one with another, between the look and the end of the transaction.
_WRITE_DELIVERIES = f"""
    WITH placed AS (
        SELECT reader::bigint, place
        FROM {_BATCHES}, jsonb_array_elements(reader_ids) WITH ORDINALITY AS each (reader, place) WHERE id = %s
    )
    INSERT INTO {_DELIVERIES} (uuid, digest_id, batch_id, subscriber_id, state, reason, created_at)
    SELECT (%s || substr(gen_random_uuid()::text, 16))::uuid, %s, %s, known.id,
           CASE WHEN known.id IS NULL THEN 'suppressed' ELSE '' END,
           CASE WHEN known.id IS NULL THEN 'erased' ELSE '' END, %s
    FROM placed LEFT JOIN {_READERS} AS known ON known.id = placed.reader
    ORDER BY placed.place
    ON CONFLICT DO NOTHING
"""  # noqa: S608

_GO_ON = f"""
    UPDATE {_ATTEMPTS} AS attempt SET acknowledged = %s, in_flight = %s
    FROM {_BATCHES} AS batch, {_DIGESTS} AS digest
    WHERE attempt.id = %s AND batch.id = attempt.batch_id AND digest.id = batch.digest_id
        AND batch.fence = %s AND batch.state = 'submitting' AND batch.lease_until > clock_timestamp()
        AND digest.state = 'sending' AND digest.not_after > clock_timestamp()
"""  # noqa: S608


def write_deliveries(batch: DeliveryBatch, *, at: datetime) -> None:
    """Insert a delivery for each reader of the batch; who was erased gets one that says so.

    Who has a delivery of this digest keeps that one. Needs a transaction, whose commit raises `IntegrityError` if a
    reader was erased at this very moment; who begins anew will not find him.
    """
    if connection.vendor == "postgresql":
        with busy_cursor() as cursor:
            cursor.execute(_WRITE_DELIVERIES, [batch.pk, _time_of_uuid(at), batch.digest_id, batch.pk, at])
        return
    known = set(Subscriber.objects.filter(pk__in=batch.reader_ids).values_list("pk", flat=True))
    Delivery.objects.bulk_create(
        [
            Delivery(digest=batch.digest, batch=batch, subscriber_id=reader_id, created_at=at)
            if reader_id in known
            else Delivery(digest=batch.digest, batch=batch, state="suppressed", reason="erased", created_at=at)
            for reader_id in batch.reader_ids
        ],
        ignore_conflicts=True,
    )


def _time_of_uuid(moment: datetime) -> str:
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def go_on(attempt_id: int, *, fence: int, done: int, in_flight: int) -> bool:
    """Commit that so many readers are done and so many come next, if the claim and its digest stand as they did.

    False, and nothing written, if they do not; or where it takes more than one statement to say so (SQLite).
    """
    if connection.vendor != "postgresql":
        return False
    with busy_cursor() as cursor:
        cursor.execute(_GO_ON, [done, in_flight, attempt_id, fence])
        return cursor.rowcount == 1
