"""A digest as a page: the version for the browser, and the previews that staff see in the admin.

Each shows a mail as it is, under a policy of its own that lets nothing run and nothing load from elsewhere.
"""

from uuid import UUID

from csp.decorators import csp_replace
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import cache_control
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import conditional_page, require_safe

from digests import rendering
from digests.models import Digest

# There is no reader here whose links these could be; this page mails them to whoever asks.
LINKS_PATH = "/meine-daten/"
WHY_PATH = "/newsletter/warum/"

MAIL_POLICY = {
    "default-src": ["'none'"],
    "img-src": ["'self'"],
    "style-src": ["'unsafe-inline'"],
    "base-uri": ["'none'"],
    "form-action": ["'none'"],
}


@require_safe
@conditional_page
@cache_control(public=True, max_age=300)
@csp_replace(MAIL_POLICY | {"frame-ancestors": ["'none'"]})  # type: ignore[arg-type]  # its type knows no arguments
def web_version(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """The digest as it was mailed, for everyone with the link; nobody's links are in it."""
    digest = get_object_or_404(Digest.objects.out(), uuid=uuid)
    html = rendering.fill(digest.html, unsubscribe_url=LINKS_PATH, preferences_url=LINKS_PATH, why_url=WHY_PATH)
    # On a page of its own the mail is not an article among others.
    response = HttpResponse(html.replace('aria-roledescription="email"', "").replace('role="article"', 'role="main"'))
    response["X-Robots-Tag"] = "noindex"
    return response


@require_safe
@cache_control(private=True, no_store=True)
@xframe_options_sameorigin
@csp_replace(MAIL_POLICY | {"frame-ancestors": ["'self'"], "sandbox": [""]})  # type: ignore[arg-type]
def mail_html(request: HttpRequest, digest: Digest) -> HttpResponse:
    """The HTML part, for the preview's frame, light or dark whatever the browser prefers.

    The sandbox lets no link lead out of it.
    """
    html = rendering.fill(digest.html, unsubscribe_url="#", preferences_url="#", why_url="#")
    applies = "all" if request.GET.get("scheme") == "dark" else "not all"
    return HttpResponse(html.replace("@media (prefers-color-scheme: dark)", f"@media {applies}"))
