from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template import loader
from django.utils.cache import patch_cache_control
from django.utils.translation import get_language
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from django.views.static import serve

from newsroom.caching import reading_page
from newsroom.retention import public_rules


@reading_page
def privacy(request: HttpRequest) -> HttpResponse:
    """The notice of GDPR Art. 13; every period in it is the configured one."""
    return _legal_page(request, "privacy")


@reading_page
def imprint(request: HttpRequest) -> HttpResponse:
    return _legal_page(request, "imprint")


def _legal_page(request: HttpRequest, name: str) -> HttpResponse:
    # Whole texts per language instead of translated sentences: a legal text is written, not assembled.
    template = loader.select_template([f"legal/{name}.{get_language()}.html", f"legal/{name}.de.html"])
    return HttpResponse(template.render({"settings": settings, "rules": public_rules()}, request))


@require_safe
@cache_control(public=True, max_age=86_400)
def robots(request: HttpRequest) -> HttpResponse:
    # Token pages say noindex themselves: a crawler that may not open a page would never read that.
    return HttpResponse("User-agent: *\nDisallow: /admin/\n", content_type="text/plain; charset=utf-8")


@require_safe
@cache_control(public=True, max_age=86_400)
def favicon(request: HttpRequest) -> HttpResponse:
    """Lead those who ask for the icon at its old address to the one the pages name."""
    return HttpResponseRedirect(staticfiles_storage.url("newsroom/favicon.png"))


@require_safe
def media(request: HttpRequest, path: str) -> HttpResponseBase:
    """Serve a picture. Enough for a small site; with more traffic the reverse proxy serves MEDIA_ROOT itself."""
    response = serve(request, path, document_root=str(settings.MEDIA_ROOT))
    patch_cache_control(response, public=True, max_age=86_400)
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
