"""What is done with a whole audience at once, in each database's own words."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from django.db import connection
from django.db.models import QuerySet

from digests.models import DeliveryBatch, Digest
from subscriptions.models import Subscription

T = TypeVar("T")

# So many batches go into one statement where they pass through this process.
BATCHES_AT_ONCE = 100

# Numbered first and grouped then, so that the database sorts once and keeps no audience in memory.
_WRITE_BATCHES = """
    INSERT INTO {batches} (digest_id, number, reader_ids, size, state, reason, owner, fence, attempts,
                           next_attempt_at, is_second_try)
    SELECT %s, %s + place / %s, jsonb_agg(reader ORDER BY place), count(*), 'pending', '', '', 0, 0, %s, false
    FROM (SELECT reader, row_number() OVER (ORDER BY reader) - 1 AS place FROM ({readers}) AS chosen (reader)) AS placed
    GROUP BY place / %s
"""

# An EXCEPT, because NOT IN over many rows is looked through row by row once it outgrows the memory it may use.
_WITHOUT_PLACED = "{readers} EXCEPT SELECT {reader} FROM {batches} WHERE digest_id = %s AND state <> 'done' LIMIT %s"


def write_batches(
    digest: Digest, subscriptions: QuerySet[Subscription], *, first_number: int, size: int, at: datetime
) -> int:
    """Divide the readers of the subscriptions, by their ids, into batches due at `at`; return how many readers.

    Needs a transaction that holds the digest. On PostgreSQL it is one statement, and no reader passes through here.
    """
    if connection.vendor != "postgresql":
        readers = subscriptions.order_by("subscriber_id").values_list("subscriber_id", flat=True)
        return add_batches(digest, readers.iterator(2000), first_number=first_number, size=size, at=at)
    inner, values = _sql_of(subscriptions)
    batches = connection.ops.quote_name(DeliveryBatch._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH written AS ({_WRITE_BATCHES.format(batches=batches, readers=inner)} RETURNING size)"  # noqa: S608
            " SELECT coalesce(sum(size), 0) FROM written",
            [digest.pk, first_number, size, at, *values, size],
        )
        return int(cursor.fetchone()[0])


def add_batches(digest: Digest, reader_ids: Iterable[int], *, first_number: int, size: int, at: datetime) -> int:
    """Divide readers, in their order, into batches due at `at`; return how many. As above, but by way of this process.

    However many they are, only some batches are in memory at a time.
    """
    batches = (
        DeliveryBatch(digest=digest, number=number, reader_ids=chunk, size=len(chunk), next_attempt_at=at)
        for number, chunk in enumerate(_chunks(reader_ids, size), start=first_number)
    )
    count = 0
    for group in _chunks(batches, BATCHES_AT_ONCE):
        count += sum(batch.size for batch in DeliveryBatch.objects.bulk_create(group))
    return count


def without_placed(digest: Digest, subscriptions: QuerySet[Subscription], *, most: int) -> list[int]:
    """Return at most so many readers of the subscriptions who stand in no batch of the digest that is not done yet."""
    inner, values = _sql_of(subscriptions)
    batches = connection.ops.quote_name(DeliveryBatch._meta.db_table)
    reader = "jsonb_array_elements(reader_ids)::bigint"
    if connection.vendor != "postgresql":
        batches, reader = f"{batches}, json_each(reader_ids)", "value"
    with connection.cursor() as cursor:
        words = _WITHOUT_PLACED.format(readers=inner, reader=reader, batches=batches)
        cursor.execute(words, [*values, digest.pk, most])
        return [row[0] for row in cursor.fetchall()]


def _sql_of(subscriptions: QuerySet[Subscription]) -> tuple[str, tuple[Any, ...]]:
    return subscriptions.order_by().values_list("subscriber_id").query.sql_with_params()


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
