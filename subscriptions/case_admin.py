"""Readers' cases in the admin: a list by deadline; what is done with one stands on its own page."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from subscriptions import case_pages
from subscriptions.desk import FindsByAddress, ReadOnly
from subscriptions.models import RightsCase


class DeadlineFilter(admin.SimpleListFilter):
    title = _("deadline")
    parameter_name = "deadline"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("open", _("open")), ("soon_due", _("soon due")), ("overdue", _("overdue"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        today = timezone.localdate()
        chosen = {
            "open": lambda: RightsCase.objects.open(),
            "soon_due": lambda: RightsCase.objects.soon_due(today),
            "overdue": lambda: RightsCase.objects.overdue(today),
        }.get(self.value() or "")
        return queryset.filter(pk__in=chosen().values("pk")).order_by("due_on", "pk") if chosen else queryset


class RightsCaseAdmin(FindsByAddress, ReadOnly):
    change_list_template = "admin/subscriptions/rightscase/change_list.html"
    list_display = ["__str__", "due", "kind", "state", "masked", "way", "received"]
    list_filter = [DeadlineFilter, "state", "kind", "way"]
    date_hierarchy = "received_on"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return case_pages.may_handle(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return case_pages.may_look(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or case_pages.may_look(request)

    @admin.display(description=_("received"), ordering="received_on")
    def received(self, case: RightsCase) -> str:
        return date_format(case.received_on, "SHORT_DATE_FORMAT")

    @admin.display(description=_("due"), ordering="due_on")
    def due(self, case: RightsCase) -> str:
        """The day, and for an open case in words how much of the time is left."""
        day, today = date_format(case.due_on, "SHORT_DATE_FORMAT"), timezone.localdate()
        if text := case_pages.due_text(case, today):
            return format_html('{} <span class="case-due case-{}">{}</span>', day, case.urgency(today) or "calm", text)
        return day

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return case_pages.enter(request)

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        case = self.get_object(request, object_id)
        if case is None:
            raise Http404
        return case_pages.show(request, case)

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(case_pages.export)
        act = self.admin_site.admin_view(case_pages.act)
        return [
            path("<int:pk>/export/", export, name="subscriptions_rightscase_export"),
            path("<int:pk>/<slug:name>/do/", act, name="subscriptions_rightscase_act"),
            *super().get_urls(),
        ]
