"""Schedules, digests, and who was handed which digest.

States change by guarded updates in `compilation.py`, `release.py` and `delivery.py`; nothing else saves one.
"""

import uuid
import zoneinfo
from datetime import datetime, time, timedelta
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Q
from django.db.models.sql.compiler import SQLCompiler
from django.utils.translation import gettext_lazy as _

from newsroom.articles.models import Article, Section
from subscriptions.models import Newsletter, Subscriber

ALL_WEEKDAYS = 0b1111111

# A broker that lost a hint delays its batch by this long.
HINT_INTERVAL = timedelta(seconds=30)


class IsWeekend(models.Func):
    """Whether a date is a Saturday or Sunday, in each database's own words: others than Django write to it, too."""

    output_field = models.BooleanField()

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> tuple[str, Any]:
        return self.as_sql(compiler, connection, template="(EXTRACT(ISODOW FROM %(expressions)s) > 5)", **context)

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> tuple[str, Any]:
        saturday, sunday = (f"date(%(expressions)s, 'weekday {day}')" for day in (6, 0))
        template = f"(date(%(expressions)s) IN ({saturday}, {sunday}))"
        return self.as_sql(compiler, connection, template=template, **context)


def validate_time_zone(name: str) -> None:
    if name not in zoneinfo.available_timezones():
        raise ValidationError(
            _("“%(name)s” is not a time zone of the IANA list, such as Europe/Berlin."), params={"name": name}
        )


def validate_weekdays(mask: int) -> None:
    if not 0 < mask <= ALL_WEEKDAYS:
        raise ValidationError(_("Choose at least one weekday."))


class Provider(models.Model):
    """Who carries the mail, and the gate in front of it."""

    class Gate(models.TextChoices):
        OPEN = "open", _("passes mail")
        TRYING = "trying", _("tries with one batch")
        CLOSED = "closed", _("holds mail back")

    name = models.CharField(_("name"), max_length=60, unique=True)
    gate = models.CharField(_("gate"), max_length=10, choices=Gate, default=Gate.OPEN)
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    resume_at = models.DateTimeField(
        _("not before"),
        null=True,
        blank=True,
        help_text=_("The provider asked for a pause, or failed too often in a row."),
    )
    most_per_second = models.FloatField(
        _("at most per second"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1)],
        help_text=_("Mails the provider takes in a second. Empty: as many as it takes."),
    )
    most_per_day = models.PositiveIntegerField(
        _("at most per day"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("Mails the provider takes in a day (UTC). Empty: as many as it takes."),
    )
    is_warming_up = models.BooleanField(
        _("is new to the mailboxes"),
        default=False,
        help_text=_("Begins with a few hundred mails a day and sends more each day, until mailboxes know the sender."),
    )
    first_sent_on = models.DateField(_("first mail on"), null=True, blank=True, editable=False)
    rate = models.FloatField(
        _("rate now"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("Mails per second, learnt from when the provider asked for patience. Empty: nothing learnt."),
    )
    throttled_at = models.DateTimeField(_("asked for patience"), null=True, blank=True, editable=False)
    next_slot_at = models.DateTimeField(null=True, blank=True, editable=False)
    counted_on = models.DateField(null=True, blank=True, editable=False)
    count_of_day = models.PositiveIntegerField(_("mails today"), default=0, editable=False)
    changed_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("provider")
        verbose_name_plural = _("providers")

    def __str__(self) -> str:
        return self.name


class DigestSchedule(models.Model):
    class State(models.TextChoices):
        RUNNING = "running", _("running")
        STOPPED = "stopped", _("stopped")

    class Approval(models.TextChoices):
        AUTOMATIC = "automatic", _("goes out by itself")
        REQUIRED = "required", _("waits for approval")

    class Latecomers(models.TextChoices):
        INCLUDED = "included", _("get today's digest at once")
        NEXT = "next", _("wait for the next digest")

    class UncertainPolicy(models.TextChoices):
        WAIT = "wait", _("wait for somebody's decision")
        LEAVE = "leave", _("leave them: nobody is mailed twice")
        RESEND = "resend", _("mail them once more: rather twice than not at all")

    newsletter = models.OneToOneField(Newsletter, models.PROTECT, related_name="schedule", verbose_name=_("newsletter"))
    weekdays = models.PositiveSmallIntegerField(
        _("weekdays"),
        default=ALL_WEEKDAYS,
        validators=[validate_weekdays],
        help_text=_("On these days a digest is made."),
    )
    local_time = models.TimeField(
        _("time"),
        default=time(7),
        help_text=_("Local time in the time zone below; in the hour that summer time skips, an hour later."),
    )
    time_zone = models.CharField(
        _("time zone"), max_length=60, default="Europe/Berlin", validators=[validate_time_zone]
    )
    sections = models.ManyToManyField(
        Section, blank=True, verbose_name=_("sections"), help_text=_("None chosen means all.")
    )
    minimum_articles = models.PositiveSmallIntegerField(
        _("at least"),
        default=1,
        help_text=_("With fewer articles the day is skipped, and they wait for the next digest."),
    )
    maximum_articles = models.PositiveSmallIntegerField(
        _("at most"), default=30, help_text=_("Articles beyond it are left out, the least important first.")
    )
    approval = models.CharField(
        _("approval"),
        max_length=10,
        choices=Approval,
        default=Approval.AUTOMATIC,
        help_text=_("Whether a digest waits until someone has looked at it."),
    )
    not_later_than = models.TimeField(
        _("not later than"),
        null=True,
        blank=True,
        help_text=_("What has not gone out by then stays undelivered. Empty: end of the day."),
    )
    uncertain_policy = models.CharField(
        _("if it is uncertain whether a mail went out"),
        max_length=20,
        choices=UncertainPolicy,
        default=UncertainPolicy.WAIT,
        help_text=_("If for a while neither the provider nor anybody else could tell."),
    )
    latecomers = models.CharField(
        _("latecomers"),
        max_length=10,
        choices=Latecomers,
        default=Latecomers.INCLUDED,
        help_text=_("Readers who confirm after today's digest has gone out."),
    )
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RUNNING)
    last_date = models.DateField(_("looked at up to"), null=True, blank=True, editable=False)
    seen_rhythm = models.CharField(max_length=120, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("digest schedule")
        verbose_name_plural = _("digest schedules")
        constraints = [
            models.CheckConstraint(
                condition=Q(minimum_articles__gte=1, maximum_articles__gte=F("minimum_articles")),
                name="digest_schedule_minimum_is_below_maximum",
            ),
            models.CheckConstraint(
                condition=Q(weekdays__gte=1, weekdays__lte=ALL_WEEKDAYS), name="digest_schedule_has_a_weekday"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.newsletter} {self.local_time:%H:%M}"


class DigestQuerySet(models.QuerySet["Digest"]):
    def sending(self) -> Self:
        return self.filter(state=Digest.State.SENDING)

    def out(self) -> Self:
        """Digests that readers have, or are getting."""
        return self.filter(state__in=[Digest.State.SENDING, Digest.State.PAUSED, Digest.State.FINISHED])

    def editable(self) -> Self:
        """Digests whose entries staff may still change."""
        return self.filter(state=Digest.State.COMPILED)


class Digest(models.Model):
    """One day's issue of a newsletter. One per newsletter and local date: the stated frequency is binding (R-06)."""

    class State(models.TextChoices):
        PLANNED = "planned", _("planned")
        COMPILED = "compiled", _("compiled")
        APPROVED = "approved", _("approved")
        SENDING = "sending", _("being sent")
        PAUSED = "paused", _("paused")
        FINISHED = "finished", _("finished")
        CANCELLED = "cancelled", _("cancelled")
        SKIPPED = "skipped", _("skipped")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    newsletter = models.ForeignKey(Newsletter, models.PROTECT, related_name="digests", verbose_name=_("newsletter"))
    schedule = models.ForeignKey(
        DigestSchedule, models.SET_NULL, null=True, related_name="digests", verbose_name=_("schedule")
    )
    date = models.DateField(_("date"))
    only_in_week = models.DateField(
        _("only one in the week of"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("The Monday of its week, if readers agreed to one digest a week; set when it is compiled."),
    )
    only_on_weekdays = models.BooleanField(
        _("only from Monday to Friday"),
        default=False,
        editable=False,
        help_text=_("Readers agreed to digests from Monday to Friday; set when it is compiled."),
    )
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PLANNED)
    state_reason = models.CharField(_("reason"), max_length=300, blank=True)
    due_at = models.DateTimeField(_("due"))
    not_after = models.DateTimeField(_("not later than"))
    language = models.CharField(_("language"), max_length=5, choices=settings.LANGUAGES, default="de")
    subject = models.CharField(_("subject"), max_length=200, blank=True)
    preheader = models.CharField(_("preheader"), max_length=200, blank=True)
    html = models.TextField(blank=True, editable=False)
    text = models.TextField(blank=True, editable=False)
    audience_frozen_at = models.DateTimeField(_("audience frozen"), null=True, blank=True)
    expected_count = models.PositiveIntegerField(_("readers"), default=0)
    final_counts = models.JSONField(
        _("counts"), null=True, blank=True, editable=False, help_text=_("What stays when the deliveries are purged.")
    )
    created_at = models.DateTimeField(_("created"))
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    objects = DigestQuerySet.as_manager()

    class Meta:
        verbose_name = _("digest")
        verbose_name_plural = _("digests")
        ordering = ["-date", "newsletter"]
        constraints = [
            models.UniqueConstraint(fields=["newsletter", "date"], name="one_digest_per_newsletter_and_local_date"),
            models.UniqueConstraint(
                fields=["newsletter", "only_in_week"],
                condition=~Q(state__in=["cancelled", "skipped"])
                | Q(state="cancelled", audience_frozen_at__isnull=False),
                name="one_digest_per_weekly_newsletter_and_week",
            ),
            models.CheckConstraint(
                condition=Q(only_on_weekdays=False) | ~Q(IsWeekend("date")),
                name="no_digest_at_the_weekend_if_readers_agreed_to_weekdays",
            ),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "planned",
                        "compiled",
                        "approved",
                        "sending",
                        "paused",
                        "finished",
                        "cancelled",
                        "skipped",
                    ]
                ),
                name="digest_state_is_known",
            ),
        ]
        permissions = [("send_digest", _("Can approve, send and cancel digests"))]

    def __str__(self) -> str:
        return f"{self.newsletter} {self.date:%d.%m.%Y}"


class DigestChange(models.Model):
    """A step of a digest's life: when, by whom, why."""

    digest = models.ForeignKey(Digest, models.CASCADE, related_name="changes")
    state = models.CharField(_("state"), max_length=10, choices=Digest.State)
    at = models.DateTimeField(_("time"))
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        verbose_name=_("by"),
        help_text=_("Empty: Newsroom itself."),
    )
    reason = models.CharField(_("reason"), max_length=300, blank=True)

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("steps")
        ordering = ["at", "id"]


class DigestEntry(models.Model):
    """An article's place in a digest, with its words as they are sent."""

    digest = models.ForeignKey(Digest, models.CASCADE, related_name="entries", verbose_name=_("digest"))
    newsletter = models.ForeignKey(Newsletter, models.PROTECT, related_name="+")
    article = models.ForeignKey(Article, models.PROTECT, related_name="entries", verbose_name=_("article"))
    position = models.PositiveSmallIntegerField(_("position"))
    section = models.CharField(_("section"), max_length=60)
    headline = models.CharField(_("headline"), max_length=200)
    teaser = models.CharField(_("teaser"), max_length=400)
    author = models.CharField(_("author"), max_length=200, blank=True)
    url = models.URLField(_("address"), max_length=300)
    image_url = models.URLField(_("picture"), max_length=300, blank=True)
    thumbnail_url = models.URLField(_("small picture"), max_length=300, blank=True)
    image_alt = models.CharField(_("picture description"), max_length=300, blank=True)
    image_width = models.PositiveIntegerField(null=True, blank=True)
    image_height = models.PositiveIntegerField(null=True, blank=True)
    released_at = models.DateTimeField(
        _("released"),
        null=True,
        blank=True,
        help_text=_("The digest was cancelled or skipped; the article waits again."),
    )

    class Meta:
        verbose_name = _("entry")
        verbose_name_plural = _("entries")
        ordering = ["position", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["newsletter", "article"],
                condition=Q(released_at=None),
                name="every_article_once_per_newsletter",
            )
        ]

    def __str__(self) -> str:
        return self.headline


class LeftOut(models.Model):
    """An article that will not be in a newsletter's digests, with who decided it and why."""

    class Reason(models.TextChoices):
        MAXIMUM = "maximum", _("over the maximum")
        STAFF = "staff", _("taken out by staff")

    newsletter = models.ForeignKey(Newsletter, models.CASCADE, related_name="left_out", verbose_name=_("newsletter"))
    article = models.ForeignKey(Article, models.CASCADE, related_name="left_out", verbose_name=_("article"))
    digest = models.ForeignKey(Digest, models.CASCADE, related_name="left_out", verbose_name=_("digest"))
    reason = models.CharField(_("reason"), max_length=10, choices=Reason)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, verbose_name=_("by"))
    at = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("article left out")
        verbose_name_plural = _("articles left out")
        constraints = [
            models.UniqueConstraint(fields=["newsletter", "article"], name="left_out_once_per_newsletter_and_article")
        ]


class DigestTest(models.Model):
    """One copy of a digest for the staff member who asked for it, and for nobody else."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    digest = models.ForeignKey(Digest, models.CASCADE, related_name="tests", verbose_name=_("digest"))
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("for"))
    requested_at = models.DateTimeField(_("requested"))

    class Meta:
        verbose_name = _("test mail")
        verbose_name_plural = _("test mails")
        ordering = ["-requested_at"]

    def __str__(self) -> str:
        return str(self.uuid)


class DeliveryBatchQuerySet(models.QuerySet["DeliveryBatch"]):
    def due(self, now: datetime) -> Self:
        """Batches that may be claimed: waiting, or leased by a worker that is gone before it sent anything."""
        return self.filter(digest__state=Digest.State.SENDING).filter(
            Q(state=DeliveryBatch.State.PENDING, next_attempt_at__lte=now)
            | Q(state=DeliveryBatch.State.LEASED, lease_until__lt=now)
        )

    def waiting(self, now: datetime) -> Self:
        """Batches that wait for any worker."""
        return self.filter(
            digest__state=Digest.State.SENDING, state=DeliveryBatch.State.PENDING, next_attempt_at__lte=now
        )

    def lost(self, now: datetime) -> Self:
        """Batches whose worker is gone while it was sending."""
        return self.filter(state=DeliveryBatch.State.SUBMITTING, lease_until__lt=now)

    def waiting_for_hint(self, now: datetime) -> Self:
        """Due batches no worker was told of lately."""
        # Later than now: by a clock that was ahead then and has been set right.
        return self.due(now).filter(Q(hinted_at=None) | ~Q(hinted_at__range=(now - HINT_INTERVAL, now + HINT_INTERVAL)))

    def open(self) -> Self:
        return self.filter(state__in=DeliveryBatch.OPEN_STATES)


class DeliveryBatch(models.Model):
    """Readers of a digest that are claimed and handed over together. The batches of a digest are its frozen audience.

    The sizes of a digest's batches always add up to its `expected_count`: what is divided shrinks by what the new
    batch takes over.
    """

    class State(models.TextChoices):
        PENDING = "pending", _("waiting")
        LEASED = "leased", _("claimed")
        SUBMITTING = "submitting", _("being handed over")
        DONE = "done", _("handed over")
        FAILED = "failed", _("failed")
        EXPIRED = "expired", _("too late")
        CANCELLED = "cancelled", _("cancelled")

    OPEN_STATES = (State.PENDING, State.LEASED, State.SUBMITTING)

    digest = models.ForeignKey(Digest, models.CASCADE, related_name="batches", verbose_name=_("digest"))
    number = models.PositiveIntegerField(_("number"))
    parent = models.ForeignKey("self", models.CASCADE, null=True, blank=True, related_name="children")
    reader_ids = models.JSONField(_("readers"), help_text=_("Ids of the readers, in the order of handing over."))
    size = models.PositiveIntegerField(_("size"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    owner = models.CharField(_("worker"), max_length=100, blank=True)
    lease_until = models.DateTimeField(_("leased until"), null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"))
    is_second_try = models.BooleanField(
        _("asks again"), default=False, help_text=_("It is uncertain whether these readers have the mail already.")
    )
    # Asked again only while the provider remembers these mails by their keys; empty: by a decision.
    keyed_until = models.DateTimeField(null=True, blank=True, editable=False)
    hinted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = DeliveryBatchQuerySet.as_manager()

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        ordering = ["digest", "number"]
        constraints = [
            models.UniqueConstraint(fields=["digest", "number"], name="batch_number_is_unique_per_digest"),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "leased", "submitting", "done", "failed", "expired", "cancelled"]),
                name="batch_state_is_known",
            ),
        ]
        indexes = [
            # All of an audience are due at the same moment, so the time alone would leave them to be sorted.
            models.Index(fields=["next_attempt_at", "id"], condition=Q(state="pending"), name="batch_due"),
            models.Index(fields=["lease_until"], condition=Q(state__in=["leased", "submitting"]), name="batch_leased"),
            # Asked after each batch: without it, it would take longer with each batch that is done.
            models.Index(
                fields=["digest"], condition=Q(state__in=["pending", "leased", "submitting"]), name="batch_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.digest_id}/{self.number}"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def uncertain(self) -> Self:
        return self.filter(state=Delivery.State.UNCERTAIN)


# What became of a delivery: its own state, else what its batch's state says.
OUTCOME = models.Case(
    models.When(~Q(state=""), then=F("state")),
    models.When(batch__state=DeliveryBatch.State.DONE, then=models.Value("accepted")),
    default=F("batch__state"),
    output_field=models.CharField(),
)


class Delivery(models.Model):
    """One digest for one reader, inserted when its batch's intent is committed. It keeps no address.

    An empty `state` means: as its batch.
    """

    class State(models.TextChoices):
        ACCEPTED = "accepted", _("handed over")
        UNCERTAIN = "uncertain", _("uncertain")
        REFUSED = "refused", _("refused")
        FAILED = "failed", _("failed")
        SUPPRESSED = "suppressed", _("not eligible any more")
        POSTPONED = "postponed", _("waits again")
        BOUNCED = "bounced", _("came back")
        COMPLAINED = "complained", _("called spam")

    # Its mail bears it, too. A number beside it would be a column and an index more for each of a million rows.
    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # A batch's deliveries are written while its row is held: to look for it, and for its digest, once for each of them
    # would double what they cost. The digest is found by the constraint's index.
    digest = models.ForeignKey(
        Digest,
        models.CASCADE,
        related_name="deliveries",
        verbose_name=_("digest"),
        db_constraint=False,
        db_index=False,
    )
    batch = models.ForeignKey(
        DeliveryBatch, models.CASCADE, related_name="deliveries", verbose_name=_("batch"), db_constraint=False
    )
    subscriber = models.ForeignKey(
        Subscriber, models.SET_NULL, null=True, related_name="deliveries", verbose_name=_("reader")
    )
    state = models.CharField(_("state"), max_length=10, choices=State, blank=True, default="")
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("time"))

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        constraints = [
            models.UniqueConstraint(fields=["digest", "subscriber"], name="one_delivery_per_reader_and_digest")
        ]
        indexes = [
            # What staff watch and decide: few rows, whatever the digest's size; none is written when a mail goes well.
            models.Index(fields=["digest", "state"], condition=~Q(state=""), name="delivery_with_own_outcome"),
        ]

    def __str__(self) -> str:
        return str(self.uuid)


class DeliveryAttempt(models.Model):
    """One call, or one session, to the provider: committed before it begins, its outcome after it."""

    batch = models.ForeignKey(DeliveryBatch, models.CASCADE, related_name="tries", verbose_name=_("batch"))
    provider = models.ForeignKey(
        Provider, models.SET_NULL, null=True, related_name="+", verbose_name=_("provider"), editable=False
    )
    fence = models.PositiveIntegerField()
    started_at = models.DateTimeField(_("started"))
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    acknowledged = models.PositiveIntegerField(
        _("acknowledged"), default=0, help_text=_("So many of the batch's readers were surely done when last written.")
    )
    in_flight = models.PositiveIntegerField(
        _("in flight"), default=0, help_text=_("So many readers after those may have been mailed if the worker died.")
    )
    outcome = models.CharField(_("outcome"), max_length=20, blank=True)
    detail = models.CharField(_("detail"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ["-started_at"]
        constraints = [models.UniqueConstraint(fields=["batch", "fence"], name="one_attempt_per_claim")]


class HighWater(models.Model):
    """How far this database has come: one row, whose number a file outside the database repeats (`restoring.py`)."""

    lineage = models.UUIDField(default=uuid.uuid4, editable=False)
    number = models.PositiveBigIntegerField(default=0)
    at = models.DateTimeField()


class ProviderEventQuerySet(models.QuerySet["ProviderEvent"]):
    def waiting(self, now: datetime) -> Self:
        return self.filter(state=ProviderEvent.State.WAITING, next_attempt_at__lte=now)

    def unread(self) -> Self:
        """Reports that are still as they came."""
        return self.filter(raw__gt="")

    def old(self, now: datetime) -> Self:
        """Reports whose time is over; those that belong to a delivery go with it."""
        return self.filter(delivery=None, received_at__lte=now - settings.PROVIDER_EVENT_RETENTION)


class ProviderEvent(models.Model):
    """What a provider, or a mail that came back, reports of one mail.

    It is stored as it came, and what it said goes as soon as it is understood: what stays is which kind of thing
    happened to which delivery on which day. A second report of the same is known by its key.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DONE = "done", _("done")
        UNMATCHED = "unmatched", _("of no mail of ours")
        UNREADABLE = "unreadable", _("not understood")

    class Kind(models.TextChoices):
        ACCEPTED = "accepted", _("taken over")
        DELIVERED = "delivered", _("delivered")
        SOFT_BOUNCE = "soft_bounce", _("came back, for now")
        BLOCKED = "blocked", _("refused for our sake, or the mail's")
        SUPPRESSED = "suppressed", _("blocked at the provider")
        HARD_BOUNCE = "hard_bounce", _("came back for good")
        UNSUBSCRIBE = "unsubscribe", _("unsubscribed at the provider")
        COMPLAINT = "complaint", _("called spam")
        OTHER = "other", _("something else")

    source = models.CharField(_("reported by"), max_length=20)
    key = models.CharField(max_length=64, unique=True, editable=False)
    raw = models.TextField(blank=True, editable=False)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.WAITING)
    kind = models.CharField(_("what"), max_length=12, choices=Kind, blank=True)
    code = models.CharField(_("status code"), max_length=12, blank=True)
    delivery = models.ForeignKey(
        Delivery, models.CASCADE, null=True, related_name="events", editable=False, verbose_name=_("delivery")
    )
    day = models.DateField(_("day"), null=True, blank=True, help_text=_("On which it happened, where that is said."))
    received_at = models.DateTimeField(_("received"))
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    next_attempt_at = models.DateTimeField(editable=False)

    objects = ProviderEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("provider's report")
        verbose_name_plural = _("providers' reports")
        ordering = ["-received_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "done", "unmatched", "unreadable"]),
                name="provider_event_state_is_known",
            ),
            models.CheckConstraint(
                condition=Q(raw="") | Q(state__in=["waiting", "unreadable"]), name="provider_event_forgets_what_it_read"
            ),
        ]
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(state="waiting"), name="provider_event_waiting"),
            models.Index(fields=["received_at"], condition=Q(delivery=None), name="provider_event_by_time"),
            models.Index(fields=["received_at"], condition=Q(raw__gt=""), name="provider_event_unread"),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.received_at:%Y-%m-%d %H:%M}"
