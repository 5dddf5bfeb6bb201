"""How long browsers and proxies may keep a page that is the same for everyone."""

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control
from django.views.decorators.http import conditional_page, require_safe

# Short enough for news, long enough to take a rush of readers off the application.
READING_PAGE_SECONDS = 60

View = Callable[..., HttpResponse]


def reading_page(view: View) -> View:
    """Let a page be kept for a minute and be asked for again by its ETag; for GET and HEAD only."""

    @wraps(view)
    def cached(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = view(request, *args, **kwargs)
        patch_cache_control(response, public=True, max_age=READING_PAGE_SECONDS, stale_while_revalidate=300)
        return response

    return require_safe(conditional_page(cached))
