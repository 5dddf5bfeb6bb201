"""Which promises about subscriptions are broken now. An empty list is the only good answer."""

from datetime import datetime, timedelta

from subscriptions import erasures, ledger, missing
from subscriptions.models import ConsentPayload, ConsentRecord, Subscription

# A change of address carries the proof along.
PROVING = [ConsentRecord.Type.CONFIRMED, ConsentRecord.Type.ADDED, ConsentRecord.Type.ADDRESS_CHANGED]
SEAL_LATENESS = timedelta(minutes=30)  # beat seals every minute


def broken_invariants(now: datetime) -> list[str]:
    breaks = ledger.find_breaks()
    return [
        *filter(None, [ledger.first_break(breaks)]),
        *(found.sentence for found in breaks),
        *missing.find(now),
        *_late_seals(now),
        *_unproven_subscriptions(),
        *_unknown_erasures(),
    ]


def notes(now: datetime) -> list[str]:
    """Return what is no broken promise and yet good to know."""
    lapsed, unsealed = Subscription.objects.lapsed(now).count(), ConsentRecord.objects.unsealed().count()
    said = {
        f"{lapsed} consents have lapsed; their readers are not mailed until they consent anew (R-10).": lapsed,
        f"{unsealed} consent records wait for their seal.": unsealed,
    }
    return [sentence for sentence, count in said.items() if count]


def _late_seals(now: datetime) -> list[str]:
    late = ConsentRecord.objects.unsealed().filter(at__lt=now - SEAL_LATENESS).count()
    return [f"{late} consent records are not sealed yet, the oldest for more than {SEAL_LATENESS}."] if late else []


def _unproven_subscriptions() -> list[str]:
    """No mail without proof: whoever gets a newsletter has a confirmation on record."""
    proven = ConsentPayload.objects.filter(record__type__in=PROVING).values("address_key")
    unproven = Subscription.objects.active().exclude(subscriber__address_key__in=proven)
    return [
        f"Subscription {uuid} is active without a consent on record."
        for uuid in unproven.values_list("uuid", flat=True)
    ]


def _unknown_erasures() -> list[str]:
    reason = erasures.find_obstacle()
    return [f"No mail goes: {reason}"] if reason else []
