"""What is purged of service mails, and when."""

from datetime import datetime

from django.conf import settings

from newsroom.mail.models import OutboxMail

DONE = [OutboxMail.State.SENT, OutboxMail.State.WITHHELD, OutboxMail.State.FAILED]


def purge(now: datetime) -> dict[str, int]:
    """Delete mails that are done, along with the sign-ups that caused them."""
    done = OutboxMail.objects.filter(state__in=DONE, created_at__lt=now - settings.SIGN_UP_RETENTION)
    return {"service_mails": done.delete()[0]}
