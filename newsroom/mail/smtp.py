"""SMTP that knows how far it came: whether a lost connection may have taken the message along.

Django's own backend raises the same error before and after the dot that ends a message. Before it, nothing was sent;
after it, nobody can know (RFC 1047). Used in place of Django's wherever that one is configured.
"""

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from email.encoders import encode_base64
from email.message import Message
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend as DjangoEmailBackend
from django.core.mail.message import sanitize_address

# Servers end long sessions on their own terms; ending them first keeps that out of the middle of a message.
MESSAGES_PER_SESSION = 100
SECONDS_PER_SESSION = 60.0
SERVICE_NOT_AVAILABLE = 421  # the server closes the session (RFC 5321 section 3.8)


class LostBeforeDot(smtplib.SMTPServerDisconnected):
    """The connection was lost while the server could not yet have taken the message."""


class LostAfterDot(smtplib.SMTPServerDisconnected):
    """The message was sent, its answer is lost: it may have been taken."""


class _WatchedSession(smtplib.SMTP):
    """Tells by the kind of its error whether the final dot had left; one that could not be secured is closed."""

    _dot_has_left = False

    def starttls(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        with self._closed_by_a_fault():
            return super().starttls(*args, **options)

    def login(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        with self._closed_by_a_fault():
            return super().login(*args, **options)

    @contextmanager
    def _closed_by_a_fault(self) -> Iterator[None]:
        """Django keeps such a session where only its own `close` finds it, which would first wait for a goodbye."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def send(self, s: Any) -> None:
        super().send(s)
        # smtplib sends commands as text and only a message, its final dot included, as bytes. If sending it fails, its
        # last bytes have not left.
        self._dot_has_left = isinstance(s, bytes)

    def data(self, msg: Any) -> tuple[int, bytes]:
        try:
            code, reply = super().data(msg)
        except smtplib.SMTPException as error:
            if self._dot_has_left:
                raise LostAfterDot(type(error).__name__) from None
            raise
        if code == -1:
            raise LostAfterDot("unreadable answer")
        return code, reply


class _WatchedTLSSession(_WatchedSession, smtplib.SMTP_SSL):
    pass


class EmailBackend(DjangoEmailBackend):
    """Django's SMTP backend with sessions that end in time, and errors that say what they mean."""

    connection: Any
    _opened_at = 0.0
    _carried = 0

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _WatchedTLSSession if self.use_ssl else _WatchedSession

    def open(self) -> bool | None:
        if self.connection is not None and self._is_used_up():
            self._drop()
        is_new = super().open()
        if is_new:
            self._opened_at, self._carried = monotonic(), 0
        return is_new

    def _is_used_up(self) -> bool:
        return (
            self.connection.sock is None
            or self._carried >= MESSAGES_PER_SESSION
            or monotonic() - self._opened_at >= SECONDS_PER_SESSION
        )

    def _drop(self) -> None:
        try:
            self.close()
        except OSError:
            self.connection = None

    def _send(self, email_message: EmailMessage) -> bool:
        """Send one message; a session the server ended before it began is opened anew, once."""
        was_used = self._carried > 0
        try:
            return self._send_in_session(email_message)
        except smtplib.SMTPException as error:
            if not (was_used and _ended_session(error)):
                raise
        self._drop()
        try:
            self.open()
        except smtplib.SMTPResponseException:
            raise
        except OSError as error:
            raise LostBeforeDot(type(error).__name__) from None
        return self._send_in_session(email_message)

    def _send_in_session(self, email_message: EmailMessage) -> bool:
        recipients = email_message.recipients()
        if not recipients:
            return False
        encoding = email_message.encoding or settings.DEFAULT_CHARSET
        content, options = self._as_sent(email_message.message())
        try:
            self.connection.sendmail(
                sanitize_address(_envelope_sender(email_message), encoding),
                [sanitize_address(address, encoding) for address in recipients],
                content,
                mail_options=options,
            )
        except LostAfterDot:
            raise
        except smtplib.SMTPServerDisconnected:
            raise LostBeforeDot from None
        finally:
            self._carried += 1
        return True

    def _as_sent(self, message: Message) -> tuple[bytes, list[str]]:
        """Return the message's octets; eight-bit ones only for a server that takes them (RFC 6152)."""
        self.connection.ehlo_or_helo_if_needed()
        content = message.as_bytes(linesep="\r\n")  # type: ignore[call-arg]  # Django's own message class
        if content.isascii():
            return content, []
        if self.connection.has_extn("8bitmime"):
            return content, ["BODY=8BITMIME"]
        for part in message.walk():
            if part.get("Content-Transfer-Encoding") == "8bit":
                del part["Content-Transfer-Encoding"]
                encode_base64(part)
        return message.as_bytes(linesep="\r\n"), []  # type: ignore[call-arg]


def _ended_session(error: smtplib.SMTPException) -> bool:
    """Say whether the server ended the session before it had the message."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(code == SERVICE_NOT_AVAILABLE for code, _reply in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code == SERVICE_NOT_AVAILABLE
    return isinstance(error, LostBeforeDot)


def _envelope_sender(message: EmailMessage) -> str:
    """Return where the mail goes if it cannot be delivered: an address of its own (`verp.mark`), else its sender's."""
    return getattr(message, "envelope_sender", None) or message.from_email
