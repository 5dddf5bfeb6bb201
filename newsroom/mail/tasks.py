from celery import shared_task
from django.utils import timezone

from newsroom.mail import outbox


@shared_task
def send_outbox() -> None:
    """Send the service mails that are due."""
    outbox.send_due(timezone.now())
