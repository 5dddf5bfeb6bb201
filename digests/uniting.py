"""Two readers who become one get a digest once, though both had a place in it (see `subscriptions.rectifying`)."""

from collections.abc import Iterable

from digests.models import Delivery, DeliveryAttempt, DeliveryBatch

# What a worker finds at its attempt when it goes on: some of the copies it is about to make are not wanted any more.
LOOK_AGAIN = "look again"

Own = Delivery.State
MAY_HAVE_GONE = (Own.ACCEPTED, Own.UNCERTAIN, Own.BOUNCED, Own.COMPLAINED)


def leave_out_second(gone: int, reader: int) -> None:
    """Leave the reader out of running digests of which the other's copy has gone, or may have, and his own has not.

    The other way round there is nothing to do: who is gone is not mailed. Needs a transaction that holds both.
    """
    to_gone = Delivery.objects.filter(subscriber=gone)
    to_both = Delivery.objects.filter(subscriber=reader, digest__in=to_gone.values("digest"))
    running = list(to_both.filter(batch__state__in=DeliveryBatch.OPEN_STATES).values_list("digest", flat=True))
    if not running:
        return
    copies = Delivery.objects.filter(subscriber__in=[gone, reader], digest__in=running)
    held = _hold(set(copies.values_list("batch", flat=True)))
    open_ones = copies.filter(subscriber=reader, state__in=["", Own.POSTPONED])
    waiting = {copy.digest_id: copy for copy in open_ones if not _may_have_gone(copy, held)}
    second = [
        waiting[copy.digest_id]
        for copy in copies.filter(subscriber=gone, digest__in=waiting)
        if _may_have_gone(copy, held)
    ]
    Delivery.objects.filter(pk__in=[copy.pk for copy in second]).update(state=Own.SUPPRESSED, reason="moved")
    at_work = DeliveryAttempt.objects.filter(batch__in=[copy.batch_id for copy in second], ended_at=None)
    at_work.update(detail=LOOK_AGAIN)


def _hold(batch_ids: Iterable[int]) -> dict[int, list[int]]:
    """Keep workers from going on with these batches; return whose copies went, or may be on their way."""
    batches = DeliveryBatch.objects.filter(pk__in=batch_ids).select_for_update().order_by("pk")
    return {batch.pk: _begun(batch) for batch in list(batches)}


def _begun(batch: DeliveryBatch) -> list[int]:
    if batch.state == DeliveryBatch.State.DONE:
        return batch.reader_ids
    attempt = DeliveryAttempt.objects.select_for_update().filter(batch=batch, fence=batch.fence, ended_at=None).first()
    return batch.reader_ids[: attempt.acknowledged + attempt.in_flight] if attempt else []


def _may_have_gone(copy: Delivery, held: dict[int, list[int]]) -> bool:
    return copy.state in MAY_HAVE_GONE if copy.state else copy.subscriber_id in held.get(copy.batch_id, ())
