"""How a digest is getting on, for staff who watch: the phase in words, the pace, minute by minute, and by domain.

Numbers only, never a reader. What costs more than an index look-up is kept for as long as it took to earn.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from django.core.cache import cache
from django.db.models import Count, Max, Min, Q, Sum, Value
from django.db.models.functions import Coalesce, StrIndex, Substr, TruncMinute
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from digests import providers
from digests.models import OUTCOME, DeliveryAttempt, DeliveryBatch, Digest
from digests.outcomes import HANDED_OVER
from newsroom.mail import gate

State = Digest.State

MINUTE = timedelta(minutes=1)
# Shorter than this a pace is an accident.
SHORTEST_LOOK = timedelta(seconds=10)
MOST_BARS = 60
BAR_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 240, 720, 1440)

OTHER_ENDS = ("refused", "failed", "suppressed", "expired")
TOP_DOMAINS = 10
# A domain of fewer readers may be a family's: its numbers would be about persons.
SMALLEST_DOMAIN = 5
# A million deliveries take a second or two to group; so the watching costs a hundredth of the database's time.
DOMAINS_PER_SECOND = 10_000
SHORTEST_KEEP = 10
LONGEST_KEEP = 300


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast readers are being done with, and when that comes to an end."""

    per_minute: int
    minutes_left: int | None = None
    ends_at: datetime | None = None
    is_too_slow: bool = False

    @property
    def hours_left(self) -> int:
        return round((self.minutes_left or 0) / 60)


@dataclass(frozen=True, slots=True)
class Bar:
    """What came to an end in one span of the plot, and its place in it."""

    at: datetime
    accepted: int
    other: int
    place: int
    height: float
    other_height: float

    @property
    def top(self) -> float:
        return 100 - self.height - self.other_height

    @property
    def middle(self) -> float:
        return 100 - self.height


@dataclass(frozen=True, slots=True)
class Plot:
    minutes: int
    bars: list[Bar]
    most: int

    @property
    def width(self) -> int:
        return max(self.bars[-1].place + 1, 12) if self.bars else 0

    @property
    def last(self) -> Bar | None:
        return self.bars[-1] if self.bars else None

    @property
    def shown(self) -> list[Bar]:
        """The bars that are not empty."""
        return [bar for bar in self.bars if bar.accepted or bar.other]


@dataclass(frozen=True, slots=True)
class Domain:
    name: str  # empty: all the others
    accepted: int
    uncertain: int
    other: int


@dataclass(frozen=True, slots=True)
class Domains:
    lines: list[Domain] = field(default_factory=list)
    at: datetime | None = None


def phase(digest: Digest, counts: dict[str, int], *, now: datetime) -> str:
    """Say in words what the sending is at; empty where the digest's state says all."""
    if digest.state != State.SENDING:
        return ""
    if not counts["waiting"] and not counts.get("sending", 0):
        return _("All are done but the uncertain ones.") if counts["uncertain"] else _("All are done.")
    if obstacle := str(gate.find_obstacle() or ""):
        return obstacle
    if held := providers.why_held(providers.current(), now=now):
        return held
    if counts.get("sending", 0):
        return _("Being handed over.")
    next_at = digest.batches.filter(state=DeliveryBatch.State.PENDING).aggregate(at=Min("next_attempt_at"))["at"]
    if next_at and next_at > now:
        return _("It goes on at %(time)s.") % {"time": _clock_time(next_at)}
    return _("Waiting for a worker.")


def pace(digest: Digest, counts: dict[str, int], *, now: datetime) -> Pace:
    """Return how many readers are done with in a minute, by the last one."""
    begin = max(now - MINUTE, digest.audience_frozen_at or now)
    look = max(now - begin, SHORTEST_LOOK)
    tries = DeliveryAttempt.objects.filter(batch__digest=digest).filter(Q(ended_at=None) | Q(ended_at__gt=begin))
    done = sum(
        _share(acknowledged, since=started, until=min(ended or now, now), begin=begin)
        for acknowledged, started, ended in tries.values_list("acknowledged", "started_at", "ended_at")
    )
    per_minute = round(done * (MINUTE / look))
    left = counts["waiting"] + counts.get("sending", 0)
    if digest.state != State.SENDING:
        return Pace(0)
    if not per_minute or not left:
        return Pace(per_minute)
    minutes = left / per_minute
    ends_at = now + MINUTE * minutes
    return Pace(per_minute, ceil(minutes), ends_at, is_too_slow=ends_at > digest.not_after)


def plot(digest: Digest, *, now: datetime) -> Plot:
    """Return the digest minute by minute: how many were handed over, and how many came to another end."""
    done = _done_by_minute(digest, now=now)
    if not done:
        return Plot(1, [], 0)
    other = _others_by_minute(digest)
    first, last = min(done), max(done)
    span = round((last - first) / MINUTE) + 1
    minutes = next((each for each in BAR_MINUTES if span <= each * MOST_BARS), BAR_MINUTES[-1])
    sums, others = _in_spans(done, first=first, minutes=minutes), _in_spans(other, first=first, minutes=minutes)
    most = max(sums.values())
    bars = []
    for place in range(ceil(span / minutes)):
        apart = min(others[place], sums[place])
        accepted = sums[place] - apart
        at = first + MINUTE * minutes * place
        bars.append(Bar(at, accepted, apart, place, _percent(accepted, most), _percent(apart, most)))
    return Plot(minutes, bars, most)


def domains(digest: Digest, counts: dict[str, int], *, now: datetime) -> Domains:
    """Return what became of the deliveries by the domain of their readers, the largest first."""
    key = f"digest-domains-{digest.pk}-{digest.state}"
    kept: Domains | None = cache.get(key)
    if kept is None:
        kept = _count_domains(digest, counts, now=now)
        is_over = digest.state in {State.FINISHED, State.CANCELLED}
        seconds = counts["expected"] / DOMAINS_PER_SECOND
        cache.set(key, kept, LONGEST_KEEP if is_over else min(max(SHORTEST_KEEP, seconds), LONGEST_KEEP))
    return kept


def _share(done: int, *, since: datetime, until: datetime, begin: datetime) -> float:
    """Return how many of those done between two moments were done after `begin`, were they done evenly."""
    length = until - since
    return done if since >= begin or length <= timedelta() else done * ((until - begin) / length)


def _done_by_minute(digest: Digest, *, now: datetime) -> Counter[datetime]:
    tries = DeliveryAttempt.objects.filter(batch__digest=digest, acknowledged__gt=0)
    ended = tries.annotate(minute=TruncMinute(Coalesce("ended_at", Value(now)))).order_by()
    return Counter(dict(ended.values_list("minute").annotate(Sum("acknowledged"))))


def _others_by_minute(digest: Digest) -> Counter[datetime]:
    """Count the outcomes that differ from their batch's, in the minute in which the batch was worked on last."""
    own = digest.deliveries.exclude(state__in=["", *HANDED_OVER]).order_by()
    by_batch = dict(own.values_list("batch").annotate(Count("pk")))
    ends = DeliveryAttempt.objects.filter(batch__digest=digest, batch__in=list(by_batch)[:_MOST_IN]).order_by()
    minutes: Counter[datetime] = Counter()
    for batch, ended_at in ends.values_list("batch").annotate(last=Max(Coalesce("ended_at", "started_at"))):
        minutes[ended_at.replace(second=0, microsecond=0)] += by_batch[batch]
    return minutes


# SQLite takes so many values in one statement, and more batches with troubles make no better picture.
_MOST_IN = 10_000


def _in_spans(by_minute: Counter[datetime], *, first: datetime, minutes: int) -> Counter[int]:
    sums: Counter[int] = Counter()
    for minute, count in by_minute.items():
        sums[int((minute - first) / MINUTE) // minutes] += count
    return sums


def _percent(count: int, most: int) -> float:
    return round(100 * count / most, 1) if most else 0.0


def _count_domains(digest: Digest, counts: dict[str, int], *, now: datetime) -> Domains:
    address = "subscriber__address"
    rows = (
        digest.deliveries.filter(subscriber__isnull=False)
        .annotate(name=Substr(address, StrIndex(address, Value("@")) + 1), outcome=OUTCOME)
        .values("name")
        .annotate(
            readers=Count("pk"),
            accepted=Count("pk", filter=Q(outcome__in=HANDED_OVER)),
            uncertain=Count("pk", filter=Q(outcome="uncertain")),
            other=Count("pk", filter=Q(outcome__in=OTHER_ENDS)),
        )
        .order_by("-readers", "name")
    )
    top = [
        Domain(row["name"], row["accepted"], row["uncertain"], row["other"])
        for row in rows.filter(readers__gte=SMALLEST_DOMAIN)[:TOP_DOMAINS]
    ]
    rest = Domain(
        name="",
        accepted=max(0, counts["accepted"] - sum(each.accepted for each in top)),
        uncertain=max(0, counts["uncertain"] - sum(each.uncertain for each in top)),
        other=max(0, sum(counts.get(kind, 0) for kind in OTHER_ENDS) - sum(each.other for each in top)),
    )
    return Domains([*top, rest] if top else [], now)


def _clock_time(moment: datetime) -> str:
    return date_format(timezone.localtime(moment), "TIME_FORMAT")
