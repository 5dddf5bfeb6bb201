"""By what we know again what we signed: BLAKE2b with a key, which is a message authentication code (RFC 7693)."""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b, sha256

from django.conf import settings

OCTETS = 32


class Mac:
    """`mac(message)` is `blake2b(message, key=key, digest_size=octets)`; what the key alone decides is computed once.

    A key has 64 octets at most, and a code as many.
    """

    def __init__(self, key: bytes, *, octets: int = OCTETS) -> None:
        self._begun = blake2b(key=key, digest_size=octets)

    def __call__(self, message: bytes) -> bytes:
        return self.each([message])[0]

    def each(self, messages: Iterable[bytes]) -> list[bytes]:
        """Return the codes of many messages."""
        begin, codes = self._begun.copy, []
        for message in messages:
            begun = begin()
            begun.update(message)
            codes.append(begun.digest())
        return codes


def valid_keys() -> tuple[str, ...]:
    """Return the key that signs now, and then those before it whose signatures still hold."""
    return (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


@lru_cache(maxsize=64)
def mac_for(purpose: str, key: str, *, octets: int = OCTETS) -> Mac:
    """Return what signs for this purpose alone, with a key as `django.utils.crypto.salted_hmac` derives it."""
    return Mac(sha256(f"newsroom.{purpose}{key}".encode()).digest(), octets=octets)
