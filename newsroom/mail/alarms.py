"""What staff must know: a line on the admin's start page while it lasts, and where it cannot wait, a mail.

Apps register sources from their `ready`; a source says what is wrong now. So the page needs no worker to be right, and
an alarm ends by itself when its cause does. A mail goes once when an alarm begins, and once when it is over.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, transaction
from django.utils import translation

from newsroom.mail import outbox
from newsroom.mail.messages import make_message, make_message_id
from newsroom.mail.models import OutboxMail, StaffAlarm
from newsroom.mail.outbox import Prepared, Withheld

BEGUN = "alarm"
OVER = "alarm_over"

# What comes back within this time is the same alarm still: nobody is mailed a second time.
CALM = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One thing that is wrong now. `key` stays the same while it lasts; `text` is for staff and holds no address.

    `url` is the path of the admin's page that helps. `mail_after` says how long it may last before staff are mailed;
    None: never. Where `tells_end` is false it only ceases to be news, of which nobody is mailed. Who lacks `permission`
    does not see it.
    """

    key: str
    text: str
    url: str = ""
    mail_after: timedelta | None = None
    tells_end: bool = True
    permission: str = ""
    is_grave: bool = True


Source = Callable[[datetime], Iterable[Alarm]]

_sources: dict[str, Source] = {}

TOLD = "told-"


def register(name: str, source: Source) -> None:
    """State what may be wrong, from an app's `ready`; a second source of a name replaces the first."""
    _sources[name] = source


def current(now: datetime) -> list[Alarm]:
    """Return what is wrong now, the grave things first."""
    alarms = [alarm for source in _sources.values() for alarm in source(now)]
    return sorted(alarms, key=lambda alarm: not alarm.is_grave)


def tell(key: str, text: str, *, now: datetime) -> None:
    """Begin, or end with an empty text, an alarm of what was found once in a while and not looked for each time."""
    if text:
        _note_of(Alarm(key=TOLD + key, text=text), now=now)
        StaffAlarm.objects.filter(key=TOLD + key, ended_at=None).update(text=text[:500])
        return
    for note in StaffAlarm.objects.filter(key=TOLD + key, ended_at=None):
        _end(note, now=now)


def told(now: datetime) -> Iterator[Alarm]:
    """Yield the alarms that `tell` began."""
    for note in StaffAlarm.objects.filter(key__startswith=TOLD, ended_at=None):
        yield Alarm(key=note.key, text=note.text, url=note.path, mail_after=timedelta())


def watch(now: datetime) -> None:
    """Note which alarms have begun and which are over, and mail staff. Safe to run anywhere, any number of times."""
    with translation.override(settings.LANGUAGE_CODE):
        alarms = {alarm.key: alarm for alarm in current(now) if alarm.mail_after is not None}
    for alarm in alarms.values():
        _go_on(alarm, now=now)
    for note in StaffAlarm.objects.filter(ended_at=None).exclude(key__in=alarms):
        _end(note, now=now)


def _go_on(alarm: Alarm, *, now: datetime) -> None:
    note = _note_of(alarm, now=now)
    if note.text != alarm.text[:500]:
        StaffAlarm.objects.filter(pk=note.pk).update(text=alarm.text[:500])
    if alarm.mail_after is not None and now - note.raised_at >= alarm.mail_after:
        outbox.enqueue(BEGUN, reference=note.uuid, now=now)


def _note_of(alarm: Alarm, *, now: datetime) -> StaffAlarm:
    """Return the row of a lasting alarm; one that was over only for a moment goes on."""
    if note := StaffAlarm.objects.filter(key=alarm.key, ended_at=None).first():
        return note
    last = StaffAlarm.objects.filter(key=alarm.key, ended_at__gt=now - CALM).order_by("-ended_at").first()
    try:
        with transaction.atomic():
            if last and StaffAlarm.objects.filter(pk=last.pk).update(ended_at=None):
                return last
            return StaffAlarm.objects.create(
                key=alarm.key, text=alarm.text[:500], path=alarm.url[:200], raised_at=now, tells_end=alarm.tells_end
            )
    except IntegrityError:  # somebody else was faster
        return StaffAlarm.objects.get(key=alarm.key, ended_at=None)


def _end(note: StaffAlarm, *, now: datetime) -> None:
    was_mailed = OutboxMail.objects.filter(kind=BEGUN, reference=note.uuid, state=OutboxMail.State.SENT).exists()
    with transaction.atomic():
        ended = StaffAlarm.objects.filter(pk=note.pk, ended_at=None).update(ended_at=now)
        if ended and was_mailed and note.tells_end:
            outbox.enqueue(OVER, reference=note.uuid, now=now)


def prepare_begun(mail: OutboxMail) -> Prepared | Withheld:
    return _prepare("newsroom/alarm", mail)


def prepare_over(mail: OutboxMail) -> Prepared | Withheld:
    return _prepare("newsroom/alarm_over", mail)


def _prepare(stem: str, mail: OutboxMail) -> Prepared | Withheld:
    note = StaffAlarm.objects.filter(uuid=mail.reference).first()
    return Prepared(_message(stem, note, mail)) if note else Withheld("there is no such alarm")


def _message(stem: str, note: StaffAlarm, mail: OutboxMail) -> EmailMultiAlternatives:
    return make_message(
        stem,
        to=settings.ALARM_EMAIL,
        context={"alarm": note, "url": settings.SITE_URL + note.path if note.path else ""},
        message_id=make_message_id(mail.uuid),
        language=settings.LANGUAGE_CODE,
    )
