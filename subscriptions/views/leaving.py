"""Leaving: two requests from the mail to done, or one by the mail program itself (R-22, RFC 8058)."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from subscriptions import consent, links, throttling
from subscriptions.consent import Origin
from subscriptions.models import Subscription
from subscriptions.reader_forms import token_page

ONE_CLICK = b"List-Unsubscribe=One-Click"  # RFC 8058 section 3.1


@require_http_methods(["GET", "HEAD", "POST"])
@token_page
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Neither limited by network (the big mail providers send every one-click from few addresses) nor redirected."""
    subscription = _find(token)
    if request.method != "POST":
        return _page(request, subscription)
    if _is_one_click(request):
        _leave(request, subscription, source="one_click")
        return HttpResponse(
            _("You will no longer receive this newsletter.") + "\n", content_type="text/plain; charset=utf-8"
        )
    scope = request.POST.get("scope")
    if scope not in {"this", "all"}:
        return _page(request, subscription, status=400)
    _leave(request, subscription, source="unsubscribe_page", everything=scope == "all")
    return _page(request, _find(token), has_left=True)


def _is_one_click(request: HttpRequest) -> bool:
    """Whether the body says so, whatever its Content-Type: some programs name another charset, or none (E-04)."""
    # The body first: Django keeps it for the form, but not the other way round.
    return ONE_CLICK in request.body or request.POST.get("List-Unsubscribe") == "One-Click"


def _find(token: str) -> Subscription | None:
    uuid = links.read_unsubscribe_token(token)
    known = Subscription.objects.select_related("subscriber", "newsletter")
    return known.linked_by(uuid).first() if uuid else None


def _leave(request: HttpRequest, subscription: Subscription | None, *, source: str, everything: bool = False) -> None:
    if subscription is None:  # erased, or a token of nobody: there is nothing left to end
        return
    origin = Origin(source=source, ip=throttling.evidence_ip(request))
    if everything:
        consent.withdraw_all(subscription.subscriber, origin=origin, now=timezone.now())
    else:
        consent.withdraw(subscription, origin=origin, now=timezone.now())


def _page(
    request: HttpRequest, subscription: Subscription | None, *, has_left: bool = False, status: int = 200
) -> HttpResponse:
    context: dict[str, Any] = {"has_left": has_left, "subscription": None, "others": []}
    if subscription:
        standing = subscription.subscriber.subscriptions.exclude(state=Subscription.State.ENDED)
        others = standing.exclude(pk=subscription.pk).select_related("newsletter")
        context |= {
            "subscription": subscription,
            "is_standing": subscription.state != Subscription.State.ENDED,
            "others": [other.newsletter.name for other in others],
            "preferences_url": links.preferences_url(subscription.uuid),
        }
    return render(request, "subscriptions/unsubscribe.html", context, status=status)
