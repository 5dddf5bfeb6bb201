"""Each exercise of a right is a case: received, due, perhaps extended, answered by whom and how (GDPR Art. 12(3)).

A period in months ends on the day of the same number, or on the last of a shorter month (Regulation 1182/71 Art.
3(2)(c)). It would go on to the next working day if it ended on a holiday, Sunday or Saturday (Art. 3(4)); we do not
count on that, so that we are early rather than late.
"""

import logging
from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from newsroom.mail import outbox
from newsroom.mail.addresses import Address
from newsroom.mail.alarms import Alarm
from subscriptions.models import Newsletter, PrivacyRequest, RightsCase

logger = logging.getLogger(__name__)

Kind, State, Way, Warning = RightsCase.Kind, RightsCase.State, RightsCase.Way, RightsCase.Warning

PERIOD, EXTENSION = 1, 2  # calendar months (Art. 12(3))
READER, SYSTEM = "reader", "system"
LOOK, HANDLE = "subscriptions.view_rightscase", "subscriptions.handle_cases"


class TooLate(Exception):
    """An extension is told within the first month, or not at all. `str()` is a sentence for staff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What came in by letter, call, mail or fax, as staff enter it. The same `uuid` is entered once."""

    kind: RightsCase.Kind
    way: RightsCase.Way
    address: Address
    received_on: date
    newsletters: Iterable[Newsletter] = ()
    new_address: Address | None = None
    note: str = ""
    uuid: UUID = field(default_factory=uuid4)


def add_months(day: date, months: int) -> date:
    """Return the day of the same number so many months later, or the last of that month if it has none."""
    years, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(years, month + 1, min(day.day, monthrange(years, month + 1)[1]))


@transaction.atomic
def enter(letter: Letter, *, by: str, now: datetime) -> tuple[RightsCase, bool]:
    """Write a case down, and say whether it was new: a form sent twice is one letter.

    The same form gone back to and filled in for somebody else is another one.
    """
    newsletters = list(letter.newsletters)
    values = {
        "kind": letter.kind,
        "way": letter.way,
        "address": letter.address.canonical,
        "address_key": letter.address.key,
        "new_address": letter.new_address.canonical if letter.new_address else "",
        "received_on": letter.received_on,
        "due_on": add_months(letter.received_on, PERIOD),
        "entered_at": now,
        "entered_by": by,
        "note": letter.note,
    }
    wish = [letter.kind, letter.way, letter.address.key, letter.received_on, values["new_address"]]
    uuid = uuid5(letter.uuid, " ".join(map(str, [*wish, *sorted(newsletter.pk for newsletter in newsletters)])))
    case, is_new = RightsCase.objects.get_or_create(uuid=uuid, defaults=values)
    if is_new:
        case.newsletters.set(newsletters)
    return case, is_new


@transaction.atomic
def note_answered(request: PrivacyRequest, kind: RightsCase.Kind, *, now: datetime) -> None:
    """Record what a reader did himself on the page his link opened: received and answered at once.

    Once per link and kind: who downloads the file twice has one wish.
    """
    today = timezone.localdate(now)
    values = {
        "way": Way.PAGE,
        "state": State.DONE,
        "address": request.address,
        "address_key": request.address_key,
        "received_on": today,
        "due_on": add_months(today, PERIOD),
        "entered_at": now,
        "entered_by": READER,
        "closed_at": now,
        "closed_by": READER,
    }
    RightsCase.objects.get_or_create(request=request, kind=kind, defaults=values)


def close(case: RightsCase, *, outcome: str, by: str, now: datetime, state: str = State.DONE) -> bool:
    """Close an open case with what was done, or why it was refused. Return False if it was closed before."""
    still_open = RightsCase.objects.open().filter(pk=case.pk)
    return still_open.update(state=state, outcome=outcome, closed_by=by, closed_at=now) == 1


@transaction.atomic
def refuse(case: RightsCase, *, reason: str, tells: bool, by: str, now: datetime) -> bool:
    """Refuse with the reason; with `tells` the reader learns it by mail, and where to complain (Art. 12(4))."""
    done = close(case, outcome=reason, by=by, now=now, state=State.REFUSED)
    if done and tells:
        outbox.enqueue("case_refused", reference=case.uuid, now=now)
    return done


@transaction.atomic
def extend(case: RightsCase, *, reason: str, tells: bool, by: str, now: datetime) -> bool:
    """Put the deadline off by two months, once, within the first (Art. 12(3)); with `tells` by a mail of ours."""
    if timezone.localdate(now) > case.due_on:
        raise TooLate(_("The first month is over: an extension must be told within it (GDPR Art. 12(3))."))
    once = RightsCase.objects.open().filter(pk=case.pk, extended_at=None)
    due_on = add_months(case.received_on, PERIOD + EXTENSION)
    if not once.update(due_on=due_on, extended_at=now, extension_reason=reason, warned=Warning.NONE):
        return False
    logger.info("Case %s was extended by %s.", case.pk, by)
    if tells:
        outbox.enqueue("case_extended", reference=case.uuid, now=now)
    return True


def note_rectified(address_key: str, new: Address, *, now: datetime) -> None:
    """Close the wishes for this address, for it is confirmed; the reader's cases go along to it."""
    cases = RightsCase.objects.filter(address_key=address_key)
    wishes = cases.open().filter(kind=Kind.RECTIFY, new_address=new.canonical)
    wishes.update(state=State.DONE, closed_at=now, closed_by=READER, outcome=_("The new address is confirmed."))
    cases.update(address=new.canonical, address_key=new.key)


@transaction.atomic
def warn_of_deadlines(now: datetime) -> int:
    """Mail the officer about each case that became pressing or late since the last time, and return how many."""
    today = timezone.localdate(now)
    overdue = RightsCase.objects.overdue(today).exclude(warned=Warning.OVERDUE)
    soon_due = RightsCase.objects.soon_due(today).filter(warned=Warning.NONE)
    return _warn(overdue, Warning.OVERDUE, now) + _warn(soon_due, Warning.SOON_DUE, now)


def _warn(cases: Iterable[RightsCase], warning: RightsCase.Warning, now: datetime) -> int:
    count = 0
    for case in cases:
        if RightsCase.objects.open().filter(pk=case.pk, warned=case.warned).update(warned=warning):
            outbox.enqueue(f"case_{warning}", reference=reference_of(case), now=now)
            count += 1
    return count


def reference_of(case: RightsCase) -> UUID:
    """Return what a warning's mail refers to: the case and the deadline, for an extended one is warned of anew."""
    return uuid5(case.uuid, case.due_on.isoformat())


def anonymise(address_key: str, now: datetime) -> int:
    """Take the reader out of his cases, and answer open ones: nothing is left that they could be about."""
    cases = RightsCase.objects.filter(address_key=address_key)
    cases.open().update(state=State.DONE, closed_at=now, closed_by=SYSTEM)
    count = cases.update(
        address="", address_key="", new_address="", extension_reason="", outcome="", note="", request=None
    )
    return count + _naming(address_key).update(new_address="")


def _naming(address_key: str) -> QuerySet[RightsCase]:
    """The cases in which another reader gave this address as the one to move to."""
    return RightsCase.objects.filter(new_address__iexact=address_key).exclude(address_key=address_key)


def export(address_key: str) -> list[dict[str, Any]]:
    """Return a reader's cases; not who of our staff handled them, for that is their data (EuGH C-579/21).

    Of a case in which another reader gave this address as the new one, that it was given; the rest is the other's.
    """
    own = RightsCase.objects.filter(address_key=address_key).prefetch_related("newsletters").order_by("pk")
    return _described(own) + [
        {**case, "newsletters": [], "address": "", "extension_reason": "", "outcome": "", "internal_note": ""}
        for case in _described(_naming(address_key).order_by("pk"))
    ]


def held() -> Iterator[str]:
    """Return the keys of all addresses that cases name."""
    for address_key, new_address in RightsCase.objects.values_list("address_key", "new_address").iterator():
        yield address_key
        yield new_address.lower()


def _described(cases: Iterable[RightsCase]) -> list[dict[str, Any]]:
    return [
        {
            "number": case.pk,
            "kind": case.kind,
            "way": case.way,
            "received_on": case.received_on.isoformat(),
            "due_on": case.due_on.isoformat(),
            "newsletters": [newsletter.name for newsletter in case.newsletters.all()],
            "address": case.address,
            "new_address": case.new_address,
            "extended_at": _time(case.extended_at),
            "extension_reason": case.extension_reason,
            "state": case.state,
            "answered_at": _time(case.closed_at),
            "outcome": case.outcome,
            "internal_note": case.note,
        }
        for case in cases
    ]


def _time(moment: datetime | None) -> str | None:
    return timezone.localtime(moment).isoformat(timespec="seconds") if moment else None


def alarms(now: datetime) -> list[Alarm]:
    """Say on the start page how many cases are open, soon due and overdue; mails are `warn_of_deadlines`."""
    today = timezone.localdate(now)
    still_open = RightsCase.objects.open().count()
    if not still_open:
        return []
    counts = {
        "open": still_open,
        "soon_due": RightsCase.objects.soon_due(today).count(),
        "overdue": RightsCase.objects.overdue(today).count(),
    }
    text = _("Readers' cases: %(open)d open, %(soon_due)d of them soon due, %(overdue)d overdue.") % counts
    url = reverse("admin:subscriptions_rightscase_changelist") + "?deadline=open"
    return [Alarm(key="cases", text=text, url=url, permission=HANDLE, is_grave=counts["overdue"] > 0)]
