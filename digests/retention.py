"""What is purged of digests, and when."""

from datetime import datetime

from django.conf import settings
from django.db import transaction

from digests.models import DeliveryBatch, Digest
from digests.outcomes import counts


def purge(now: datetime) -> dict[str, int]:
    """Delete who got which digest once `DELIVERY_RETENTION` is over; the sums stay."""
    old = Digest.objects.filter(
        final_counts__isnull=True,
        due_at__lt=now - settings.DELIVERY_RETENTION,
        state__in=[Digest.State.FINISHED, Digest.State.CANCELLED, Digest.State.SKIPPED],
    )
    return {"deliveries": sum(_purge_deliveries(digest) for digest in old)}


def _purge_deliveries(digest: Digest) -> int:
    with transaction.atomic():
        Digest.objects.filter(pk=digest.pk).update(final_counts=counts(digest))
        deleted = digest.deliveries.all().delete()[0]
        DeliveryBatch.objects.filter(digest=digest).delete()
    return deleted
