"""Keys by which some providers know a mail they were handed already: what is uncertain can be asked again safely.

The whole mail has to be the same each time. Resend takes the key as an HTTP header and refuses another content under
the same key; Brevo takes it among the mail's own headers.
"""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage

RESEND = "anymail.backends.resend.EmailBackend"
BREVO = "anymail.backends.brevo.EmailBackend"

# How long the provider remembers a key.
_LIFETIMES = {RESEND: timedelta(hours=24), BREVO: timedelta(minutes=30)}
# Not asked again near the end: the provider's clock and the call's own time are not ours.
_SAFE_PART = 0.6


def lifetime() -> timedelta:
    """Return how long after its first hand-over a mail may be repeated under its key; zero where there are no keys."""
    return _LIFETIMES.get(settings.EMAIL_BACKEND, timedelta()) * _SAFE_PART


def put_key(message: EmailMessage, key: UUID) -> None:
    """Give the message its key, in the way the configured provider reads it."""
    if settings.EMAIL_BACKEND == RESEND:
        message.idempotency_key = str(key)  # type: ignore[attr-defined]  # read by our own backend
    elif settings.EMAIL_BACKEND == BREVO:
        message.extra_headers["idempotencyKey"] = str(key)
