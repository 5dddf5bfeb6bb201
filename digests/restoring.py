"""The high-water mark: whether this database is the one that sent last, and its clock the one that ran.

A restored backup knows nothing of what went out since, and would send it again; so would one whose clock was set back.
So the database counts as it goes (`HighWater`: every minute, and every few seconds while a digest is being sent), and
a file outside it, which no backup of the database brings back, repeats the number. A file that is ahead of the
database means an older database. Then digests wait until a person has looked and says so (`release`).

A file that is gone stops digests as well, for it goes with the machine in whose place a backup is restored, unless
somebody counted just now: then this is one more host of a living database.

What it cannot notice: a backup younger than the last count (with the file gone: younger than `TOLERANCE`); a clock set
forward while this machine was switched off; the file restored together with the database.
"""

import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from digests import steps
from digests.clock import database_now
from digests.models import Digest, DigestSchedule, HighWater
from subscriptions.models import Newsletter

log = logging.getLogger(__name__)

ROW = 1
# Between two clocks that are both right enough.
TOLERANCE = timedelta(minutes=10)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Mark:
    """What the file says: the database it belongs to, how far that had come, and the clocks at that moment."""

    lineage: str
    number: int
    at: str
    boot: str = ""
    uptime: float = 0.0
    started: dict[str, str] = field(default_factory=dict)  # the last date that went out, by newsletter

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.at)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A digest that went out before, though this database does not know it."""

    newsletter: Newsletter
    date: date


def find_obstacle() -> str:
    """Return why digests wait for a person; empty if they need not."""
    # The file first: whoever counts writes the database before the file, so it is never ahead by rights.
    mark = _read()
    row = HighWater.objects.filter(pk=ROW).first()
    return _compare(mark, row, now=database_now())


def count(now: datetime) -> bool:
    """Count on, if nothing stands against it; the file follows the database."""
    if reason := find_obstacle():
        _say_once(reason)
        return False
    _say_once("")
    _write(_next(now))
    return True


def release(*, now: datetime, actor: AbstractBaseUser | None = None) -> list[Doubt]:
    """Let digests go again, by a person's decision, and return those that are kept from going out twice.

    What the file knows to have gone out is skipped here. What was being sent when the backup was made is paused:
    whether to resume it, which mails again those who got it after the backup, is a decision for each.
    """
    if not find_obstacle():
        return []
    mark, row = _read(), HighWater.objects.get(pk=ROW)
    is_restored = mark is None or mark.number > row.number
    known = list(doubts()) if is_restored else []
    with transaction.atomic():
        for doubt in known:
            _skip(doubt, now=now, actor=actor)
        for digest in Digest.objects.sending() if is_restored else []:
            reason = _(
                "The database was restored while it was being sent. Who got it since the backup would get it again."
            )
            steps.take(digest, steps.PAUSE, now=now, actor=actor, reason=reason)
        row = _next(now, at_least=mark.number if mark else 0)
    _write(row)
    _say_once("")
    log.warning("digests released, %s of them as gone out before", len(known))
    return known


def doubts() -> Iterator[Doubt]:
    """Yield what the file knows to have gone out and this database does not."""
    mark = _read()
    if mark is None:
        return
    for newsletter in Newsletter.objects.filter(pk__in=mark.started):
        last = date.fromisoformat(mark.started[str(newsletter.pk)])
        went_out = Digest.objects.filter(newsletter=newsletter, date=last, audience_frozen_at__isnull=False)
        if not went_out.exists():
            yield Doubt(newsletter, last)


def _compare(mark: Mark | None, row: HighWater | None, *, now: datetime) -> str:
    if row is None or row.number == 0:
        return ""  # a new database
    if mark is None:
        return "" if now - row.at < TOLERANCE else _missing()
    if mark.lineage != str(row.lineage):
        return ""  # another database's
    if mark.number > row.number:
        return _(
            "This database is older than what was sent last (%(then)s), as after a restored backup. Look at the"
            " digests, then let them go."
        ) % {"then": _in_words(mark.moment)}
    return _compare_clocks(mark, row, now=now)


def _compare_clocks(mark: Mark, row: HighWater, *, now: datetime) -> str:
    last = max(mark.moment, row.at)
    if now < last - TOLERANCE:
        return _(
            "The clock stands before the time it was looked at last (%(then)s). Set it right, then let digests go."
        ) % {"then": _in_words(last)}
    passed = timedelta(seconds=_uptime() - mark.uptime)
    if mark.boot and mark.boot == _boot() and abs(now - mark.moment - passed) > TOLERANCE:
        return _("The clock has jumped since %(then)s. Set it right, then let digests go.") % {
            "then": _in_words(mark.moment)
        }
    return ""


def _missing() -> str:
    return _(
        "The file of the high-water mark is missing: this may be a restored database, and digests that went out"
        " already would go out again. Look at the digests, then let them go."
    )


def _next(now: datetime, *, at_least: int = 0) -> HighWater:
    with transaction.atomic():
        row, _is_new = HighWater.objects.select_for_update().get_or_create(pk=ROW, defaults={"at": now})
        row.number, row.at = max(row.number, at_least) + 1, now
        row.save()
    return row


def _write(row: HighWater) -> None:
    """Replace the file as a whole, so that a crash leaves the one or the other."""
    path = Path(settings.HIGH_WATER_MARK)
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = Mark(str(row.lineage), row.number, row.at.isoformat(), _boot(), _uptime(), _started())
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(handle, "w") as file:
        json.dump(asdict(mark), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, path)


def _read() -> Mark | None:
    try:
        return Mark(**json.loads(Path(settings.HIGH_WATER_MARK).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _started() -> dict[str, str]:
    last = Digest.objects.filter(audience_frozen_at__isnull=False).values_list("newsletter").annotate(Max("date"))
    return {str(newsletter): day.isoformat() for newsletter, day in last.order_by()}


def _skip(doubt: Doubt, *, now: datetime, actor: AbstractBaseUser | None) -> None:
    reason = _("It went out already, before the database was restored.")
    schedule = DigestSchedule.objects.filter(newsletter=doubt.newsletter).first()
    digest, is_new = Digest.objects.get_or_create(
        newsletter=doubt.newsletter,
        date=doubt.date,
        defaults={"schedule": schedule, "due_at": now, "not_after": now, "created_at": now},
    )
    if is_new:
        steps.note(digest, Digest.State.PLANNED, now=now, actor=actor)
    steps.take(digest, steps.SKIP, now=now, actor=actor, reason=reason)


def _uptime() -> float:
    """Return how long this machine runs, sleep included; no setting of a clock changes that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    try:
        return str(uuid.UUID(BOOT_ID.read_text().strip()))
    except (OSError, ValueError):
        return ""


def _in_words(moment: datetime) -> str:
    return date_format(timezone.localtime(moment), "SHORT_DATETIME_FORMAT")


_said = ""


def _say_once(reason: str) -> None:
    global _said
    if reason and reason != _said:
        log.error("digests wait for a person: %s", reason)
    _said = reason
