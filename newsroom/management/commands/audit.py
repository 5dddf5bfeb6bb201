from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from newsroom.tasks import broken_invariants


class Command(BaseCommand):
    help = "Check every promise against the tables. Ends with 1 and a list if one is broken."

    def handle(self, *args: Any, **options: Any) -> None:
        broken = broken_invariants(timezone.now())
        for sentence in broken:
            self.stdout.write(sentence)
        if broken:
            raise SystemExit(1)
        self.stdout.write("All promises hold.")
