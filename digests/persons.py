"""What digests hold about a reader: which digest was handed over when, without an address."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from digests.models import OUTCOME, Delivery, DeliveryBatch
from newsroom import persons
from newsroom.persons import Holding
from newsroom.persons.words import Passage, Row, Words, day
from newsroom.retention import period_of

SHOWN = 10  # of each newsletter's deliveries in words; all of them stand in the export


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
            words=DELIVERIES,
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
    persons.register_without("what staff were alarmed of", "mail.StaffAlarm")
    persons.register_without("numbers of readers, which lead nowhere once they are erased", "digests.DeliveryBatch")


def kept() -> str:
    return _("How many readers got a digest stays as a mere number, without any relation to you.")


def tell_deliveries(rows: list[Row]) -> list[Passage]:
    """Tell each newsletter's deliveries: how many, and the latest one by one."""
    by_newsletter: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_newsletter[row["newsletter"]].append(row)
    return [_tell_newsletter(name, deliveries) for name, deliveries in sorted(by_newsletter.items())]


def _tell_newsletter(name: str, deliveries: list[Row]) -> Passage:
    latest = sorted(deliveries, key=lambda row: str(row["date"]), reverse=True)[:SHOWN]
    facts = [(_("Number"), _count(len(deliveries)))]
    if len(deliveries) > len(latest):
        facts.append((_("Since"), day(min(row["date"] for row in deliveries))))
    return Passage(name, (*facts, *((day(row["date"]), _outcome(row["outcome"])) for row in latest)))


def _count(number: int) -> str:
    said = ngettext("%(count)d issue", "%(count)d issues", number) % {"count": number}
    return said if number <= SHOWN else _("%(issues)s; here are the latest") % {"issues": said}


def _outcome(code: str) -> str:
    labels = {**dict(DeliveryBatch.State.choices), **dict(Delivery.State.choices)}
    return capfirst(str(labels.get(code, code)))


DELIVERIES = Words(
    title=gettext_lazy("Issues sent to you"),
    why=gettext_lazy("So that nobody gets an issue twice or not at all."),
    legal_basis=gettext_lazy("your consent (GDPR Art. 6(1)(a))"),
    until=period_of("deliveries"),
    tell=tell_deliveries,
)
