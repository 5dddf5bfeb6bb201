import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from digests import delivery, restoring, sweeping
from digests.clock import database_now
from digests.models import DeliveryBatch

POLL_SECONDS = 1.0


class Command(BaseCommand):
    help = "Hands over all due batches until none is left, without a broker. With --once, each at most once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Do not wait for batches that are due later.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not restoring.count(database_now()):
            raise CommandError(restoring.find_obstacle())  # it would wait for a person for ever
        worked = self.deliver()
        while not options["once"] and DeliveryBatch.objects.open().filter(digest__state="sending").exists():
            time.sleep(POLL_SECONDS)
            worked += self.deliver()
        self.stdout.write(f"{worked} batches")

    def deliver(self) -> int:
        sweeping.sweep(database_now())
        worked = delivery.deliver_due()
        sweeping.sweep(database_now())
        return worked
