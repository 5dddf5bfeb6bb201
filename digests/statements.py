"""What each batch and each group of copies asks of the database, in each database's own and fewest words."""

import json
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection

from digests.clock import database_now
from digests.models import Delivery, DeliveryAttempt, DeliveryBatch, Digest, Provider
from newsroom.postgresql.base import array_of, ask, busy_cursor
from subscriptions.models import Subscriber

_BATCHES, _ATTEMPTS, _DIGESTS = (model._meta.db_table for model in (DeliveryBatch, DeliveryAttempt, Digest))
_DELIVERIES, _READERS = Delivery._meta.db_table, Subscriber._meta.db_table

# Numbers that begin with the time (RFC 9562 section 5.7), so that their index grows at its end. The reader's own key is
# what keeps him from being erased, or becoming one with another, between the look and the end of the transaction.
_WRITE_DELIVERIES = f"""
    INSERT INTO {_DELIVERIES} (uuid, digest_id, batch_id, subscriber_id, state, reason, created_at)
    SELECT {{uuid}}, %(digest)s, %(batch)s, known.id,
           CASE WHEN known.id IS NULL THEN 'suppressed' ELSE '' END,
           CASE WHEN known.id IS NULL THEN 'erased' ELSE '' END, %(at)s
    FROM unnest(%(readers)s::bigint[]) WITH ORDINALITY AS placed (reader, place)
        LEFT JOIN {_READERS} AS known ON known.id = placed.reader
    ORDER BY placed.place
"""  # noqa: S608
_SINCE_POSTGRESQL_18 = "uuidv7()"
_BEFORE_POSTGRESQL_18 = "(%(time)s || substr(gen_random_uuid()::text, 16))::uuid"

_ARE_OTHERS = f"""
    SELECT EXISTS (SELECT FROM {_DELIVERIES} WHERE digest_id = %s AND subscriber_id BETWEEN %s AND %s)
"""  # noqa: S608

_CLAIM = f"""
    UPDATE {_BATCHES} AS batch SET state = 'leased', fence = fence + 1, attempts = attempts + 1, owner = %s,
        lease_until = clock_timestamp() + make_interval(secs => %s)
    FROM {_DIGESTS} AS digest
    WHERE batch.id = %s AND digest.id = batch.digest_id AND digest.state = 'sending'
        AND batch.state = 'pending' AND batch.next_attempt_at <= clock_timestamp()
        AND batch.attempts < %s AND batch.keyed_until IS NULL
    RETURNING batch.id, batch.digest_id, batch.parent_id, batch.reader_ids, batch.fence, batch.attempts,
        batch.is_second_try
"""  # noqa: S608
_CLAIMED = ("id", "digest_id", "parent_id", "reader_ids", "fence", "attempts", "is_second_try")

_BEGIN = f"""
    WITH held AS (
        UPDATE {_BATCHES} AS batch SET state = 'submitting', lease_until = clock_timestamp() + make_interval(secs => %s)
        FROM {_DIGESTS} AS digest
        WHERE batch.id = %s AND batch.fence = %s AND digest.id = batch.digest_id
            AND batch.state IN ('leased', 'submitting') AND batch.lease_until > clock_timestamp()
            AND digest.state = 'sending' AND digest.not_after > clock_timestamp()
        RETURNING batch.id
    )
    INSERT INTO {_ATTEMPTS} (batch_id, provider_id, fence, started_at, acknowledged, in_flight, outcome, detail)
    SELECT id, %s, %s, clock_timestamp(), 0, %s, '', '' FROM held
    RETURNING id, started_at, EXISTS (SELECT FROM {_DELIVERIES} AS each WHERE each.batch_id = {_ATTEMPTS}.batch_id)
"""  # noqa: S608

_GO_ON = f"""
    UPDATE {_ATTEMPTS} AS attempt SET acknowledged = %s, in_flight = %s
    FROM {_BATCHES} AS batch, {_DIGESTS} AS digest
    WHERE attempt.id = %s AND batch.id = attempt.batch_id AND digest.id = batch.digest_id
        AND batch.fence = %s AND batch.state = 'submitting' AND batch.lease_until > clock_timestamp()
        AND digest.state = 'sending' AND digest.not_after > clock_timestamp() AND attempt.detail = ''
    RETURNING attempt.id
"""  # noqa: S608

_CLOSE = f"""
    WITH closed AS (
        UPDATE {_BATCHES} AS batch SET state = 'done', lease_until = NULL, hinted_at = NULL, owner = ''
        FROM {_ATTEMPTS} AS attempt
        WHERE attempt.id = %s AND batch.id = attempt.batch_id AND batch.fence = %s AND batch.state = 'submitting'
            AND NOT EXISTS (SELECT FROM {_DELIVERIES} AS each WHERE each.batch_id = batch.id AND state = 'postponed')
        RETURNING attempt.id
    )
    UPDATE {_ATTEMPTS} AS attempt SET ended_at = clock_timestamp(), acknowledged = %s, in_flight = 0,
        outcome = 'accepted', detail = ''
    FROM closed WHERE attempt.id = closed.id
    RETURNING ended_at
"""  # noqa: S608

# By the statement's clock, for which an index can be asked.
_WAITING = f"""
    SELECT batch.id FROM {_BATCHES} AS batch JOIN {_DIGESTS} AS digest ON digest.id = batch.digest_id
    WHERE digest.state = 'sending' AND batch.state = 'pending' AND batch.next_attempt_at <= statement_timestamp()
    ORDER BY batch.next_attempt_at LIMIT %s
"""  # noqa: S608

_HAS_OPEN = f"""
    SELECT EXISTS (SELECT 1 FROM {_BATCHES} WHERE digest_id = %s AND state IN ('pending', 'leased', 'submitting'))
"""  # noqa: S608


class Beginning(NamedTuple):
    """An attempt that was written down, and whether the batch has deliveries, from an earlier one or another batch."""

    attempt_id: int
    at: datetime
    has_deliveries: bool


def waiting_batches(*, most: int) -> list[int]:
    """Return some batches that wait for any worker, those that have waited longest first."""
    if connection.vendor != "postgresql":
        waiting = DeliveryBatch.objects.waiting(database_now()).order_by("next_attempt_at")
        return list(waiting.values_list("id", flat=True)[:most])
    with busy_cursor() as cursor:
        cursor.execute(_WAITING, [most])
        return [batch_id for (batch_id,) in cursor.fetchall()]


def claim_batch(batch_id: int, *, owner: str, lease: timedelta, attempts: int) -> DeliveryBatch | None:
    """Claim a batch that waits, and was not attempted so often; return what is to be known of it, the new fence too.

    None, and nothing written, if it is not to be had; or where it takes more than one statement to say so (SQLite).
    """
    if connection.vendor != "postgresql":
        return None
    with busy_cursor() as cursor:
        cursor.execute(_CLAIM, [owner, lease.total_seconds(), batch_id, attempts])
        row = cursor.fetchone()
    if row is None:
        return None
    values = dict(zip(_CLAIMED, row, strict=True))
    values["reader_ids"] = json.loads(values["reader_ids"])
    return DeliveryBatch.from_db(connection.alias, values.keys(), values.values())


def begin_attempt(
    batch: DeliveryBatch, *, fence: int, provider: Provider, lease: timedelta, in_flight: int
) -> Beginning | None:
    """Hold a claimed batch and write down that its first readers come next.

    None, and nothing written, if the claim is lost or its digest not being sent; or where it takes more than one
    statement to say so (SQLite).
    """
    if connection.vendor != "postgresql":
        return None
    with busy_cursor() as cursor:
        cursor.execute(_BEGIN, [lease.total_seconds(), batch.pk, fence, provider.pk, fence, in_flight])
        row = cursor.fetchone()
        return Beginning(*row) if row else None


def write_deliveries(batch: DeliveryBatch, *, at: datetime) -> None:
    """Insert a delivery for each reader of the batch; who was erased gets one that says so.

    Who has a delivery of this digest keeps that one. Needs a transaction. If a reader got one, or was erased, at this
    very moment, `IntegrityError` is raised here or by the commit; who begins anew finds everybody as he is.
    """
    if connection.vendor == "postgresql":
        if batch.reader_ids:
            _insert(batch, at=at)
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


def _insert(batch: DeliveryBatch, *, at: datetime) -> None:
    words = _WRITE_DELIVERIES.format(uuid=_words_of_uuid())
    if _is_among_others(batch):
        words += " ON CONFLICT DO NOTHING"
    with busy_cursor() as cursor:
        cursor.execute(
            words,
            {
                "time": _time_of_uuid(at),
                "digest": batch.digest_id,
                "batch": batch.pk,
                "at": at,
                "readers": array_of(batch.reader_ids),
            },
        )


def _is_among_others(batch: DeliveryBatch) -> bool:
    """Whether the digest has deliveries to readers with such numbers, as when latecomers' batches follow the others.

    To look once for them all spares the database to look for each reader before it writes his delivery.
    """
    with busy_cursor() as cursor:
        cursor.execute(_ARE_OTHERS, [batch.digest_id, min(batch.reader_ids), max(batch.reader_ids)])
        return bool(cursor.fetchone()[0])


def _words_of_uuid() -> str:
    return _SINCE_POSTGRESQL_18 if connection.pg_version >= 180_000 else _BEFORE_POSTGRESQL_18  # type: ignore[attr-defined]


def _time_of_uuid(moment: datetime) -> str:
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def go_on(attempt_id: int, *, fence: int, done: int, in_flight: int) -> bool:
    """Commit that so many readers are done and so many come next, if the claim and its digest stand as they did.

    False, and nothing written, if they do not, or if word was left to look again (`uniting`); or where it takes more
    than one statement to say so (SQLite).
    """
    if connection.vendor != "postgresql":
        return False
    return bool(ask(_GO_ON, [done, in_flight, attempt_id, fence]))


def close_batch(attempt_id: int, *, fence: int, done: int) -> datetime | None:
    """Commit that all of a batch is done, if it is still claimed and nobody of it waits again; return when.

    None, and nothing written, if not; or where it takes more than one statement to say so (SQLite).
    """
    if connection.vendor != "postgresql":
        return None
    with busy_cursor() as cursor:
        cursor.execute(_CLOSE, [attempt_id, fence, done])
        row = cursor.fetchone()
        return row[0] if row else None


def has_open_batches(digest_id: int) -> bool:
    """Whether some of a digest's readers have not got it yet, for all that is known."""
    with busy_cursor() as cursor:
        cursor.execute(_HAS_OPEN, [digest_id])
        return bool(cursor.fetchone()[0])
