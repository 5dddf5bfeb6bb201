"""What a reader does in tests: fills in forms, reads mails, follows links."""

import json
import re
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from zipfile import ZipFile

from django.core import mail
from django.test import Client
from django.utils import timezone

from newsroom.mail import outbox
from subscriptions import wording
from subscriptions.reader_forms import Stamp

IP = "203.0.113.77"


def a_reader() -> Client:
    """A browser that demands CSRF tokens where Django would, and shows any cookie it gets."""
    return Client(enforce_csrf_checks=True, REMOTE_ADDR=IP)


def stamp(*, age: timedelta = timedelta(minutes=1), page: str = "/newsletter/", fingerprint: str | None = None) -> str:
    shown = fingerprint or wording.offer("de").fingerprint
    return Stamp(timezone.now() - age, page, shown).signed()


def send_form(address: str, *newsletters: Any, client: Client | None = None, **fields: Any) -> Any:
    data = {"email": address, "newsletters": [new.slug for new in newsletters], "stamp": stamp(), "url": ""}
    return (client or a_reader()).post("/newsletter/", data | fields)


def sign_up(address: str, *newsletters: Any) -> str:
    """Send the form, wait for the mail and return the path of the link in it."""
    assert send_form(address, *newsletters).status_code == 303
    return link_in(last_mail(), "/newsletter/bestaetigen/")


def subscribe(address: str, *newsletters: Any) -> None:
    assert a_reader().post(sign_up(address, *newsletters)).status_code == 303


def open_rights_page(address: str) -> tuple[Client, Any]:
    """Ask for the link, use it, and return the browser with the opened page."""
    reader = a_reader()
    reader.post("/meine-daten/", {"email": address, "stamp": stamp(fingerprint="rights")})
    return reader, reader.post(link_in(last_mail(), "/meine-daten/"))


def form_token(page: Any) -> str:
    return re.findall(r'name="token" value="([^"]+)"', page.content.decode())[0]


def exported(answer: Any, name: str = "daten.json") -> Any:
    """A file of the export that was downloaded: the data read, anything else as text."""
    with ZipFile(BytesIO(answer.content)) as archive:
        text = archive.read(name).decode()
    return json.loads(text) if name == "daten.json" else text


def mails_to(address: str) -> list[Any]:
    outbox.send_due(timezone.now())
    return [message for message in mail.outbox if message.to == [address]]


def last_mail() -> Any:
    outbox.send_due(timezone.now())
    return mail.outbox[-1]


def link_in(message: Any, path: str) -> str:
    return re.findall(rf"https?://[^/]+({path}[\w-]+/)", message.body)[0]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
