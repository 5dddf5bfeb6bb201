"""That what was due went, and how much: counts alone."""

from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class PurgeRunQuerySet(models.QuerySet["PurgeRun"]):
    def complete(self) -> Self:
        """Runs after which nothing was left that was due when they began."""
        return self.filter(state=PurgeRun.State.COMPLETE)


class PurgeRun(models.Model):
    """One run of purge. Its counts are written in the transactions that delete, so they hold whatever ended it."""

    class State(models.TextChoices):
        RUNNING = "running", _("running, or broken off")
        COMPLETE = "complete", _("complete")
        UNFINISHED = "unfinished", _("time was up")
        FAILED = "failed", _("failed in part")

    started_at = models.DateTimeField(_("started"), db_index=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RUNNING)
    counts = models.JSONField(_("deleted"), default=dict)

    objects = PurgeRunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run of the purge")
        verbose_name_plural = _("runs of the purge")
        ordering = ["-started_at", "-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="running", ended_at=None)
                | Q(state__in=["complete", "unfinished", "failed"], ended_at__isnull=False),
                name="purge_run_ended_at_iff_ended",
            )
        ]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S}"
