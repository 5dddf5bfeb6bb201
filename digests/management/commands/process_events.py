from typing import Any

from django.core.management.base import BaseCommand

from digests import events
from digests.clock import database_now


class Command(BaseCommand):
    help = "Does what the waiting reports of mail providers ask for, as the beat entry “events” does."

    def handle(self, *args: Any, **options: Any) -> None:
        counts = events.process(database_now())
        for state, count in sorted(counts.items()):
            self.stdout.write(f"{count} {state}")
        if not counts:
            self.stdout.write("Nothing waits.")
