"""Where a person looks at the digests after a restored backup or a jumped clock, and lets them go again."""

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from digests import desk, restoring
from digests.clock import database_now
from digests.models import Digest


def held(request: HttpRequest) -> HttpResponse:
    """Show why digests are held and what is known, and let them go by POST."""
    if not request.user.has_perm(desk.SEND):
        raise PermissionDenied
    if request.method == "POST":
        assert isinstance(request.user, User)
        restoring.release(now=database_now(), actor=request.user)
        messages.success(request, _("Digests go again. Those that were being sent are paused."))
        return HttpResponseRedirect(reverse("admin:digests_digest_changelist"))
    context = {
        **admin.site.each_context(request),
        "title": _("Digests are held"),
        "opts": Digest._meta,
        "obstacle": restoring.find_obstacle(),
        "doubts": list(restoring.doubts()),
        "sending": Digest.objects.sending().select_related("newsletter"),
        "newest": Digest.objects.exclude(audience_frozen_at=None).select_related("newsletter")[:5],
    }
    return TemplateResponse(request, "admin/digests/digest/held.html", context)
