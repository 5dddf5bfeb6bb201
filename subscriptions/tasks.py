from celery import shared_task
from django.utils import timezone

from subscriptions import anchoring, ledger


@shared_task
def seal() -> None:
    ledger.seal(timezone.now())


@shared_task
def anchor() -> None:
    anchoring.anchor(timezone.now())
