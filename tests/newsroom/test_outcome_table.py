"""The table of outcomes (docs/delivery.md): what is observed of a call, and what that means, row by row."""

import errno
import smtplib
import socket
import ssl
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from anymail.exceptions import AnymailRequestsAPIError
from urllib3.exceptions import NameResolutionError, NewConnectionError, ProxyError

from newsroom.mail.outcomes import Outcome
from newsroom.mail.smtp import LostAfterDot, LostBeforeDot
from newsroom.mail.transport import classify

POOL: Any = SimpleNamespace(host="provider.example", port=443)


def answer(status: int, **headers: str) -> AnymailRequestsAPIError:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return AnymailRequestsAPIError(response=response)


def behind(cause: Exception) -> AnymailRequestsAPIError:
    error = AnymailRequestsAPIError("Error posting")
    error.__cause__ = cause
    return error


def data(code: int) -> smtplib.SMTPDataError:
    return smtplib.SMTPDataError(code, b"no")


def recipient(code: int) -> smtplib.SMTPRecipientsRefused:
    return smtplib.SMTPRecipientsRefused({"leserin@leser.example": (code, b"no")})


# What is observed, what it means, and whether the next mail would meet it as well.
ROWS: list[tuple[str, BaseException, Outcome, bool]] = [
    # Definitely not sent: waits again, with a growing pause; five in a row close the gate.
    (
        "name not found",
        behind(NameResolutionError("provider.example", POOL, socket.gaierror(-2, "unknown"))),
        Outcome.NOT_SENT,
        True,
    ),
    ("connection refused", behind(NewConnectionError(POOL, "refused")), Outcome.NOT_SENT, True),
    ("connecting takes too long", behind(requests.ConnectTimeout("slow")), Outcome.NOT_SENT, True),
    ("TLS fails", behind(ssl.SSLCertVerificationError("expired")), Outcome.NOT_SENT, True),
    ("proxy refuses", behind(ProxyError("407", OSError())), Outcome.NOT_SENT, True),
    ("407", answer(407), Outcome.NOT_SENT, True),
    ("SMTP, refused", ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Outcome.NOT_SENT, True),
    ("SMTP, cut before the dot", LostBeforeDot(), Outcome.NOT_SENT, True),
    # The provider asks for patience: waits as long as it says, no attempt counts, the pace is halved.
    ("429", answer(429, **{"Retry-After": "30"}), Outcome.THROTTLED, True),
    ("421", data(421), Outcome.THROTTLED, True),
    # One mailbox asks for patience: its reader waits, the others do not.
    ("450", recipient(450), Outcome.THROTTLED, False),
    ("451", recipient(451), Outcome.THROTTLED, False),
    ("454", data(454), Outcome.THROTTLED, False),
    # Refused as a whole: halved until one mail is left, which is refused.
    ("400", answer(400), Outcome.REFUSED, False),
    ("413", answer(413), Outcome.REFUSED, False),
    ("422", answer(422), Outcome.REFUSED, False),
    ("550", recipient(550), Outcome.REFUSED, False),
    ("554 after the dot", data(554), Outcome.REFUSED, False),
    # We are not let in: the gate closes, staff are told, no attempt counts.
    ("401", answer(401), Outcome.DENIED, True),
    ("403", answer(403), Outcome.DENIED, True),
    ("535", smtplib.SMTPAuthenticationError(535, b"no"), Outcome.DENIED, True),
    # It may have been sent: uncertain, and asked again only under its key.
    ("no answer in time", behind(requests.ReadTimeout("slow")), Outcome.AMBIGUOUS, True),
    ("reset after sending", behind(ConnectionResetError(errno.ECONNRESET, "reset")), Outcome.AMBIGUOUS, True),
    ("408", answer(408), Outcome.AMBIGUOUS, False),
    ("409, another mail under this key", answer(409), Outcome.AMBIGUOUS, False),
    ("500", answer(500), Outcome.AMBIGUOUS, True),
    ("502", answer(502), Outcome.AMBIGUOUS, True),
    ("503", answer(503), Outcome.AMBIGUOUS, True),
    ("504", answer(504), Outcome.AMBIGUOUS, True),
    ("SMTP, silence after the dot", LostAfterDot(), Outcome.AMBIGUOUS, True),
    ("anything nobody thought of", RuntimeError("?"), Outcome.AMBIGUOUS, False),
    # A success whose words cannot be read is a success.
    ("200 with an unreadable body", answer(200), Outcome.ACCEPTED, False),
]


@pytest.mark.parametrize(("error", "outcome", "is_general"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_each_row_of_the_table(error: BaseException, outcome: Outcome, is_general: bool) -> None:
    result = classify(error)

    assert (result.outcome, result.is_general) == (outcome, is_general)


def test_how_long_the_provider_asks_to_wait_is_read() -> None:
    assert classify(answer(429, **{"Retry-After": "30"})).retry_after == timedelta(seconds=30)
