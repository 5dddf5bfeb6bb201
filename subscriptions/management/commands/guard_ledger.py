from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from subscriptions import guarding, ledger


class Command(BaseCommand):
    help = "Creates the ledger's triggers where some are missing. Look first who removed them, and run `audit`."

    def handle(self, *args: Any, **options: Any) -> None:
        missing = ledger.missing_triggers()
        guarding.create_triggers(connection)
        self.stdout.write(f"{len(missing)} triggers created: {', '.join(missing)}" if missing else "None was missing.")
