"""Service mails are rows, written in the transaction that causes them and sent by a relay, once.

A second time only where the first outcome is ambiguous, with the same token and Message-ID (R-21).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.core.mail import EmailMessage

from newsroom.mail.models import OutboxMail
from newsroom.mail.transport import Result


@dataclass(frozen=True)
class Prepared:
    """A mail ready to go. `on_sent` runs in the transaction that marks the row sent."""

    message: EmailMessage
    on_sent: Callable[[datetime, Result], None] | None = None


@dataclass(frozen=True)
class Withheld:
    """The mail must not go (any more). The reason is shown to staff and holds no address."""

    reason: str


Builder = Callable[[OutboxMail], Prepared | Withheld]

_builders: dict[str, Builder] = {}


def register(kind: str, builder: Builder) -> None:
    """State how a kind of service mail is made; called from an app's `ready`. A second one of the same kind replaces."""
    _builders[kind] = builder


def enqueue(kind: str, *, reference: UUID, now: datetime) -> OutboxMail:
    """Note a mail to be sent, in the transaction that causes it; once per kind and cause."""
    mail, _created = OutboxMail.objects.get_or_create(
        kind=kind, reference=reference, defaults={"next_attempt_at": now, "created_at": now}
    )
    return mail
