"""Where staff plan digests, look at them before they go, and watch them arrive."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dates import WEEKDAYS_ABBR
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from digests import (
    calendar,
    compilation,
    desk,
    editing,
    entries,
    event_admin,  # noqa: F401  # an admin page of its own
    held_page,
    outcomes,
    progress,
    providers,
    release,
    views,
)
from digests.forms import ReasonForm, ScheduleForm
from digests.models import ALL_WEEKDAYS, Digest, DigestEntry, DigestSchedule, Provider
from newsroom.articles.models import Article

CHANGE = "digests.change_digest"

# States that something else than this page may end at any moment.
MOVING = {Digest.State.PLANNED, Digest.State.APPROVED, Digest.State.SENDING, Digest.State.PAUSED}


def account(request: HttpRequest) -> User:
    """Return who is logged in; the admin's views are for nobody else."""
    assert isinstance(request.user, User)
    return request.user


@admin.register(DigestSchedule)
class ScheduleAdmin(admin.ModelAdmin):
    form = ScheduleForm
    list_display = ["newsletter", "days", "local_time", "time_zone", "approval", "state", "next_due"]
    list_filter = ["state", "approval"]
    list_select_related = ["newsletter"]
    readonly_fields = ["next_due"]
    fieldsets = [
        (None, {"fields": ["newsletter", "state"]}),
        (gettext_lazy("When"), {"fields": ["weekdays", "local_time", "time_zone", "not_later_than", "next_due"]}),
        (gettext_lazy("What"), {"fields": ["sections", "minimum_articles", "maximum_articles"]}),
        (gettext_lazy("How"), {"fields": ["approval", "latecomers", "uncertain_policy"]}),
    ]

    class Media:
        css = {"all": ["digests/admin.css"]}

    def has_delete_permission(self, request: HttpRequest, obj: DigestSchedule | None = None) -> bool:
        # A digest is compiled by its schedule's rules; a schedule that has made one is stopped, not deleted.
        return super().has_delete_permission(request, obj) and not (obj and obj.digests.exists())

    def get_urls(self) -> list[URLPattern]:
        make = path("<int:pk>/make/", self.admin_site.admin_view(self.make), name="digests_digestschedule_make")
        return [make, *super().get_urls()]

    def make(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Make today's digest ahead of its time."""
        if request.method != "POST" or not request.user.has_perm(CHANGE):
            raise PermissionDenied
        schedule = get_object_or_404(DigestSchedule, pk=pk)
        digest = compilation.make_ahead(schedule, now=timezone.now(), actor=account(request))
        if digest is None:
            messages.warning(
                request, _("There is no digest to make: today has one already, or is not one of its days.")
            )
            return HttpResponseRedirect(reverse("admin:digests_digestschedule_change", args=[pk]))
        return HttpResponseRedirect(reverse("admin:digests_digest_change", args=[digest.pk]))

    @admin.display(description=gettext_lazy("weekdays"))
    def days(self, schedule: DigestSchedule) -> str:
        if schedule.weekdays == ALL_WEEKDAYS:
            return _("every day")
        return ", ".join(str(name) for day, name in WEEKDAYS_ABBR.items() if schedule.weekdays >> day & 1)

    @admin.display(description=gettext_lazy("next digest"))
    def next_due(self, schedule: DigestSchedule) -> str:
        if schedule.pk is None or schedule.state == DigestSchedule.State.STOPPED:
            return "–"
        due = calendar.next_due(compilation.rhythm(schedule), after=compilation.looked_at(schedule), now=timezone.now())
        return f"{timezone.localtime(due.due_at):%d.%m.%Y %H:%M}" if due else "–"


@admin.register(Digest)
class DigestAdmin(admin.ModelAdmin):
    list_display = ["title", "newsletter", "state_badge", "subject", "expected_count"]
    list_display_links = ["title"]
    list_filter = ["state", "newsletter"]
    list_select_related = ["newsletter"]
    search_fields = ["subject", "entries__headline"]
    date_hierarchy = "date"
    ordering = ["-date", "newsletter"]

    class Media:
        css = {"all": ["digests/admin.css"]}

    @admin.display(description=gettext_lazy("date"), ordering="date")
    def title(self, digest: Digest) -> str:
        return f"{digest.date:%d.%m.%Y}"

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, digest: Digest) -> SafeString:
        return format_html(
            '<span class="digest-state digest-state-{}">{}</span>', digest.state, digest.get_state_display()
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # a digest comes from its schedule

    def has_delete_permission(self, request: HttpRequest, obj: Digest | None = None) -> bool:
        return False  # it is the record of what readers got

    def get_urls(self) -> list[URLPattern]:
        def own(route: str, view: Callable[..., HttpResponse], name: str) -> URLPattern:
            return path(f"<int:pk>/{route}", self.admin_site.admin_view(view), name=f"digests_digest_{name}")

        return [
            path("held/", self.admin_site.admin_view(held_page.held), name="digests_digest_held"),
            own("progress/", self.progress, "progress"),
            own("preview/", self.preview, "preview"),
            own("preview/html/", self.preview_html, "preview_html"),
            own("test/", self.send_test, "test"),
            own("act/<slug:name>/", self.act, "act"),
            own("articles/<int:article_pk>/add/", self.add_article, "add_article"),
            own("entries/<int:entry_pk>/<slug:verb>/", self.edit_entry, "edit_entry"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The digest's page. Nothing on it is a field: every change is a step with a name."""
        digest = self._digest(request, object_id)
        context = self._context(request, digest) | self._progress(digest) | self._contents(digest)
        return TemplateResponse(request, "admin/digests/digest/page.html", context)

    def progress(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The part of the page that moves while the digest is being sent."""
        digest = self._digest(request, pk)
        context = self._context(request, digest) | self._progress(digest)
        response = TemplateResponse(request, "admin/digests/digest/_progress.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def preview(self, request: HttpRequest, pk: int) -> HttpResponse:
        digest = self._digest(request, pk)
        context = self._context(request, digest) | {
            "title": _("Preview"),
            "is_nav_sidebar_enabled": False,  # the frames need the room
            "frame_url": reverse("admin:digests_digest_preview_html", args=[pk]),
            "size": len(digest.html.encode()),
        }
        return TemplateResponse(request, "admin/digests/digest/preview.html", context)

    def preview_html(self, request: HttpRequest, pk: int) -> HttpResponse:
        return views.mail_html(request, self._digest(request, pk))  # type: ignore[call-arg, return-value]

    def send_test(self, request: HttpRequest, pk: int) -> HttpResponse:
        digest = self._digest(request, pk)
        if request.method != "POST" or not self._may_work_on(request):
            raise PermissionDenied
        if release.send_test(digest, user=account(request), now=timezone.now()):
            messages.success(
                request, _("A test mail is on its way to %(address)s.") % {"address": account(request).email}
            )
        else:
            messages.error(request, _("Your account has no e-mail address, or the digest has no mail yet."))
        return self._back(digest)

    def act(self, request: HttpRequest, pk: int, name: str) -> HttpResponse:
        """Ask before a step, and take it."""
        digest, act = self._digest(request, pk), desk.act_named(name)
        if not request.user.has_perm(desk.SEND):
            raise PermissionDenied
        if act is None:
            raise Http404
        counts = outcomes.counts(digest)
        if not act.is_offered(digest, counts, now=timezone.now()):
            messages.warning(request, _("That is not possible any more; the digest has moved on."))
            return self._back(digest)
        form = ReasonForm(request.POST or None) if act.asks_reason else None
        if request.method == "POST" and (form is None or form.is_valid()):
            return self._take(request, digest, act, form=form)
        context = self._context(request, digest) | {
            "title": act.label,
            "act": act,
            "form": form,
            "readers": release.count_readers(digest) if act.tells_readers else None,
            "concerned": act.count(digest, counts) if act.concerns else None,
        }
        return TemplateResponse(request, "admin/digests/digest/ask.html", context)

    def add_article(self, request: HttpRequest, pk: int, article_pk: int) -> HttpResponse:
        article = get_object_or_404(Article, pk=article_pk)
        return self._edit(
            request, pk, lambda digest: editing.add_article(digest, article, now=timezone.now(), actor=account(request))
        )

    def edit_entry(self, request: HttpRequest, pk: int, entry_pk: int, verb: str) -> HttpResponse:
        entry = get_object_or_404(DigestEntry, pk=entry_pk, digest=pk)
        now, actor = timezone.now(), account(request)
        verbs: dict[str, Callable[[], None]] = {
            "first": lambda: editing.move_entry(entry, to=1),
            "up": lambda: editing.move_entry(entry, to=entry.position - 1),
            "down": lambda: editing.move_entry(entry, to=entry.position + 1),
            "remove": lambda: editing.remove_entry(entry, now=now, actor=actor),
            "take-over": lambda: editing.take_over_changes(entry, now=now, actor=actor),
        }
        if verb not in verbs:
            raise Http404
        return self._edit(request, pk, lambda _digest: verbs[verb]())

    def _digest(self, request: HttpRequest, pk: int | str) -> Digest:
        """Return the digest if the account may look at it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if not str(pk).isdecimal():  # the admin's own URLs take any text
            raise Http404
        return get_object_or_404(Digest.objects.select_related("newsletter", "schedule"), pk=pk)

    def _may_work_on(self, request: HttpRequest) -> bool:
        return request.user.has_perm(CHANGE) or request.user.has_perm(desk.SEND)

    def _edit(self, request: HttpRequest, pk: int, change: Callable[[Digest], None]) -> HttpResponse:
        digest = self._digest(request, pk)
        if request.method != "POST" or not request.user.has_perm(CHANGE):
            raise PermissionDenied
        try:
            change(digest)
        except editing.CannotEdit as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:digests_digest_change", args=[pk]) + "#articles")

    def _take(self, request: HttpRequest, digest: Digest, act: desk.Act, *, form: ReasonForm | None) -> HttpResponse:
        reason = {"reason": form.cleaned_data["reason"]} if form else {}
        if act.call(digest, now=timezone.now(), actor=account(request), **reason):
            messages.success(request, str(act.done))
        else:
            messages.warning(request, _("That is not possible any more; the digest has moved on."))
        return self._back(digest)

    def _back(self, digest: Digest) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:digests_digest_change", args=[digest.pk]))

    def _context(self, request: HttpRequest, digest: Digest) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": str(digest),
            "digest": digest,
            "media": self.media,
            "may_send": request.user.has_perm(desk.SEND),
            "may_change": request.user.has_perm(CHANGE),
            "may_test": self._may_work_on(request) and bool(digest.html),
        }

    def _progress(self, digest: Digest) -> dict[str, Any]:
        counts, now = outcomes.counts(digest), timezone.now()
        done = counts["expected"] - counts["waiting"] - counts.get("sending", 0)
        context = {
            "counts": counts,
            "feedback": outcomes.feedback(digest),
            "done": done,
            # Said aloud at each tenth only.
            "tens": 10 * (10 * done // counts["expected"]) if counts["expected"] else 0,
            "acts": desk.acts_for(digest, counts, now=now),
            "is_out": digest.audience_frozen_at is not None,
            "is_moving": digest.state in MOVING,
        }
        if digest.audience_frozen_at:
            context |= {
                "phase": progress.phase(digest, counts, now=now),
                "pace": progress.pace(digest, counts, now=now),
                "plot": progress.plot(digest, now=now),
                "domains": progress.domains(digest, counts, now=now),
            }
        return context

    def _contents(self, digest: Digest) -> dict[str, Any]:
        is_editable = digest.state == Digest.State.COMPILED
        rows = list(digest.entries.select_related("article__section"))
        return {
            "is_editable": is_editable,
            "rows": [(entry, entries.differences(entry) if is_editable else []) for entry in rows],
            "addable": editing.addable_articles(digest, now=timezone.now()) if is_editable else [],
            "left_out": digest.left_out.select_related("article", "actor"),
            "changes": digest.changes.select_related("actor").order_by("-at", "-id"),
        }


@admin.register(Provider)
class ProviderAdmin(admin.ModelAdmin):
    """The gate in front of the mail provider: what it takes is set here, and a closed one is opened again."""

    list_display = ["name", "gate", "standing", "most_per_second", "most_per_day", "changed_at"]
    readonly_fields = ["name", "gate", "standing", "failures", "resume_at", "rate", "throttled_at", "count_of_day"]
    fieldsets = [
        (None, {"fields": ["name", "gate", "standing", "failures", "resume_at"]}),
        (gettext_lazy("What it takes"), {"fields": ["most_per_second", "most_per_day", "is_warming_up"]}),
        (gettext_lazy("What it took"), {"fields": ["rate", "throttled_at", "count_of_day"]}),
    ]
    actions = ["let_mail_pass"]

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        # Workers write the rest of the row, at this very moment, too.
        obj.save(update_fields=[*form.changed_data, "changed_at"])

    @admin.display(description=gettext_lazy("why"))
    def standing(self, provider: Provider) -> str:
        return providers.why_held(provider, now=timezone.now()) or "–"

    @admin.action(description=gettext_lazy("Let mail pass again"), permissions=["send"])
    def let_mail_pass(self, request: HttpRequest, chosen: QuerySet[Provider]) -> None:
        for provider in chosen:
            if providers.reopen(provider):
                messages.success(request, _("%(provider)s passes mail again.") % {"provider": provider.name})

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(desk.SEND)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Provider | None = None) -> bool:
        return self.has_send_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Provider | None = None) -> bool:
        return False
