"""The officer's page: what is held, for how long, what is due when, and what went."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from newsroom import retention
from newsroom.retention import Rule
from newsroom.retention.models import PurgeRun


@dataclass(frozen=True, slots=True)
class Horizon:
    """A moment ahead, and what it is called on the page."""

    label: Any
    at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """A rule as the page shows it. `due` counts, for each horizon, all that is due by then."""

    rule: Rule
    held: int | None
    due: list[int]
    horizons: list[Horizon]

    @property
    def counts(self) -> Iterator[tuple[Horizon, int]]:
        return zip(self.horizons, self.due, strict=False)


def horizons(now: datetime) -> list[Horizon]:
    """Return the moments the page looks at; the last is the first one of next year, when proofs go."""
    local = timezone.localtime(now)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return [
        Horizon(_("now"), now),
        Horizon(_("by tonight"), midnight + timedelta(days=1)),  # by the wall clock, however long the day is
        Horizon(_("within 7 days"), now + timedelta(days=7)),
        Horizon(_("within 30 days"), now + timedelta(days=30)),
        Horizon(_("by the end of the year"), midnight.replace(year=local.year + 1, month=1, day=1)),
    ]


def lines(at: list[Horizon]) -> Iterator[Line]:
    for rule in retention.rules():
        if rule.store:
            yield Line(rule, rule.store.count(), [rule.store.count_due(horizon.at) for horizon in at], at)
        else:
            yield Line(rule, None, [], at)


@admin.register(PurgeRun)
class PurgeRunAdmin(admin.ModelAdmin):
    list_display = ["started_at", "ended_at", "state", "deleted", "details"]
    date_hierarchy = "started_at"
    fields = ["started_at", "ended_at", "state", "details"]
    change_list_template = "admin/retention/purgerun/change_list.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("deleted in all"))
    def deleted(self, run: PurgeRun) -> int:
        return sum(run.counts.values())

    @admin.display(description=_("of which"), empty_value="–")
    def details(self, run: PurgeRun) -> str | None:
        what = {rule.name: rule.what for rule in retention.rules()}
        return "; ".join(f"{what.get(name, name)}: {count}" for name, count in run.counts.items() if count) or None

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        at = horizons(timezone.now())
        context = {
            "title": _("What is kept for how long"),
            "horizons": at,
            "lines": lines(at),
            "last_complete": PurgeRun.objects.complete().first(),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})
