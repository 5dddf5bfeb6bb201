"""Reader links: each token has one purpose, is derived from a key and a row, and is kept nowhere.

Two kinds. Links that are used once (confirm, rights, address) have a nonce and the SHA-256 of the token in their row;
whoever sends the mail derives the token again. Links that must work for years (unsubscribe, preferences) are signatures
of the subscription's UUID. Old keys stay valid as long as they stand in `SECRET_KEY_FALLBACKS`.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.urls import reverse
from django.utils.crypto import constant_time_compare

from newsroom.mail.macs import Mac, mac_for, valid_keys


class Purpose(StrEnum):
    CONFIRM = "confirm"
    RIGHTS = "rights"
    ADDRESS = "address"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"
    WHY = "why"


UUID_OCTETS = 16
SIGNATURE_OCTETS = 20  # with the UUID 36 octets, so base64 needs no padding: always 48 characters
TOKEN_LENGTH = 48

# One code signs a row for all purposes, each of which has a part of it: who knows one part knows nothing of the others.
_PARTS = {
    purpose: slice(number * SIGNATURE_OCTETS, (number + 1) * SIGNATURE_OCTETS)
    for number, purpose in enumerate((Purpose.UNSUBSCRIBE, Purpose.PREFERENCES, Purpose.WHY))
}


class KeyGone(Exception):
    """The key under which a token was made is neither the present one nor a fallback."""


@dataclass(frozen=True, slots=True)
class TokenSeed:
    """What a row keeps of its token: enough to recognise it, and with the key to derive it again."""

    nonce: str
    token_hash: str


def hash_token(token: str) -> str:
    """Return what is stored and shown in place of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_seed(purpose: Purpose, row: UUID) -> TokenSeed:
    """Make a token for `row` and return what to keep of it."""
    nonce = secrets.token_hex(16)
    token = _derive(settings.SECRET_KEY, purpose, row, nonce)
    return TokenSeed(nonce=nonce, token_hash=hash_token(token))


def hide_tokens(text: str, *tokens: str) -> str:
    """Return a mail's text as it is kept: with the hash of each token in its place."""
    for token in tokens:
        text = text.replace(token, f"sha256:{hash_token(token)}")
    return text


def derive_token(purpose: Purpose, row: UUID, seed: TokenSeed) -> str:
    """Return the token that `seed` was kept of, whichever of our keys made it; raise `KeyGone` if none did."""
    for key in valid_keys():
        token = _derive(key, purpose, row, seed.nonce)
        if constant_time_compare(hash_token(token), seed.token_hash):
            return token
    raise KeyGone(f"No key derives the {purpose} token of {row}.")


def confirmation_url(token: str) -> str:
    return _absolute("subscriptions:confirm", token)


def rights_url(token: str) -> str:
    return _absolute("subscriptions:rights", token)


def address_url(token: str) -> str:
    return _absolute("subscriptions:confirm_address", token)


def unsubscribe_token(subscription: UUID) -> str:
    """Return 48 ASCII characters that identify a subscription and are hard to forge (RFC 8058 sections 3.1 and 6)."""
    return _sign(Purpose.UNSUBSCRIBE, subscription)


def unsubscribe_url(subscription: UUID) -> str:
    return _absolute("subscriptions:unsubscribe", unsubscribe_token(subscription))


def read_unsubscribe_token(token: str) -> UUID | None:
    """Return the subscription's UUID, or None if the token is not one of ours for leaving."""
    return _read(Purpose.UNSUBSCRIBE, token)


def preferences_token(subscription: UUID) -> str:
    """Return 48 ASCII characters that open the page with a reader's newsletters."""
    return _sign(Purpose.PREFERENCES, subscription)


def preferences_url(subscription: UUID) -> str:
    return _absolute("subscriptions:preferences", preferences_token(subscription))


def read_preferences_token(token: str) -> UUID | None:
    """Return the subscription's UUID, or None if the token is not one of ours for preferences."""
    return _read(Purpose.PREFERENCES, token)


def why_token(cause: UUID) -> str:
    """Return 48 ASCII characters that name what a mail came of: an issue's subscription, else what caused the mail."""
    return _sign(Purpose.WHY, cause)


def why_url(cause: UUID) -> str:
    return _absolute("subscriptions:why", why_token(cause))


def read_why_token(token: str) -> UUID | None:
    """Return the UUID of what caused a mail, or None if the token is not one of ours for that question."""
    return _read(Purpose.WHY, token)


def issue_tokens(subscriptions: Sequence[UUID]) -> list[tuple[str, str, str]]:
    """Return the three tokens that each copy of an issue has: to leave, for the settings, and why it came.

    Each is the same as `unsubscribe_token` and its likes make it; for many readers in a row they cost half.
    """
    rows = [subscription.bytes for subscription in subscriptions]
    codes = _signer(settings.SECRET_KEY).each(rows)
    leave, preferences, why = (_PARTS[purpose] for purpose in (Purpose.UNSUBSCRIBE, Purpose.PREFERENCES, Purpose.WHY))
    signed = [
        row + code[leave] + row + code[preferences] + row + code[why] for row, code in zip(rows, codes, strict=True)
    ]
    text = _encode(b"".join(signed))  # none needs padding, so that all in a row are encoded as each alone
    first, second, third = TOKEN_LENGTH, 2 * TOKEN_LENGTH, 3 * TOKEN_LENGTH
    own = (text[start : start + third] for start in range(0, len(text), third))
    return [(tokens[:first], tokens[first:second], tokens[second:]) for tokens in own]


def issue_urls(tokens: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return the links around such tokens."""
    site = settings.SITE_URL
    around_leave = _around_token(site, "subscriptions:unsubscribe")
    around_preferences = _around_token(site, "subscriptions:preferences")
    around_why = _around_token(site, "subscriptions:why")
    return [
        (leave.join(around_leave), preferences.join(around_preferences), why.join(around_why))
        for leave, preferences, why in tokens
    ]


def rights_form_token(request: UUID, now: datetime) -> str:
    """Return the proof that the forms of an opened rights page carry, in place of a cookie."""
    return _rights_signer().sign_object([str(request), int(now.timestamp())])


def read_rights_form_token(token: str, now: datetime) -> UUID | None:
    """Return the privacy request's UUID, or None if the token is forged or older than `RIGHTS_FORM_LIFETIME`."""
    try:
        request, made_at = _rights_signer().unsign_object(token)
    except (signing.BadSignature, ValueError):
        return None
    age = now.timestamp() - made_at
    return UUID(request) if age <= settings.RIGHTS_FORM_LIFETIME.total_seconds() else None


def _rights_signer() -> signing.Signer:
    return signing.Signer(salt="newsroom.rights-form")


def _absolute(name: str, token: str) -> str:
    return token.join(_around_token(settings.SITE_URL, name))


@lru_cache(maxsize=64)
def _around_token(site_url: str, name: str) -> tuple[str, str]:
    """A digest has three links for each reader, and each lookup of an URL would cost more than the link itself."""
    before, _token, after = (site_url + reverse(name, args=["TOKEN"])).partition("TOKEN")
    return before, after


def _signer(key: str) -> Mac:
    return mac_for("link", key, octets=len(_PARTS) * SIGNATURE_OCTETS)


def _derive(key: str, purpose: Purpose, row: UUID, nonce: str) -> str:
    return _encode(mac_for(f"link.{purpose}", key)(row.bytes + nonce.encode()))


def _sign(purpose: Purpose, row: UUID) -> str:
    octets = row.bytes
    return _encode(octets + _signer(settings.SECRET_KEY)(octets)[_PARTS[purpose]])


def _read(purpose: Purpose, token: str) -> UUID | None:
    octets = _decode(token)
    if len(octets) != UUID_OCTETS + SIGNATURE_OCTETS:
        return None
    row, signature = octets[:UUID_OCTETS], octets[UUID_OCTETS:]
    for key in valid_keys():
        if constant_time_compare(_signer(key)(row)[_PARTS[purpose]], signature):
            return UUID(bytes=row)
    return None


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _decode(token: str) -> bytes:
    """Return the octets, or none at all if the text is not exactly what `_encode` writes."""
    try:
        octets = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return octets if _encode(octets) == token else b""
