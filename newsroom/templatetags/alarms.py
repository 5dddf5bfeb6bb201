"""What staff must know, for the admin's start page."""

from django import template
from django.template import Context
from django.utils import timezone

from newsroom.mail import alarms
from newsroom.mail.alarms import Alarm

register = template.Library()


@register.simple_tag(takes_context=True)
def current_alarms(context: Context) -> list[Alarm]:
    """Return what is wrong now and concerns the account."""
    user = context["request"].user
    return [
        alarm
        for alarm in alarms.current(timezone.now())
        if user.is_staff and (not alarm.permission or user.has_perm(alarm.permission))
    ]
