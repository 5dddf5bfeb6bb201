from celery import shared_task
from django.utils import timezone

from newsroom.mail import alarms, outbox


@shared_task
def send_outbox() -> None:
    """Send the service mails that are due."""
    outbox.send_due(timezone.now())


@shared_task
def watch_alarms() -> None:
    """Mail staff what has begun to be wrong, and what is over."""
    alarms.watch(timezone.now())
