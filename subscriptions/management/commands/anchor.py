from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from subscriptions import anchoring


class Command(BaseCommand):
    help = "Print the head of the ledger as `audit --anchor` takes it, log it, and mail it to the officer once a day."

    def handle(self, *args: Any, **options: Any) -> None:
        head = anchoring.anchor(timezone.now())
        if head is None:
            self.stdout.write("The ledger has no seal yet.")
        else:
            self.stdout.write(f"{anchoring.written(head)} {head.sealed_at.isoformat(timespec='seconds')}")
