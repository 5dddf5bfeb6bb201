from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from newsroom.tasks import broken_invariants
from subscriptions import ledger
from subscriptions.audit import notes


class Command(BaseCommand):
    help = "Check every promise against the tables. Ends with 1 and a list if one is broken."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--anchor",
            action="append",
            default=[],
            metavar="NUMBER:HASH",
            help="a head of the ledger noted earlier (see `anchor`): is it still in the chain?",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        noted = [_read(text) for text in options["anchor"]]
        anchors = [ledger.check_anchor(number, seal_hash) for number, seal_hash in noted]
        broken = [*filter(None, anchors), *broken_invariants(timezone.now())]
        for sentence in broken:
            self.stdout.write(sentence)
        for note in notes(timezone.now()):
            self.stdout.write(f"Note: {note}")
        if broken:
            raise SystemExit(1)
        self.stdout.write("All promises hold.")


def _read(anchor: str) -> tuple[int, str]:
    number, _colon, seal_hash = anchor.strip().partition(":")
    if not (number.isascii() and number.isdigit() and len(seal_hash) == 64):
        raise CommandError(f"“{anchor}” is not of the form NUMBER:HASH.")
    return int(number), seal_hash
