"""Signing up and confirming. The answer to a form is the same page for every address (R-30)."""

from datetime import datetime
from email.utils import parseaddr

from django.conf import settings
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from subscriptions import consent, throttling, wording
from subscriptions.consent import Confirmation, Origin
from subscriptions.forms import SignUpForm
from subscriptions.models import SignUp
from subscriptions.reader_forms import counting_form, see_other, token_page, too_many

STATUS = {Confirmation.UNKNOWN: 404, Confirmation.EXPIRED: 410, Confirmation.BLOCKED: 403}


@require_http_methods(["GET", "HEAD", "POST"])
@counting_form
def sign_up(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return _form_page(request, SignUpForm(offer=wording.offer(wording.form_language())))
    now, is_kept = timezone.now(), False
    form = SignUpForm(request.POST, offer=wording.last_offer(wording.form_language()))
    if form.may_pass(now) and form.chosen.is_borne:
        visit = throttling.visit_of(request, now)
        count, is_kept = consent.request_sign_up_of(
            visit, form.cleaned_data["email"], form.chosen, origin=_origin(request, form), now=now
        )
        wait = throttling.wait_after(count, visit, now)
    else:
        wait = throttling.admit(request, now)
    if wait:
        return too_many(request, wait)
    if is_kept or form.is_trapped:  # a robot; it learns nothing
        return see_other("subscriptions:signed_up")
    return _look_again(request, now)


def _look_again(request: HttpRequest, now: datetime, *, is_last: bool = False) -> HttpResponse:
    """Answer a form, counted already, that could not be kept by the offer this process had in mind."""
    form = SignUpForm(request.POST, offer=wording.offer(wording.form_language()))
    if not form.is_valid():
        return _form_page(request, form, status=400)
    if staleness := form.staleness(form.offer.fingerprint, now):
        return _form_page(request, form, staleness=staleness)
    try:
        consent.request_sign_up(form.cleaned_data["email"], form.chosen, origin=_origin(request, form), now=now)
    except IntegrityError:  # in this very moment staff gave a text, that nobody had agreed to, other words
        if is_last:
            raise
        return _look_again(request, now, is_last=True)
    return see_other("subscriptions:signed_up")


def _origin(request: HttpRequest, form: SignUpForm) -> Origin:
    page = form.shown.page if form.shown else request.path
    return Origin(source="form", url=settings.SITE_URL + page, ip=throttling.evidence_ip(request))


def _form_page(request: HttpRequest, form: SignUpForm, *, status: int = 200, staleness: str = "") -> HttpResponse:
    context = {"form": form, "staleness": staleness, "is_sign_up_page": True}
    return render(request, "subscriptions/sign_up.html", context, status=status)


@require_safe
def signed_up(request: HttpRequest) -> HttpResponse:
    sender = parseaddr(settings.DEFAULT_FROM_EMAIL)[1]
    return render(
        request, "subscriptions/signed_up.html", {"sender": sender, "lifetime": settings.CONFIRMATION_LIFETIME}
    )


@require_http_methods(["GET", "HEAD", "POST"])
@token_page
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """Mail servers and scanners open links to check them, so opening shows a button and only pressing it confirms."""
    if request.method != "POST":
        pending = consent.find_sign_up(token)
        return _confirmation_page(request, consent.state_of(pending, timezone.now()), pending)
    origin = Origin(source="confirmation_link", ip=throttling.evidence_ip(request))
    outcome = consent.confirm(token, origin=origin, now=timezone.now())
    if outcome in (Confirmation.CONFIRMED, Confirmation.ALREADY):  # a double click gets the same answer
        return see_other("subscriptions:confirmed")
    return _confirmation_page(request, outcome, None)


def _confirmation_page(request: HttpRequest, outcome: Confirmation | None, pending: SignUp | None) -> HttpResponse:
    newsletters = list(pending.newsletters.all()) if pending else []
    context = {
        "outcome": outcome,
        "newsletters": newsletters,
        "lifetime": settings.CONFIRMATION_LIFETIME,
        "publisher_email": settings.PUBLISHER["email"],
    }
    return render(request, "subscriptions/confirm.html", context, status=STATUS.get(outcome, 200) if outcome else 200)


@require_safe
def confirmed(request: HttpRequest) -> HttpResponse:
    return render(request, "subscriptions/confirmed.html")
