"""What the admin's pages of subscriptions have in common: rows are looked at, and found by whole addresses only."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import SEARCH_VAR
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as _

from newsroom.mail.addresses import InvalidAddress, canonicalise, mask

# The newest ones, if there are more: web servers cut a URL at about four thousand characters.
MOST_FOUND = 300
NOT_STAFF = {"reader": _("the reader"), "system": _("the system, by itself")}


def actor(request: HttpRequest) -> str:
    """Return how a record names the account: by its number, which says nothing to anybody else."""
    return f"staff:{request.user.pk}"


def account_name(actor: str) -> str:
    """Return the name of the account that acted, where it still exists, or who else it was."""
    if actor in NOT_STAFF:
        return str(NOT_STAFF[actor])
    kind, _colon, number = actor.partition(":")
    account = User.objects.filter(pk=number).first() if kind == "staff" and number.isdigit() else None
    return account.get_username() if account else actor


class ReadOnly(admin.ModelAdmin):
    """Rows that staff see and nobody edits: use cases write them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class FindsByAddress(admin.ModelAdmin):
    """Search by one whole address, in whatever spelling: nobody browses readers by parts of their addresses.

    It comes by POST and is answered by the rows' numbers: an address in a URL ends in a log.
    """

    search_help_text = _("A whole e-mail address")
    search_fields = ["address_key"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method == "POST" and SEARCH_VAR in request.POST:
            return self._found(request, request.POST[SEARCH_VAR].strip())
        return super().changelist_view(request, extra_context)

    def _found(self, request: HttpRequest, typed: str) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if not typed:
            return HttpResponseRedirect(request.path)
        rows, _may_repeat = self.get_search_results(request, self.get_queryset(request), typed)
        numbers = rows.order_by("-pk").values_list("pk", flat=True)[:MOST_FOUND]
        return HttpResponseRedirect(f"{request.path}?pk__in={','.join(map(str, numbers)) or 0}")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(**self.match(canonicalise(search_term).key)), False
        except InvalidAddress as error:
            messages.warning(request, str(error))
            return queryset.none(), False

    def match(self, address_key: str) -> dict[str, Any]:
        return {"address_key": address_key}

    @admin.display(description=_("address"))
    def masked(self, row: Any) -> str:
        return mask(row.address) if row.address else "–"
