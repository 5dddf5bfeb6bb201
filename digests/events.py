"""What is done about a report of a mail: to its delivery, and to the reader's subscriptions.

Reports come late, twice and in any order. So each moves its delivery forward only, and what it does to a subscription
can be done once: the same reports in any order leave the same rows. A report of no mail of ours changes nothing; an
address in it is never looked up.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from time import monotonic
from uuid import UUID

import requests
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from digests import bounces
from digests.clock import let_others_write
from digests.models import Delivery, DeliveryBatch, DeliveryQuerySet, ProviderEvent
from digests.settling import finish
from digests.webhooks import esps, sns
from digests.webhooks.esps import Report
from newsroom.mail.addresses import InvalidAddress, canonicalise
from newsroom.mail.alarms import Alarm
from newsroom.mail.models import OutboxMail
from subscriptions import consent, rectifying
from subscriptions.consent import Origin
from subscriptions.models import AddressChange, PrivacyRequest, SignUp, Subscriber, Suppression

log = logging.getLogger(__name__)

Kind = ProviderEvent.Kind
State = ProviderEvent.State
Own = Delivery.State

AT_ONCE = 100  # rows of one transaction, and of one look into the table
LONGEST_RUN = 40.0  # seconds; the rest waits for the next run, and a task's time limit is not met in mid-work
MAX_ATTEMPTS = 8
LONGEST_WAIT = timedelta(minutes=15)

# They say that a mail was taken over, which is news only where that was uncertain.
QUIET = (Kind.ACCEPTED, Kind.DELIVERED, Kind.OTHER)
BOUNCES = (Kind.SOFT_BOUNCE, Kind.BLOCKED, Kind.SUPPRESSED, Kind.HARD_BOUNCE)
# Days on which one of these came count; what was refused for our own sake does not.
COUNTED = (Kind.SOFT_BOUNCE, Kind.SUPPRESSED, Kind.HARD_BOUNCE)
_GRAVITY = {kind: rank for rank, kind in enumerate((Kind.OTHER, *(k for k in Kind if k != Kind.OTHER)))}

ENDS_AN_ADDRESS = {
    Kind.COMPLAINT: Suppression.Reason.COMPLAINT,
    Kind.HARD_BOUNCE: Suppression.Reason.HARD_BOUNCE,
}

BY_PROVIDER = Origin(source="webhook", actor="provider")
BY_BOUNCE_MAIL = Origin(source="bounce_mail", actor="provider")
BY_COUNTING = Origin(source="soft_bounces", actor="system")


def store(source: str, reports: Mapping[str, str], *, now: datetime) -> None:
    """Keep reports as they came, by their keys; those known already are let go."""
    ProviderEvent.objects.bulk_create(
        [
            ProviderEvent(source=source, key=key, raw=raw, received_at=now, next_attempt_at=now)
            for key, raw in reports.items()
        ],
        batch_size=AT_ONCE,
        ignore_conflicts=True,
    )


def find_alarms(now: datetime) -> Iterator[Alarm]:
    """Yield what staff should know: reports that wait for too long, and those nobody understands."""
    url = reverse("admin:digests_providerevent_changelist")
    if ProviderEvent.objects.filter(state=State.WAITING, received_at__lt=now - LONGEST_WAIT).exists():
        text = _("Reports of bounces and complaints wait to be looked at. Is the worker running?")
        yield Alarm(key="events-wait", text=text, url=f"{url}?state__exact=waiting", mail_after=LONGEST_WAIT)
    day_ago = now - timedelta(days=1)
    unreadable = ProviderEvent.objects.unread().filter(state=State.UNREADABLE, received_at__gt=day_ago).count()
    if unreadable:
        text = ngettext(
            "%(count)d report of the mail provider was not understood.",
            "%(count)d reports of the mail provider were not understood.",
            unreadable,
        ) % {"count": unreadable}
        yield Alarm(key="events-unreadable", text=text, url=f"{url}?state__exact=unreadable", is_grave=False)


def process(now: datetime) -> Counter[str]:
    """Do what the waiting reports ask for; return how many came to which state. Safe to run anywhere, at any time."""
    began, counts = monotonic(), Counter[str]()
    last = 0
    while monotonic() - began < LONGEST_RUN:
        waiting = list(ProviderEvent.objects.waiting(now).filter(pk__gt=last).order_by("pk")[:AT_ONCE])
        if not waiting:
            break
        counts += _take_up(waiting, now=now)
        last = waiting[-1].pk
    if counts:
        log.info("provider events: %s", dict(counts))
    return counts


@dataclass(slots=True)
class _Reading:
    """What a stored report says, and the mail of ours it is about, if there is one."""

    event: ProviderEvent
    report: Report | None = None
    is_unreadable: bool = False
    delivery: UUID | None = None
    mail: OutboxMail | None = None
    confirm: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_loud(self) -> bool:
        """Whether it may change more than the state of an uncertain delivery."""
        is_ours = self.delivery is not None or self.mail is not None
        return bool(self.confirm) or (is_ours and self.report is not None and self.report.kind not in QUIET)


def _take_up(events: Sequence[ProviderEvent], *, now: datetime) -> Counter[str]:
    readings = [_read(event) for event in events]
    _match(readings)
    counts = _note_quiet([reading for reading in readings if not reading.is_loud], now=now)
    let_others_write()
    for reading in readings:
        if reading.is_loud:
            counts[_do_one(reading, now=now)] += 1
            let_others_write()
    return counts


def _read(event: ProviderEvent) -> _Reading:
    try:
        raw = json.loads(event.raw)
        if "confirm" in raw and event.source == "amazon_ses":
            return _Reading(event, confirm=raw["confirm"])
        reports = bounces.read(raw) if event.source == bounces.SOURCE else esps.read(event.source, raw)
    except Exception as error:  # whatever one report makes its reader stumble over must not keep the others waiting
        log.warning("provider event %s of %s cannot be read: %s", event.pk, event.source, type(error).__name__)
        return _Reading(event, is_unreadable=True)
    # Our mails have one recipient each; of several things said about one, the gravest counts.
    return _Reading(event, max(reports, key=lambda report: _GRAVITY[report.kind], default=Report(kind=Kind.OTHER)))


def _match(readings: Iterable[_Reading]) -> None:
    """Find the mails of ours by the mark they bore, or else by the id under which the provider took them over."""
    read = [(reading, reading.report) for reading in readings if reading.report]
    rows = {row for _reading, report in read for row in report.rows}
    ours = set(Delivery.objects.filter(pk__in=rows).values_list("pk", flat=True))
    for reading, report in read:
        reading.delivery = next((row for row in report.rows if row in ours), None)
    _match_service_mails([(reading, report) for reading, report in read if reading.delivery is None])


def _match_service_mails(read: Sequence[tuple[_Reading, Report]]) -> None:
    if not read:
        return
    rows = {row for _reading, report in read for row in report.rows}
    ids = {report.message_id for _reading, report in read if report.message_id}
    mails = list(OutboxMail.objects.filter(Q(uuid__in=rows) | Q(provider_message_id__in=ids)))
    by_uuid = {mail.uuid: mail for mail in mails}
    by_id = {mail.provider_message_id: mail for mail in mails if mail.provider_message_id}
    for reading, report in read:
        marked = (by_uuid[row] for row in report.rows if row in by_uuid)
        reading.mail = next(marked, by_id.get(report.message_id))


def _note_quiet(readings: Sequence[_Reading], *, now: datetime) -> Counter[str]:
    """Write down what changes nothing, or only that a mail whose fate was uncertain was taken over."""
    by_pk = {reading.event.pk: reading for reading in readings}
    with transaction.atomic():
        # Nobody is waited for in here, so nobody can wait in a circle: what is locked comes next time.
        free = ProviderEvent.objects.select_for_update(skip_locked=True).filter(pk__in=by_pk, state=State.WAITING)
        mine = [by_pk[pk] for pk in free.values_list("pk", flat=True)]
        busy = _note_accepted({reading.delivery for reading in mine if reading.delivery and _says_accepted(reading)})
        mine = [reading for reading in mine if reading.delivery not in busy]
        for reading in mine:
            _write_down(reading)
        ProviderEvent.objects.bulk_update(
            [reading.event for reading in mine], ["state", "kind", "code", "day", "raw"], batch_size=AT_ONCE
        )
    for digest in _touched({reading.delivery for reading in mine if reading.delivery}):
        finish(digest, now=now)
    return Counter(str(reading.event.state) for reading in mine)


def _says_accepted(reading: _Reading) -> bool:
    return reading.report is not None and reading.report.kind in {Kind.ACCEPTED, Kind.DELIVERED}


def _note_accepted(deliveries: Iterable[UUID]) -> set[UUID]:
    """Settle deliveries that the provider has taken over after all; return those somebody else works on just now."""
    open_ones = set(_below(Own.ACCEPTED, Delivery.objects.filter(pk__in=deliveries)).values_list("pk", flat=True))
    if not open_ones:
        return set()
    locked = Delivery.objects.select_for_update(of=("self",), skip_locked=True).filter(pk__in=open_ones)
    free = set(locked.values_list("pk", flat=True))
    _below(Own.ACCEPTED, Delivery.objects.filter(pk__in=free)).update(state=Own.ACCEPTED, reason="reported")
    return open_ones - free


def _touched(deliveries: set[UUID]) -> set[int]:
    """Return the digests that may be finished now that some of these deliveries are settled."""
    settled = Delivery.objects.filter(pk__in=deliveries, state=Own.ACCEPTED, digest__state="sending")
    return set(settled.values_list("digest", flat=True))


def _write_down(reading: _Reading) -> None:
    """Fill in the row: what was understood in place of what was said."""
    event, report = reading.event, reading.report
    if reading.is_unreadable:
        event.state = State.UNREADABLE  # as it came, for somebody to look at
        return
    event.raw = ""
    if report is None:
        event.state, event.kind = State.DONE, Kind.OTHER
        return
    is_ours = reading.delivery is not None or reading.mail is not None
    event.state = State.DONE if is_ours or report.kind == Kind.OTHER else State.UNMATCHED
    event.kind, event.code = report.kind, report.code
    event.day = _day(report, event)
    if reading.is_loud:
        event.delivery_id = reading.delivery


def _day(report: Report, event: ProviderEvent) -> date:
    at = report.at if report.at and timezone.is_aware(report.at) else event.received_at
    return timezone.localdate(min(at, event.received_at))


def _do_one(reading: _Reading, *, now: datetime) -> str:
    """Do what one report asks for, in one transaction with its row; return the row's state."""
    event = reading.event
    try:
        if reading.confirm:
            sns.confirm(reading.confirm["topic"], reading.confirm["token"])
            log.warning("the subscription to an SNS topic of ours is confirmed")
        with transaction.atomic():
            free = ProviderEvent.objects.select_for_update(skip_locked=True)
            if not free.filter(pk=event.pk, state=State.WAITING).exists():
                return "busy"
            _write_down(reading)
            event.save(update_fields=["state", "kind", "code", "day", "raw", "delivery"])
            _act(reading, now=now)
    except Exception as error:  # a fault of one report's, or a passing one: the others go on, this one waits
        return _put_off(event, error, now=now)
    return str(event.state)


def _put_off(event: ProviderEvent, error: Exception, *, now: datetime) -> str:
    # Not the error's own words: they may quote an address, or a token of Amazon's.
    detail = (
        type(error.__cause__ or error).__name__
        if isinstance(error, requests.RequestException)
        else type(error).__name__
    )
    log.error("provider event %s of %s: %s", event.pk, event.source, detail)
    waiting = ProviderEvent.objects.filter(pk=event.pk, state=State.WAITING)
    waiting.update(attempts=F("attempts") + 1, next_attempt_at=now + timedelta(minutes=2**event.attempts))
    given_up = waiting.filter(attempts__gte=MAX_ATTEMPTS).update(state=State.UNREADABLE)
    return str(State.UNREADABLE if given_up else State.WAITING)


def _act(reading: _Reading, *, now: datetime) -> None:
    report = reading.report
    if report is None:
        return
    origin = BY_BOUNCE_MAIL if reading.event.source == bounces.SOURCE else BY_PROVIDER
    if reading.delivery is not None:
        delivery = Delivery.objects.select_related("digest").get(pk=reading.delivery)
        # The reader before the deliveries, as whoever erases locks them, too.
        if delivery.subscriber_id and (reader := _lock_reader(delivery.subscriber_id)):
            _act_for_reader(reader, delivery, reading, origin=origin, now=now)
        _move_forward(delivery, report.kind)
        finish(delivery.digest_id, now=now)
    elif reading.mail is not None:
        _act_for_service_mail(reading.mail, report, origin=origin, now=now)


def _lock_reader(pk: int) -> Subscriber | None:
    """Return the reader, so that two reports at once count each other's day."""
    return Subscriber.objects.select_for_update(no_key=True).filter(pk=pk).first()


def _act_for_reader(
    reader: Subscriber, delivery: Delivery, reading: _Reading, *, origin: Origin, now: datetime
) -> None:
    report = reading.report
    assert report is not None
    left = rectifying.address_key_at(reader, delivery.created_at)
    if left != reader.address_key and report.kind != Kind.UNSUBSCRIBE:
        # It is about the address he has left, unless somebody else reads newsletters there by now.
        if report.kind in ENDS_AN_ADDRESS and not Subscriber.objects.filter(address_key=left).exists():
            consent.suppress(left, ENDS_AN_ADDRESS[report.kind], origin=origin, now=now)
    elif report.kind == Kind.COMPLAINT:
        consent.suppress(reader.address_key, Suppression.Reason.COMPLAINT, origin=origin, now=now)
    elif report.kind == Kind.UNSUBSCRIBE:
        _end_one(reader, delivery, said_at=report.at or reading.event.received_at, origin=origin, now=now)
    elif report.kind == Kind.HARD_BOUNCE and _is_dead(reader, delivery, report):
        consent.suppress(reader.address_key, Suppression.Reason.HARD_BOUNCE, origin=origin, now=now)
    elif report.kind in COUNTED and reading.event.day:
        _pause_if_worn_out(reader, reading.event.day, now=now)


def _end_one(reader: Subscriber, delivery: Delivery, *, said_at: datetime, origin: Origin, now: datetime) -> None:
    """End the newsletter that was unsubscribed from at the provider, unless the reader ordered it anew since."""
    ordered = reader.subscriptions.select_related("subscriber", "newsletter")
    subscription = ordered.filter(newsletter=delivery.digest.newsletter_id, active_since__lte=said_at).first()
    if subscription:
        consent.withdraw(subscription, origin=origin, now=now)


def _is_dead(reader: Subscriber, delivery: Delivery, report: Report) -> bool:
    """Whether the bounce is about the address the reader has, and no confirmation has come from there since.

    Otherwise it was sent to a former address, or forwarded to one, or is older than the proof that the mailbox lives.
    """
    if reader.subscriptions.filter(active_since__gt=delivery.created_at).exists():
        return False
    try:
        return not report.recipient or canonicalise(report.recipient).key == reader.address_key
    except InvalidAddress:
        return True  # nothing to compare with


def _pause_if_worn_out(reader: Subscriber, day: date, *, now: datetime) -> None:
    """Pause all newsletters of a reader whose mails came back on several days not far from this one (E-45)."""
    window = settings.SOFT_BOUNCE_WINDOW
    events = ProviderEvent.objects.filter(delivery__subscriber=reader, kind__in=COUNTED)
    if moved_at := rectifying.last_moved_at(reader):  # what came back from the former address is done with
        events = events.filter(delivery__created_at__gte=moved_at)
    near = events.filter(day__gt=day - window, day__lt=day + window)
    days = sorted({each for each in near.values_list("day", flat=True) if each})
    runs = zip(days, days[settings.SOFT_BOUNCE_DAYS - 1 :], strict=False)
    if any(first <= day <= last and last - first < window for first, last in runs):
        until = timezone.localdate(now) + settings.SOFT_BOUNCE_PAUSE
        for subscription in reader.subscriptions.active().select_related("subscriber", "newsletter"):
            consent.pause(subscription, until=until, origin=BY_COUNTING, now=now)


def _move_forward(delivery: Delivery, kind: str) -> None:
    """Let the delivery show what came of it; what is graver stays."""
    this = Delivery.objects.filter(pk=delivery.pk)
    if kind == Kind.COMPLAINT:
        _below(Own.COMPLAINED, this).update(state=Own.COMPLAINED, reason="")
    elif kind in BOUNCES:
        weaker = [each for each in BOUNCES if _GRAVITY[each] < _GRAVITY[Kind(kind)]]
        below = _below(Own.BOUNCED, this) | this.filter(state=Own.BOUNCED, reason__in=weaker)
        below.update(state=Own.BOUNCED, reason=kind)
    else:
        _below(Own.ACCEPTED, this).update(state=Own.ACCEPTED, reason="reported")


def _below(state: Delivery.State, deliveries: DeliveryQuerySet) -> DeliveryQuerySet:
    """Return those of the deliveries that a report moves forward to this state; what was never sent stays out."""
    open_ones = Q(state__in=[Own.UNCERTAIN, Own.FAILED])
    if state == Own.ACCEPTED:
        # An empty state of a batch that is done says the same already.
        return deliveries.filter(open_ones | (Q(state="") & ~Q(batch__state=DeliveryBatch.State.DONE)))
    reached = ["", Own.ACCEPTED] if state == Own.BOUNCED else ["", Own.ACCEPTED, Own.BOUNCED]
    return deliveries.filter(open_ones | Q(state__in=reached))


def _act_for_service_mail(mail: OutboxMail, report: Report, *, origin: Origin, now: datetime) -> None:
    """A confirmation that somebody calls spam, or that nobody is there for, is the last mail to that address."""
    if report.kind in BOUNCES:
        OutboxMail.objects.filter(pk=mail.pk, state=OutboxMail.State.SENT).update(reason=str(report.kind))
    address_key = _address_behind(mail)
    if address_key and report.kind in ENDS_AN_ADDRESS:
        consent.suppress(address_key, ENDS_AN_ADDRESS[report.kind], origin=origin, now=now)


def _address_behind(mail: OutboxMail) -> str:
    """Return the key of the address that a service mail went to; empty for those to staff."""
    if change := AddressChange.objects.filter(uuid=mail.reference).first():
        return change.new_address_key if mail.kind == rectifying.ASKED else change.old_address_key
    for model in (SignUp, PrivacyRequest):
        key = model.objects.filter(uuid=mail.reference).values_list("address_key", flat=True).first()
        if key:
            return str(key)
    return ""
