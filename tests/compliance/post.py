"""What the requirements are shown on: the site's forms on one side, an SMTP server's mail on the other."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.test import Client
from django.utils import timezone

from digests import delivery, release
from digests.models import Digest
from newsroom.mail import outbox
from subscriptions.models import Newsletter, PrivacyRequest, SignUp
from tests.makers import make_digest
from tests.stand_ins import Received, SmtpStandIn
from tests.subscriptions.reading import a_reader, form_token, send_form, stamp

CONFIRM = "/newsletter/bestaetigen/"
LEAVE = "/newsletter/abmelden/"
RIGHTS = "/meine-daten/"
ENTER = "/admin/subscriptions/rightscase/add/"
WHY = "/newsletter/warum/"


@dataclass
class Post:
    server: SmtpStandIn

    def all(self) -> list[Received]:
        """Let everything go that is due, and return all mail there ever was."""
        outbox.send_due(timezone.now())
        return self.server.received

    def to(self, address: str) -> list[Received]:
        return [mail for mail in self.all() if mail.recipients == [address]]

    def subscribe(self, address: str, *newsletters: Newsletter) -> None:
        """Send the form and press the button in the mail."""
        SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))  # not one sign-up right after another
        assert send_form(address, *newsletters).status_code == 303
        assert a_reader().post(link_in(self.to(address)[-1], CONFIRM)).status_code == 303

    def issue(self, newsletter: Newsletter, **values: Any) -> list[Received]:
        """Let an issue come out and return the mails with it."""
        before = len(self.all())
        freeze(newsletter, **values)
        delivery.deliver_due()
        return self.all()[before:]

    def rights_page(self, address: str) -> tuple[Client, str]:
        """Ask for the link, press its button; return the browser and the token of the opened page's forms."""
        PrivacyRequest.objects.update(requested_at=timezone.now() - timedelta(hours=1))
        reader = a_reader()
        reader.post(RIGHTS, {"email": address, "stamp": stamp(fingerprint="rights")})
        page = reader.post(link_in(self.to(address)[-1], RIGHTS))
        assert page.status_code == 200
        return reader, form_token(page)

    def erase(self, address: str) -> None:
        reader, token = self.rights_page(address)
        assert reader.post("/meine-daten/loeschen/", {"token": token, "sure": "yes"}).status_code == 200


def freeze(newsletter: Newsletter, **values: Any) -> Digest:
    """Begin to send an issue: its readers are set, nothing is handed over yet."""
    digest = make_digest(newsletter, **values)
    assert release.start_sending(digest, now=timezone.now())
    return digest


def link_in(mail: Received, path: str) -> str:
    return re.findall(rf"https?://[^/\s]+({path}[\w-]{{20,}}/)", mail.text)[0]


def enter_letter(staff: Client, address: str, kind: str, **fields: Any) -> None:
    """Enter what came by letter, and do it at once."""
    today = timezone.localdate().isoformat()
    values = {"uuid": str(uuid4()), "address": address, "kind": kind, "way": "letter", "received_on": today}
    assert staff.post(ENTER, {**values, "act": "do", "sure": "yes", **fields}).status_code == 302
