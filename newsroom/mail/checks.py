"""Configuration that would leak, stay silent or send twice is refused before anything is sent."""

from collections.abc import Iterable, Iterator
from email.utils import getaddresses
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import get_connection

from newsroom.mail.addresses import InvalidAddress, canonicalise
from newsroom.mail.transport import DJANGO_SMTP, WATCHED_SMTP

# Reserved names (RFC 2606, RFC 6761): nobody can answer there.
_PLACEHOLDERS = ("example", "test", "invalid", "localhost", "local", "example.com", "example.net", "example.org")
_DEAF = {"noreply", "no-reply", "donotreply", "do-not-reply", "nicht-antworten", "keine-antwort"}
_SINKS = ("dummy", "locmem", "console", "filebased", "anymail.backends.test", "anymail.backends.console")
_DROPS_UNSUBSCRIBE = ("anymail.backends.mailjet.", "anymail.backends.sparkpost.")
_MAY_DROP_UNSUBSCRIBE = ("anymail.backends.mailersend.", "anymail.backends.brevo.")


def check_mail(**_kwargs: Any) -> list[CheckMessage]:
    """Run by `manage.py check` and at every start."""
    return [*_check_sender(), *_check_backend(), *_check_anymail(), *_check_time_limits(), *_check_encryption()]


def _is_production() -> bool:
    return not (settings.DEBUG or settings.DEMO)


def _check_sender() -> Iterator[CheckMessage]:
    addresses = getaddresses([settings.DEFAULT_FROM_EMAIL])
    try:
        (_name, typed) = addresses[0]
        address = canonicalise(typed)
    except (IndexError, InvalidAddress):
        address = None
    if address is None or len(addresses) != 1:
        hint = "Write it as: Wochenblitz <newsletter@wochenblitz.example>"
        yield Error("DEFAULT_FROM_EMAIL is not one e-mail address.", hint=hint, id="mail.E001")
        return
    local, _at, domain = address.canonical.rpartition("@")
    if _is_production() and any(domain == name or domain.endswith(f".{name}") for name in _PLACEHOLDERS):
        hint = "Set it to an address of your own domain; readers answer to it."
        yield Warning("DEFAULT_FROM_EMAIL is a placeholder.", hint=hint, id="mail.W005")
    if local.lower() in _DEAF:
        hint = "Readers may withdraw their consent by answering; use an address that somebody reads."
        yield Warning("DEFAULT_FROM_EMAIL says that nobody listens.", hint=hint, id="mail.W001")


def _check_backend() -> Iterator[CheckMessage]:
    backend = settings.EMAIL_BACKEND
    try:
        get_connection(backend)
    except (ImportError, ImproperlyConfigured, ValueError) as error:
        # These name settings, never their values.
        yield Error(f"EMAIL_BACKEND {backend} cannot be used: {type(error).__name__}.", hint=str(error), id="mail.E003")
    if backend.startswith(_DROPS_UNSUBSCRIBE):
        hint = "It puts its own List-Unsubscribe header in place of ours. Choose another provider, or its SMTP relay."
        yield Error(f"EMAIL_BACKEND {backend} cannot carry digests.", hint=hint, id="mail.E004")
    if backend.startswith(_MAY_DROP_UNSUBSCRIBE):
        hint = "Send a digest to yourself and look whether its List-Unsubscribe header is the site's own."
        yield Warning(f"EMAIL_BACKEND {backend} may replace List-Unsubscribe.", hint=hint, id="mail.W002")
    if _is_production() and any(sink in backend for sink in _SINKS):
        hint = "Set EMAIL_BACKEND to an SMTP or Anymail backend."
        yield Warning("EMAIL_BACKEND keeps mails on this machine: no reader gets any.", hint=hint, id="mail.W003")


def _check_anymail() -> Iterator[CheckMessage]:
    if _anymail("DEBUG_API_REQUESTS"):
        hint = "It prints readers' addresses and the provider's key."
        yield Error("ANYMAIL_DEBUG_API_REQUESTS is on.", hint=hint, id="mail.E005")
    if _anymail("IGNORE_UNSUPPORTED_FEATURES"):
        hint = "Headers a provider does not support, List-Unsubscribe among them, would vanish without a word."
        yield Error("ANYMAIL_IGNORE_UNSUPPORTED_FEATURES is on.", hint=hint, id="mail.E006")
    if _anymail("POSTMARK_USE_BULK_API"):
        hint = "Anymail 15.2 gives all messages of a bulk call the last reader's id, so events meet the wrong reader."
        yield Error("ANYMAIL_POSTMARK_USE_BULK_API is on.", hint=hint, id="mail.E007")
    if settings.EMAIL_BACKEND.startswith("anymail.backends.amazon_ses.") and _boto_attempts() != 1:
        hint = 'Set ANYMAIL_AMAZON_SES_CLIENT_PARAMS={"config": {"retries": {"total_max_attempts": 1}}}'
        yield Error("Amazon's client repeats calls by itself, and so sends mails twice.", hint=hint, id="mail.E008")


def _check_time_limits() -> Iterator[CheckMessage]:
    lease = settings.DELIVERY_LEASE.total_seconds()
    if settings.EMAIL_BACKEND in {DJANGO_SMTP, WATCHED_SMTP} and not 0 < (settings.EMAIL_TIMEOUT or 0) <= lease / 2:
        hint = f"Set it to at most {lease / 2:.0f}, half of DELIVERY_LEASE_SECONDS."
        yield Error("EMAIL_TIMEOUT is missing or too long.", hint=hint, id="mail.E009")
    timeout = _anymail("REQUESTS_TIMEOUT") or 30  # Anymail's own default
    if settings.EMAIL_BACKEND.startswith("anymail.") and not _is_short(timeout, limit=lease * 0.75):
        hint = f"Set it to one number of seconds, below {lease * 0.75:.0f}, or leave it out."
        yield Error("ANYMAIL_REQUESTS_TIMEOUT is not a usable time.", hint=hint, id="mail.E010")


def _check_encryption() -> Iterator[CheckMessage]:
    if settings.EMAIL_BACKEND not in {DJANGO_SMTP, WATCHED_SMTP}:
        return
    if settings.EMAIL_USE_TLS and settings.EMAIL_USE_SSL:
        hint = "Port 587 speaks STARTTLS (EMAIL_USE_TLS), port 465 TLS from the start (EMAIL_USE_SSL)."
        yield Error("EMAIL_USE_TLS and EMAIL_USE_SSL exclude each other.", hint=hint, id="mail.E011")
    is_local = settings.EMAIL_HOST in {"localhost", "127.0.0.1", "::1"}
    if _is_production() and not is_local and not (settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL):
        hint = "Set EMAIL_USE_TLS=True, unless the network in between is yours alone."
        yield Warning("Mails travel to EMAIL_HOST unencrypted.", hint=hint, id="mail.W004")


def _anymail(name: str) -> Any:
    """Return a setting of Anymail's from either of the places it reads."""
    return settings.ANYMAIL.get(name, getattr(settings, f"ANYMAIL_{name}", None))


def _boto_attempts() -> Any:
    parameters = _anymail("AMAZON_SES_CLIENT_PARAMS")
    try:
        return parameters["config"]["retries"]["total_max_attempts"]
    except (KeyError, TypeError):
        return None


def _is_short(timeout: Any, *, limit: float) -> bool:
    """Say whether requests takes it (a number, or a tuple of two) and a call ends within the limit."""
    parts: Iterable[Any] = timeout if isinstance(timeout, tuple) else [timeout]
    return all(isinstance(part, int | float) and part > 0 for part in parts) and sum(parts) <= limit
