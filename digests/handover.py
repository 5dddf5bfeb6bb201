"""How readers' copies of a digest become messages: as objects, as one call for many, or as octets made but once."""

from collections.abc import Sequence
from copy import copy
from datetime import datetime
from email.utils import parseaddr
from functools import partial
from typing import NamedTuple
from uuid import UUID, uuid4

from django.conf import settings
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone

from digests import rendering
from digests.models import Digest
from newsroom.mail import marks, messages, payloads, repeating, transport, verp
from newsroom.mail.moulds import Mould
from newsroom.mail.pipelining import Parcel
from subscriptions import links

MAILGUN = "anymail.backends.mailgun.EmailBackend"

# What stands in for a reader's own words where a message is made once for all.
_TO_SLOT = "reader@to.slot.invalid"
_MESSAGE_ID_SLOT = "<delivery@message-id.slot.invalid>"
_DELIVERY_SLOT = "delivery.slot.invalid"
_TOKEN_SLOTS = ("leave.token.slot.invalid", "settings.token.slot.invalid", "why.token.slot.invalid")


class Letter(NamedTuple):
    """One reader's copy: its delivery, the reader's place in the batch, and what fills the slots.

    `written_at` is set where the provider knows a mail by its key and wants a repetition to have the same date.
    """

    delivery: UUID
    reader_id: int
    position: int
    address: str
    subscription: UUID
    written_at: datetime | None = None


def takes_many() -> bool:
    """Whether one call may carry many readers, each with own headers, links and metadata (only Mailgun can)."""
    return settings.EMAIL_BACKEND == MAILGUN


class Copies:
    """A digest's copies as messages of their own."""

    def __init__(self, digest: Digest) -> None:
        self._copies = rendering.Copies(digest)
        self._domain = messages.own_domain()

    def message(self, letter: Letter) -> EmailMultiAlternatives:
        """Return one reader's message; raise ValueError if it could not be sent as it is."""
        message = self._copies.message(
            to=letter.address,
            **_links(letter),
            message_id=messages.make_message_id(letter.delivery, domain=self._domain),
            date=letter.written_at,
        )
        marks.mark(message, letter.delivery)
        repeating.put_key(message, letter.delivery)
        return message


class PreparedCopies:
    """A digest's copies as SMTP wants them: one message made and serialised once, the readers' own words put in."""

    def __init__(self, digest: Digest) -> None:
        [(unsubscribe_url, preferences_url, why_url)] = links.issue_urls([_TOKEN_SLOTS])
        message = rendering.Copies(digest).message(
            to=_TO_SLOT,
            unsubscribe_url=unsubscribe_url,
            preferences_url=preferences_url,
            why_url=why_url,
            message_id=messages.make_message_id(_DELIVERY_SLOT),
        )
        self._mould = Mould(message, (_TO_SLOT, _DELIVERY_SLOT, *_TOKEN_SLOTS))
        self._sender = parseaddr(settings.DEFAULT_FROM_EMAIL)[1]
        self._has_own_senders = bool(settings.BOUNCE_ADDRESS)

    def parcels(self, letters: Sequence[Letter]) -> list[Parcel]:
        """Return the letters' parcels; the readers' own words are made in a row, as that costs half."""
        tokens = links.issue_tokens([letter.subscription for letter in letters])
        return [self._parcel(letter, own) for letter, own in zip(letters, tokens, strict=True)]

    def _parcel(self, letter: Letter, tokens: Sequence[str]) -> Parcel:
        sender = verp.return_address(letter.delivery) if self._has_own_senders else self._sender
        try:
            address = messages.checked_recipient(letter.address)
            words = self._mould.checked((address, str(letter.delivery), *tokens))
        except ValueError as error:
            return Parcel(letter.address, sender, partial(_refuse, error))
        return Parcel(address, sender, partial(self._mould.fill, words))


class CopiesForMany:
    """A digest's copies in one message, whose slots Mailgun fills from each reader's data.

    Mailgun would also fill what looks like a slot in an article's text, so there the sign is taken apart.
    """

    def __init__(self, digest: Digest) -> None:
        self._copies = rendering.Copies(_without_mailgun_slots(digest))
        self._domain = messages.own_domain()

    def message(self, letters: Sequence[Letter]) -> EmailMultiAlternatives:
        message = self._copies.message(
            to=letters[0].address,
            unsubscribe_url="%recipient.unsubscribe%",
            preferences_url="%recipient.preferences%",
            why_url="%recipient.why%",
            message_id=_MESSAGE_ID_SLOT,
        )
        for header in ("List-Unsubscribe", "Message-ID"):
            message.extra_headers.pop(header, None)
        message.to = [letter.address for letter in letters]
        message.merge_data = {letter.address: _slots(letter) for letter in letters}  # type: ignore[attr-defined]
        message.merge_headers = {letter.address: self._headers(letter) for letter in letters}  # type: ignore[attr-defined]
        message.merge_metadata = {  # type: ignore[attr-defined]
            letter.address: {marks.KEY: str(letter.delivery)} for letter in letters
        }
        return message

    def _headers(self, letter: Letter) -> dict[str, str]:
        return {
            "List-Unsubscribe": f"<{links.unsubscribe_url(letter.subscription)}>",
            "Message-ID": messages.make_message_id(letter.delivery, domain=self._domain),
        }


class ReadyCopies:
    """A digest's copies over a connection that writes but once what they have in common.

    Over others, and for a reader whose address is out of the ordinary, they are messages as they are elsewhere.
    """

    def __init__(self, digest: Digest, connection: BaseEmailBackend) -> None:
        self._copies = CopiesForMany(digest) if takes_many() else Copies(digest)
        self._model = self._make_model(connection)

    def message(self, letter: Letter) -> EmailMessage:
        """Return one reader's message; raise ValueError if it could not be sent as it is."""
        return self.message_for([letter])

    def message_for(self, letters: Sequence[Letter]) -> EmailMessage:
        """Return one message for all these readers; only a provider that takes many is given more than one."""
        if self._model:
            words = _words(letters)
            if all(map(payloads.fits, words)):
                return payloads.Copy(self._model, words)
        return self._built(letters)

    def _built(self, letters: Sequence[Letter]) -> EmailMessage:
        if isinstance(self._copies, CopiesForMany):
            return self._copies.message(letters)
        (letter,) = letters
        return self._copies.message(letter)

    def _make_model(self, connection: BaseEmailBackend) -> payloads.Model | None:
        if not payloads.takes_copies(connection):
            return None
        nobody = Letter(uuid4(), 0, 0, _TO_SLOT, uuid4(), timezone.now())
        try:
            message = self._built([nobody])
        except ValueError:  # as each reader's own will say
            return None
        transport.leave_untracked(message, connection)
        return payloads.make_model(message, _words([nobody])[0], connection)


def _refuse(error: ValueError, _eight_bit: bool, _is_bare: bool) -> tuple[list[bytes], bool]:
    raise error


def _words(letters: Sequence[Letter]) -> list[tuple[str, ...]]:
    """Return what is each reader's own in a copy."""
    urls = _urls(letters)
    return [(letter.address, str(letter.delivery), *own) for letter, own in zip(letters, urls, strict=True)]


def _without_mailgun_slots(digest: Digest) -> Digest:
    safe = copy(digest)
    safe.subject = digest.subject.replace("%recipient.", "% recipient.")
    safe.text = digest.text.replace("%recipient.", "% recipient.")
    safe.html = digest.html.replace("%recipient.", "&#37;recipient.")
    return safe


def _links(letter: Letter) -> dict[str, str]:
    [urls] = _urls([letter])
    return dict(zip(("unsubscribe_url", "preferences_url", "why_url"), urls, strict=True))


def _urls(letters: Sequence[Letter]) -> list[tuple[str, str, str]]:
    """Return each reader's own links, in the order of `rendering.SLOTS`."""
    return links.issue_urls(links.issue_tokens([letter.subscription for letter in letters]))


def _slots(letter: Letter) -> dict[str, str]:
    return {name.removesuffix("_url"): link for name, link in _links(letter).items()}
