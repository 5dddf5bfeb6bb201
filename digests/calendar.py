"""Which local dates of a schedule are due, and when. Pure: no clock and no database.

A digest belongs to a local date, and its time is a wall clock's. In the hour that summer time skips, the time moves
forward by the gap (02:30 becomes 03:30); of an hour that comes twice, the first counts.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """What a schedule says about days and times. Of `weekdays` bit 0 is Monday."""

    weekdays: int
    local_time: time
    time_zone: str
    not_later_than: time | None = None


@dataclass(frozen=True, slots=True)
class DueDate:
    """A local date, from when its digest is due, and until when it may go out. Both instants are in UTC."""

    date: date
    due_at: datetime
    not_after: datetime


def due_dates(rhythm: Rhythm, *, after: date | None, now: datetime) -> list[DueDate]:
    """Return the dates later than `after` whose time has come, oldest first; without `after`, today at most."""
    today = local_date(now, time_zone=rhythm.time_zone)
    first = today if after is None else after + DAY
    days = (first + DAY * number for number in range((today - first).days + 1))
    due = (due_date(rhythm, day) for day in days)
    return [each for each in due if each is not None and each.due_at <= now]


def due_date(rhythm: Rhythm, day: date) -> DueDate | None:
    """Return when this date's digest is due, or None on a weekday without one and on a date that the zone left out."""
    if not rhythm.weekdays >> day.weekday() & 1:
        return None
    zone = ZoneInfo(rhythm.time_zone)
    due_at = _instant(day, rhythm.local_time, zone)
    if due_at is None:
        return None
    return DueDate(day, due_at, _not_after(rhythm, day, due_at=due_at, zone=zone))


def next_due(rhythm: Rhythm, *, after: date | None, now: datetime) -> DueDate | None:
    """Return the first date later than `after` whose digest may still go out; None if there is none in a year."""
    day = max(local_date(now, time_zone=rhythm.time_zone), after + DAY if after else date.min)
    for number in range(366):
        due = due_date(rhythm, day + DAY * number)
        if due is not None and due.not_after > now:
            return due
    return None


def local_date(now: datetime, *, time_zone: str) -> date:
    return now.astimezone(ZoneInfo(time_zone)).date()


def end_of(day: date, *, time_zone: str) -> datetime:
    """Return the instant at which the date ends in the zone, in UTC."""
    return datetime.combine(day + DAY, time(), ZoneInfo(time_zone)).astimezone(UTC)


def longest_gap(weekdays: int) -> timedelta:
    """Return the longest time from one digest to the next: a day for a daily one, a week for a weekly one."""
    days = [day for day in range(7) if weekdays >> day & 1]
    following = [*days[1:], days[0] + 7]
    return DAY * max(later - earlier for earlier, later in zip(days, following, strict=True))


def _not_after(rhythm: Rhythm, day: date, *, due_at: datetime, zone: ZoneInfo) -> datetime:
    end = end_of(day, time_zone=rhythm.time_zone)
    if rhythm.not_later_than is None:
        return end
    limit = _instant(day, rhythm.not_later_than, zone)
    return limit if limit is not None and due_at < limit < end else end


def _instant(day: date, local_time: time, zone: ZoneInfo) -> datetime | None:
    # In a gap, fold=0 moves forward. Where that leaves the date (Nuuk loses the last hour of a Saturday), fold=1 moves
    # back instead; a date that neither reaches did not happen there (Samoa had no 30 December 2011).
    for fold in (0, 1):
        instant = datetime.combine(day, local_time.replace(fold=fold), zone).astimezone(UTC)
        if instant.astimezone(zone).date() == day:
            return instant
    return None
