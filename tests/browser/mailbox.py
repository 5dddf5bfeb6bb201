"""The demo's mailbox, read the way a mail program reads one: whole messages, newest last."""

import email
import email.policy
import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from html import unescape

POLL = 0.25  # seconds
SERVICE_PATIENCE = 20.0  # a confirmation is mailed by the worker within seconds
DIGEST_PATIENCE = 180.0  # tick comes every minute


@dataclass(frozen=True, slots=True)
class Mail:
    site: str
    id: str
    message: EmailMessage

    @property
    def to(self) -> str:
        return str(self.message["To"])

    @property
    def subject(self) -> str:
        return str(self.message["Subject"]).strip()  # a long one begins on the header's second line

    @property
    def text(self) -> str:
        return self._part("plain")

    @property
    def html(self) -> str:
        return self._part("html")

    @property
    def page(self) -> str:
        """Where the mailbox shows it."""
        return f"{self.site}/postfach/sent/{self.id}/"

    def link(self, path: str) -> str:
        """Return the link to this part of the site; HTML and text must give the same one."""
        links = {link for link in self.links() if link.startswith(self.site + path)}
        assert len(links) == 1, links
        (link,) = links
        assert link in self.text
        return link

    def links(self) -> list[str]:
        return list(dict.fromkeys(unescape(url) for url in re.findall(r'\bhref="([^"]+)"', self.html)))

    def pictures(self) -> list[str]:
        return list(dict.fromkeys(unescape(url) for url in re.findall(r'<img\b[^>]*\bsrc="([^"]+)"', self.html)))

    def _part(self, subtype: str) -> str:
        part = self.message.get_body([subtype])
        assert part is not None, f"{self.subject} has no {subtype} part."
        return str(part.get_content())


class Mailbox:
    def __init__(self, site: str) -> None:
        self._site = site
        self._read: dict[str, Mail] = {}

    def mails(self, to: str) -> list[Mail]:
        """Return what has arrived for an address, in the order of arrival."""
        for mail_id in re.findall(r"/postfach/sent/([0-9a-f-]+)/\"", self._get("/postfach/").decode()):
            if mail_id not in self._read:
                self._read[mail_id] = self._fetch(mail_id)
        return [mail for _, mail in sorted(self._read.items()) if mail.to == to]

    def wait_for(
        self, to: str, is_it: Callable[[Mail], bool] = lambda _mail: True, *, patience: float = SERVICE_PATIENCE
    ) -> Mail:
        """Return the newest mail to the address that is the one; it may take a while to come."""
        deadline = time.monotonic() + patience
        while True:
            found = [mail for mail in self.mails(to) if is_it(mail)]
            if found:
                return found[-1]
            subjects = [mail.subject for mail in self.mails(to)]
            assert time.monotonic() < deadline, f"No such mail for {to} within {patience} seconds, only {subjects}."
            time.sleep(POLL)

    def _fetch(self, mail_id: str) -> Mail:
        message = email.message_from_bytes(self._get(f"/postfach/sent/{mail_id}/eml/"), policy=email.policy.default)
        return Mail(self._site, mail_id, message)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._site + path, timeout=10) as response:
            return response.read()


def holds(path: str) -> Callable[[Mail], bool]:
    """Say of a mail whether it links to this part of the site."""
    return lambda mail: f"{mail.site}{path}" in mail.text


def is_digest(newsletter: str) -> Callable[[Mail], bool]:
    """Say of a mail whether it is a digest of this newsletter (its short name), and no test of one."""
    return lambda mail: f"<{newsletter}." in str(mail.message["List-Id"] or "")
