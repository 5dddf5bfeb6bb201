"""How each provider proves that a report is its own. A proof that does not hold raises `Refused`, and says no more.

Anymail checks most of these, too; but not how old a signed report is, and it takes unsigned ones where no key is set.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from django.conf import settings
from django.utils.crypto import constant_time_compare

# Two clocks may differ, and a request may be on its way for a while. Svix signs each attempt anew.
SVIX_WINDOW = timedelta(minutes=5)
# Mailgun tries again for eight hours with the first attempt's signature, SendGrid for a day.
MAILGUN_WINDOW = timedelta(hours=12)
SENDGRID_WINDOW = timedelta(hours=25)
AHEAD = timedelta(minutes=5)


class Refused(Exception):
    """The report does not prove where it comes from. The text names no value of it."""

    status = 403


class NoCredentials(Refused):
    """Nothing was shown at all, or the wrong password."""

    status = 401


class Malformed(Refused):
    """What came is no report of this provider."""

    status = 400


class TryAgain(Refused):
    """Whether the proof holds cannot be said just now."""

    status = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """All of a request that a proof is about."""

    body: bytes
    headers: Mapping[str, str]
    path: str
    at: datetime


Proof = Callable[[Posted, Any], None]


def setting(name: str) -> Any:
    """Return one of Anymail's settings; None if it is missing or empty."""
    return settings.ANYMAIL.get(name) or None


def basic(posted: Posted, secrets: Any) -> None:
    """User and password in the address that the provider was told (`WEBHOOK_SECRET`, or several of them)."""
    scheme, _space, value = posted.headers.get("Authorization", "").partition(" ")
    try:
        shown = base64.b64decode(value, validate=True).decode()
    except ValueError:
        shown = ""
    allowed = [secrets] if isinstance(secrets, str) else list(secrets)
    if scheme.lower() != "basic" or not any(constant_time_compare(shown, secret) for secret in allowed):
        raise NoCredentials("user or password")


def body_mac(header: str) -> Proof:
    """Return the proof by an HMAC of the body in this header."""

    def proof(posted: Posted, key: Any) -> None:
        _compare(posted.headers.get(header, ""), _mac(key, posted.body).hexdigest())

    return proof


def mailgun(posted: Posted, key: Any) -> None:
    """Mailgun signs time and token, not what it reports: `esps` sees that a token is used for one report only."""
    block = json_object(posted.body).get("signature")
    if not isinstance(block, dict):
        raise Malformed("no signature block")
    timestamp, token = str(block.get("timestamp", "")), str(block.get("token", ""))
    if not token:
        raise Malformed("no token")
    _compare(str(block.get("signature", "")), _mac(key, _octets(f"{timestamp}{token}")).hexdigest())
    check_age(timestamp, posted.at, MAILGUN_WINDOW)


def mandrill(posted: Posted, key: Any) -> None:
    """Mandrill signs the address it was told, and the form's fields."""
    url = setting("MANDRILL_WEBHOOK_URL") or settings.SITE_URL + posted.path
    signed = url + "".join(f"{name}{value}" for name, value in sorted(form(posted.body).items()))
    mac = hmac.new(str(key).encode(), _octets(signed), hashlib.sha1)
    _compare(posted.headers.get("X-Mandrill-Signature", ""), base64.b64encode(mac.digest()).decode())


def postal(posted: Posted, key: Any) -> None:
    public = serialization.load_pem_public_key(_pem(key))
    signature = _decoded(posted.headers.get("X-Postal-Signature", ""))
    if not isinstance(public, rsa.RSAPublicKey):
        raise Refused("not an RSA key")
    try:
        public.verify(signature, posted.body, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303  # the only one it has
    except InvalidSignature:
        raise Refused("signature") from None


def sendgrid(posted: Posted, key: Any) -> None:
    public = serialization.load_pem_public_key(_pem(key))
    timestamp = posted.headers.get("X-Twilio-Email-Event-Webhook-Timestamp", "")
    signature = _decoded(posted.headers.get("X-Twilio-Email-Event-Webhook-Signature", ""))
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Refused("not an elliptic curve key")
    try:
        public.verify(signature, _octets(timestamp) + posted.body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("signature") from None
    check_age(timestamp, posted.at, SENDGRID_WINDOW)


def svix(posted: Posted, key: Any) -> None:
    """Resend has its reports carried by Svix, which sends one signature per key that is valid at the time."""
    timestamp = posted.headers.get("Svix-Timestamp", "")
    signed = _octets(f"{posted.headers.get('Svix-Id', '')}.{timestamp}.") + posted.body
    mac = hmac.new(base64.b64decode(str(key).removeprefix("whsec_"), validate=True), signed, hashlib.sha256)
    expected = "v1," + base64.b64encode(mac.digest()).decode()
    shown = posted.headers.get("Svix-Signature", "").split(" ")
    if not any(constant_time_compare(each, expected) for each in shown):
        raise Refused("signature")
    check_age(timestamp, posted.at, SVIX_WINDOW)


def unisender_go(posted: Posted, key: Any) -> None:
    """Unisender Go hashes the body with our API key where the hash itself stands in it."""
    shown = json_object(posted.body).get("auth")
    if not isinstance(shown, str) or not shown:
        raise NoCredentials("no hash")
    signed = posted.body.replace(_octets(shown), str(key).encode())
    _compare(shown, hashlib.md5(signed).hexdigest())  # noqa: S324  # the only one it has


def check_age(timestamp: str, now: datetime, window: timedelta) -> None:
    """Refuse what was signed too long ago, for somebody may have kept it."""
    try:
        signed_at = datetime.fromtimestamp(float(timestamp), tz=UTC)
    except (ValueError, OverflowError, OSError):
        raise Malformed("no time") from None
    check_window(signed_at, now, window)


def check_window(signed_at: datetime, now: datetime, window: timedelta) -> None:
    if not -AHEAD <= now - signed_at <= window:
        raise Refused("too old")


def json_object(body: bytes) -> dict[str, Any]:
    found = read_json(body)
    if not isinstance(found, dict):
        raise Malformed("not a JSON object")
    return found


def read_json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise Malformed("not JSON") from None


def form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20))
    except ValueError:
        raise Malformed("not a form") from None


def _mac(key: Any, text: bytes) -> "hmac.HMAC":
    return hmac.new(str(key).encode(), text, hashlib.sha256)


def _compare(shown: str, expected: str) -> None:
    if not hmac.compare_digest(_octets(shown), expected.encode()):
        raise Refused("signature")


def _octets(text: str) -> bytes:
    """Return the octets of any text, also of one that JSON can write and UTF-8 cannot."""
    return text.encode("utf-8", "replace")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refused("signature") from None


def _pem(key: Any) -> bytes:
    """Return a public key as the file it would be; providers show its middle only."""
    return f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----".encode()
