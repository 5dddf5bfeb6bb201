"""The one address that all providers report to, each under its own name. It only takes in; `digests.events` acts."""

import logging

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from digests import events
from digests.webhooks import esps
from digests.webhooks.signatures import NoCredentials, Posted, Refused

log = logging.getLogger(__name__)


class _TooLarge(Refused):
    status = 413


class _CutOff(Refused):
    status = 400


@csrf_exempt
def receive(request: HttpRequest, esp: str) -> HttpResponse:
    """Store what a provider reports, and answer at once; whatever cannot be its report changes nothing."""
    if request.method != "POST":
        return _look(request, esp)
    now = timezone.now()
    try:
        posted = Posted(body=_body(request), headers=request.headers, path=request.path, at=now)
        esps.authenticate(esp, posted)
        events.store(esp, esps.reports_in(esp, posted.body), now=now)
    except Refused as refusal:
        log.warning("webhook of %s refused: %s", esp if esp in esps.ESPS else "nobody", refusal)
        return _answer(refusal)
    return HttpResponse(status=200, content_type="text/plain")


def _look(request: HttpRequest, esp: str) -> HttpResponse:
    """Some providers look whether there is anything before they send a report."""
    is_there = esp in esps.ESPS and esps.is_in_use(esp) and esps.find_proof(esps.ESPS[esp]) is not None
    if request.method not in {"GET", "HEAD", "OPTIONS"}:
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD, OPTIONS, POST"}, content_type="text/plain")
    return HttpResponse(status=200 if is_there else 404, content_type="text/plain")


def _body(request: HttpRequest) -> bytes:
    try:
        return request.body
    except RequestDataTooBig:
        raise _TooLarge("too large") from None
    except (UnreadablePostError, ValueError):  # a length that is no number
        raise _CutOff("cut off") from None


def _answer(refusal: Refused) -> HttpResponse:
    answer = HttpResponse(status=refusal.status, content_type="text/plain")
    if isinstance(refusal, NoCredentials):
        answer.headers["WWW-Authenticate"] = 'Basic realm="webhooks"'
    return answer
