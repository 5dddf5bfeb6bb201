"""Whose copies are on their way to the provider right now."""

from django.db.models import F

from digests.clock import database_now
from digests.models import DeliveryAttempt, DeliveryBatch


def is_in_flight(reader_id: int) -> bool:
    """Whether a living worker is at the group of copies that holds this reader's."""
    groups = DeliveryAttempt.objects.filter(
        batch__state=DeliveryBatch.State.SUBMITTING, batch__lease_until__gt=database_now(), fence=F("batch__fence")
    ).values_list("acknowledged", "in_flight", "batch__reader_ids")
    return any(reader_id in reader_ids[done : done + count] for done, count, reader_ids in groups)
