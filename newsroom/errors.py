"""Pages for what went wrong, in the site's design.

What the server itself got wrong is told without asking the database.
"""

from django.http import HttpRequest, HttpResponse
from django.template import loader

from newsroom import context


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, 400)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    return _page(request, 500)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _page(request, 403)


def _page(request: HttpRequest, status: int) -> HttpResponse:
    text = loader.render_to_string(f"{status}.html", context.site(request))
    return HttpResponse(text, status=status, headers={"Cache-Control": "no-store"})
