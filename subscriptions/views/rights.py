"""“Meine Daten”: ask for a link, open it with a button, then see, take along or erase. No account, no cookie."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from newsroom.mail.addresses import canonicalise
from subscriptions import cases, consent, exporting, links, privacy, rectifying, suppression, throttling
from subscriptions.consent import Origin
from subscriptions.forms import NewAddressForm, RightsForm
from subscriptions.models import PrivacyRequest, RightsCase, Subscriber
from subscriptions.reader_forms import Stamp, reader_form, see_other, token_page, too_many
from subscriptions.views.choosing import change, choices_context

FINGERPRINT = "rights"  # the form's words are no declaration, so they may change while it is open


@require_http_methods(["GET", "HEAD", "POST"])
@reader_form
def ask(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return _form_page(request, RightsForm())
    form = RightsForm(request.POST)
    if form.is_trapped:
        return see_other("subscriptions:rights_asked")
    if not form.is_valid():
        return _form_page(request, form, status=400)
    if staleness := form.staleness(FINGERPRINT, timezone.now()):
        return _form_page(request, form, staleness=staleness)
    privacy.request_link(form.cleaned_data["email"], now=timezone.now())
    return see_other("subscriptions:rights_asked")


def _form_page(request: HttpRequest, form: RightsForm, *, status: int = 200, staleness: str = "") -> HttpResponse:
    stamp = Stamp(made_at=timezone.now(), page=reverse("subscriptions:ask_rights"), fingerprint=FINGERPRINT)
    context = {"form": form, "stamp": stamp.signed(), "staleness": staleness}
    return render(request, "subscriptions/rights_ask.html", context, status=status)


@require_safe
def asked(request: HttpRequest) -> HttpResponse:
    return render(request, "subscriptions/rights_asked.html", {"lifetime": settings.RIGHTS_LINK_LIFETIME})


@require_http_methods(["GET", "HEAD", "POST"])
@token_page
def rights(request: HttpRequest, token: str) -> HttpResponse:
    if request.method == "POST" and (opened := privacy.open_page(token, timezone.now())):
        return _opened_page(request, opened)
    if request.method != "POST" and privacy.find_usable(token, timezone.now()):
        return render(request, "subscriptions/rights_open.html")
    return _gone(request)


Act = Callable[[HttpRequest, PrivacyRequest], HttpResponse]


def _from_opened_page(act: Act) -> Callable[[HttpRequest], HttpResponse]:
    """Let an act through whose form comes from a page that a rights link opened."""

    @require_http_methods(["GET", "HEAD", "POST"])
    @token_page
    @wraps(act)
    def guarded(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":  # someone reloads or typed the address; there is nothing to see without the proof
            return see_other("subscriptions:ask_rights")
        opened = privacy.find_opened(request.POST.get("token", ""), timezone.now())
        return act(request, opened) if opened else _gone(request)

    return guarded


@_from_opened_page
def change_newsletters(request: HttpRequest, opened: PrivacyRequest) -> HttpResponse:
    subscriber = _reader(opened)
    if request.POST.get("act") == "object":
        privacy.object_to(opened, origin=_origin(request), now=timezone.now())
        notice = _("Done. We will not write to you any more.")
    elif subscriber:
        notice = _restrict_or_change(request, opened, subscriber)
    else:
        notice = ""
    return _opened_page(request, opened, notice)


def _restrict_or_change(request: HttpRequest, opened: PrivacyRequest, subscriber: Subscriber) -> str:
    """Restriction needs the fresh proof of this page; the link in every issue only changes newsletters."""
    origin, now = _origin(request), timezone.now()
    match request.POST.get("act"):
        case "restrict":
            consent.restrict(subscriber, origin=origin, now=now)
            cases.note_answered(opened, RightsCase.Kind.RESTRICT, now=now)
            return _("Done. We keep your data, but do nothing with them until you lift the restriction.")
        case "lift_restriction":
            consent.lift_restriction(subscriber, origin=origin, now=now)
            cases.note_answered(opened, RightsCase.Kind.LIFT_RESTRICTION, now=now)
            return _("Done. The restriction is lifted, and everything goes on as before.")
    return change(subscriber, request.POST, origin)


@_from_opened_page
def change_address(request: HttpRequest, opened: PrivacyRequest) -> HttpResponse:
    """Ask the new address by a mail. The answer is the same for every address, known or not (R-30)."""
    subscriber, now = _reader(opened), timezone.now()
    if subscriber is None:
        return _opened_page(request, opened)
    if request.POST.get("act") == "keep":
        rectifying.withdraw_wish(subscriber, now=now)
        return _opened_page(request, opened, _("Done. Your address stays as it is."))
    if wait := throttling.admit(request, now):
        return too_many(request, wait)
    form = NewAddressForm(request.POST)
    if form.is_valid():
        try:
            rectifying.request_change(subscriber, form.cleaned_data["new_address"], origin=_origin(request), now=now)
        except rectifying.ChangeRefused as refusal:
            form.add_error("new_address", str(refusal))
        else:
            cases.note_answered(opened, RightsCase.Kind.RECTIFY, now=now)
            return _opened_page(
                request,
                opened,
                _("We are sending a mail to the new address. Until its button is pressed, everything stays as it is."),
            )
    return _opened_page(request, opened, form=form)


@_from_opened_page
def export(request: HttpRequest, opened: PrivacyRequest) -> HttpResponse:
    now = timezone.now()
    cases.note_answered(opened, RightsCase.Kind.ACCESS, now=now)
    content = exporting.export_file(opened.address, opened.address_key, now=now)
    headers = {"Content-Disposition": f'attachment; filename="{exporting.file_name(now)}"'}
    return HttpResponse(content, content_type="application/zip", headers=headers)


@_from_opened_page
def erase(request: HttpRequest, opened: PrivacyRequest) -> HttpResponse:
    """The first press asks back and says what stays; the second erases."""
    what_stays = privacy.what_stays()
    if request.POST.get("sure") != "yes":
        context = {"token": _form_token(opened), "what_stays": what_stays}
        return render(request, "subscriptions/rights_erase.html", context)
    privacy.erase(opened, origin=_origin(request), now=timezone.now())
    return render(request, "subscriptions/rights_erased.html", {"what_stays": what_stays})


def _opened_page(
    request: HttpRequest, opened: PrivacyRequest, notice: str = "", *, form: NewAddressForm | None = None
) -> HttpResponse:
    subscriber = _reader(opened)
    context = {
        "address": opened.address,
        "token": _form_token(opened),
        "lifetime": settings.RIGHTS_FORM_LIFETIME,
        "notice": notice,
        "form": form or NewAddressForm(),
        "subscriber": subscriber,
        "is_suppressed": suppression.is_suppressed(opened.address_key),
        "held": exporting.held(opened.address_key),
    }
    if subscriber:
        context |= choices_context(subscriber) | _address_context(subscriber)
    return render(request, "subscriptions/rights.html", context, status=400 if form else 200)


def _address_context(subscriber: Subscriber) -> dict[str, Any]:
    wish = rectifying.pending_wish(subscriber, timezone.now())
    return {
        "can_change_address": not rectifying.is_barred(subscriber.address_key),
        "wish": wish,
        "wished_address": canonicalise(wish.new_address).display if wish else "",
    }


def _reader(opened: PrivacyRequest) -> Subscriber | None:
    return Subscriber.objects.filter(address_key=opened.address_key).first()


def _form_token(opened: PrivacyRequest) -> str:
    return links.rights_form_token(opened.uuid, timezone.now())


def _origin(request: HttpRequest) -> Origin:
    return Origin(source="rights_page", ip=throttling.evidence_ip(request))


def _gone(request: HttpRequest) -> HttpResponse:
    return render(request, "subscriptions/rights_gone.html", {"lifetime": settings.RIGHTS_LINK_LIFETIME}, status=410)
