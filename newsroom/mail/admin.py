from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from newsroom.mail import outbox
from newsroom.mail.models import OutboxMail, OutboxMailQuerySet


@admin.register(OutboxMail)
class OutboxMailAdmin(admin.ModelAdmin):
    """For looking, and for a new try. Rows name their cause; whom a mail goes to stands only there."""

    list_display = ["created_at", "kind", "state", "reason", "attempts", "next_attempt_at", "sent_at"]
    list_filter = ["state", "kind", "created_at"]
    search_fields = ["uuid", "reference"]
    search_help_text = _("Looks for the id of a mail or of its cause.")
    date_hierarchy = "created_at"
    fields = [
        "uuid", "kind", "reference", "state", "reason", "attempts", "ambiguous_attempts", "created_at",
        "next_attempt_at", "sent_at", "provider_message_id",
    ]  # fmt: skip
    actions = ["retry"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: OutboxMail | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: OutboxMail | None = None) -> bool:
        return False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("mail.change_outboxmail"))

    @admin.action(description=_("Try selected mails again (failed and waiting ones)"), permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: OutboxMailQuerySet) -> None:
        count = outbox.retry(queryset, now=timezone.now())
        text = ngettext("%d mail is tried again now.", "%d mails are tried again now.", count) % count
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": _("Service mails"), **(extra_context or {})})
