from datetime import datetime
from functools import cached_property
from typing import Any, Self

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from newsroom.mail.addresses import MAX_TYPED_LENGTH, Address, InvalidAddress, canonicalise
from subscriptions import wording
from subscriptions.reader_forms import Staleness, Stamp, read_stamp


class Shared:
    """A field that is the same in all forms of its kind: else Django copies each for each form, which costs a third."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class NewslettersField(Shared, forms.MultipleChoiceField):
    """Any newsletters, by their slugs; which of them can be chosen, the form knows."""

    def __init__(self) -> None:
        super().__init__(error_messages={"required": _("Please choose at least one newsletter.")})

    def valid_value(self, value: str) -> bool:
        return True


class AddressField(Shared, forms.CharField):
    """A field whose value is an `Address`; what cannot be mailed is refused with a sentence that says why."""

    def __init__(self) -> None:
        super().__init__(
            max_length=MAX_TYPED_LENGTH,
            error_messages={
                "required": _("Please enter your e-mail address."),
                "max_length": _("This e-mail address is too long. Please check it for typing errors."),
            },
        )

    def clean(self, value: str | None) -> Address:
        typed = super().clean(value)
        try:
            return canonicalise(typed)
        except InvalidAddress as error:
            raise forms.ValidationError(str(error), code="invalid") from None


class StampedForm(forms.Form):
    """A form with the signed stamp of its page, and a field that no reader sees and robots fill in.

    Neither is a field of Django's, for neither can be filled in wrongly.
    """

    def __init__(self, data: QueryDict | None = None) -> None:
        super().__init__(data, label_suffix="")  # no label is made of it, so none need be translated

    @property
    def is_trapped(self) -> bool:
        return bool(self.data.get("url"))

    @cached_property
    def shown(self) -> Stamp | None:
        return read_stamp(self.data.get("stamp", ""))

    def staleness(self, fingerprint: str, now: datetime) -> Staleness | None:
        """Say why the form, though filled in well, should be shown once more; None if it may pass."""
        return self.shown.staleness(fingerprint=fingerprint, now=now) if self.shown else Staleness.OLD


class SignUpForm(StampedForm):
    email = AddressField()
    newsletters = NewslettersField()

    def __init__(self, data: QueryDict | None = None, *, offer: wording.Offer) -> None:
        super().__init__(data)
        self.offer = offer

    def clean_newsletters(self) -> list[str]:
        slugs: list[str] = self.cleaned_data["newsletters"]
        if not {choice.newsletter.slug for choice in self.offer.choices}.issuperset(slugs):
            raise forms.ValidationError(
                _("One of the newsletters can no longer be chosen. Please choose again."), code="invalid_choice"
            )
        return slugs

    def may_pass(self, now: datetime) -> bool:
        return not self.is_trapped and self.is_valid() and not self.staleness(self.offer.fingerprint, now)

    @cached_property
    def chosen(self) -> wording.Offer:
        """The part of the offer that a valid form agrees to."""
        return self.offer.narrowed(self.cleaned_data["newsletters"])

    @property
    def ticked(self) -> list[str]:
        """The newsletters the reader ticked himself; none on a fresh form (CJEU C-673/17)."""
        return self.data.getlist("newsletters") if self.is_bound else []  # type: ignore[attr-defined]


class NewAddressForm(forms.Form):
    new_address = AddressField()


class RightsForm(StampedForm):
    email = AddressField()
