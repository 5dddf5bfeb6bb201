"""Hand one message over to whatever backend is configured, and say what became of it.

What a provider answers or a network does is never raised, but returned as an outcome.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from anymail.backends.base import AnymailBaseBackend
from anymail.backends.base_requests import AnymailRequestsBackend
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from requests.utils import get_netrc_auth

from newsroom.mail import repeating
from newsroom.mail.classification import classify, classify_opening
from newsroom.mail.outcomes import Outcome, Result
from newsroom.mail.pipelining import Pipeline

__all__ = [
    "CannotConnect", "Outcome", "Result", "classify", "hand_over", "is_smtp", "leave_untracked", "open_connection",
    "open_pipeline",
]  # fmt: skip

log = logging.getLogger(__name__)

DJANGO_SMTP = "django.core.mail.backends.smtp.EmailBackend"
WATCHED_SMTP = "newsroom.mail.smtp.EmailBackend"
_SMTP = (DJANGO_SMTP, WATCHED_SMTP)
# Backends that are used in our own form: SMTP that knows where a session broke, Resend that takes a key, and two that
# write but once what readers have in common.
_OURS = {
    DJANGO_SMTP: WATCHED_SMTP,
    repeating.RESEND: "newsroom.mail.resend.EmailBackend",
    "anymail.backends.mailgun.EmailBackend": "newsroom.mail.mailgun.EmailBackend",
    "anymail.backends.postmark.EmailBackend": "newsroom.mail.postmark.EmailBackend",
}

# Providers where tracking can be switched off per message (the others refuse the very attribute).
_TRACKING_CAN_BE_OFF = {
    "Mailgun", "Mailjet", "MailerSend", "Mandrill", "Postmark", "SendGrid", "SparkPost", "Unisender Go",
}  # fmt: skip


class CannotConnect(Exception):
    """There is no way to the provider now; nothing was sent."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.detail)
        self.result = result


@contextmanager
def open_connection() -> Iterator[BaseEmailBackend]:
    """Yield an open connection of the configured backend, or raise `CannotConnect`."""
    backend = _OURS.get(settings.EMAIL_BACKEND, settings.EMAIL_BACKEND)
    with ExitStack() as stack:
        try:
            connection = get_connection(backend)
            stack.callback(_close, connection)  # a half-open one as well
            connection.open()
            if isinstance(connection, AnymailRequestsBackend):
                _settle_environment(connection)
        except Exception as error:  # whatever a backend raises becomes an outcome
            raise CannotConnect(classify_opening(error)) from None
        yield connection


def _settle_environment(connection: AnymailRequestsBackend) -> None:
    """Look up proxy, certificates and .netrc once. For each call requests would go through all the environment."""
    session, url = connection.session, connection.api_url
    session.auth = session.auth or get_netrc_auth(url)
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify, session.cert = found["proxies"], found["verify"], found["cert"]
    session.trust_env = False


def is_smtp() -> bool:
    """Whether the configured backend speaks SMTP, so that its sessions may be ours."""
    return settings.EMAIL_BACKEND in _SMTP


@contextmanager
def open_pipeline() -> Iterator[Pipeline]:
    """Yield pipelined sessions to the configured SMTP server, or raise `CannotConnect`."""
    with closing(Pipeline(connections=settings.DELIVERY_CONNECTIONS)) as pipeline:
        try:
            pipeline.open()
        except Exception as error:  # whatever a server does becomes an outcome
            raise CannotConnect(classify_opening(error)) from None
        yield pipeline


def hand_over(message: EmailMessage, *, connection: BaseEmailBackend) -> Result:
    """Send one message once and return what became of it. Never tries again, never raises what the provider did."""
    leave_untracked(message, connection)
    try:
        count = connection.send_messages([message])
    except Exception as error:  # whatever a backend raises becomes an outcome
        return _from_answer(message) or classify(error)
    return _from_answer(message) or _from_count(count)


def _from_count(count: int | None) -> Result:
    """Backends return how many messages they sent; some return nothing at all."""
    if count == 0:
        return Result(Outcome.REFUSED, "cancelled by the backend")
    return Result(Outcome.ACCEPTED, "")


# What an Anymail provider said of each recipient


def _from_answer(message: EmailMessage) -> Result | None:
    """Return what the provider's answer says, whatever was raised after it; None where there is none to read."""
    status = getattr(message, "anymail_status", None)
    if status is None or not status.recipients:
        return _unread_answer(status)
    recipients = _recipients(message.recipients(), status.recipients)
    outcomes = set(recipients.values())
    outcome = outcomes.pop() if len(outcomes) == 1 else Outcome.ACCEPTED
    words = sorted(str(word) for word in status.status or ())
    message_id = status.message_id if isinstance(status.message_id, str) else ""
    return Result(outcome, " ".join(words), provider_message_id=message_id[:255], recipients=recipients)


def _unread_answer(status: Any) -> Result | None:
    """A provider that answered with a success has the message, even if its words could not be read."""
    code = getattr(getattr(status, "esp_response", None), "status_code", None)
    if code is not None and 200 <= code < 300:
        return Result(Outcome.ACCEPTED, f"{code} unreadable answer")
    return None


def _recipients(addresses: list[str], statuses: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return each address's outcome; providers may answer with another case than they were asked with."""
    by_key = {address.lower(): status.status for address, status in statuses.items()}
    return {address: _OF_STATUS.get(by_key.get(address.lower()), Outcome.AMBIGUOUS) for address in addresses}


_OF_STATUS: dict[str | None, Outcome] = {
    "sent": Outcome.ACCEPTED,
    "queued": Outcome.ACCEPTED,
    "unknown": Outcome.ACCEPTED,  # the provider took the message and says no more
    "invalid": Outcome.REFUSED,
    "rejected": Outcome.REFUSED,
    "failed": Outcome.REFUSED,
}


def _close(connection: BaseEmailBackend) -> None:
    try:
        connection.close()
    except Exception as error:  # what was sent is sent; a farewell that fails changes nothing
        log.debug("closing the mail connection: %s", type(error).__name__)


def leave_untracked(message: EmailMessage, connection: BaseEmailBackend) -> None:
    """Tell providers that can be told per message not to watch the reader."""
    if isinstance(connection, AnymailBaseBackend) and connection.esp_name in _TRACKING_CAN_BE_OFF:
        message.track_opens = message.track_clicks = False  # type: ignore[attr-defined]
