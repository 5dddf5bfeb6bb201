"""Where an undeliverable mail returns to: an address of its own for each mail, signed, so that a forged one is known.

The variable envelope return path (VERP): `bounces@` becomes `bounces+TOKEN@`, and the token says which mail it was.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage
from django.utils.crypto import constant_time_compare

from newsroom.mail.macs import mac_for, valid_keys

_PURPOSE = "return-path"  # of what is signed

SMTP_BACKENDS = ("django.core.mail.backends.smtp.EmailBackend", "newsroom.mail.smtp.EmailBackend")

_UUID_OCTETS = 16
_SIGNATURE_OCTETS = 10
# Servers may change the case of a local part, which base 32 survives; with `bounces+` it is below the limit of 64.
_TOKEN = re.compile(r"\+([a-z2-7]{42})@")


def mark(message: EmailMessage, uuid: UUID) -> None:
    """Have the mail of a row return to an address of its own, where one is configured and SMTP carries the mail."""
    if settings.BOUNCE_ADDRESS and settings.EMAIL_BACKEND in SMTP_BACKENDS:
        message.envelope_sender = return_address(uuid)  # type: ignore[attr-defined]  # Anymail's name for it


def return_address(uuid: UUID) -> str:
    """Return the address for the mail of this row."""
    local, _at, domain = settings.BOUNCE_ADDRESS.rpartition("@")
    return f"{local}+{_token(uuid, settings.SECRET_KEY)}@{domain}"


def find_row(texts: Iterable[str]) -> UUID | None:
    """Return the row that the first genuine return address in these texts belongs to."""
    return next((uuid for text in texts for token in _tokens(text) if (uuid := _read(token))), None)


def _tokens(text: str) -> Iterator[str]:
    return (match[1] for match in _TOKEN.finditer(text.lower()))


def _read(token: str) -> UUID | None:
    uuid = UUID(bytes=base64.b32decode(token.upper() + "=" * (-len(token) % 8))[:_UUID_OCTETS])
    # Not the octets are compared: the last letter has two bits to spare, so that four spellings would pass for one.
    return uuid if any(constant_time_compare(_token(uuid, key), token) for key in valid_keys()) else None


def _token(uuid: UUID, key: str) -> str:
    row = uuid.bytes
    octets = row + mac_for(_PURPOSE, key)(row)[:_SIGNATURE_OCTETS]
    return base64.b32encode(octets).decode().rstrip("=").lower()
