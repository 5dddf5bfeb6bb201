"""What providers report, for staff who look whether it arrives: kinds and sums, never whose mail it was."""

from django.contrib import admin
from django.http import HttpRequest

from digests.models import ProviderEvent


@admin.register(ProviderEvent)
class ProviderEventAdmin(admin.ModelAdmin):
    list_display = ["received_at", "source", "kind", "code", "state"]
    list_display_links = None
    list_filter = ["state", "kind", "source"]
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ProviderEvent | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ProviderEvent | None = None) -> bool:
        return False
