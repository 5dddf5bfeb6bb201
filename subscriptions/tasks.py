from celery import shared_task
from django.utils import timezone

from subscriptions import anchoring, cases, ledger


@shared_task
def seal() -> None:
    ledger.seal(timezone.now())


@shared_task
def anchor() -> None:
    anchoring.anchor(timezone.now())


@shared_task
def warn_of_deadlines() -> None:
    cases.warn_of_deadlines(timezone.now())
