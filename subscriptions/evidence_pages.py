"""The pages of the desk that show evidence: with a permission of their own, and never without a trace (R-14)."""

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from newsroom.mail.addresses import Address, InvalidAddress, canonicalise
from subscriptions import evidence, evidence_pdf
from subscriptions.models import EvidenceView, Subscriber

Way = EvidenceView.Way


class AddressForm(forms.Form):
    address = forms.CharField(
        label=_("E-mail address"),
        max_length=320,
        widget=forms.TextInput(attrs={"autocomplete": "off", "size": 40}),
        help_text=_("Your name, the time and a keyed hash of the address are written down when you look."),
    )
    way = forms.ChoiceField(
        label=_("way"),
        choices=[(way.value, way.label) for way in (Way.PAGE, Way.PDF, Way.JSON)],
        initial=Way.PAGE,
    )

    def clean_address(self) -> Address:
        try:
            return canonicalise(self.cleaned_data["address"])
        except InvalidAddress as error:
            raise forms.ValidationError(str(error)) from None


def may_see(request: HttpRequest) -> bool:
    return request.user.has_perm("subscriptions.view_evidence")


def of_reader(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the evidence of a reader, one click from his page."""
    _check(request)
    reader = get_object_or_404(Subscriber, pk=pk)
    return _shown(request, reader.address, reader.address_key, Way.PAGE)


def of_address(request: HttpRequest) -> HttpResponse:
    """Ask for an address and answer with its evidence. By POST: an address in a URL ends in a log."""
    _check(request)
    form = AddressForm(request.POST or None)
    if form.is_valid():
        address: Address = form.cleaned_data["address"]
        return _shown(request, address.canonical, address.key, Way(form.cleaned_data["way"]))
    title = _("Evidence for an address")
    context = {**admin.site.each_context(request), "title": title, "form": form}
    return render(request, "admin/subscriptions/evidenceview/ask.html", context)


def _check(request: HttpRequest) -> None:
    if not may_see(request):
        raise PermissionDenied


def _shown(request: HttpRequest, address: str, address_key: str, way: EvidenceView.Way) -> HttpResponse:
    now = timezone.now()
    evidence.note_view(address_key, actor=f"staff:{request.user.pk}", way=way, now=now)
    found = evidence.collect(address, address_key, now=now)
    name = f"nachweis-{timezone.localtime(now):%Y-%m-%d-%H%M%S}"
    if way == Way.PDF:
        return _file(evidence_pdf.as_pdf(found), f"{name}.pdf", "application/pdf")
    if way == Way.JSON:
        return _file(evidence.as_json(found).encode(), f"{name}.json", "application/json")
    title = _("Evidence for an address")
    context = {**admin.site.each_context(request), "title": title, "address": address, "blocks": evidence.blocks(found)}
    return render(request, "admin/subscriptions/evidenceview/page.html", context)


def _file(content: bytes, name: str, content_type: str) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(content, content_type=content_type, headers=headers)
