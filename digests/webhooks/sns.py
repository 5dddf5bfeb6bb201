"""Amazon's reports come as SNS messages: from a topic of ours, signed by Amazon.

The signature alone proves nothing, for anybody can have Amazon sign messages of a topic of his own (Anymail does not
look at it at all). Both are verified before anything is stored.
"""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from django.core.cache import cache
from django.utils.dateparse import parse_datetime

from digests.webhooks.signatures import Malformed, Posted, Refused, TryAgain, check_window, json_object

# SNS keeps trying for an hour, or for a day where its policy was changed; the time signed is that of the first attempt.
WINDOW = timedelta(hours=25)
TIMEOUT = (3, 5)  # of each of the two ways out, to connect and to read
LONGEST_CERTIFICATE = 20_000
CERTIFICATE_LIFETIME = 24 * 3600
# Whoever makes us look for certificates that are not there does so no more often than this.
PAUSE_BETWEEN_FETCHES = 10

_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]+)+-\d):\d{12}:[\w-]{1,256}(?:\.fifo)?")
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[0-9a-f]{8,64}\.pem")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303


def verify(posted: Posted, topics: Any) -> None:
    """Refuse what is not a message of one of our topics, signed by Amazon lately."""
    message = json_object(posted.body)
    if message.get("Type") not in _SIGNED:
        raise Malformed("no message of SNS")
    if message.get("TopicArn") not in ([topics] if isinstance(topics, str) else list(topics)):
        raise Refused("topic")
    signed_at, way = _time(message), _hash(message)
    key = _public_key(str(message.get("SigningCertURL", "")), host=_host(message["TopicArn"]), now=posted.at)
    try:
        signature = base64.b64decode(str(message.get("Signature", "")), validate=True)
        key.verify(signature, _signed_text(message), padding.PKCS1v15(), way)
    except (InvalidSignature, binascii.Error):
        raise Refused("signature") from None
    check_window(signed_at, posted.at, WINDOW)


def confirm(topic: str, token: str) -> None:
    """Tell Amazon that we want the topic's messages. Raises what requests raises, and HTTPError if Amazon declines."""
    query = urlencode({"Action": "ConfirmSubscription", "TopicArn": topic, "Token": token})
    # Made of what was signed, and for this host only: not the address that the message asks to open.
    answer = requests.get(f"https://{_host(topic)}/?{query}", timeout=TIMEOUT, allow_redirects=False)
    if answer.status_code != 200:
        raise requests.HTTPError(f"{answer.status_code}")


def is_topic(text: Any) -> bool:
    return isinstance(text, str) and _ARN.fullmatch(text) is not None


def _host(topic: Any) -> str:
    match = _ARN.fullmatch(str(topic))
    if match is None:
        raise Refused("topic")
    return f"sns.{match[2]}.amazonaws.com" + (".cn" if match[1] == "aws-cn" else "")


def _time(message: dict[str, Any]) -> datetime:
    try:
        time = parse_datetime(str(message.get("Timestamp", "")))
    except ValueError:
        time = None
    if time is None:
        raise Malformed("no time")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _hash(message: dict[str, Any]) -> hashes.HashAlgorithm:
    version = str(message.get("SignatureVersion", ""))
    if version not in _HASHES:
        raise Refused("signature version")
    return _HASHES[version]


def _signed_text(message: dict[str, Any]) -> bytes:
    names = [name for name in _SIGNED[message["Type"]] if message.get(name) is not None]
    return "".join(f"{name}\n{message[name]}\n" for name in names).encode("utf-8", "surrogatepass")


def _public_key(url: str, *, host: str, now: datetime) -> rsa.RSAPublicKey:
    origin = f"https://{host}"
    if not (url.startswith(origin) and _CERTIFICATE_PATH.fullmatch(url.removeprefix(origin))):
        raise Refused("address of the certificate")
    try:
        certificate = x509.load_pem_x509_certificate(_certificate(url))
    except ValueError:
        raise Refused("certificate") from None
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Refused("certificate's time")
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise Refused("certificate's key")
    return key


def _certificate(url: str) -> bytes:
    """Return the certificate at an address of Amazon's, which is asked for it once a day."""
    name = f"sns:{url}"
    if (known := cache.get(name)) is not None:
        return bytes(known)
    if not cache.add("sns:asking", 1, PAUSE_BETWEEN_FETCHES):
        raise TryAgain("another certificate was asked for just now")
    try:
        with requests.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True) as answer:
            found = answer.raw.read(LONGEST_CERTIFICATE + 1, decode_content=True) if answer.status_code == 200 else b""
    except (requests.RequestException, OSError):
        raise TryAgain("no way to the certificate") from None
    if not 0 < len(found) <= LONGEST_CERTIFICATE:
        raise Refused("no certificate there")
    cache.set(name, found, CERTIFICATE_LIFETIME)
    return bytes(found)
