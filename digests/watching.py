"""What staff must know of digests: the dead man's switch, days that were missed, a gate that is shut."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Sum
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from digests import calendar, compilation, outcomes, providers, restoring
from digests.models import DeliveryBatch, Digest, DigestChange, DigestSchedule, HighWater, Provider
from newsroom.mail.alarms import Alarm

AT_ONCE = timedelta()
# Faults in a row are often over by themselves; a refused key is not.
PATIENCE = timedelta(minutes=5)
# By then whatever was started together has looked once.
STARTING = timedelta(minutes=2)
# How long after its last look beat counts as silent; it looks every minute.
SILENCE = timedelta(minutes=10)
# How long what went wrong with a day stands on the start page.
SHOWN = timedelta(days=3)

State = Digest.State


def find_alarms(now: datetime) -> Iterator[Alarm]:
    """Yield what is wrong with digests and their delivery now."""
    held = restoring.find_obstacle()
    if held:
        url = reverse("admin:digests_digest_held")
        yield Alarm(key="digests-held", text=held, url=url, mail_after=AT_ONCE)
    else:
        yield from _silence(now)
    yield from _gate(now)
    yield from _late(now)
    yield from _missed(now)
    yield from _expired(now)


def _silence(now: datetime) -> Iterator[Alarm]:
    last = HighWater.objects.filter(pk=restoring.ROW, at__lt=now - SILENCE).first()
    if last is not None and DigestSchedule.objects.filter(state=DigestSchedule.State.RUNNING).exists():
        text = _("Since %(time)s nothing has looked whether a digest is due: “beat” or the worker is not running.")
        # After a pause of the whole it may be this that looks first.
        yield Alarm(key="beat-silent", text=text % {"time": _in_words(last.at)}, mail_after=STARTING)


def _gate(now: datetime) -> Iterator[Alarm]:
    provider = Provider.objects.filter(name=providers.name_of_current()).first()
    if provider is None:
        return
    url = reverse("admin:digests_provider_changelist")
    if provider.gate != Provider.Gate.OPEN:
        is_passing = provider.failures >= providers.FAULTS_THAT_CLOSE
        yield Alarm(
            key=f"gate-{provider.pk}", text=provider.reason, url=url, mail_after=PATIENCE if is_passing else AT_ONCE
        )
    elif providers.is_spent(provider, now=now) and DeliveryBatch.objects.open().exists():
        text = providers.why_held(provider, now=now)
        yield Alarm(key=f"day-{provider.pk}", text=text, url=url, mail_after=AT_ONCE, is_grave=False)


def _late(now: datetime) -> Iterator[Alarm]:
    """The dead man's switch: today's digest, or last night's, has not reached its readers."""
    for schedule in DigestSchedule.objects.filter(state=DigestSchedule.State.RUNNING).select_related("newsletter"):
        today = calendar.local_date(now, time_zone=schedule.time_zone)
        for day in (today - calendar.DAY, today):
            due = calendar.due_date(compilation.rhythm(schedule), day)
            if due is None or due.due_at < schedule.created_at:
                continue
            if due.due_at + settings.DIGEST_ALARM_AFTER <= now < due.due_at + calendar.DAY:
                yield from _late_one(schedule, due, now=now)


def _late_one(schedule: DigestSchedule, due: calendar.DueDate, *, now: datetime) -> Iterator[Alarm]:
    digest = Digest.objects.filter(newsletter=schedule.newsletter_id, date=due.date).first()
    if digest is None and compilation.looked_at(schedule) >= due.date:
        return  # a day without one, by a change of the schedule
    if digest is not None and _due_at(digest) + settings.DIGEST_ALARM_AFTER > now:
        return
    if digest is None:
        url = reverse("admin:digests_digestschedule_changelist")
        why = _("It has not been made: “beat” or the worker is not running.")
    else:
        url = reverse("admin:digests_digest_change", args=[digest.pk])
        why = _why_late(digest, schedule)
    if why:
        title = {"newsletter": schedule.newsletter, "date": date_format(due.date), "why": why}
        text = _("“%(newsletter)s” of %(date)s has not reached its readers. %(why)s") % title
        yield Alarm(key=f"late-{schedule.pk}-{due.date}", text=text, url=url, mail_after=AT_ONCE)


def _due_at(digest: Digest) -> datetime:
    """Return since when somebody waits; after all had it, latecomers or whom staff mail again, since these came."""
    if digest.changes.filter(state=State.FINISHED).exists():
        return max(change.at for change in digest.changes.filter(state__in=[State.SENDING, State.FINISHED]))
    return digest.due_at


def _why_late(digest: Digest, schedule: DigestSchedule) -> str:
    if digest.state == State.PLANNED:
        return digest.state_reason or _("It has not been compiled yet.")
    if digest.state == State.COMPILED and schedule.approval == DigestSchedule.Approval.REQUIRED:
        return _("It waits for approval.")
    if digest.state in {State.COMPILED, State.APPROVED}:
        return _("It has not begun to go out.")
    if digest.state not in {State.SENDING, State.PAUSED}:
        return ""
    counts = outcomes.counts(digest)
    numbers = {"waiting": counts["waiting"] + counts["sending"], "uncertain": counts["uncertain"]}
    text = _("%(waiting)d readers wait for it still, of %(uncertain)d it is uncertain.") % numbers
    return " ".join(filter(None, [_("It is paused.") if digest.state == State.PAUSED else "", text]))


def _missed(now: datetime) -> Iterator[Alarm]:
    """Days without a digest that should have had one: Newsroom did not run, or nobody approved in time."""
    too_late = DigestChange.objects.filter(
        digest=OuterRef("pk"), state=State.SKIPPED, at__gte=OuterRef("not_after"), at__gt=now - SHOWN
    )
    missed = Digest.objects.filter(Exists(too_late), state=State.SKIPPED)
    # Whoever stops a schedule wants none of its digests.
    for digest in missed.exclude(schedule__state=DigestSchedule.State.STOPPED).select_related("newsletter"):
        text = _("There was no digest: %(digest)s. %(why)s") % {"digest": digest, "why": digest.state_reason}
        yield Alarm(key=f"missed-{digest.pk}", text=text, url=_page(digest), mail_after=AT_ONCE, tells_end=False)


def _expired(now: datetime) -> Iterator[Alarm]:
    expired = DeliveryBatch.objects.filter(state=DeliveryBatch.State.EXPIRED, digest__not_after__gt=now - SHOWN)
    sums = expired.values("digest").annotate(count=Sum("size")).order_by("digest")
    counts = {row["digest"]: row["count"] for row in sums}
    for digest in Digest.objects.filter(pk__in=counts).select_related("newsletter"):
        count = counts[digest.pk]
        text = ngettext(
            "%(digest)s: %(count)d reader did not get it in time.",
            "%(digest)s: %(count)d readers did not get it in time.",
            count,
        ) % {"digest": digest, "count": count}
        yield Alarm(key=f"expired-{digest.pk}", text=text, url=_page(digest), mail_after=AT_ONCE, tells_end=False)


def _page(digest: Digest) -> str:
    return reverse("admin:digests_digest_change", args=[digest.pk])


def _in_words(moment: datetime) -> str:
    return date_format(timezone.localtime(moment), "SHORT_DATETIME_FORMAT")
