"""Which articles: makes the digests that are due and freezes their entries.

Every article ends in one digest of a newsletter, or waits for the next, or was left out by someone for a reason, or is
too old. Selection goes by when Newsroom first saw it, so that a late or back-dated article is not lost.
"""

import logging
from dataclasses import replace
from datetime import date, datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import DatabaseError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from digests import calendar, entries, pictures, release, rendering, steps
from digests.calendar import DAY, DueDate, Rhythm
from digests.models import Digest, DigestEntry, DigestSchedule, LeftOut
from newsroom.articles.models import Article
from newsroom.mail.messages import MjmlError
from subscriptions.models import Newsletter

logger = logging.getLogger(__name__)

State = Digest.State
FRIDAY = 5


def make_due_digests(now: datetime) -> list[Digest]:
    """Make every digest whose time has come, compile what is planned, and start what needs no approval.

    Safe to repeat and to run twice at once: a digest is unique per newsletter and date, and what a crash left planned
    or compiled is taken up again. Returns the digests made by this call.
    """
    made = [digest for schedule in _schedules() for digest in _make_due(schedule, now=now)]
    for digest in Digest.objects.filter(state=State.PLANNED, schedule__isnull=False, not_after__gt=now):
        _compile_or_say_why(digest, now=now)
    release.lapse(now)
    release.start_due(now)
    for digest in made:
        digest.refresh_from_db()
    return made


def make_ahead(schedule: DigestSchedule, *, now: datetime, actor: AbstractBaseUser | None = None) -> Digest | None:
    """Make today's digest before its time, so that staff can look at it; it still goes out at its time.

    None if today has no digest, or has one already, or it is too late for one.
    """
    due = calendar.due_date(rhythm(schedule), calendar.local_date(now, time_zone=schedule.time_zone))
    digest = _make(schedule, due, now=now, actor=actor) if due and now < due.not_after else None
    if digest is not None and digest.state == State.PLANNED:
        compile_digest(digest, now=now, actor=actor)
    return digest


def rhythm(schedule: DigestSchedule) -> Rhythm:
    return Rhythm(
        weekdays=schedule.weekdays,
        local_time=schedule.local_time,
        time_zone=schedule.time_zone,
        not_later_than=schedule.not_later_than,
    )


def waiting_articles(schedule: DigestSchedule, *, now: datetime) -> QuerySet[Article]:
    """Return the articles that belong in the newsletter's next digest, in reading order."""
    in_a_digest = DigestEntry.objects.filter(
        newsletter=schedule.newsletter_id, article=OuterRef("pk"), released_at=None
    )
    left_out = LeftOut.objects.filter(newsletter=schedule.newsletter_id, article=OuterRef("pk"))
    articles = Article.objects.published(now).first_seen_within(_oldest(schedule, now), now)
    sections = list(schedule.sections.values_list("pk", flat=True))
    if sections:
        articles = articles.filter(section__in=sections)
    return articles.filter(~Exists(in_a_digest), ~Exists(left_out)).select_related("section").in_reading_order()


def compile_digest(digest: Digest, *, now: datetime, actor: AbstractBaseUser | None = None) -> bool:
    """Choose and freeze the articles of a planned digest and render it, or skip it and say why.

    False if somebody else has done so already.
    """
    schedule = _schedule_of(digest)
    for article in waiting_articles(schedule, now=now)[: schedule.maximum_articles]:
        pictures.thumbnail_url(article)  # takes its time, so it is made before the transaction begins
    with transaction.atomic():
        if not _claim(digest):
            return False
        articles = list(waiting_articles(schedule, now=now))
        reason = _reason_to_skip(digest, schedule, count=len(articles))
        if reason:
            return steps.take(digest, steps.SKIP, now=now, actor=actor, reason=reason)
        if digest.newsletter.frequency == Newsletter.Frequency.WEEKLY:
            # From here on the database refuses a second one, whatever else compiles at this moment.
            digest.only_in_week = digest.date - DAY * digest.date.weekday()
            Digest.objects.filter(pk=digest.pk).update(only_in_week=digest.only_in_week)
        elif digest.newsletter.frequency == Newsletter.Frequency.WEEKDAYS:
            digest.only_on_weekdays = True
            Digest.objects.filter(pk=digest.pk).update(only_on_weekdays=True)
        chosen = _cap(digest, articles, maximum=schedule.maximum_articles, now=now)
        DigestEntry.objects.bulk_create(
            entries.freeze(digest, article, position=position) for position, article in enumerate(chosen, start=1)
        )
        rendering.store(digest)
        return steps.take(digest, steps.COMPILE, now=now, actor=actor)


def reopen(digest: Digest, *, now: datetime, actor: AbstractBaseUser | None = None) -> bool:
    """Compile a skipped digest after all, if it is still its date and there are articles now."""
    if digest.schedule is None or now >= digest.not_after:
        return False
    if _reason_to_skip(digest, digest.schedule, count=waiting_articles(digest.schedule, now=now).count()):
        return False
    with transaction.atomic():
        return steps.take(digest, steps.REOPEN, now=now, actor=actor) and compile_digest(digest, now=now, actor=actor)


def _schedules() -> QuerySet[DigestSchedule]:
    return DigestSchedule.objects.select_related("newsletter").order_by("pk")


def _make_due(schedule: DigestSchedule, *, now: datetime) -> list[Digest]:
    today = calendar.local_date(now, time_zone=schedule.time_zone)
    if schedule.state == DigestSchedule.State.STOPPED:
        # The days of a stopped schedule are nobody's loss: they must not turn up as skipped once it runs again.
        _look_at(schedule, today - DAY)
        return []
    due = _due_dates(schedule, today=today, now=now)
    made = [_make(schedule, each, now=now) for each in due]
    # Days that had no digest are done with, too: other weekdays chosen later must not make them look missed.
    _look_at(schedule, today - DAY)
    if schedule.seen_rhythm != (seen := written(rhythm(schedule))):
        DigestSchedule.objects.filter(pk=schedule.pk).update(seen_rhythm=seen)
    return [digest for digest in made if digest is not None]


def _due_dates(schedule: DigestSchedule, *, today: date, now: datetime) -> list[DueDate]:
    """Return the dates whose time has come; after a change of time or zone none that this change alone made pass.

    A zone to the east, or an earlier time, may put today's digest behind its “not later than”: it goes out all the
    same. Days before today were not missed by anybody, either.
    """
    due = calendar.due_dates(rhythm(schedule), after=looked_at(schedule), now=now)
    if schedule.seen_rhythm in {"", written(rhythm(schedule))}:
        return due
    end = calendar.end_of(today, time_zone=schedule.time_zone)
    of_today = (each for each in due if each.date == today)
    return [replace(each, not_after=end) if each.not_after <= now else each for each in of_today]


def written(rhythm: Rhythm) -> str:
    """Return what of a rhythm moves the instants of its dates, to be compared."""
    return f"{rhythm.local_time} {rhythm.time_zone} {rhythm.not_later_than}"


def looked_at(schedule: DigestSchedule) -> date:
    """Return the last date the schedule is done with; a new one begins with the day of its creation."""
    return schedule.last_date or calendar.local_date(schedule.created_at, time_zone=schedule.time_zone) - DAY


def _look_at(schedule: DigestSchedule, day: date) -> bool:
    """Move the schedule on to a date; false if somebody else was faster."""
    return bool(
        DigestSchedule.objects.filter(Q(last_date=None) | Q(last_date__lt=day), pk=schedule.pk).update(last_date=day)
    )


def _make(
    schedule: DigestSchedule, due: DueDate, *, now: datetime, actor: AbstractBaseUser | None = None
) -> Digest | None:
    with transaction.atomic():
        if not _look_at(schedule, due.date):
            return None
        digest, is_new = Digest.objects.get_or_create(
            newsletter_id=schedule.newsletter_id,
            date=due.date,
            defaults={
                "schedule": schedule,
                "due_at": due.due_at,
                "not_after": due.not_after,
                "created_at": now,
                "language": settings.LANGUAGE_CODE,
            },
        )
        if not is_new:
            return None
        steps.note(digest, State.PLANNED, now=now, actor=actor)
        if now >= due.not_after:
            reason = _("Newsroom was not running when this digest was due; its articles wait for the next one.")
            steps.take(digest, steps.SKIP, now=now, reason=reason)
    return digest


def _compile_or_say_why(digest: Digest, *, now: datetime) -> None:
    """Compile, and let one digest that cannot be compiled not hold up the others; the next tick tries again."""
    try:
        compile_digest(digest, now=now)
    except (MjmlError, DatabaseError) as error:
        logger.exception("Digest %s cannot be compiled", digest.pk)
        reason = _("It could not be compiled (%(error)s); another attempt follows.") % {"error": type(error).__name__}
        Digest.objects.filter(pk=digest.pk, state=State.PLANNED).update(state_reason=reason)


def _claim(digest: Digest) -> bool:
    """Lock a planned digest until the transaction ends; whoever comes second finds it compiled."""
    return bool(Digest.objects.filter(pk=digest.pk, state=State.PLANNED).update(state_reason=""))


def _schedule_of(digest: Digest) -> DigestSchedule:
    if digest.schedule is None:
        raise DigestSchedule.DoesNotExist(f"Digest {digest.pk} has no schedule any more.")
    return digest.schedule


def _oldest(schedule: DigestSchedule, now: datetime) -> datetime:
    """Return from when on an article is not too old.

    A newsletter that pauses between digests reaches back over the pause; a new one begins with what appeared within
    one such pause before it was set up, not with the whole archive.
    """
    gap = calendar.longest_gap(schedule.weekdays)
    return max(now - settings.ARTICLE_MAX_AGE - (gap - DAY), schedule.created_at - gap)


def _reason_to_skip(digest: Digest, schedule: DigestSchedule, *, count: int) -> str:
    if digest.newsletter.frequency == Newsletter.Frequency.WEEKDAYS and digest.date.isoweekday() > FRIDAY:
        return _("Readers agreed to digests from Monday to Friday only.")
    if _is_more_than_stated(digest):
        return _("Readers agreed to one digest a week, and this week's has gone out already.")
    if count == 0:
        return _("There are no new articles.")
    if count < schedule.minimum_articles:
        return ngettext(
            "There is only %(count)d new article; the schedule asks for at least %(minimum)d.",
            "There are only %(count)d new articles; the schedule asks for at least %(minimum)d.",
            count,
        ) % {"count": count, "minimum": schedule.minimum_articles}
    return ""


def _is_more_than_stated(digest: Digest) -> bool:
    # Consent covers the stated frequency only (KG Berlin 5 U 1043/20). Days need no question: one digest per date.
    # A digest that was cancelled while it went out has reached some readers.
    if digest.newsletter.frequency != Newsletter.Frequency.WEEKLY:
        return False
    others = Digest.objects.filter(newsletter=digest.newsletter_id).exclude(pk=digest.pk)
    return (
        others.filter(date__gt=digest.date - timedelta(days=7), date__lt=digest.date + timedelta(days=7))
        .exclude(state=State.SKIPPED)
        .exclude(state=State.CANCELLED, audience_frozen_at=None)
        .exists()
    )


def _cap(digest: Digest, articles: list[Article], *, maximum: int, now: datetime) -> list[Article]:
    """Return the most important articles in reading order, and note the others as left out."""
    by_weight = sorted(articles, key=lambda article: (article.importance, article.published_at), reverse=True)
    kept = {article.pk for article in by_weight[:maximum]}
    LeftOut.objects.bulk_create(
        LeftOut(
            newsletter_id=digest.newsletter_id, article=article, digest=digest, reason=LeftOut.Reason.MAXIMUM, at=now
        )
        for article in articles
        if article.pk not in kept
    )
    return [article for article in articles if article.pk in kept]
