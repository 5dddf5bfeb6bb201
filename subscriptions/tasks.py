from celery import shared_task
from django.utils import timezone

from subscriptions import ledger


@shared_task
def seal() -> None:
    ledger.seal(timezone.now())
