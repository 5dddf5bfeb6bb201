"""The pages on which staff enter letters and calls, and answer readers' cases."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from newsroom.mail.addresses import mask
from subscriptions import cases, desk, evidence, exporting, letters, privacy
from subscriptions.case_forms import LetterForm, OutcomeForm, ReasonForm
from subscriptions.cases import HANDLE, LOOK, Letter, TooLate
from subscriptions.models import EvidenceView, RightsCase, Subscriber

logger = logging.getLogger(__name__)

Kind, Way = RightsCase.Kind, RightsCase.Way

SEE_EVIDENCE = "subscriptions.view_evidence"


def may_handle(request: HttpRequest) -> bool:
    return request.user.has_perm(HANDLE)


def may_look(request: HttpRequest) -> bool:
    return may_handle(request) or request.user.has_perm(LOOK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One button on a case's page, and the page that asks before it acts. `call` returns whether it was done."""

    name: str
    label: Promise
    question: Promise
    done: Promise
    call: Callable[[HttpRequest, RightsCase, dict[str, Any]], bool]
    is_offered: Callable[[RightsCase], bool]
    form: type[forms.Form] = forms.Form
    is_usual: bool = False
    is_grave: bool = False


def _carry_out(request: HttpRequest, case: RightsCase, values: dict[str, Any]) -> bool:
    return bool(letters.carry_out(case, by=desk.actor(request), now=timezone.now()))


def _mail_link(request: HttpRequest, case: RightsCase, values: dict[str, Any]) -> bool:
    return letters.mail_link(case, by=desk.actor(request), now=timezone.now())


def _close(request: HttpRequest, case: RightsCase, values: dict[str, Any]) -> bool:
    return cases.close(case, outcome=values["outcome"], by=desk.actor(request), now=timezone.now())


def _told(request: HttpRequest, values: dict[str, Any]) -> dict[str, Any]:
    tells = values["tells"] == ReasonForm.BY_MAIL
    return {"reason": values["reason"], "tells": tells, "by": desk.actor(request), "now": timezone.now()}


def _extend(request: HttpRequest, case: RightsCase, values: dict[str, Any]) -> bool:
    return cases.extend(case, **_told(request, values))


def _refuse(request: HttpRequest, case: RightsCase, values: dict[str, Any]) -> bool:
    return cases.refuse(case, **_told(request, values))


def _is_open(case: RightsCase) -> bool:
    return case.state == RightsCase.State.OPEN


ACTS = (
    Act(
        name="carry-out",
        label=_("Do it now"),
        question=_("What the reader asks is done at once, with the same effect as if the reader had done it."),
        done=_("Done."),
        call=_carry_out,
        is_offered=lambda case: _is_open(case) and case.kind in letters.ACTS,
        is_usual=True,
    ),
    Act(
        name="mail-link",
        label=_("Mail the link to “My data”"),
        question=_(
            "The address gets a mail with the link to the page where everything held can be seen and taken along."
        ),
        done=_("The link is mailed, and the case is done."),
        call=_mail_link,
        is_offered=lambda case: _is_open(case) and case.kind == Kind.ACCESS,
        is_usual=True,
    ),
    Act(
        name="close",
        label=_("Note as done"),
        question=_("The case was answered in another way."),
        done=_("The case is done."),
        call=_close,
        is_offered=_is_open,
        form=OutcomeForm,
    ),
    Act(
        name="extend",
        label=_("Extend the deadline"),
        question=_("Difficult or many wishes may take two months more, once (GDPR Art. 12(3))."),
        done=_("The deadline is extended."),
        call=_extend,
        is_offered=lambda case: (
            _is_open(case) and not case.extended_at and case.urgency(timezone.localdate()) != RightsCase.Warning.OVERDUE
        ),
        form=ReasonForm,
    ),
    Act(
        name="refuse",
        label=_("Refuse"),
        question=_(
            "The case ends with a reason. Our mail names the supervisory authority and the way to court as well; do the"
            " same if you tell the reader yourself (GDPR Art. 12(4))."
        ),
        done=_("The case is refused."),
        call=_refuse,
        is_offered=_is_open,
        form=ReasonForm,
        is_grave=True,
    ),
)


def enter(request: HttpRequest) -> HttpResponse:
    """Enter a letter or a call. By POST: an address in a URL ends in a log."""
    _check_handles(request)
    form = LetterForm(request.POST or None, initial=_picked(request))
    if not form.is_valid() or "edit" in request.POST:
        return _page(request, "enter.html", title=_("Enter a letter or a call"), form=form)
    does = request.POST.get("act") != "note"
    if does and form.cleaned_data["kind"] == Kind.ERASE and request.POST.get("sure") != "yes":
        return _page(
            request, "sure.html", title=_("Delete everything?"), form=form, what_stays=privacy.what_stays(),
            address=form.cleaned_data["address"].display,
        )  # fmt: skip
    return _entered(request, form.letter(), does=does)


def _entered(request: HttpRequest, letter: Letter, *, does: bool) -> HttpResponse:
    by, now = desk.actor(request), timezone.now()
    with transaction.atomic():
        case, is_new = cases.enter(letter, by=by, now=now)
        done = does and is_new and letter.kind in letters.ACTS
        outcome = letters.carry_out(case, by=by, now=now) if done else ""
    if outcome:
        messages.success(request, outcome)
    elif is_new:
        messages.info(request, gettext("The case is entered and open."))
    else:
        messages.info(request, gettext("This form was sent before; it counts once."))
    return _to_case(case)


def _picked(request: HttpRequest) -> dict[str, Any]:
    """Begin with a reader whose page staff come from, by his number."""
    start: dict[str, Any] = {"received_on": timezone.localdate()}
    number = request.GET.get("reader", "")
    reader = Subscriber.objects.filter(pk=number).first() if number.isdecimal() and len(number) < 19 else None
    return {**start, "address": reader.address} if reader else start


def show(request: HttpRequest, case: RightsCase) -> HttpResponse:
    if not may_look(request):
        raise PermissionDenied
    logger.info("Case %s was looked at by staff %s.", case.pk, request.user.pk)
    return _page(
        request,
        "page.html",
        title=str(case),
        case=case,
        address=_shown(request, case.address),
        new_address=_shown(request, case.new_address),
        entered_by=desk.account_name(case.entered_by),
        closed_by=desk.account_name(case.closed_by),
        due=due_text(case, timezone.localdate()),
        urgency=case.urgency(timezone.localdate()),
        acts=[act for act in ACTS if act.is_offered(case)] if may_handle(request) else [],
        may_export=may_handle(request) and case.kind == Kind.ACCESS and case.address,
        may_see_evidence=request.user.has_perm(SEE_EVIDENCE),
    )


def _shown(request: HttpRequest, address: str) -> str:
    return address if may_handle(request) else address and mask(address)


def act(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    """Ask before an act, then do it."""
    _check_handles(request)
    case = get_object_or_404(RightsCase, pk=pk)
    chosen = next((act for act in ACTS if act.name == name), None)
    if chosen is None:
        raise Http404
    if not chosen.is_offered(case):  # somebody else was faster, or the form was sent twice
        messages.info(request, gettext("This cannot be done to this case any more."))
        return _to_case(case)
    form = chosen.form(request.POST if request.method == "POST" else None, initial=_initial(case))
    if request.method == "POST" and form.is_valid():
        _do(request, chosen, case, form.cleaned_data)
        return _to_case(case)
    erases = chosen.name == "carry-out" and case.kind == Kind.ERASE
    return _page(
        request, "ask.html", title=f"{case}: {chosen.label}", case=case, act=chosen, form=form,
        what_stays=privacy.what_stays() if erases else [], is_grave=chosen.is_grave or erases,
    )  # fmt: skip


def _do(request: HttpRequest, chosen: Act, case: RightsCase, values: dict[str, Any]) -> None:
    try:
        if chosen.call(request, case, values):
            case.refresh_from_db()
            outcome = case.outcome if chosen.name == "carry-out" else ""
            messages.success(request, outcome or str(chosen.done))
        else:
            messages.info(request, gettext("This cannot be done to this case any more."))
    except TooLate as error:
        messages.error(request, str(error))


def _initial(case: RightsCase) -> dict[str, Any]:
    return {"tells": ReasonForm.BY_MAIL if case.way == Way.MAIL else ReasonForm.OTHERWISE}


def export(request: HttpRequest, pk: int) -> HttpResponse:
    """Answer a wish for access with the file, to be sent or printed. It holds the evidence, so the look is noted."""
    _check_handles(request)
    if not request.user.has_perm(SEE_EVIDENCE):
        raise PermissionDenied
    case = get_object_or_404(RightsCase, pk=pk, kind=Kind.ACCESS)
    if request.method != "POST" or not case.address:
        return _to_case(case)
    now = timezone.now()
    evidence.note_view(case.address_key, actor=desk.actor(request), way=EvidenceView.Way.ACCESS, now=now)
    content = exporting.export_file(case.address, case.address_key, now=now)
    headers = {"Content-Disposition": f'attachment; filename="{exporting.file_name(now)}"'}
    return HttpResponse(content, content_type="application/zip", headers=headers)


def due_text(case: RightsCase, today: date) -> str:
    """Say in words how a deadline stands; nothing for a case that is closed."""
    if not _is_open(case):
        return ""
    days = (case.due_on - today).days
    if days < 0:
        return (
            gettext("overdue since %(days)d days") % {"days": -days}
            if days < -1
            else gettext("overdue since yesterday")
        )
    if days == 0:
        return gettext("due today")
    return gettext("%(days)d days left") % {"days": days} if days > 1 else gettext("due tomorrow")


def _check_handles(request: HttpRequest) -> None:
    if not may_handle(request):
        raise PermissionDenied


def _to_case(case: RightsCase) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:subscriptions_rightscase_change", args=[case.pk]))


def _page(request: HttpRequest, template: str, **context: Any) -> HttpResponse:
    context = {**admin.site.each_context(request), **context}
    return render(request, f"admin/subscriptions/rightscase/{template}", context)
