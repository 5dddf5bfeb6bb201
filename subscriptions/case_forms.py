"""What staff fill in about readers' cases. One page for a letter or a call, so that it is done within a minute."""

from collections.abc import Iterable
from datetime import date
from typing import Any
from uuid import uuid4

from django import forms
from django.db.models import TextChoices
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from newsroom.mail.addresses import Address, InvalidAddress, canonicalise
from subscriptions.cases import Letter
from subscriptions.models import Newsletter, RightsCase

Kind, Way = RightsCase.Kind, RightsCase.Way

GDPR_APPLIES_SINCE = date(2018, 5, 25)
# Staff enter what came in; what readers do on the page is recorded by itself.
WAYS = [way for way in Way if way != Way.PAGE]


def _offered(choices: Iterable[TextChoices]) -> list[tuple[str, str]]:
    return [(choice.value, capfirst(str(choice.label))) for choice in choices]


class AddressField(forms.CharField):
    """An address in any spelling, as the reader gave it."""

    def __init__(self, **options: Any) -> None:
        widget = forms.TextInput(attrs={"autocomplete": "off", "inputmode": "email", "spellcheck": "false"})
        super().__init__(max_length=320, widget=widget, **options)

    def clean(self, value: Any) -> Address | None:
        typed = super().clean(value)
        try:
            return canonicalise(typed) if typed else None
        except InvalidAddress as error:
            raise forms.ValidationError(str(error)) from None


class LetterForm(forms.Form):
    uuid = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)
    address = AddressField(
        label=_("E-mail address of the reader"),
        help_text=_("It need not be known to us: an objection counts all the same."),
    )
    kind = forms.ChoiceField(label=_("What is asked"), choices=lambda: _offered(Kind), widget=forms.RadioSelect)
    newsletters = forms.ModelMultipleChoiceField(
        label=_("Which newsletters"),
        queryset=Newsletter.objects.all(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Only for “end some newsletters”."),
    )
    new_address = AddressField(
        label=_("New address"),
        required=False,
        help_text=_("Only for a change of address. The new one is asked by mail to confirm it."),
    )
    way = forms.ChoiceField(label=_("How it came in"), choices=lambda: _offered(WAYS), widget=forms.RadioSelect)
    received_on = forms.DateField(
        label=_("Received on"),
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
        help_text=_("The day on the stamp of receipt, not today's: the month to answer in begins then."),
    )
    note = forms.CharField(
        label=_("Internal note"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Such as where the letter is filed. The reader sees the note when asking for access."),
    )

    def clean_received_on(self) -> date:
        received_on: date = self.cleaned_data["received_on"]
        if received_on > timezone.localdate():
            raise forms.ValidationError(_("This day is still to come."))
        if received_on < GDPR_APPLIES_SINCE:
            raise forms.ValidationError(_("Please check the year."))
        return received_on

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("kind") == Kind.WITHDRAW and not values.get("newsletters"):
            self.add_error("newsletters", _("Please tick the newsletters that are to end."))
        if values.get("kind") == Kind.RECTIFY and "new_address" in values:
            self._check_new_address(values["new_address"], values.get("address"))
        return values

    def _check_new_address(self, new: Address | None, old: Address | None) -> None:
        if new is None:
            self.add_error("new_address", _("Please enter the new address."))
        elif old and new.canonical == old.canonical:
            self.add_error("new_address", _("This is the address it is now."))

    def letter(self) -> Letter:
        values = self.cleaned_data
        kind = Kind(values["kind"])
        return Letter(
            uuid=values["uuid"],
            kind=kind,
            way=Way(values["way"]),
            address=values["address"],
            received_on=values["received_on"],
            newsletters=values["newsletters"] if kind == Kind.WITHDRAW else (),
            new_address=values["new_address"] if kind == Kind.RECTIFY else None,
            note=values["note"],
        )


class OutcomeForm(forms.Form):
    outcome = forms.CharField(
        label=_("What was done"),
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Such as “file sent by post”. The reader sees it when asking for access."),
    )


class ReasonForm(forms.Form):
    """A reason the reader has to be told, and how that happens."""

    BY_MAIL, OTHERWISE = "mail", "otherwise"

    reason = forms.CharField(
        label=_("Reason, in words for the reader"), max_length=1000, widget=forms.Textarea(attrs={"rows": 4})
    )
    tells = forms.ChoiceField(
        label=_("The reader is told"),
        choices=[
            (BY_MAIL, _("by a mail of ours to the address, now")),
            (OTHERWISE, _("in another way, which I see to today (letter, call)")),
        ],
        widget=forms.RadioSelect,
        help_text=_("The law wants the reader to be told within a month of receipt (GDPR Art. 12(3) and (4))."),
    )
