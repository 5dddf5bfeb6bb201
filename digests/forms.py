from itertools import groupby
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.utils.dates import WEEKDAYS
from django.utils.translation import gettext_lazy as _

from digests.models import DigestSchedule
from subscriptions.models import Newsletter

MONDAY_TO_FRIDAY = 0b0011111


class WeekdaysField(forms.TypedMultipleChoiceField):
    """A choice of weekdays, kept as a number whose bit 0 is Monday."""

    widget = forms.CheckboxSelectMultiple

    def __init__(self, **options: Any) -> None:
        super().__init__(coerce=int, choices=list(WEEKDAYS.items()), **options)

    def prepare_value(self, value: Any) -> Any:
        return [day for day in WEEKDAYS if value >> day & 1] if isinstance(value, int) else value

    def clean(self, value: Any) -> int:
        return sum(1 << day for day in super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


def time_zone_choices() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the IANA zones by continent, as groups of a select."""
    zones = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "SystemV/")))
    by_continent = groupby(zones, key=lambda zone: zone.split("/")[0])
    places = [(continent, [(zone, zone.replace("_", " ")) for zone in group]) for continent, group in by_continent]
    return [("UTC", [("UTC", "UTC")]), *places]


class ScheduleForm(forms.ModelForm):
    weekdays = WeekdaysField(label=_("weekdays"), help_text=_("On these days a digest is made."))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if "time_zone" in self.fields:  # someone who may only look has none
            self.fields["time_zone"].widget.choices = time_zone_choices()

    class Meta:
        model = DigestSchedule
        fields = [
            "newsletter", "state", "weekdays", "local_time", "time_zone", "not_later_than", "sections",
            "minimum_articles", "maximum_articles", "approval", "latecomers", "uncertain_policy",
        ]  # fmt: skip
        labels = {"local_time": _("time of day")}
        widgets = {
            "sections": forms.CheckboxSelectMultiple,
            "approval": forms.RadioSelect,
            "latecomers": forms.RadioSelect,
            "uncertain_policy": forms.RadioSelect,
            "state": forms.RadioSelect,
            "time_zone": forms.Select,
            # The admin's own widget compares with the server's clock, which has no say here.
            "local_time": forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
            "not_later_than": forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
        }

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        self._check_times(values)
        self._check_counts(values)
        self._check_frequency(values)
        return values

    def _check_times(self, values: dict[str, Any]) -> None:
        start, end = values.get("local_time"), values.get("not_later_than")
        if start and end and end <= start:
            self.add_error("not_later_than", _("This must be later than the time at which the digest is made."))

    def _check_counts(self, values: dict[str, Any]) -> None:
        minimum, maximum = values.get("minimum_articles"), values.get("maximum_articles")
        if minimum is not None and minimum < 1:
            self.add_error("minimum_articles", _("A digest has at least one article."))
        elif minimum and maximum is not None and maximum < minimum:
            self.add_error("maximum_articles", _("This must not be less than the minimum."))

    def _check_frequency(self, values: dict[str, Any]) -> None:
        """Refuse to send more often than readers agreed to (KG Berlin 5 U 1043/20)."""
        newsletter, weekdays = values.get("newsletter"), values.get("weekdays")
        if newsletter is None or weekdays is None:
            return
        if newsletter.frequency == Newsletter.Frequency.WEEKLY and weekdays.bit_count() > 1:
            self.add_error("weekdays", _("Readers agreed to one digest a week: choose one day."))
        if newsletter.frequency == Newsletter.Frequency.WEEKDAYS and weekdays & ~MONDAY_TO_FRIDAY:
            self.add_error("weekdays", _("Readers agreed to digests from Monday to Friday only."))


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=_("Reason"), max_length=200, help_text=_("It stands in the digest's history, for your colleagues.")
    )
