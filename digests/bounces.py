"""Mails that come back: delivery reports (RFC 3464) and complaints (RFC 5965), as they reach the return address.

Anybody can write to that address. What counts is the signed token in it (`newsroom.mail.verp`), which only the mail
that came back can have brought along. Whatever else arrives, an answering machine's mail among it, changes nothing and
is never answered (E-16).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, message_from_string
from email.message import Message
from itertools import islice
from typing import Any
from uuid import UUID

from digests.models import ProviderEvent
from digests.webhooks import severity
from digests.webhooks.esps import Report, key_of
from newsroom.mail import verp

SOURCE = "bounce_mail"

# A report stands before the mail it is about; what lies behind this is that mail's.
LONGEST_READ = 250_000
MOST_PARTS = 100

Kind = ProviderEvent.Kind

# Where servers write down whom a mail was delivered to, the most reliable first.
_DELIVERED_TO = ("X-Original-To", "Delivered-To", "Envelope-To", "X-Envelope-To", "X-Delivered-To", "To")
_GENERAL = re.compile(r"[45]\.0\.0")


@dataclass(frozen=True, slots=True)
class Returned:
    """A report by mail: of which row, what happened, and at which address."""

    row: UUID
    kind: ProviderEvent.Kind
    code: str = ""
    recipient: str = ""

    @property
    def key(self) -> str:
        return key_of(SOURCE, [str(self.row), str(self.kind), self.code])

    def as_raw(self) -> dict[str, str]:
        return {"row": str(self.row), "kind": str(self.kind), "code": self.code, "recipient": self.recipient}


def read(raw: dict[str, Any]) -> list[Report]:
    """Return what a stored report says, in the words of all reports."""
    return [
        Report(kind=Kind(raw["kind"]), rows=(UUID(raw["row"]),), code=str(raw["code"]), recipient=str(raw["recipient"]))
    ]


def understand(content: bytes, *, recipients: Iterable[str] = ()) -> Returned | None:
    """Return what a mail reports of one of ours; None if it is no report, or does not prove that it is about ours.

    `recipients` are whom it was delivered to, if the server says so beside the mail.
    """
    try:
        message = message_from_bytes(content[:LONGEST_READ])
        parts = list(islice(message.walk(), MOST_PARTS))
        return _complaint(parts) or _delivery_report(message, parts, recipients)
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError, AssertionError):
        return None  # mails can be broken in more ways than the parser knows of


def _complaint(parts: list[Message]) -> Returned | None:
    feedback = _fields(parts, "message/feedback-report")
    if feedback is None or _text(feedback, "Feedback-Type").lower() not in {"abuse", "fraud", "virus", "other"}:
        return None
    # It goes to an address of its own, so only what it quotes can say which mail it is about.
    row = verp.find_row([_text(feedback, "Original-Mail-From"), *_quoted(parts)])
    return Returned(row, Kind.COMPLAINT) if row else None


def _delivery_report(message: Message, parts: list[Message], recipients: Iterable[str]) -> Returned | None:
    row = verp.find_row([*recipients, *_headers(message, _DELIVERED_TO)])
    if row is None:
        return None
    found = [_of_recipient(block) for part in parts for block in _blocks(part) if "Action" in block]
    kinds = list(Kind)
    said = max((each for each in found if each), key=lambda each: kinds.index(each[0]), default=None)
    return Returned(row, *said) if said else None


def _blocks(part: Message) -> list[Message]:
    """Return the blocks of fields of a delivery report: one of the mail, one of each recipient."""
    payload = part.get_payload() if part.get_content_type() == "message/delivery-status" else None
    return [block for block in payload if isinstance(block, Message)] if isinstance(payload, list) else []


def _of_recipient(block: Message) -> tuple[ProviderEvent.Kind, str, str] | None:
    kind: ProviderEvent.Kind
    code = severity.code_in(_text(block, "Status"))
    diagnosis = severity.code_in(_text(block, "Diagnostic-Code"))
    if diagnosis and (not code or _GENERAL.fullmatch(code)):
        code = diagnosis
    match _text(block, "Action").lower():
        case "failed":
            kind = severity.of_code(code)
        case "delivered" | "relayed" | "expanded":
            kind = Kind.DELIVERED
        case "delayed":
            kind = Kind.ACCEPTED
        case _:
            return None
    return kind, code, _recipient(block)


def _recipient(block: Message) -> str:
    for name in ("Original-Recipient", "Final-Recipient"):
        kind, _semicolon, address = _text(block, name).partition(";")
        if kind.strip().lower() == "rfc822" and address.strip():
            return address.strip().strip("<>")[:320]
    return ""


def _fields(parts: list[Message], content_type: str) -> Message | None:
    found = (part.get_payload() for part in parts if part.get_content_type() == content_type)
    return next((body[0] for body in found if isinstance(body, list) and body and isinstance(body[0], Message)), None)


def _quoted(parts: list[Message]) -> Iterator[str]:
    """Yield where the quoted mail, or its header alone, says it would return to."""
    for part in parts:
        payload = part.get_payload()
        if part.get_content_type() == "message/rfc822" and isinstance(payload, list):
            yield from (
                text for mail in payload if isinstance(mail, Message) for text in _headers(mail, ("Return-Path",))
            )
        elif part.get_content_type() == "text/rfc822-headers" and isinstance(payload, str):
            yield from _headers(message_from_string(payload[:LONGEST_READ]), ("Return-Path",))


def _headers(message: Message, names: Iterable[str]) -> list[str]:
    return [str(value)[:2000] for name in names for value in message.get_all(name, [])]


def _text(fields: Message, name: str) -> str:
    return " ".join(str(fields.get(name, ""))[:2000].split())
