import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from digests import bounces, events
from digests.clock import database_now

# What Postfix and others take as "try again later" (sysexits.h).
TEMPORARY_FAILURE = 75
# Where mail servers tell a pipe whom the mail was delivered to.
RECIPIENT_VARIABLES = ("ORIGINAL_RECIPIENT", "RECIPIENT")


class Command(BaseCommand):
    help = (
        "Takes in a mail that came back to BOUNCE_ADDRESS, from standard input; or the new ones of a Maildir, of which "
        "it removes those it understands and leaves the others there as seen. It never answers."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--recipient", action="append", default=[], help="whom the mail was delivered to")
        parser.add_argument("--maildir", type=Path, help="the folder that holds new, cur and tmp")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.BOUNCE_ADDRESS:
            raise CommandError("BOUNCE_ADDRESS is not set: no mail of ours returns to where it could be told apart.")
        try:
            if options["maildir"] is not None:
                self._take_in_maildir(options["maildir"])
            else:
                self._take_in(sys.stdin.buffer.read(bounces.LONGEST_READ), recipients=self._recipients(options))
        except DatabaseError as error:
            self.stderr.write(f"The database cannot take it now: {type(error).__name__}")
            raise SystemExit(TEMPORARY_FAILURE) from None

    def _recipients(self, options: dict[str, Any]) -> list[str]:
        told = [os.environ[name] for name in RECIPIENT_VARIABLES if name in os.environ]
        return [*options["recipient"], *told]

    def _take_in(self, content: bytes, *, recipients: list[str]) -> bool:
        returned = bounces.understand(content, recipients=recipients)
        if returned is None:
            self.stdout.write("No report of a mail of ours; nothing is done.")
            return False
        events.store(bounces.SOURCE, {returned.key: json.dumps(returned.as_raw())}, now=database_now())
        self.stdout.write(f"Taken in: {returned.kind}")
        return True

    def _take_in_maildir(self, maildir: Path) -> None:
        if not all((maildir / name).is_dir() for name in ("new", "cur")):
            raise CommandError("This is no Maildir: it lacks the folders new and cur.")
        for path, content in _new_mails(maildir):
            if self._take_in(content, recipients=[]):
                path.unlink(missing_ok=True)
            elif path.exists():
                path.rename(maildir / "cur" / f"{path.name}:2,")


def _new_mails(maildir: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted((maildir / "new").iterdir()):
        try:
            with path.open("rb") as file:
                yield path, file.read(bounces.LONGEST_READ)
        except (FileNotFoundError, IsADirectoryError):  # another program was faster
            continue
