"""Staff look here; they change little. Addresses are masked in lists, and the ledger can only be read."""

import logging
from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from newsroom.mail.addresses import mask
from subscriptions import case_pages, evidence_pages, suppression, versions, wording
from subscriptions.case_admin import RightsCaseAdmin
from subscriptions.desk import FindsByAddress, ReadOnly, account_name
from subscriptions.models import (
    AddressChange,
    ConsentRecord,
    ConsentSeal,
    ConsentText,
    EvidenceView,
    Newsletter,
    PrivacyRequest,
    RightsCase,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from subscriptions.text_pages import ConsentTextAdmin

logger = logging.getLogger(__name__)


class NewsletterForm(forms.ModelForm):
    def clean_frequency(self) -> str:
        """Readers consented to a frequency: less often is no more than that, more often is."""
        frequency = Newsletter.Frequency(self.cleaned_data["frequency"])
        before = Newsletter.Frequency(self.initial.get("frequency") or frequency)
        if frequency.digests_a_week > before.digests_a_week and self.instance.subscriptions.exists():
            raise forms.ValidationError(
                _(
                    "Readers agreed to “%(stated)s”. To send more often, set up another newsletter and let them"
                    " order it (KG Berlin 5 U 1043/20)."
                ),
                params={"stated": before.label},
            )
        return frequency


@admin.register(Newsletter)
class NewsletterAdmin(admin.ModelAdmin):
    form = NewsletterForm
    list_display = ["name", "frequency", "state", "readers", "lapsed", "position"]
    list_filter = ["state"]
    prepopulated_fields = {"slug": ["name"]}
    change_form_template = "admin/subscriptions/newsletter/change_form.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The newsletter, and under it the words that readers agree to."""
        newsletter = Newsletter.objects.filter(pk=object_id).first() if object_id.isdecimal() else None
        may_see_texts = request.user.has_perm("subscriptions.view_consenttext")
        texts = {
            "standings": versions.standings_of(newsletter) if newsletter and may_see_texts else [],
            "may_add": request.user.has_perm("subscriptions.add_consenttext"),
        }
        return super().change_view(request, object_id, form_url, texts | (extra_context or {}))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Newsletter]:
        active = Count("subscriptions", filter=Q(subscriptions__state=Subscription.State.ACTIVE))
        stale = Subscription.objects.lapsed(timezone.now()).values("pk")
        lapsed = Count("subscriptions", filter=Q(subscriptions__in=stale))
        return super().get_queryset(request).annotate(readers=active, lapsed=lapsed)

    @admin.display(description=_("readers"), ordering="readers")
    def readers(self, newsletter: Any) -> int:
        return int(newsletter.readers)

    @admin.display(description=_("consents lapsed"), ordering="lapsed")
    def lapsed(self, newsletter: Any) -> int:
        """How many of the readers are not mailed any more, for they were not for too long (R-10)."""
        return int(newsletter.lapsed)

    def get_readonly_fields(self, request: HttpRequest, obj: Newsletter | None = None) -> list[str]:
        """Filters of readers rely on the short name: it does not change under them."""
        fields = ["lapsed"] if obj else []
        return [*fields, "slug"] if obj and obj.subscriptions.exists() else fields

    def get_prepopulated_fields(self, request: HttpRequest, obj: Newsletter | None = None) -> dict[str, Any]:
        return {} if obj else dict(self.prepopulated_fields)

    def save_model(self, request: HttpRequest, obj: Newsletter, form: Any, change: bool) -> None:
        before = Newsletter.objects.get(pk=obj.pk) if change else None
        super().save_model(request, obj, form, change)
        if before and wording.revise_offer(obj, timezone.now(), before=before):
            messages.info(
                request, _("The form now shows a new version of the consent text; earlier consents keep theirs.")
            )

    def has_delete_permission(self, request: HttpRequest, obj: Newsletter | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and obj.consent_texts.exists())


admin.site.register(ConsentText, ConsentTextAdmin)
admin.site.register(RightsCase, RightsCaseAdmin)


class SubscriptionInline(admin.TabularInline):
    model = Subscription
    fields = ["newsletter", "state", "active_since", "ended_at"]
    readonly_fields = ["newsletter", "state", "active_since", "ended_at"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Subscriber)
class SubscriberAdmin(FindsByAddress):
    """Readers. What one asks by letter or call is entered, not edited (R-26)."""

    change_list_template = "admin/subscriptions/subscriber/change_list.html"
    list_display = ["uuid", "masked", "language", "active_newsletters", "created_at", "restricted_at", "letter"]
    list_filter = ["subscriptions__newsletter", "subscriptions__state", ("restricted_at", admin.EmptyFieldListFilter)]
    fields = ["uuid", "address", "language", "created_at", "restricted_at", "evidence", "letter"]
    readonly_fields = ["uuid", "address", "language", "created_at", "restricted_at", "evidence", "letter"]
    inlines = [SubscriptionInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscriber]:
        return super().get_queryset(request).prefetch_related("subscriptions__newsletter")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return self._shown(self.list_display, request)

    def get_fields(self, request: HttpRequest, obj: Subscriber | None = None) -> list[Any]:
        return self._shown(self.fields, request)

    def _shown(self, columns: Iterable[Any], request: HttpRequest) -> list[Any]:
        return [column for column in columns if column != "letter" or case_pages.may_handle(request)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("newsletters"))
    def active_newsletters(self, reader: Subscriber) -> str:
        active = (sub for sub in reader.subscriptions.all() if sub.state == Subscription.State.ACTIVE)
        return ", ".join(sub.newsletter.name for sub in active)

    @admin.display(description=_("evidence"))
    def evidence(self, reader: Subscriber) -> str:
        return format_html(
            '<a href="{}">{}</a>',
            reverse("admin:subscriptions_evidence", args=[reader.pk]),
            _("Show the consent records"),
        )

    @admin.display(description=_("letter or call"))
    def letter(self, reader: Subscriber) -> str:
        url = reverse("admin:subscriptions_rightscase_add", query={"reader": reader.pk})
        return format_html('<a href="{}">{}</a>', url, _("Enter a letter or a call"))

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        logger.info("Reader %s was looked at by staff %s.", object_id, request.user.pk)
        return super().change_view(request, object_id, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(evidence_pages.of_reader)
        return [path("<int:pk>/evidence/", page, name="subscriptions_evidence"), *super().get_urls()]


@admin.register(EvidenceView)
class EvidenceViewAdmin(FindsByAddress, ReadOnly):
    """Who looked at whose evidence; from here staff ask for that of an address they type."""

    change_list_template = "admin/subscriptions/evidenceview/change_list.html"
    list_display = ["viewed_at", "viewer", "way", "address_hash"]
    list_filter = ["way"]
    fields = ["viewed_at", "viewer", "way", "address_hash"]
    date_hierarchy = "viewed_at"

    def match(self, address_key: str) -> dict[str, Any]:
        return {"address_hash__in": suppression.address_hashes(address_key)}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or evidence_pages.may_see(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or evidence_pages.may_see(request)

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(evidence_pages.of_address)
        return [path("address/", page, name="subscriptions_evidence_of_address"), *super().get_urls()]

    @admin.display(description=_("who"))
    def viewer(self, view: EvidenceView) -> str:
        return account_name(view.actor)


@admin.register(SignUp)
class SignUpAdmin(FindsByAddress, ReadOnly):
    list_display = ["uuid", "masked", "requested_at", "expires_at", "confirmed_at"]
    list_filter = [("confirmed_at", admin.EmptyFieldListFilter), "consent_texts__newsletter"]
    fields = ["uuid", "masked", "language", "newsletters", "form_url", "requested_at", "expires_at", "confirmed_at"]
    date_hierarchy = "requested_at"

    @admin.display(description=_("newsletters"))
    def newsletters(self, sign_up: SignUp) -> str:
        return ", ".join(newsletter.name for newsletter in sign_up.newsletters)


@admin.register(ConsentRecord)
class ConsentRecordAdmin(FindsByAddress, ReadOnly):
    """The ledger as a list of acts; what was said stands on the evidence page and needs its own permission."""

    list_display = ["at", "type", "subject", "seal_number", "commitment"]
    list_filter = ["type", ("sealed", admin.EmptyFieldListFilter)]
    list_select_related = ["sealed__seal"]
    fields = ["uuid", "type", "at", "subject", "commitment", "seal_number"]
    date_hierarchy = "at"

    def match(self, address_key: str) -> dict[str, Any]:
        return {"payload__address_key": address_key}

    @admin.display(description=_("seal"), empty_value="–")
    def seal_number(self, proof: ConsentRecord) -> int | None:
        sealed = getattr(proof, "sealed", None)
        return sealed.seal.number if sealed else None


@admin.register(ConsentSeal)
class ConsentSealAdmin(ReadOnly):
    list_display = ["number", "sealed_at", "size", "hash"]
    fields = ["number", "sealed_at", "size", "previous_hash", "hash"]

    @admin.display(description=_("records"))
    def size(self, link: ConsentSeal) -> int:
        return len(link.entries)


@admin.register(Suppression)
class SuppressionAdmin(FindsByAddress, ReadOnly):
    """Hashes tell nothing by themselves; type an address into the search to see whether it is on the list."""

    list_display = ["__str__", "reason", "created_at"]
    list_filter = ["reason"]
    search_fields = ["address_hash"]

    def match(self, address_key: str) -> dict[str, Any]:
        return {"address_hash__in": suppression.address_hashes(address_key)}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only staff lift a complaint, by deleting it here."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(PrivacyRequest)
class PrivacyRequestAdmin(FindsByAddress, ReadOnly):
    list_display = ["uuid", "masked", "state", "requested_at", "handed_over_at", "opened_at"]
    list_filter = ["state"]
    fields = ["uuid", "masked", "state", "requested_at", "expires_at", "handed_over_at", "opened_at"]
    date_hierarchy = "requested_at"


@admin.register(AddressChange)
class AddressChangeAdmin(FindsByAddress, ReadOnly):
    """Found by the old address as well as by the new one: whoever says “that was not me” knows the old one."""

    list_display = ["uuid", "old", "new", "state", "requested_at", "confirmed_at"]
    list_filter = ["state"]
    fields = ["uuid", "subscriber", "old", "new", "state", "requested_at", "expires_at", "confirmed_at"]
    search_fields = ["new_address_key"]
    date_hierarchy = "requested_at"

    def match(self, address_key: str) -> dict[str, Any]:
        found = AddressChange.objects.filter(Q(old_address_key=address_key) | Q(new_address_key=address_key))
        return {"pk__in": found.values("pk")}

    @admin.display(description=_("old address"))
    def old(self, change: AddressChange) -> str:
        return mask(change.old_address)

    @admin.display(description=_("new address"))
    def new(self, change: AddressChange) -> str:
        return mask(change.new_address)
