"""What is held about an address, to be read and to be taken along (GDPR Art. 15 and 20, R-31).

The file is a ZIP: `daten.json` for machines, by the schema that lies beside it; `lesen.html`, which tells the same in
words; and a note on how to use them. All come from the registry of `newsroom.persons`, so none can miss a table.
"""

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from newsroom import persons
from newsroom.mail import messages
from newsroom.persons.words import Passage, Row, Words
from subscriptions.models import Subscriber

SCHEMA = "newsroom-export/2"
SCHEMA_FILE = Path(__file__).with_name("export.schema.json")
# The names inside are the same in every language, so that programs find them.
DATA, PAGE, NOTE, DESCRIPTION = "daten.json", "lesen.html", "LIESMICH.txt", "daten.schema.json"
READABLE = 0o644 << 16

Rows = dict[str, list[Row]]


@dataclass(frozen=True, slots=True)
class Held:
    """A place where something is held about a reader, in words."""

    words: Words
    count: int
    passages: list[Passage]


def held(address_key: str) -> list[Held]:
    """Return what is held about an address, place by place, without the places that hold nothing."""
    return _told(_collect(address_key))


def export_file(address: str, address_key: str, *, now: datetime) -> bytes:
    """Return everything held about an address as one ZIP, in the reader's language; nothing of anybody else."""
    rows, content = _collect(address_key), io.BytesIO()
    with translation.override(_language(address_key)), zipfile.ZipFile(content, "w") as archive:
        context = {"address": address, "exported_at": now, "held": _told(rows), "about": about_processing()}
        context |= messages.publisher_context()
        _add(archive, NOTE, [messages.render_text("subscriptions/export/note.txt", context)], now)
        _add(archive, PAGE, [render_to_string("subscriptions/export/page.html", context)], now)
        _add(archive, DATA, _as_json(address, rows, now), now)
        _add(archive, DESCRIPTION, [SCHEMA_FILE.read_text(encoding="utf-8")], now)
    return content.getvalue()


def file_name(now: datetime) -> str:
    name = _("my-data")
    return f"{name}-{timezone.localdate(now).isoformat()}.zip"


def about_processing() -> dict[str, Any]:
    """Return the information of GDPR Art. 15(1) and (2), every period as configured."""
    recipients = [settings.HOSTING_PROVIDER, settings.MAIL_PROVIDER]
    return {
        "controller": settings.PUBLISHER,
        "data_protection_officer": settings.DPO,
        "purposes": [_purpose(holding.words) for holding in persons.holdings()],
        "recipients": [name for name in recipients if name] or [_("hosting and mail providers, bound by contract")],
        "third_countries": settings.THIRD_COUNTRY_TRANSFER
        or _("Nothing is transferred to countries outside the European Economic Area."),
        "source": _("You gave us the data yourself, on our forms and by pressing the buttons behind our links."),
        "rights": _(
            "You may ask for access, rectification, erasure, restriction and portability, object to the processing, and"
            " withdraw your consent at any time with effect for the future."
        ),
        "complaints_to": settings.SUPERVISORY_AUTHORITY,
        "automated_decisions": _("There are none, and no profiling."),
    }


def _purpose(words: Words) -> dict[str, str]:
    return {
        "data": str(words.title),
        "purpose": str(words.why),
        "legal_basis": str(words.legal_basis),
        "period": words.until(),
    }


def _collect(address_key: str) -> Rows:
    return {holding.name: holding.export(address_key) for holding in persons.holdings()}


def _told(rows: Rows) -> list[Held]:
    return [
        Held(holding.words, len(found), holding.words.tell(found))
        for holding in persons.holdings()
        if (found := rows[holding.name])
    ]


def _language(address_key: str) -> str:
    reader = Subscriber.objects.filter(address_key=address_key).values_list("language", flat=True).first()
    return reader or translation.get_language() or settings.LANGUAGE_CODE


def _as_json(address: str, rows: Rows, now: datetime) -> Iterable[str]:
    document = {
        "schema": SCHEMA,
        "exported_at": timezone.localtime(now).isoformat(timespec="seconds"),
        "address": address,
        "about": about_processing(),
        "data": rows,
    }
    return json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(document)


def _add(archive: zipfile.ZipFile, name: str, pieces: Iterable[str], now: datetime) -> None:
    """Write a file piece by piece, so that ten years of deliveries never stand in memory as one text."""
    entry = zipfile.ZipInfo(name, timezone.localtime(now).timetuple()[:6])
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, READABLE
    with archive.open(entry, "w") as file, io.TextIOWrapper(file, encoding="utf-8") as text:
        text.writelines(pieces)
