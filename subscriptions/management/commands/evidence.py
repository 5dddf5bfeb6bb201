from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.loader import render_to_string
from django.utils import timezone

from newsroom.mail.addresses import Address, InvalidAddress, canonicalise
from subscriptions import evidence, evidence_pdf
from subscriptions.models import EvidenceView


class Command(BaseCommand):
    help = (
        "Print everything on record about an address: what was consented to, in which words, and what was done with it."
        " That somebody looked is noted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--html", action="store_true", help="as a page to print, instead of JSON")
        form.add_argument("--pdf", type=Path, metavar="FILE", help="as a document to print, into this file")

    def handle(self, *args: Any, **options: Any) -> None:
        address, now = _address(options["address"]), timezone.now()
        evidence.note_view(address.key, actor="command line", way=EvidenceView.Way.COMMAND, now=now)
        found = evidence.collect(address.canonical, address.key, now=now)
        if options["pdf"]:
            options["pdf"].write_bytes(evidence_pdf.as_pdf(found))
            self.stdout.write(f"{len(found.entries)} records written to {options['pdf']}.")
        elif options["html"]:
            self.stdout.write(render_to_string("subscriptions/evidence.html", {"blocks": evidence.blocks(found)}))
        else:
            self.stdout.write(evidence.as_json(found))


def _address(typed: str) -> Address:
    try:
        return canonicalise(typed)
    except InvalidAddress as error:
        raise CommandError(str(error)) from None
