"""Who asked for what, and the proof of it.

A change of a subscription and its consent record are written by `consent.py` alone, in one transaction.
"""

import uuid
from calendar import monthrange
from datetime import date, datetime, timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class NewsletterQuerySet(models.QuerySet["Newsletter"]):
    def open(self) -> Self:
        return self.filter(state=Newsletter.State.OPEN)


class Newsletter(models.Model):
    class State(models.TextChoices):
        OPEN = "open", _("open for sign-up")
        CLOSED = "closed", _("closed for sign-up")

    class Frequency(models.TextChoices):
        DAILY = "daily", _("daily")
        WEEKDAYS = "weekdays", _("Monday to Friday")
        WEEKLY = "weekly", _("once a week")

        @property
        def digests_a_week(self) -> int:
            return {"daily": 7, "weekdays": 5, "weekly": 1}[self.value]

    name = models.CharField(_("name"), max_length=80, unique=True)
    slug = models.SlugField(
        _("short name"),
        unique=True,
        help_text=_("Part of the List-Id header; readers' filters rely on it, so keep it."),
    )
    description = models.CharField(
        _("what it brings"), max_length=300, help_text=_("One or two sentences, shown beside the choice on the form.")
    )
    frequency = models.CharField(
        _("frequency"),
        max_length=10,
        choices=Frequency,
        default=Frequency.DAILY,
        help_text=_(
            "Readers consent to this frequency; sending more often needs a new consent (KG Berlin 5 U 1043/20)."
        ),
    )
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.OPEN)

    objects = NewsletterQuerySet.as_manager()

    class Meta:
        verbose_name = _("newsletter")
        verbose_name_plural = _("newsletters")
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name


class ConsentTextQuerySet(models.QuerySet["ConsentText"]):
    def of(self, newsletter: Newsletter | None, language: str) -> Self:
        """The versions of one text, the newest first."""
        return self.filter(newsletter=newsletter, language=language).order_by("-version")

    def with_standing(self) -> Self:
        """Add when each version was replaced (`replaced_at`) and how many consents it bears now (`consents`)."""
        newer = (
            ConsentText.objects.annotate(of=Coalesce("newsletter", 0))
            .filter(
                of=Coalesce(OuterRef("newsletter"), 0),
                language=OuterRef("language"),
                version__gt=OuterRef("version"),
            )
            .order_by("version")
        )
        standing = Subscription.objects.exclude(state=Subscription.State.ENDED).order_by()
        borne = [
            standing.filter(**{place: OuterRef("pk")}).values(place).annotate(count=models.Count("pk")).values("count")
            for place in ("consent_text", "declaration")
        ]
        return self.annotate(
            replaced_at=Subquery(newer.values("created_at")[:1]),
            consents=Coalesce(Subquery(borne[0]), 0) + Coalesce(Subquery(borne[1]), 0),
        )


class ConsentText(models.Model):
    """One wording a reader agrees to, in one language and version; never changed once a reader has seen it.

    A text without a newsletter is the declaration beside the button; one with it stands at that newsletter's choice.
    """

    newsletter = models.ForeignKey(
        Newsletter, models.PROTECT, null=True, blank=True, related_name="consent_texts", verbose_name=_("newsletter")
    )
    language = models.CharField(_("language"), max_length=5, choices=settings.LANGUAGES, default="de")
    version = models.PositiveIntegerField(_("version"))
    wording = models.TextField(_("wording"))
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    # Whether a reader has agreed to it, so that it can no longer go: known where it was read as part of an offer.
    is_borne = False

    objects = ConsentTextQuerySet.as_manager()

    class Meta:
        verbose_name = _("consent text")
        verbose_name_plural = _("consent texts")
        ordering = ["newsletter", "language", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["newsletter", "language", "version"], name="consent_text_version_is_unique_per_newsletter"
            ),
            models.UniqueConstraint(
                fields=["language", "version"],
                condition=Q(newsletter=None),
                name="declaration_version_is_unique_per_language",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.newsletter or _('Declaration')} ({self.language}, v{self.version})"


class ConsentTextUse(models.Model):
    """The first reader's consent to a text: from here on the database refuses to let the text go."""

    text = models.OneToOneField(ConsentText, models.PROTECT, primary_key=True, related_name="use")
    first_at = models.DateTimeField(_("first agreed to"))

    class Meta:
        verbose_name = _("first use of a consent text")
        verbose_name_plural = _("first uses of consent texts")


class SignUpQuerySet(models.QuerySet["SignUp"]):
    def unconfirmed(self) -> Self:
        return self.filter(confirmed_at=None)

    def asked_for(self, address_key: str, *, since: datetime) -> Self:
        return self.filter(address_key=address_key, requested_at__gte=since)


class SignUp(models.Model):
    """One submitted form. It becomes subscriptions only when its confirmation link's button is pressed."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    address_typed = models.CharField(_("address as typed"), max_length=320)
    address = models.CharField(_("address"), max_length=254)
    address_key = models.CharField(max_length=254, editable=False)
    language = models.CharField(_("language"), max_length=5, choices=settings.LANGUAGES)
    consent_texts = models.ManyToManyField(ConsentText, through="AgreedText", verbose_name=_("consent texts"))
    form_url = models.CharField(_("form"), max_length=300)
    ip = models.GenericIPAddressField(_("IP address"), null=True, blank=True)
    nonce = models.CharField(max_length=32, editable=False)
    token_hash = models.CharField(max_length=64, editable=False)
    requested_at = models.DateTimeField(_("requested"))
    expires_at = models.DateTimeField(_("link valid until"))
    confirmed_at = models.DateTimeField(_("confirmed"), null=True, blank=True)

    objects = SignUpQuerySet.as_manager()

    class Meta:
        verbose_name = _("sign-up")
        verbose_name_plural = _("sign-ups")
        ordering = ["-requested_at"]
        # Not at the fields, where Django adds an index for LIKE, which nobody asks and every sign-up would write.
        constraints = [models.UniqueConstraint(fields=["token_hash"], name="sign_up_token_is_unique")]
        indexes = [
            models.Index(fields=["requested_at"], name="sign_up_by_time"),
            models.Index(fields=["address_key"], name="sign_up_by_address"),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    @property
    def newsletters(self) -> models.QuerySet[Newsletter]:
        """The newsletters asked for: those that the texts agreed to belong to."""
        return Newsletter.objects.filter(consent_texts__signup=self)


class AgreedText(models.Model):
    """A text that a sign-up agreed to. That it stays is the business of `ConsentTextUse`, once for all sign-ups."""

    pk = models.CompositePrimaryKey("sign_up", "text")
    sign_up = models.ForeignKey(SignUp, models.CASCADE, db_index=False)
    text = models.ForeignKey(ConsentText, models.DO_NOTHING, db_index=False, db_constraint=False)


class Subscriber(models.Model):
    """A reader who has confirmed at least once."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    address = models.CharField(_("address"), max_length=254)
    address_key = models.CharField(max_length=254, unique=True, editable=False)
    language = models.CharField(_("language"), max_length=5, choices=settings.LANGUAGES)
    created_at = models.DateTimeField(_("since"))
    restricted_at = models.DateTimeField(
        _("restricted since"),
        null=True,
        blank=True,
        help_text=_("While processing is restricted (GDPR Art. 18) nothing is mailed and nothing is deleted."),
    )

    class Meta:
        verbose_name = _("reader")
        verbose_name_plural = _("readers")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return str(self.uuid)


def lapse_limit(now: datetime) -> datetime:
    """Return the moment before which a consent not used since has lapsed: calendar months, on Berlin's calendar."""
    local = timezone.localtime(now)
    years, month = divmod(local.year * 12 + local.month - 1 - settings.CONSENT_LAPSE_MONTHS, 12)
    last_day = monthrange(years, month + 1)[1]
    return local.replace(year=years, month=month + 1, day=min(local.day, last_day))


def unused_since(limit: datetime) -> Q:
    return Q(active_since__lte=limit) & (Q(last_sent_at=None) | Q(last_sent_at__lte=limit))


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    def linked_by(self, number: uuid.UUID) -> Self:
        """The subscription that links with this number lead to, also from mails to the reader's former address."""
        former = FormerLink.objects.filter(uuid=number).values("subscription__uuid")
        # One number or the other: with an OR between them, each click would read all subscriptions.
        return self.filter(uuid=Coalesce(Subquery(former), models.Value(number, output_field=models.UUIDField())))

    def standing(self) -> Self:
        """Not withdrawn: active or paused, also if the consent has lapsed."""
        return self.exclude(state=Subscription.State.ENDED)

    def active(self) -> Self:
        return self.filter(state=Subscription.State.ACTIVE)

    def paused_until(self, day: date) -> Self:
        """Paused subscriptions that go on by `day`. A restricted reader's stay as they are, as all his data do."""
        return self.filter(state=Subscription.State.PAUSED, paused_until__lte=day, subscriber__restricted_at=None)

    def lapsed(self, now: datetime | None = None) -> Self:
        """Active subscriptions whose reader was not sent the newsletter for so long that his consent is stale (R-10).

        What counts is what this reader was sent: while processing was restricted, the newsletter may have gone to
        everyone else.
        """
        return self.active().filter(unused_since(lapse_limit(now or timezone.now())))

    def fresh(self, now: datetime | None = None) -> Self:
        """Active subscriptions that have not lapsed."""
        limit = lapse_limit(now or timezone.now())
        return self.active().filter(Q(active_since__gt=limit) | Q(last_sent_at__gt=limit))

    def mailable(self, now: datetime | None = None) -> Self:
        """Subscriptions a digest may go to: active, not lapsed, and the reader's processing not restricted."""
        return self.fresh(now).filter(subscriber__restricted_at=None)


class Subscription(models.Model):
    class State(models.TextChoices):
        ACTIVE = "active", _("active")
        PAUSED = "paused", _("paused")
        ENDED = "ended", _("ended")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="subscriptions", verbose_name=_("reader"))
    newsletter = models.ForeignKey(
        Newsletter, models.PROTECT, related_name="subscriptions", verbose_name=_("newsletter")
    )
    consent_text = models.ForeignKey(
        ConsentText,
        models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="subscriptions",
        verbose_name=_("consent text"),
        help_text=_("The words of the newsletter that the reader agreed to last."),
    )
    declaration = models.ForeignKey(
        ConsentText,
        models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="declared_subscriptions",
        verbose_name=_("Declaration"),
    )
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.ACTIVE)
    active_since = models.DateTimeField(_("active since"))
    last_sent_at = models.DateTimeField(
        _("last sent"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("To the week; deliveries are purged long before a consent lapses."),
    )
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    paused_until = models.DateField(
        _("paused until"), null=True, blank=True, help_text=_("On this day it goes on by itself.")
    )

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        constraints = [
            models.UniqueConstraint(
                fields=["subscriber", "newsletter"], name="one_subscription_per_reader_and_newsletter"
            ),
            models.CheckConstraint(
                condition=Q(state="ended", ended_at__isnull=False) | (~Q(state="ended") & Q(ended_at__isnull=True)),
                name="subscription_ended_at_iff_ended",
            ),
            models.CheckConstraint(
                condition=Q(state="paused", paused_until__isnull=False)
                | (~Q(state="paused") & Q(paused_until__isnull=True)),
                name="subscription_paused_until_iff_paused",
            ),
        ]
        indexes = [
            models.Index(
                fields=["newsletter", "active_since"], condition=Q(state="active"), name="active_by_newsletter"
            )
        ]

    def __str__(self) -> str:
        return str(self.uuid)


class ConsentRecordQuerySet(models.QuerySet["ConsentRecord"]):
    def unsealed(self) -> Self:
        return self.filter(sealed=None)


class ConsentRecord(models.Model):
    """Proof of one act. It holds a commitment only; what was said stands in the payload, which retention may delete.

    The database refuses to change or delete a record (see the migration's triggers).
    """

    class Type(models.TextChoices):
        REQUESTED = "requested", _("sign-up requested")
        MAIL_SENT = "mail_sent", _("confirmation mail sent")
        CONFIRMED = "confirmed", _("confirmed")
        ADDED = "added", _("newsletter added")
        CHANGED = "changed", _("changed")
        ADDRESS_CHANGED = "address_changed", _("address changed")
        WITHDRAWN = "withdrawn", _("withdrawn")
        ERASED = "erased", _("erased")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    type = models.CharField(_("act"), max_length=20, choices=Type)
    at = models.DateTimeField(_("time"))
    subject = models.UUIDField(
        _("belongs to"), db_index=True, help_text=_("The sign-up (until confirmed) or the reader the act belongs to.")
    )
    commitment = models.CharField(_("commitment"), max_length=64)

    objects = ConsentRecordQuerySet.as_manager()

    class Meta:
        verbose_name = _("consent record")
        verbose_name_plural = _("consent records")
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.get_type_display()} {self.at:%Y-%m-%d %H:%M:%S}"


class ConsentPayload(models.Model):
    """What a record commits to, with the salt. Written once; deleted by retention alone."""

    record = models.OneToOneField(ConsentRecord, models.PROTECT, primary_key=True, related_name="payload")
    address_key = models.CharField(max_length=254, editable=False)
    salt = models.CharField(max_length=64)
    body = models.JSONField(_("what was said and done"))

    class Meta:
        indexes = [models.Index(fields=["address_key"], name="payload_by_address")]
        verbose_name = _("payload of a consent record")
        verbose_name_plural = _("payloads of consent records")


class ConsentSeal(models.Model):
    """A link of the chain over records, by explicit list: ids commit out of order, so a range would prove nothing."""

    number = models.PositiveBigIntegerField(_("number"), unique=True)
    previous_hash = models.CharField(_("previous hash"), max_length=64)
    hash = models.CharField(_("hash"), max_length=64, unique=True)
    entries = models.JSONField(_("record ids and commitments"))
    sealed_at = models.DateTimeField(_("sealed"))

    class Meta:
        verbose_name = _("seal")
        verbose_name_plural = _("seals")
        ordering = ["number"]


class SealedRecord(models.Model):
    """Which seal holds a record. An index only: the truth is the seal's own list."""

    record = models.OneToOneField(ConsentRecord, models.PROTECT, primary_key=True, related_name="sealed")
    seal = models.ForeignKey(ConsentSeal, models.PROTECT, related_name="sealed_records")


class EvidenceView(models.Model):
    """Who looked at the evidence of which address, when and how; the address is a keyed hash."""

    class Way(models.TextChoices):
        PAGE = "page", _("page")
        JSON = "json", _("JSON file")
        PDF = "pdf", _("PDF file")
        COMMAND = "command", _("command line")
        ACCESS = "access", _("answer to a wish for access")

    address_hash = models.CharField(_("keyed hash"), max_length=64, db_index=True)
    actor = models.CharField(_("who"), max_length=80)
    way = models.CharField(_("way"), max_length=10, choices=Way)
    viewed_at = models.DateTimeField(_("time"), db_index=True)

    class Meta:
        verbose_name = _("view of evidence")
        verbose_name_plural = _("views of evidence")
        ordering = ["-viewed_at"]
        permissions = [("view_evidence", "Can see the evidence of an address")]

    def __str__(self) -> str:
        return f"{self.viewed_at:%Y-%m-%d %H:%M:%S} {self.actor}"


class Suppression(models.Model):
    """An address not to be mailed, kept as a keyed hash whose key is outside the database."""

    class Reason(models.TextChoices):
        ERASURE = "erasure", _("erased")
        OBJECTION = "objection", _("objection")
        COMPLAINT = "complaint", _("complaint")
        HARD_BOUNCE = "hard_bounce", _("address does not exist")

    address_hash = models.CharField(_("keyed hash"), max_length=64, unique=True)
    reason = models.CharField(_("reason"), max_length=20, choices=Reason)
    created_at = models.DateTimeField(_("since"))

    class Meta:
        verbose_name = _("suppression")
        verbose_name_plural = _("suppressions")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.address_hash[:12]


class ErasureReplay(models.Model):
    """How far this database knows the erasure journal, which is a file and survives a restored backup; one row."""

    length = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)
    replayed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_row_of_erasure_replay")]


class PrivacyRequest(models.Model):
    """A reader's wish to see, take or erase what is held; identity is shown by a link to the mailbox."""

    class State(models.TextChoices):
        REQUESTED = "requested", _("requested")
        OPENED = "opened", _("link used")
        CLOSED = "closed", _("closed")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    address = models.CharField(_("address"), max_length=254)
    address_key = models.CharField(max_length=254, db_index=True, editable=False)
    nonce = models.CharField(max_length=32, editable=False)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.REQUESTED)
    requested_at = models.DateTimeField(_("requested"))
    expires_at = models.DateTimeField(_("link valid until"))
    handed_over_at = models.DateTimeField(_("link mailed"), null=True, blank=True)
    opened_at = models.DateTimeField(_("link used"), null=True, blank=True)

    class Meta:
        verbose_name = _("privacy request")
        verbose_name_plural = _("privacy requests")
        ordering = ["-requested_at"]

    def __str__(self) -> str:
        return str(self.uuid)


class RightsCaseQuerySet(models.QuerySet["RightsCase"]):
    def open(self) -> Self:
        return self.filter(state=RightsCase.State.OPEN)

    def overdue(self, today: date) -> Self:
        return self.open().filter(due_on__lt=today)

    def soon_due(self, today: date) -> Self:
        """Open cases that are pressing, but not late yet: some days are left to answer in."""
        in_time = Q(extended_at=None, received_on__lte=today - settings.CASE_WARNING_AFTER)
        extended = Q(extended_at__isnull=False, due_on__lte=today + RightsCase.WARNING_BEFORE_EXTENDED)
        return self.open().filter(in_time | extended, due_on__gte=today)


class RightsCase(models.Model):
    """A reader exercised a right: received, due a calendar month later (GDPR Art. 12(3)), and answered when by whom.

    What a reader does himself on the opened page “Meine Daten” is answered at once; staff enter letters and calls.
    """

    class Kind(models.TextChoices):
        WITHDRAW_ALL = "withdraw_all", _("end all newsletters")
        WITHDRAW = "withdraw", _("end some newsletters")
        FORGET_SIGN_UP = "forget_sign_up", _("take back a sign-up that is not confirmed yet")
        OBJECT = "object", _("objection: never write again (Art. 21)")
        RESTRICT = "restrict", _("restrict the processing (Art. 18)")
        LIFT_RESTRICTION = "lift_restriction", _("lift the restriction")
        RECTIFY = "rectify", _("change the address (Art. 16)")
        ACCESS = "access", _("access to the data (Art. 15, 20)")
        ERASE = "erase", _("erasure (Art. 17)")
        OTHER = "other", _("something else")

    class Way(models.TextChoices):
        PAGE = "page", _("page “My data”")
        LETTER = "letter", _("letter")
        CALL = "call", _("call")
        MAIL = "mail", _("e-mail")
        FAX = "fax", _("fax")

    class State(models.TextChoices):
        OPEN = "open", _("open")
        DONE = "done", _("done")
        REFUSED = "refused", _("refused")

    class Warning(models.TextChoices):
        NONE = "", _("none")
        SOON_DUE = "soon_due", _("soon due")
        OVERDUE = "overdue", _("overdue")

    # After an extension two months pass before it is pressing again.
    WARNING_BEFORE_EXTENDED = timedelta(days=7)

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(_("what is asked"), max_length=20, choices=Kind)
    way = models.CharField(_("way"), max_length=10, choices=Way)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.OPEN)
    address = models.CharField(_("address"), max_length=254, blank=True)
    address_key = models.CharField(max_length=254, db_index=True, blank=True, editable=False)
    new_address = models.CharField(_("new address"), max_length=254, blank=True)
    newsletters = models.ManyToManyField(Newsletter, verbose_name=_("newsletters"), blank=True)
    request = models.ForeignKey(
        PrivacyRequest, models.SET_NULL, null=True, blank=True, editable=False, related_name="cases"
    )
    received_on = models.DateField(_("received"))
    due_on = models.DateField(_("due"), db_index=True)
    entered_at = models.DateTimeField(_("entered"))
    entered_by = models.CharField(_("entered by"), max_length=80)
    extended_at = models.DateTimeField(_("extended"), null=True, blank=True)
    extension_reason = models.TextField(_("why it takes longer"), blank=True)
    closed_at = models.DateTimeField(_("answered"), null=True, blank=True)
    closed_by = models.CharField(_("answered by"), max_length=80, blank=True)
    outcome = models.TextField(_("what was done, or why it was refused"), blank=True)
    note = models.TextField(_("internal note"), blank=True)
    warned = models.CharField(_("the officer was warned"), max_length=10, choices=Warning, blank=True, editable=False)

    objects = RightsCaseQuerySet.as_manager()

    class Meta:
        verbose_name = _("reader's case")
        verbose_name_plural = _("readers' cases")
        ordering = ["-received_on", "-id"]
        permissions = [("handle_cases", "Can enter letters and calls")]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="open", closed_at__isnull=True) | (~Q(state="open") & Q(closed_at__isnull=False)),
                name="case_closed_at_iff_closed",
            ),
            models.CheckConstraint(condition=Q(due_on__gt=models.F("received_on")), name="case_due_after_received"),
            models.UniqueConstraint(fields=["request", "kind"], name="one_case_per_opened_link_and_kind"),
        ]

    def __str__(self) -> str:
        return _("Case %(number)s") % {"number": self.pk}

    def urgency(self, today: date) -> Warning:
        """Say whether the deadline of an open case presses, or is over."""
        if self.state != self.State.OPEN:
            return self.Warning.NONE
        if self.due_on < today:
            return self.Warning.OVERDUE
        in_time = self.received_on + settings.CASE_WARNING_AFTER
        presses_on = self.due_on - self.WARNING_BEFORE_EXTENDED if self.extended_at else in_time
        return self.Warning.SOON_DUE if presses_on <= today else self.Warning.NONE


class AddressChangeQuerySet(models.QuerySet["AddressChange"]):
    def pending(self, now: datetime) -> Self:
        return self.filter(state=AddressChange.State.REQUESTED, expires_at__gt=now)


class AddressChange(models.Model):
    """A reader's wish to be written to at another address; it counts once it is confirmed from there (GDPR Art. 16)."""

    class State(models.TextChoices):
        REQUESTED = "requested", _("requested")
        CONFIRMED = "confirmed", _("confirmed")
        CLOSED = "closed", _("closed")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="address_changes", verbose_name=_("reader"))
    old_address = models.CharField(_("old address"), max_length=254)
    old_address_key = models.CharField(max_length=254, db_index=True, editable=False)
    new_address = models.CharField(_("new address"), max_length=254)
    new_address_key = models.CharField(max_length=254, db_index=True, editable=False)
    nonce = models.CharField(max_length=32, editable=False)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.REQUESTED)
    requested_at = models.DateTimeField(_("requested"))
    expires_at = models.DateTimeField(_("link valid until"))
    confirmed_at = models.DateTimeField(_("confirmed"), null=True, blank=True)

    objects = AddressChangeQuerySet.as_manager()

    class Meta:
        verbose_name = _("change of address")
        verbose_name_plural = _("changes of address")
        ordering = ["-requested_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="confirmed", confirmed_at__isnull=False)
                | (~Q(state="confirmed") & Q(confirmed_at__isnull=True)),
                name="address_change_confirmed_at_iff_confirmed",
            )
        ]

    def __str__(self) -> str:
        return str(self.uuid)


class FormerLink(models.Model):
    """The number in the links of mails to a subscription that has become one with another of the same reader."""

    uuid = models.UUIDField(unique=True, editable=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="former_links")


class RequestCount(models.Model):
    """How often a network asked within a window; the network is a keyed hash, gone after a day."""

    network = models.CharField(max_length=64)
    window_start = models.DateTimeField()
    count = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["network", "window_start"], name="one_count_per_network_and_window")
        ]
