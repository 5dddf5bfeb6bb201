from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from subscriptions import erasures, replaying


class Command(BaseCommand):
    help = (
        "After a restored backup: erase again whom the erasure journal names, so that mail may go. Readers who signed"
        " up again after their erasure stay. Safe to run at any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--journal-is-lost",
            action="store_true",
            help="go on without the part of the journal that is missing; erased readers may then be mailed again",
        )

    def handle(self, *args: Any, journal_is_lost: bool = False, **options: Any) -> None:
        if erasures.is_incomplete() and not journal_is_lost:
            raise CommandError(
                "The erasure journal is missing or shorter than this database knew it, or begins after this backup was"
                " made. Bring it back, or restore a younger backup; if that is lost for good, add --journal-is-lost."
            )
        self.stdout.write(f"Erased again: {replaying.replay(timezone.now())}")
