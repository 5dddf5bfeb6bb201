import uuid
from datetime import datetime
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class OutboxMailQuerySet(models.QuerySet["OutboxMail"]):
    def due(self, now: datetime) -> Self:
        """Mails to send now, and mails whose relay lost its lease before it began to send."""
        return self.filter(
            Q(state=OutboxMail.State.PENDING, next_attempt_at__lte=now)
            | Q(state=OutboxMail.State.LEASED, lease_until__lt=now)
        )

    def lost(self, now: datetime) -> Self:
        """Mails that may have been sent: their relay died during the call."""
        return self.filter(state=OutboxMail.State.SUBMITTING, lease_until__lt=now)

    def old(self, now: datetime) -> Self:
        """Mails whose sign-ups are deleted by now too, whatever became of them, but for those just being sent."""
        at_rest = self.exclude(state__in=[OutboxMail.State.LEASED, OutboxMail.State.SUBMITTING])
        return at_rest.filter(created_at__lte=now - settings.SIGN_UP_RETENTION)

    def sent_since(self, time: datetime) -> Self:
        return self.filter(state=OutboxMail.State.SENT, sent_at__gte=time)


class OutboxMail(models.Model):
    """A service mail to be sent once. It names what caused it and holds neither address nor token."""

    class State(models.TextChoices):
        PENDING = "pending", _("waiting")
        LEASED = "leased", _("being prepared")
        SUBMITTING = "submitting", _("being handed over")
        SENT = "sent", _("sent")
        WITHHELD = "withheld", _("withheld")
        FAILED = "failed", _("failed")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(_("kind"), max_length=30)
    reference = models.UUIDField(_("cause"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    ambiguous_attempts = models.PositiveSmallIntegerField(_("ambiguous attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"))
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)
    provider_message_id = models.CharField(_("provider's message id"), max_length=255, blank=True)
    created_at = models.DateTimeField(_("created"))
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)

    objects = OutboxMailQuerySet.as_manager()

    class Meta:
        verbose_name = _("service mail")
        verbose_name_plural = _("service mails")
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["reference", "kind"], name="one_service_mail_per_kind_and_cause"),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "leased", "submitting", "sent", "withheld", "failed"]),
                name="outbox_mail_state_is_known",
            ),
        ]
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(state="pending"), name="outbox_due"),
            models.Index(fields=["lease_until"], condition=Q(state__in=["leased", "submitting"]), name="outbox_leased"),
            models.Index(fields=["sent_at"], condition=Q(state="sent"), name="outbox_sent"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uuid}"


class StaffAlarm(models.Model):
    """Something staff were, or are to be, mailed of: it began, and ends with its cause."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    key = models.CharField(max_length=100)
    text = models.CharField(_("what"), max_length=500)
    path = models.CharField(max_length=200, blank=True)
    tells_end = models.BooleanField(default=True)
    raised_at = models.DateTimeField(_("since"))
    ended_at = models.DateTimeField(_("over since"), null=True, blank=True)

    class Meta:
        verbose_name = _("alarm")
        verbose_name_plural = _("alarms")
        ordering = ["-raised_at"]
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(ended_at=None), name="one_lasting_alarm_per_key")
        ]

    def __str__(self) -> str:
        return self.text
