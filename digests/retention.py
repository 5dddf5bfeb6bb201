"""What is purged of digests, and when."""

from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from digests.models import DeliveryBatch, Digest
from digests.outcomes import counts
from subscriptions.models import Subscriber


def purge(now: datetime) -> dict[str, int]:
    """Delete who got which digest once `DELIVERY_RETENTION` is over; the sums stay.

    What is held about a reader whose processing is restricted stays, too (GDPR Art. 18(2)), and goes afterwards.
    """
    ended = [Digest.State.FINISHED, Digest.State.CANCELLED, Digest.State.SKIPPED]
    old = Digest.objects.filter(due_at__lt=now - settings.DELIVERY_RETENTION, state__in=ended)
    left = old.filter(Q(final_counts__isnull=True) | Exists(DeliveryBatch.objects.filter(digest=OuterRef("pk"))))
    return {"deliveries": sum(_purge_deliveries(digest) for digest in left)}


def _purge_deliveries(digest: Digest) -> int:
    restricted = Subscriber.objects.filter(pk=OuterRef("subscriber"), restricted_at__isnull=False)
    with transaction.atomic():
        Digest.objects.filter(pk=digest.pk).update(final_counts=counts(digest))
        deleted = digest.deliveries.filter(~Exists(restricted)).delete()[0]
        # What is left holds deliveries of restricted readers alone: no list of the others, and no tie that cascades.
        digest.batches.update(parent=None, reader_ids=[])
        digest.batches.filter(deliveries=None).delete()
    return deleted
