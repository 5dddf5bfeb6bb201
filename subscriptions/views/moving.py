"""The link in the mail to a new address: its button lets the reader be written to there (R-32)."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from subscriptions import rectifying, throttling
from subscriptions.consent import Confirmation, Origin
from subscriptions.models import AddressChange
from subscriptions.reader_forms import see_other, token_page

STATUS = {Confirmation.UNKNOWN: 404, Confirmation.EXPIRED: 410, Confirmation.BLOCKED: 403}


@require_http_methods(["GET", "HEAD", "POST"])
@token_page
def confirm_address(request: HttpRequest, token: str) -> HttpResponse:
    """Mail servers and scanners open links to check them, so opening shows a button and only pressing it confirms."""
    now = timezone.now()
    if request.method != "POST":
        change = rectifying.find(token)
        return _page(request, rectifying.state_of(change, now), change)
    origin = Origin(source="address_link", ip=throttling.evidence_ip(request))
    outcome = rectifying.confirm(token, origin=origin, now=now)
    if outcome in (Confirmation.CONFIRMED, Confirmation.ALREADY):  # a double click gets the same answer
        return see_other("subscriptions:address_changed")
    return _page(request, outcome, None)


@require_safe
def address_changed(request: HttpRequest) -> HttpResponse:
    return render(request, "subscriptions/address_changed.html")


def _page(request: HttpRequest, outcome: Confirmation | None, change: AddressChange | None) -> HttpResponse:
    context = {
        "outcome": outcome,
        "newsletters": rectifying.newsletters_to_come(change) if change and not outcome else [],
        "lifetime": settings.CONFIRMATION_LIFETIME,
        "publisher_email": settings.PUBLISHER["email"],
    }
    return render(
        request, "subscriptions/address_confirm.html", context, status=STATUS.get(outcome, 200) if outcome else 200
    )
