"""What digests hold about a reader: which digest was handed over when, without an address."""

import json
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from digests.models import OUTCOME, Delivery, DeliveryBatch, ProviderEvent
from digests.uniting import leave_out_second
from newsroom import persons
from newsroom.mail.addresses import InvalidAddress, canonicalise
from newsroom.persons import Holding
from newsroom.persons.words import Passage, Row, Words, day, passages
from newsroom.retention import period_of

SHOWN = 10  # of each newsletter's deliveries in words; all of them stand in the export


def export_deliveries(address_key: str) -> list[dict[str, Any]]:
    """Return which digests the reader was handed, with the outcome of each."""
    deliveries = (
        Delivery.objects.filter(subscriber__address_key=address_key)
        .order_by("created_at", "pk")
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


def merge_deliveries(gone: int, reader: int) -> None:
    """Keep what a reader got under another address; of a digest that came to both, once."""
    leave_out_second(gone, reader)
    both = Delivery.objects.filter(subscriber=reader).values("digest")
    Delivery.objects.filter(subscriber=gone).exclude(digest__in=both).update(subscriber=reader)


def export_events(address_key: str) -> list[dict[str, Any]]:
    """Return what the provider reported of mails to the reader, where it was more than that they arrived."""
    events = _events_of(address_key).order_by("received_at", "id")
    return [
        {
            "newsletter": event.delivery.digest.newsletter.name if event.delivery else "",
            "date": (event.day or timezone.localdate(event.received_at)).isoformat(),
            "what": event.kind,
            "code": event.code,
        }
        for event in events.select_related("delivery__digest__newsletter")
    ]


def forget_events(address_key: str, now: datetime) -> int:
    return _events_of(address_key).delete()[0]


def _events_of(address_key: str) -> QuerySet[ProviderEvent]:
    """Reports of the reader's deliveries, and those not understood so far in which the address stands."""
    forms = {address_key, json.dumps(address_key)[1:-1]}
    with suppress(InvalidAddress):  # what is looked for may be any text
        forms |= {canonicalise(address_key).display, json.dumps(canonicalise(address_key).display)[1:-1]}
    named = Q()
    for form in forms:
        named |= Q(raw__icontains=form)
    naming = list(ProviderEvent.objects.unread().filter(named).values_list("pk", flat=True))
    deliveries = Delivery.objects.filter(subscriber__address_key=address_key)
    return ProviderEvent.objects.filter(Q(delivery__in=deliveries) | Q(pk__in=naming))


def register() -> None:
    persons.register(
        Holding(
            name="deliveries",
            models=("digests.Delivery",),
            export=export_deliveries,
            erase=forget_deliveries,
            kept=kept,
            merge=merge_deliveries,
            words=DELIVERIES,
        )
    )
    # After the deliveries, and so erased before them: it is the delivery that tells whose a report is.
    persons.register(
        Holding(
            name="provider_events",
            models=("digests.ProviderEvent",),
            export=export_events,
            erase=forget_events,
            words=EVENTS,
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
    facts = [(_("How many"), _count(len(deliveries)))]
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


def _kind(code: str) -> str:
    return capfirst(str(dict(ProviderEvent.Kind.choices).get(code, code)))


EVENTS = Words(
    title=gettext_lazy("Mails that came back, or were called spam"),
    why=gettext_lazy(
        "So that we stop writing to a mailbox that is closed, or to somebody who does not want our mails."
    ),
    legal_basis=gettext_lazy("our legitimate interest in not burdening others (GDPR Art. 6(1)(f))"),
    until=period_of("provider_events"),
    tell=passages(
        {
            "date": (gettext_lazy("Day"), day),
            "newsletter": (gettext_lazy("Newsletter"), str),
            "what": (gettext_lazy("What happened"), _kind),
            "code": (gettext_lazy("Status code"), str),
        }
    ),
)
