from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from newsroom.mail.addresses import InvalidAddress, canonicalise
from newsroom.management import traces


class Command(BaseCommand):
    help = (
        "Say where an address still stands: every table, and the files under var/. Ends with 1 if it stands anywhere"
        " but in the restricted evidence. Also found are longer addresses that contain this one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, address: str, **options: Any) -> None:
        try:
            found = list(traces.find(canonicalise(address)))
        except InvalidAddress as error:
            raise CommandError(str(error)) from None
        for trace in found:
            self.stdout.write(f"{trace.place}: {trace.count}{' (restricted evidence)' if trace.is_restricted else ''}")
        free = sum(trace.count for trace in found if not trace.is_restricted)
        restricted = sum(trace.count for trace in found if trace.is_restricted)
        self.stdout.write(f"Traces outside the restricted evidence: {free}; within it: {restricted}.")
        if free:
            raise SystemExit(1)
