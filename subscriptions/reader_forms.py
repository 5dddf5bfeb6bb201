"""Reader forms without cookies: each brings its own proof.

Django's CSRF protection needs a cookie, and readers never get one. A token page's proof is its token, which another
site does not know. The sign-up and request forms change nothing by themselves (a mail to the address asks back); they
carry a signed stamp against robots that never looked at the page, and refuse what a browser says comes from elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache, wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import get_script_prefix, reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt

from newsroom.mail.macs import mac_for, valid_keys
from subscriptions import throttling

View = Callable[..., HttpResponse]

CLOCK_LEEWAY = timedelta(minutes=2)  # two servers' clocks may differ


class Staleness(StrEnum):
    """Why a form is shown again although nothing in it is wrong."""

    OLD = "old"
    HASTY = "hasty"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and where a form was shown, and a fingerprint of what it said."""

    made_at: datetime
    page: str
    fingerprint: str

    def signed(self) -> str:
        said = f"{int(self.made_at.timestamp())}:{self.fingerprint}:{self.page}"
        return f"{said}:{_signature(settings.SECRET_KEY, said)}"

    def staleness(self, *, fingerprint: str, now: datetime) -> Staleness | None:
        """Say why the form should be shown again; None if it may pass."""
        age = now - self.made_at
        if not -CLOCK_LEEWAY <= age <= settings.FORM_STAMP_LIFETIME:
            return Staleness.OLD
        if self.fingerprint != fingerprint:
            return Staleness.CHANGED
        # The stamp holds whole seconds; a hasty one may look up to a second older than it is.
        return Staleness.HASTY if age < settings.FORM_MINIMUM_FILL_TIME else None


def read_stamp(signed: str) -> Stamp | None:
    """Return the stamp, or None if it is not one of ours."""
    said, _colon, signature = signed.rpartition(":")
    if not any(constant_time_compare(_signature(key, said), signature) for key in valid_keys()):
        return None
    made_at, fingerprint, page = said.split(":", 2)
    return Stamp(datetime.fromtimestamp(int(made_at), tz=UTC), page, fingerprint)


def reader_form(view: View) -> View:
    """A page with a form that anyone may send, without cookie and CSRF token.

    Its POST must not come from another site, where the browser tells, and passes the network's limit, which no other
    site can use up. Its answers are not stored; its empty form may be, the stamp in it is good for a day.
    """

    @wraps(view)
    def counted(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        wait = throttling.admit(request, timezone.now()) if request.method == "POST" else None
        return too_many(request, wait) if wait else view(request, *args, **kwargs)

    return counting_form(counted)


def counting_form(view: View) -> View:
    """A `reader_form` that counts its POST itself, together with what it writes."""

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        if is_from_elsewhere(request):
            return _unstored(render(request, "subscriptions/from_elsewhere.html", status=403))
        return _unstored(view(request, *args, **kwargs))

    return guarded


def token_page(view: View) -> View:
    """A page whose URL or form holds a token: its proof. Never stored, indexed, or named to another page (E-40)."""

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = _unstored(view(request, *args, **kwargs))
        response["Referrer-Policy"] = "no-referrer"
        response["X-Robots-Tag"] = "noindex, nofollow"
        return response

    return guarded


def see_other(name: str) -> HttpResponse:
    """Answer a form with another page (303), so that reloading it sends nothing again and its URL holds no token."""
    return HttpResponse(status=303, headers={"Location": _path(get_script_prefix(), name)})


def is_from_elsewhere(request: HttpRequest) -> bool:
    """Say whether the browser names another site as the origin. Old browsers name none; "null" says nothing."""
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site:
        return site not in {"same-origin", "none"}
    origin = request.META.get("HTTP_ORIGIN", "null")
    if origin in ("null", settings.SITE_URL):
        return False
    return urlsplit(origin).netloc not in {request.get_host(), urlsplit(settings.SITE_URL).netloc}


@lru_cache(maxsize=16)
def _path(_prefix: str, name: str) -> str:
    return reverse(name)


def _unstored(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    return response


def too_many(request: HttpRequest, wait: timedelta) -> HttpResponse:
    """Answer a network that asked too often, and say when it may again."""
    seconds = int(wait.total_seconds()) + 1
    minutes = -(-seconds // 60)
    response = render(request, "429.html", {"minutes": minutes}, status=429)
    response["Retry-After"] = str(seconds)
    return response


def _signature(key: str, said: str) -> str:
    return mac_for("form-stamp", key)(said.encode()).hex()
