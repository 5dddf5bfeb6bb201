"""Addresses that must not be mailed, kept as keyed hashes: the key is not in the database.

After a change of the key, entries made with a former one are still found (SUPPRESSION_KEY_FALLBACKS), and take the
current key as soon as their address comes by again.
"""

import hashlib
import hmac
from datetime import datetime

from django.conf import settings

from subscriptions.models import Suppression

# The later replaces the former: who objects after an erasure means more than that.
BY_STRENGTH = (
    Suppression.Reason.HARD_BOUNCE,  # ends after a year
    Suppression.Reason.ERASURE,
    Suppression.Reason.OBJECTION,
    Suppression.Reason.COMPLAINT,
)
# What the reader's own confirmed sign-up lifts. A complaint stays until staff decide.
LIFTED_BY_CONFIRMATION = (
    Suppression.Reason.ERASURE,
    Suppression.Reason.OBJECTION,
    Suppression.Reason.HARD_BOUNCE,  # the confirmation mail arrived
)


def address_hash(address_key: str) -> str:
    return _hash(address_key, settings.SUPPRESSION_KEY)


def address_hashes(address_key: str) -> list[str]:
    """Return the hashes an address may be known by: with the current key first, then with former ones."""
    return [_hash(address_key, key) for key in (settings.SUPPRESSION_KEY, *settings.SUPPRESSION_KEY_FALLBACKS)]


def _hash(address_key: str, key: str) -> str:
    return hmac.new(key.encode(), address_key.encode(), hashlib.sha256).hexdigest()


def find(address_key: str) -> Suppression | None:
    """Return the entry of an address; the one of a complaint if there are several, as after a change of the key."""
    entries = list(Suppression.objects.filter(address_hash__in=address_hashes(address_key)).order_by("pk"))
    complaints = [entry for entry in entries if entry.reason == Suppression.Reason.COMPLAINT]
    return next(iter(complaints + entries), None)


def is_suppressed(address_key: str) -> bool:
    return find(address_key) is not None


def is_blocked(address_key: str) -> bool:
    """Say whether not even a confirmation mail may go: someone complained, and only staff can lift that."""
    suppression = find(address_key)
    return suppression is not None and suppression.reason not in LIFTED_BY_CONFIRMATION


def note(address_key: str, reason: Suppression.Reason, now: datetime) -> None:
    """Remember that an address must not be mailed. A stronger reason replaces a weaker one, never the other way.

    `consent.suppress` calls this and ends the subscriptions in the same transaction.
    """
    _renew(address_key)
    suppression, created = Suppression.objects.get_or_create(
        address_hash=address_hash(address_key), defaults={"reason": reason, "created_at": now}
    )
    known = Suppression.Reason(suppression.reason)
    if not created and BY_STRENGTH.index(reason) > BY_STRENGTH.index(known):
        Suppression.objects.filter(pk=suppression.pk).update(reason=reason, created_at=now)


def lift(address_key: str) -> None:
    """Forget a suppression that the reader's own confirmation undoes."""
    entries = Suppression.objects.filter(address_hash__in=address_hashes(address_key))
    entries.filter(reason__in=LIFTED_BY_CONFIRMATION).delete()


def _renew(address_key: str) -> None:
    """Bring an entry made with a former key to the current one."""
    entry = find(address_key)
    if entry and entry.address_hash != address_hash(address_key):
        Suppression.objects.filter(address_hash__in=address_hashes(address_key)).exclude(pk=entry.pk).delete()
        Suppression.objects.filter(pk=entry.pk).update(address_hash=address_hash(address_key))
