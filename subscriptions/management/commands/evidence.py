import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.loader import render_to_string
from django.utils import timezone

from newsroom.mail.addresses import Address, InvalidAddress, canonicalise
from subscriptions import ledger


class Command(BaseCommand):
    help = (
        "Print everything on record about an address: what was consented to, in which words, and what was done with it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("--html", action="store_true", help="as a page to print, instead of JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        address = _address(options["address"])
        records = ledger.evidence(address.key)
        if options["html"]:
            context = {
                "address": address.canonical,
                "records": records,
                "broken": ledger.verify(),
                "printed_at": timezone.now(),
            }
            self.stdout.write(render_to_string("subscriptions/evidence.html", context))
        else:
            self.stdout.write(json.dumps(records, indent=2, ensure_ascii=False))


def _address(typed: str) -> Address:
    try:
        return canonicalise(typed)
    except InvalidAddress as error:
        raise CommandError(str(error)) from None
