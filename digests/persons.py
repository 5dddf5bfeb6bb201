"""What digests hold about a reader: which digest was handed over when, without an address."""

from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from digests.models import OUTCOME, Delivery
from newsroom import persons
from newsroom.persons import Holding


def export_deliveries(address_key: str) -> list[dict[str, Any]]:
    """Return which digests the reader was handed, with the outcome of each."""
    deliveries = (
        Delivery.objects.filter(subscriber__address_key=address_key)
        .order_by("created_at", "id")
        .values("digest__newsletter__name", "digest__date", "created_at", "reason", outcome=OUTCOME)
    )
    return [
        {
            "newsletter": delivery["digest__newsletter__name"],
            "date": delivery["digest__date"].isoformat(),
            "at": timezone.localtime(delivery["created_at"]).isoformat(timespec="seconds"),
            "outcome": delivery["outcome"],
            "reason": delivery["reason"],
        }
        for delivery in deliveries
    ]


def forget_deliveries(address_key: str, now: datetime) -> int:
    """Take the reader out of all deliveries; the counts stay."""
    return Delivery.objects.filter(subscriber__address_key=address_key).update(subscriber=None)


def register() -> None:
    persons.register(
        Holding(
            name="deliveries",
            models=("digests.Delivery",),
            export=export_deliveries,
            erase=forget_deliveries,
            kept=kept,
        )
    )
    persons.register_without(
        "what the editors put together for everyone",
        "digests.Digest",
        "digests.DigestEntry",
        "digests.DigestSchedule",
        "digests.DigestChange",
        "digests.LeftOut",
    )
    persons.register_without("what the mail provider answered to all", "digests.DeliveryAttempt", "digests.Provider")
    persons.register_without("numbers of readers, which lead nowhere once they are erased", "digests.DeliveryBatch")


def kept() -> str:
    return _("How many readers got a digest stays as a mere number, without any relation to you.")
