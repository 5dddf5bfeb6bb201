"""Periods in words: “72 hours”, “90 days”, “3 years”."""

from datetime import timedelta

from django import template
from django.utils.translation import npgettext

register = template.Library()

_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)
# Up to here people count a deadline in hours.
_COUNTED_IN_HOURS = timedelta(hours=72)


@register.filter
def period(value: timedelta) -> str:
    """Return the period in its largest whole unit, as it stands after “for”."""
    unit, count = _in_largest_unit(value)
    words = {
        _YEAR: npgettext("for", "%(count)d year", "%(count)d years", count),
        _DAY: npgettext("for", "%(count)d day", "%(count)d days", count),
        _HOUR: npgettext("for", "%(count)d hour", "%(count)d hours", count),
        _MINUTE: npgettext("for", "%(count)d minute", "%(count)d minutes", count),
    }
    return words[unit] % {"count": count}


@register.filter
def after_period(value: timedelta) -> str:
    """Return the period as it stands after “after”, where German words end differently."""
    unit, count = _in_largest_unit(value)
    words = {
        _YEAR: npgettext("after", "%(count)d year", "%(count)d years", count),
        _DAY: npgettext("after", "%(count)d day", "%(count)d days", count),
        _HOUR: npgettext("after", "%(count)d hour", "%(count)d hours", count),
        _MINUTE: npgettext("after", "%(count)d minute", "%(count)d minutes", count),
    }
    return words[unit] % {"count": count}


def _in_largest_unit(value: timedelta) -> tuple[timedelta, int]:
    if value and not value % _YEAR:
        return _YEAR, value // _YEAR
    if value > _COUNTED_IN_HOURS and not value % _DAY:
        return _DAY, value // _DAY
    if value and not value % _HOUR:
        return _HOUR, value // _HOUR
    return _MINUTE, value // _MINUTE
