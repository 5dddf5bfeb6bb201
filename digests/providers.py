"""The gate: whether the provider may be given mail now, how fast, and what its answers do to that.

All workers on all hosts share it through one row, by guarded updates. It lets a pace through (what staff set, what the
provider's own “slow down” taught), a number per day (what staff set, or the curve of a sender mailboxes do not know
yet), and nothing at all after faults in a row or a refused key: then, after a pause, one batch tries, and its success
opens the gate.

Service mails do not wait here. Of what staff set, digests leave them a tenth.
"""

import logging
from datetime import UTC, date, datetime, time, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from digests.models import Provider
from newsroom.mail.transport import Outcome, Result

log = logging.getLogger(__name__)

Gate = Provider.Gate

FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=10)

# So many faults in a row close the gate for all but one batch at a time.
FAULTS_THAT_CLOSE = 5

# What digests may use of a rate or a number per day; the rest is for confirmations and other service mails.
SHARE = 0.9

# Workers send side by side and are told to slow down side by side: within this time, that was told once.
ONE_WARNING = timedelta(seconds=10)
SLOWEST = 0.2  # mails per second
# What was learnt is forgotten when the provider has not asked for patience for so long.
MEMORY = timedelta(hours=1)

# A worker waits so long for its turn at most; beyond that the batch does.
LONGEST_WAIT = timedelta(seconds=5)
# No pace is so slow that those who may queue up together wait longer.
LONGEST_QUEUE = timedelta(minutes=5)


class NoRoom(Exception):
    """The pace or the day leaves no room for these mails before `until`."""

    def __init__(self, until: datetime) -> None:
        super().__init__()
        self.until = until


def current() -> Provider:
    """Return the provider that `EMAIL_BACKEND` names; its row is made at first use."""
    return Provider.objects.get_or_create(name=name_of_current())[0]


def name_of_current() -> str:
    return settings.EMAIL_BACKEND.removesuffix(".EmailBackend")


def passes(provider: Provider, *, now: datetime) -> bool:
    """Whether a batch may be claimed for this provider now."""
    if provider.gate != Gate.OPEN:
        return provider.resume_at is not None and provider.resume_at <= now
    if provider.resume_at is not None and provider.resume_at > now:
        return False
    return not is_spent(provider, now=now) and _next_slot(provider, now=now) <= now + LONGEST_WAIT


def enter(provider: Provider, *, now: datetime) -> bool:
    """Pass the gate with one batch. Through one that is closed only one passes, to try; the others are turned away."""
    if provider.gate == Gate.OPEN:
        return True
    seen = Provider.objects.filter(pk=provider.pk, gate=provider.gate, resume_at=provider.resume_at)
    return bool(seen.update(gate=Gate.TRYING, resume_at=now + 2 * settings.DELIVERY_LEASE))


def note(provider: Provider, result: Result, *, now: datetime, speed: float = 0.0) -> datetime:
    """Let the gate learn from an answer, and return when to try again what that answer left unsent.

    `speed` says how many mails a second went out when the answer came.
    """
    match result.outcome:
        case Outcome.ACCEPTED | Outcome.REFUSED:
            _clear(provider, now=now)
            return now
        case Outcome.DENIED:
            return _close(provider, _refused_key(result), until=now + LONGEST_PAUSE, detail=result.detail)
        case Outcome.THROTTLED:
            _slow_down(provider, speed=speed, now=now)
            return _pause(provider, now + (result.retry_after or FIRST_PAUSE))
        case _:
            return _count_fault(provider, result, now=now)


def reopen(provider: Provider) -> bool:
    """Let mail pass again after staff has mended what the provider complained of."""
    return bool(
        Provider.objects.filter(pk=provider.pk)
        .exclude(gate=Gate.OPEN)
        .update(gate=Gate.OPEN, reason="", failures=0, resume_at=None)
    )


# The pace


def group_size(provider: Provider, *, most: int) -> int:
    """Return how many mails may go in one breath, so that a slow pace is kept within each second, too."""
    rate = rate_of(provider)
    return most if rate is None else max(1, min(most, int(rate)))


def rate_of(provider: Provider) -> float | None:
    """Return how many mails per second digests may hand over; None: as many as go."""
    allowed = provider.most_per_second or settings.MAIL_PER_SECOND
    rates = [rate for rate in (provider.rate, allowed * SHARE if allowed else None) if rate]
    return min(rates, default=None)


def is_limited(provider: Provider) -> bool:
    """Whether a pace or a number per day is to be kept at all."""
    most_of_day = provider.most_per_day or settings.MAIL_PER_DAY or provider.is_warming_up
    return rate_of(provider) is not None or bool(most_of_day)


def reserve(provider: Provider, count: int, *, now: datetime) -> timedelta:
    """Take room for so many mails, and return how long to wait before they may go; raise `NoRoom` if too long."""
    if rate_of(provider) is None and most_of_day(provider, now=now) is None:
        return timedelta()
    with transaction.atomic():
        fresh = Provider.objects.select_for_update(no_key=True).get(pk=provider.pk)
        spent, most = _count_of_day(fresh, now=now), most_of_day(fresh, now=now)
        start, rate = _next_slot(fresh, now=now), rate_of(fresh)
        until = start if start - now > LONGEST_WAIT else now
        if most is not None and spent and spent + count > most:
            # What is left is less than a group: it counts as spent, so that workers do not come for it in vain.
            until, spent, count = _next_day(now), most, 0
        if until <= now or not count:
            Provider.objects.filter(pk=fresh.pk).update(
                next_slot_at=start + timedelta(seconds=count / rate) if rate else None,
                counted_on=_day(now),
                count_of_day=spent + count,
                first_sent_on=fresh.first_sent_on or _day(now),
            )
    if until > now:
        raise NoRoom(until)
    return start - now


def _next_slot(provider: Provider, *, now: datetime) -> datetime:
    """Return when the pace has room again; what a clock that was ahead wrote down does not count."""
    slot = provider.next_slot_at
    return slot if slot is not None and now < slot <= now + LONGEST_QUEUE else now


def most_of_day(provider: Provider, *, now: datetime) -> int | None:
    """Return how many mails digests may hand over on this day (UTC); None: as many as there are."""
    allowed = provider.most_per_day or settings.MAIL_PER_DAY
    numbers = [int(allowed * SHARE)] if allowed else []
    if provider.is_warming_up:
        day = (_day(now) - provider.first_sent_on).days if provider.first_sent_on else 0
        numbers += settings.MAIL_WARM_UP[day : day + 1]  # past its end the curve asks for nothing
    return min(numbers, default=None)


def is_spent(provider: Provider, *, now: datetime) -> bool:
    """Whether the day's mails are gone."""
    most = most_of_day(provider, now=now)
    return most is not None and _count_of_day(provider, now=now) >= most


def why_held(provider: Provider, *, now: datetime) -> str:
    """Return in words of staff why mail is held or slow now; empty if nothing is."""
    if provider.gate != Gate.OPEN:
        return provider.reason
    if is_spent(provider, now=now):
        return _("The %(count)d mails that may go today have gone. The others wait for tomorrow.") % {
            "count": most_of_day(provider, now=now) or 0
        }
    if provider.resume_at and provider.resume_at > now:
        return _("The provider asked for a pause, or failed; it goes on at %(time)s.") % {
            "time": _clock_time(provider.resume_at)
        }
    if provider.rate:
        return _("The provider asked to be given mail more slowly: %(rate)s mails per second now.") % {
            "rate": f"{provider.rate:.1f}"
        }
    return ""


def _count_of_day(provider: Provider, *, now: datetime) -> int:
    return provider.count_of_day if provider.counted_on == _day(now) else 0


def _day(now: datetime) -> date:
    return now.astimezone(UTC).date()


def _next_day(now: datetime) -> datetime:
    return datetime.combine(_day(now) + timedelta(days=1), time(), UTC)


def _slow_down(provider: Provider, *, speed: float, now: datetime) -> None:
    """Halve the pace, once per warning."""
    rate = max(SLOWEST, (rate_of(provider) or max(speed, 2 * SLOWEST)) / 2)
    Provider.objects.filter(Q(throttled_at=None) | Q(throttled_at__lt=now - ONE_WARNING), pk=provider.pk).update(
        rate=rate, throttled_at=now
    )


def _speed_up(provider: Provider, *, now: datetime) -> None:
    """Go a little faster after each batch that went well, and forget the whole when it is long ago."""
    if provider.rate is None:
        return
    rows = Provider.objects.filter(pk=provider.pk, rate=provider.rate)
    if provider.throttled_at is None or provider.throttled_at < now - MEMORY:
        rows.update(rate=None)
    else:
        rows.update(rate=provider.rate + max(0.5, provider.rate / 20))


# The breaker


def _clear(provider: Provider, *, now: datetime) -> None:
    _speed_up(provider, now=now)
    rows = Provider.objects.filter(pk=provider.pk)
    # A closed gate is opened by the batch that tries alone, not by an answer that is late.
    if provider.gate != Gate.OPEN and rows.filter(gate=Gate.TRYING).update(
        gate=Gate.OPEN, reason="", failures=0, resume_at=None
    ):
        log.warning("provider %s: gate open again", provider.name)
    elif provider.failures or provider.resume_at:
        rows.filter(gate=Gate.OPEN).update(failures=0, resume_at=None)


def _pause_after(failures: int) -> timedelta:
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))


def _pause(provider: Provider, until: datetime) -> datetime:
    """Hold all mail for a moment. Who asks for patience is there: it ends a trial well."""
    Provider.objects.filter(pk=provider.pk).exclude(gate=Gate.CLOSED).update(
        gate=Gate.OPEN, reason="", failures=0, resume_at=until
    )
    return until


def _count_fault(provider: Provider, result: Result, *, now: datetime) -> datetime:
    until = now + _pause_after(provider.failures)
    Provider.objects.filter(pk=provider.pk).update(failures=F("failures") + 1)
    if provider.gate != Gate.OPEN or provider.failures + 1 >= FAULTS_THAT_CLOSE:
        reason = _("The provider does not answer as it should (%(detail)s). One batch tries again at %(time)s.")
        return _close(
            provider, reason % {"detail": result.detail, "time": _clock_time(until)}, until=until, detail=result.detail
        )
    Provider.objects.filter(pk=provider.pk, gate=Gate.OPEN).update(resume_at=until)
    return until


def _refused_key(result: Result) -> str:
    return _(
        "The provider refuses our key or password (%(detail)s). Correct it, then let mail pass again; one batch tries"
        " every ten minutes."
    ) % {"detail": result.detail}


def _close(provider: Provider, reason: str, *, until: datetime, detail: str) -> datetime:
    """Hold everything back but the one batch that tries at `until`."""
    rows = Provider.objects.filter(pk=provider.pk)
    if rows.filter(gate=Gate.OPEN).update(gate=Gate.CLOSED, reason=reason[:300], resume_at=until):
        log.error("provider %s: gate closed, %s", provider.name, detail)
    else:
        rows.exclude(gate=Gate.OPEN).update(gate=Gate.CLOSED, reason=reason[:300], resume_at=until)
    return until


def _clock_time(moment: datetime) -> str:
    return date_format(timezone.localtime(moment), "TIME_FORMAT")
