"""Addresses that must not be mailed, kept as keyed hashes: the key is not in the database."""

import hashlib
import hmac
from datetime import datetime

from django.conf import settings

from subscriptions.models import Suppression

# What the reader's own confirmed sign-up lifts. A complaint stays until staff decide.
LIFTED_BY_CONFIRMATION = (
    Suppression.Reason.ERASURE,
    Suppression.Reason.OBJECTION,
    Suppression.Reason.HARD_BOUNCE,  # the confirmation mail arrived
)


def address_hash(address_key: str) -> str:
    return hmac.new(settings.SUPPRESSION_KEY.encode(), address_key.encode(), hashlib.sha256).hexdigest()


def find(address_key: str) -> Suppression | None:
    return Suppression.objects.filter(address_hash=address_hash(address_key)).first()


def is_suppressed(address_key: str) -> bool:
    return find(address_key) is not None


def is_blocked(address_key: str) -> bool:
    """Say whether not even a confirmation mail may go: someone complained, and only staff can lift that."""
    suppression = find(address_key)
    return suppression is not None and suppression.reason not in LIFTED_BY_CONFIRMATION


def note(address_key: str, reason: Suppression.Reason, now: datetime) -> None:
    """Remember that an address must not be mailed. A complaint replaces any other reason and is replaced by none.

    `consent.suppress` calls this and ends the subscriptions in the same transaction.
    """
    suppression, created = Suppression.objects.get_or_create(
        address_hash=address_hash(address_key), defaults={"reason": reason, "created_at": now}
    )
    if not created and reason == Suppression.Reason.COMPLAINT:
        Suppression.objects.filter(pk=suppression.pk).update(reason=reason, created_at=now)


def lift(address_key: str) -> None:
    """Forget a suppression that the reader's own confirmation undoes."""
    Suppression.objects.filter(address_hash=address_hash(address_key), reason__in=LIFTED_BY_CONFIRMATION).delete()
