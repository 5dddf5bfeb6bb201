"""The pages on which staff write the texts readers agree to: never changed, only followed by a new version."""

import hashlib
from typing import Any

from csp.decorators import csp_replace
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import cache_control
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_safe

from subscriptions import versions, wording
from subscriptions.forms import SignUpForm
from subscriptions.models import ConsentText, ConsentTextQuerySet, Newsletter

ADD = "subscriptions.add_consenttext"
DISCARD = "subscriptions.delete_consenttext"

# Within a frame's address, which web servers cut at about four thousand characters; ten sentences fit easily.
MAX_LENGTH = 2000
PREVIEW_SALT = "consent-text-preview"
PREVIEW_LIFETIME = 3600  # seconds; longer than anybody looks at one

# The law wants the form to tell how consent is withdrawn (GDPR Art. 7(3)).
WITHDRAWAL = {"de": "widerruf", "en": "withdraw"}

FRAME_POLICY = {
    "default-src": ["'none'"],
    "img-src": ["'self'", "data:"],
    "style-src": ["'self'"],
    "base-uri": ["'none'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'self'"],
    "sandbox": [""],
}


class WordingForm(forms.Form):
    """A new version of one text. It is taken only with the preview of these very words in sight."""

    wording = forms.CharField(
        label=_("wording"),
        max_length=MAX_LENGTH,
        widget=forms.Textarea(attrs={"rows": 7}),
        help_text=_(
            "Say plainly what the reader agrees to. The forms show the new version as soon as you put it in force;"
            " consents given before keep theirs."
        ),
    )
    after = forms.IntegerField(widget=forms.HiddenInput)
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, current: ConsentText, **options: Any) -> None:
        super().__init__(*args, **options)
        self.current = current
        self.fields["wording"].widget.attrs["lang"] = current.language

    def clean_wording(self) -> str:
        words = " ".join(self.cleaned_data["wording"].split())  # the form shows it as one paragraph anyway
        if words == self.current.wording:
            raise forms.ValidationError(_("This is the version in force, word by word."))
        for needed, problem in self._needed():
            if needed.casefold() not in words.casefold():
                raise forms.ValidationError(problem, params={"words": needed})
        return words

    def clean_after(self) -> int:
        after: int = self.cleaned_data["after"]
        if after != version_of(self.current):
            raise forms.ValidationError(_("Somebody has put another version in force meanwhile. Please begin from it."))
        return after

    def _needed(self) -> list[tuple[str, Any]]:
        language, newsletter = self.current.language, self.current.newsletter
        if newsletter:
            problem = _("Say how often it comes, in the words that Newsroom holds itself to: “%(words)s”.")
            return [(wording.frequency(newsletter, language), problem)]
        publisher = _("Name the publisher: “%(words)s” (GDPR Art. 4(11)).")
        withdrawal = _("Say that consent can be withdrawn, with the word “%(words)s” (GDPR Art. 7(3)).")
        return [(settings.PUBLISHER["name"], publisher), (WITHDRAWAL[language], withdrawal)]

    @property
    def is_seen(self) -> bool:
        return self.cleaned_data["seen"] == fingerprint(self.cleaned_data["wording"])


def fingerprint(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:20]


def version_of(text: ConsentText) -> int:
    """Return the number of a text's version, 0 for the wording that no row holds yet."""
    return text.version if text.pk else 0


def name_of(newsletter: Newsletter | None, language: str) -> str:
    return f"{newsletter or _('Declaration')} ({versions.language_name(language)})"


def compose_url(newsletter: Newsletter | None, language: str) -> str:
    return reverse("admin:subscriptions_consenttext_compose", args=[newsletter.pk if newsletter else 0, language])


class ConsentTextAdmin(admin.ModelAdmin):
    """A wording is never changed: a new one is a new version."""

    change_list_template = "admin/subscriptions/consenttext/list.html"
    list_display = ["title", "is_in_force", "since", "borne"]
    list_filter = ["newsletter", "language"]
    list_select_related = ["newsletter"]

    def has_change_permission(self, request: HttpRequest, obj: ConsentText | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ConsentText | None = None) -> bool:
        return False  # the admin's own way asks nobody whether a reader has agreed; see `discard`

    def get_queryset(self, request: HttpRequest) -> ConsentTextQuerySet:
        return ConsentText.objects.with_standing()

    def get_urls(self) -> list[URLPattern]:
        def own(route: str, view: Any, name: str) -> URLPattern:
            return path(route, self.admin_site.admin_view(view), name=f"subscriptions_consenttext_{name}")

        return [
            own("new/<int:newsletter_pk>/<slug:language>/", self.compose, "compose"),
            own("preview/<slug:shown_in>/<str:signed>/", self.preview, "preview"),
            own("<int:pk>/discard/", self.discard, "discard"),
            *super().get_urls(),
        ]

    @admin.display(description=_("consent text"), ordering="newsletter")
    def title(self, text: ConsentText) -> str:
        return str(text)

    @admin.display(description=_("in force"), boolean=True)
    def is_in_force(self, text: Any) -> bool:
        return text.replaced_at is None

    @admin.display(description=_("since"), ordering="created_at")
    def since(self, text: ConsentText) -> Any:
        return text.created_at

    @admin.display(description=_("consents"), ordering="consents")
    def borne(self, text: Any) -> int:
        return int(text.consents)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"gaps": versions.gaps()} | (extra_context or {}))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask which text is to have a new version."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        context = self._context(request, _("Which text?")) | {"standings": list(versions.standings())}
        return render(request, "admin/subscriptions/consenttext/choose.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """One version, what it changed, and all the others."""
        if request.method == "POST" or not self.has_view_permission(request):
            raise PermissionDenied
        text = get_object_or_404(self.get_queryset(request), pk=object_id if object_id.isdecimal() else None)
        others = list(self.get_queryset(request).of(text.newsletter, text.language).select_related("use"))
        context = self._context(request, str(text)) | {
            "text": text,
            "name": name_of(text.newsletter, text.language),
            "versions": others,
            "compose_url": compose_url(text.newsletter, text.language),
            "may_discard": request.user.has_perm(DISCARD) and others[0] == text and not hasattr(others[0], "use"),
            **self._comparison(text, others, chosen=request.GET.get("with", "")),
        }
        return render(request, "admin/subscriptions/consenttext/page.html", context)

    def compose(self, request: HttpRequest, newsletter_pk: int, language: str) -> HttpResponse:
        """Write a new version, beginning from the one in force, and see the form with it before it is put in force."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if language not in wording.DECLARATION:
            raise Http404
        newsletter = get_object_or_404(Newsletter, pk=newsletter_pk) if newsletter_pk else None
        current = wording.in_force(newsletter, language)
        initial = {"wording": current.wording, "after": version_of(current)}
        form = WordingForm(request.POST or None, initial=initial, current=current)
        if form.is_valid() and form.is_seen and (text := self._put_in_force(request, form)):
            return HttpResponseRedirect(reverse("admin:subscriptions_consenttext_change", args=[text.pk]))
        name = name_of(newsletter, language)
        context = self._context(request, _("New version: %(text)s") % {"text": name}) | {
            "form": form,
            "current": current,
            "frequency": wording.frequency(newsletter, language) if newsletter else None,
            **(self._proposal(current, form.cleaned_data["wording"]) if form.is_bound and form.is_valid() else {}),
        }
        return render(request, "admin/subscriptions/consenttext/compose.html", context)

    def preview(self, request: HttpRequest, signed: str, shown_in: str) -> HttpResponse:
        if not self.has_add_permission(request) or shown_in not in wording.DECLARATION:
            raise PermissionDenied
        try:
            newsletter_pk, language, words = signing.loads(signed, salt=PREVIEW_SALT, max_age=PREVIEW_LIFETIME)
        except signing.BadSignature:
            raise Http404 from None
        newsletter = get_object_or_404(Newsletter, pk=newsletter_pk) if newsletter_pk else None
        text = ConsentText(newsletter=newsletter, language=language, version=0, wording=words)
        return form_as_read(request, text, shown_in=shown_in)  # type: ignore[call-arg, return-value]

    def discard(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST" or not request.user.has_perm(DISCARD):
            raise PermissionDenied
        text = get_object_or_404(ConsentText.objects.select_related("newsletter"), pk=pk)
        with transaction.atomic():
            self.log_deletions(request, ConsentText.objects.filter(pk=pk))
            is_discarded = wording.discard(text)
            transaction.set_rollback(not is_discarded)
        if is_discarded:
            done = _("%(text)s is discarded. The version before it is in force again.") % {"text": text}
            messages.success(request, done)
            return HttpResponseRedirect(reverse("admin:subscriptions_consenttext_changelist"))
        messages.error(request, _("A reader has agreed to this version, or a newer one follows it: it stays."))
        return HttpResponseRedirect(reverse("admin:subscriptions_consenttext_change", args=[pk]))

    def _context(self, request: HttpRequest, title: Any) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "may_add": self.has_add_permission(request),
        }

    def _comparison(self, text: ConsentText, others: list[ConsentText], *, chosen: str) -> dict[str, Any]:
        by_number = {str(other.version): other for other in others if other != text}
        other = by_number.get(chosen) or by_number.get(str(text.version - 1))
        if other is None:
            return {}
        first, second = sorted((other, text), key=lambda each: each.version)
        pieces = versions.differences(first.wording, second.wording)
        return {"other": other, "first": first, "second": second, "pieces": pieces}

    def _proposal(self, current: ConsentText, words: str) -> dict[str, Any]:
        newsletter_pk = current.newsletter.pk if current.newsletter else 0
        signed = signing.dumps([newsletter_pk, current.language, words], salt=PREVIEW_SALT, compress=True)
        urls = {
            language: reverse("admin:subscriptions_consenttext_preview", args=[language, signed])
            for language in sorted(wording.DECLARATION, key=lambda each: each != current.language)
        }
        return {
            "is_nav_sidebar_enabled": False,  # the frames need the room
            "pieces": versions.differences(current.wording, words),
            "frames": [(versions.language_name(language), url) for language, url in urls.items()],
            "seen": fingerprint(words),
        }

    def _put_in_force(self, request: HttpRequest, form: WordingForm) -> ConsentText | None:
        values, current = form.cleaned_data, form.current
        try:
            with transaction.atomic():
                text = wording.revise(
                    current.newsletter,
                    language=current.language,
                    wording=values["wording"],
                    now=timezone.now(),
                    after=values["after"],
                )
        except IntegrityError:
            form.add_error("after", _("Somebody has put another version in force meanwhile. Please begin from it."))
            return None
        self.log_addition(request, text, [{"added": {}}])
        messages.success(request, _("%(text)s is in force: the forms show it from now on.") % {"text": text})
        return text


@require_safe
@cache_control(private=True, no_store=True)
@xframe_options_sameorigin
@csp_replace(FRAME_POLICY)  # type: ignore[arg-type]  # its type knows no arguments
def form_as_read(request: HttpRequest, text: ConsentText, *, shown_in: str) -> HttpResponse:
    """The sign-up page as readers see it, with one text in another version; nothing on it can be sent."""
    with translation.override(shown_in):
        offer = wording.offer(shown_in)
        form = SignUpForm(offer=offer.with_text(text) if text.language == shown_in else offer)
        return render(request, "subscriptions/sign_up.html", {"form": form, "is_sign_up_page": True})
