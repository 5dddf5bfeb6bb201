from celery import shared_task

from newsroom.mail import alarms, outbox
from newsroom.mail.clock import database_now


@shared_task
def send_outbox() -> None:
    """Send the service mails that are due."""
    outbox.send_due(database_now())


@shared_task
def watch_alarms() -> None:
    """Mail staff what has begun to be wrong, and what is over."""
    alarms.watch(database_now())
