from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from subscriptions import ledger


class Command(BaseCommand):
    help = "Seal all consent records that have no seal yet."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{ledger.seal(timezone.now())} records sealed.")
