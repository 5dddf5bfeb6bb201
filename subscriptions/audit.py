"""Which promises about subscriptions are broken now. An empty list is the only good answer."""

from datetime import datetime, timedelta

from subscriptions import erasures, ledger
from subscriptions.models import ConsentPayload, ConsentRecord, Subscription

SEAL_LATENESS = timedelta(minutes=30)  # beat seals every minute


def broken_invariants(now: datetime) -> list[str]:
    return [*ledger.verify(), *_late_seals(now), *_unproven_subscriptions(), *_unknown_erasures()]


def _late_seals(now: datetime) -> list[str]:
    late = ConsentRecord.objects.unsealed().filter(at__lt=now - SEAL_LATENESS).count()
    return [f"{late} consent records are not sealed yet, the oldest for more than {SEAL_LATENESS}."] if late else []


def _unproven_subscriptions() -> list[str]:
    """No mail without proof: whoever gets a newsletter has a confirmation on record."""
    proven = ConsentPayload.objects.filter(
        record__type__in=[ConsentRecord.Type.CONFIRMED, ConsentRecord.Type.ADDED]
    ).values("address_key")
    unproven = Subscription.objects.active().exclude(subscriber__address_key__in=proven)
    return [
        f"Subscription {uuid} is active without a consent on record."
        for uuid in unproven.values_list("uuid", flat=True)
    ]


def _unknown_erasures() -> list[str]:
    reason = erasures.find_obstacle()
    return [f"No mail goes: {reason}"] if reason else []
