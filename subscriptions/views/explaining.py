"""“Why do I get this mail?”: the link in every mail, answered without a trace and without an address."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from subscriptions import links, why
from subscriptions.reader_forms import token_page


@require_safe
def general(request: HttpRequest) -> HttpResponse:
    """What holds for every mail, for who has no link of a mail of his own."""
    return render(request, "subscriptions/why.html", {"reason": None})


@require_safe
@token_page
def explain(request: HttpRequest, token: str) -> HttpResponse:
    """Whatever is gone or forged gets the same kind answer; a link lives longer than what it points to."""
    cause = links.read_why_token(token)
    reason = why.find(cause) if cause else None
    context = {"reason": reason, "is_gone": reason is None}
    return render(request, "subscriptions/why.html", context, status=200 if reason else 410 if cause else 404)
