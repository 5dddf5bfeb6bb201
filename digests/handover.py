"""How readers' copies of a digest become messages: one each, or one call for many where the provider can fill slots."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from digests import rendering
from digests.models import Digest
from newsroom.mail import marks, messages, repeating
from subscriptions import links

MAILGUN = "anymail.backends.mailgun.EmailBackend"


@dataclass(frozen=True, slots=True)
class Letter:
    """One reader's copy: the delivery's row, the reader's place in the batch, and what fills the slots."""

    delivery_id: int
    delivery: UUID
    reader_id: int
    position: int
    address: str
    subscription: UUID
    written_at: datetime

    @property
    def message_id(self) -> str:
        return messages.make_message_id(self.delivery)


def takes_many() -> bool:
    """Whether one call may carry many readers, each with own headers, links and metadata (only Mailgun can)."""
    return settings.EMAIL_BACKEND == MAILGUN


def message_for(digest: Digest, letter: Letter) -> EmailMultiAlternatives:
    """Return one reader's message."""
    message = rendering.build_message(
        digest,
        to=letter.address,
        unsubscribe_url=links.unsubscribe_url(letter.subscription),
        preferences_url=links.preferences_url(letter.subscription),
        why_url=links.why_url(letter.subscription),
        message_id=letter.message_id,
        # A provider that knows a mail by its key wants each repetition to be the same to the last letter.
        date=letter.written_at if repeating.lifetime() else None,
    )
    marks.mark(message, letter.delivery)
    repeating.put_key(message, letter.delivery)
    return message


def message_for_many(digest: Digest, letters: Sequence[Letter]) -> EmailMultiAlternatives:
    """Return one message for all letters, whose slots Mailgun fills from each reader's data.

    Mailgun would also fill what looks like a slot in an article's text, so there the sign is taken apart.
    """
    message = rendering.build_message(
        _without_mailgun_slots(digest),
        to=letters[0].address,
        unsubscribe_url="%recipient.unsubscribe%",
        preferences_url="%recipient.preferences%",
        why_url="%recipient.why%",
        message_id=letters[0].message_id,
    )
    for header in ("List-Unsubscribe", "Message-ID"):
        message.extra_headers.pop(header, None)
    message.to = [letter.address for letter in letters]
    message.merge_data = {letter.address: _slots(letter) for letter in letters}  # type: ignore[attr-defined]
    message.merge_headers = {letter.address: _headers(letter) for letter in letters}  # type: ignore[attr-defined]
    message.merge_metadata = {  # type: ignore[attr-defined]
        letter.address: {marks.KEY: str(letter.delivery)} for letter in letters
    }
    return message


def _without_mailgun_slots(digest: Digest) -> Digest:
    safe = copy(digest)
    safe.subject = digest.subject.replace("%recipient.", "% recipient.")
    safe.text = digest.text.replace("%recipient.", "% recipient.")
    safe.html = digest.html.replace("%recipient.", "&#37;recipient.")
    return safe


def _slots(letter: Letter) -> dict[str, str]:
    return {
        "unsubscribe": links.unsubscribe_url(letter.subscription),
        "preferences": links.preferences_url(letter.subscription),
        "why": links.why_url(letter.subscription),
    }


def _headers(letter: Letter) -> dict[str, str]:
    return {"List-Unsubscribe": f"<{links.unsubscribe_url(letter.subscription)}>", "Message-ID": letter.message_id}
