"""What an error of a mail backend means for the message it was raised for: one pure function, `classify`.

It quotes nothing of an error but class and status, since errors of mail libraries carry addresses and keys. When in
doubt the outcome is ambiguous, for a mail sent twice cannot be called back.
"""

import errno
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from anymail.exceptions import AnymailAPIError, AnymailError, AnymailRecipientsRefused
from django.core.exceptions import ImproperlyConfigured
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

from newsroom.mail.outcomes import Outcome, Result
from newsroom.mail.smtp import LostAfterDot, LostBeforeDot

_LONGEST_WAIT = timedelta(hours=1)


def classify(error: BaseException) -> Result:
    """Say what an error of a mail backend means for the message it was raised for."""
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return meaning(error)
    return Result(Outcome.AMBIGUOUS, _name(error))


def classify_opening(error: BaseException) -> Result:
    """Say the same of an error while a connection is opened: no message is under way then, and the next would meet it.

    What would be ambiguous later is definite here.
    """
    result = replace(classify(error), is_general=True)
    return replace(result, outcome=Outcome.NOT_SENT) if result.outcome is Outcome.AMBIGUOUS else result


# SMTP: before the final dot everything is definite, and so is every answer to it


def _smtp_answer(code: int, name: str, *, refusal: Outcome = Outcome.REFUSED) -> Result:
    if 200 <= code < 300:
        return Result(Outcome.ACCEPTED, name)
    if code in {530, 534, 535, 538}:  # authentication required, or not good enough (RFC 4954)
        return Result(Outcome.DENIED, name, is_general=True)
    if 400 <= code < 500:
        return Result(Outcome.THROTTLED, name, is_general=code == 421)
    return Result(refusal, name, is_general=refusal is Outcome.DENIED)


def _of_recipients(error: Any) -> Result:
    results = {address: _smtp_answer(code, "") for address, (code, _reply) in error.recipients.items()}
    codes = sorted({code for code, _reply in error.recipients.values()})
    if not results:
        return Result(Outcome.NOT_SENT, _name(error))
    # A recipient that may be tried again decides: the refused ones are named in `recipients`.
    first = next((result for result in results.values() if result.outcome is not Outcome.REFUSED), None)
    decisive = first or next(iter(results.values()))
    outcomes = {address: result.outcome for address, result in results.items()}
    detail = " ".join(
        [type(error).__name__, *map(str, codes), _enhanced_code(next(iter(error.recipients.values()))[1])]
    )
    return replace(decisive, detail=detail.strip(), recipients=outcomes if len(outcomes) > 1 else None)


def _of_sender(error: Any) -> Result:
    # The sender is ours and the same for every message; only a size may be this message's fault (RFC 1870).
    refusal = Outcome.REFUSED if error.smtp_code == 552 else Outcome.DENIED
    return _smtp_answer(error.smtp_code, _smtp_name(error), refusal=refusal)


def _of_data(error: Any) -> Result:
    return _smtp_answer(error.smtp_code, _smtp_name(error))


def _of_login(error: Any) -> Result:
    return _smtp_answer(error.smtp_code, _smtp_name(error), refusal=Outcome.DENIED)


def _of_greeting(error: Any) -> Result:
    return replace(_smtp_answer(error.smtp_code, _smtp_name(error), refusal=Outcome.NOT_SENT), is_general=True)


def _smtp_name(error: Any) -> str:
    return f"{type(error).__name__} {error.smtp_code} {_enhanced_code(error.smtp_error)}".strip()


def _enhanced_code(reply: bytes | str) -> str:
    """Return the enhanced status code a reply begins with (RFC 3463); the rest may quote the address."""
    text = reply.decode("ascii", "replace") if isinstance(reply, bytes) else str(reply)
    match = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", text)
    return match[0] if match else ""


# HTTP, by Anymail

_STATUS_DENIED = {401, 402, 403, 404, 405}  # key, account, credit or endpoint: no message would pass
_STATUS_AMBIGUOUS = {408, 409, 425}
# Postmark says 422 to everything; these of its error codes concern the account, not the message.
_POSTMARK_ACCOUNT_CODES = {10, 400, 401, 405, 412, 413}


def _of_api(error: Any) -> Result:
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None)
    if status is None:
        return _of_boto(error) if _boto_cause(error) is not None else _of_requests(error)
    name = f"{type(error).__name__} {status}"
    if 200 <= status < 300:
        return _of_success(error, name)
    if status == 429:
        return Result(Outcome.THROTTLED, name, retry_after=_retry_after(response), is_general=True)
    if status in _STATUS_DENIED or (status == 422 and _is_postmark_account_fault(response)):
        return Result(Outcome.DENIED, name, is_general=True)
    if status in _STATUS_AMBIGUOUS or status >= 500:
        return Result(Outcome.AMBIGUOUS, name, is_general=status >= 500)
    if status < 400 or status == 407:
        return Result(Outcome.NOT_SENT, name, is_general=True)
    return Result(Outcome.REFUSED, name)


def _of_success(error: Any, name: str) -> Result:
    # Mailgun greets whoever asks for an address it does not know; the message went nowhere.
    if "Mailgun Magnificent API" in getattr(error.response, "text", ""):
        return Result(Outcome.DENIED, f"{name} wrong endpoint", is_general=True)
    return Result(Outcome.ACCEPTED, f"{name} unreadable answer")


def _is_postmark_account_fault(response: Any) -> bool:
    try:
        return response.json()["ErrorCode"] in _POSTMARK_ACCOUNT_CODES
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _retry_after(response: Any) -> timedelta | None:
    """Read Retry-After: seconds or a date (RFC 9110 section 10.2.3), but never longer than we would wait anyway."""
    value = getattr(response, "headers", {}).get("Retry-After", "").strip()
    try:
        wait = timedelta(seconds=float(value)) if value[:1].isdigit() else parsedate_to_datetime(value) - _now(response)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, timedelta()), _LONGEST_WAIT)


def _now(response: Any) -> datetime:
    """Return the provider's own time where it says it, so that two clocks need not agree."""
    try:
        return parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError, TypeError):
        return datetime.now(UTC)


# Requests' errors of which nothing but the way to the provider is to blame.
_NO_CONNECTION = (
    NewConnectionError,
    ConnectTimeoutError,
    ProxyError,
    ssl.SSLCertVerificationError,
    requests.exceptions.ConnectTimeout,
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
)


def _of_requests(error: BaseException) -> Result:
    causes = list(_causes(error))
    name = " ".join([type(error).__name__, *(type(cause).__name__ for cause in causes[1:2])])
    if any(isinstance(cause, _NO_CONNECTION) for cause in causes):
        return Result(Outcome.NOT_SENT, name, is_general=True)
    failures = [cause for cause in causes if isinstance(cause, ssl.SSLError)]
    # An end of file is the one TLS failure that also happens while an answer is awaited.
    if failures and not any(isinstance(failure, ssl.SSLEOFError | ssl.SSLZeroReturnError) for failure in failures):
        return Result(Outcome.NOT_SENT, name, is_general=True)
    return Result(Outcome.AMBIGUOUS, name, is_general=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what is behind it: causes, contexts, and what urllib3 and requests carry as arguments."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        behind = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        waiting += [cause for cause in behind if isinstance(cause, BaseException)]


# Amazon SES, by boto3, which is not installed unless it is used: told by names

_SES_THROTTLED = {"TooManyRequestsException", "LimitExceededException", "Throttling", "ThrottlingException"}
_SES_DENIED = {"AccountSuspendedException", "SendingPausedException", "MailFromDomainNotVerifiedException"}
_BOTO_NOT_SENT = {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"}
_BOTO_DENIED = {"NoCredentialsError", "PartialCredentialsError", "NoRegionError"}


def _boto_cause(error: BaseException) -> BaseException | None:
    causes = (cause for cause in _causes(error) if type(cause).__module__.startswith("botocore"))
    return next(causes, None)


def _of_boto(error: BaseException) -> Result:
    cause = _boto_cause(error)
    answer = getattr(cause, "response", None)
    if isinstance(answer, dict):
        return _of_ses_answer(answer)
    name = type(cause).__name__
    if name in _BOTO_DENIED:
        return Result(Outcome.DENIED, name, is_general=True)
    outcome = Outcome.NOT_SENT if name in _BOTO_NOT_SENT else Outcome.AMBIGUOUS
    return Result(outcome, name, is_general=True)


def _of_ses_answer(answer: dict[str, Any]) -> Result:
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    name = f"{re.sub('[^A-Za-z]', '', code)[:60]} {status}"
    if code in _SES_THROTTLED or status == 429:
        return Result(Outcome.THROTTLED, name, is_general=True)
    if code in _SES_DENIED or status in {401, 403}:
        return Result(Outcome.DENIED, name, is_general=True)
    if 400 <= status < 500:
        return Result(Outcome.REFUSED, name)
    return Result(Outcome.AMBIGUOUS, name, is_general=True)


# The network and the disk, as other backends meet them

_NOTHING_LEFT = {
    errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN,
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR,
    errno.EMFILE, errno.ENFILE,
}  # fmt: skip


def _of_system(error: Any) -> Result:
    is_definite = isinstance(error, socket.gaierror | ssl.SSLCertVerificationError) or error.errno in _NOTHING_LEFT
    name = errno.errorcode.get(error.errno or 0, "")
    detail = f"{_name(error)} {name}".strip()
    return Result(Outcome.NOT_SENT if is_definite else Outcome.AMBIGUOUS, detail, is_general=True)


def _general(outcome: Outcome) -> Callable[[BaseException], Result]:
    return lambda error: Result(outcome, _name(error), is_general=True)


def _this_message(error: BaseException) -> Result:
    return Result(Outcome.REFUSED, _name(error))


def _name(error: BaseException) -> str:
    return type(error).__name__


# The first kind that fits decides, so the narrow ones stand before the wide ones they derive from.
_MEANINGS: list[tuple[type[BaseException], Callable[[Any], Result]]] = [
    (LostBeforeDot, _general(Outcome.NOT_SENT)),
    (LostAfterDot, _general(Outcome.AMBIGUOUS)),
    (smtplib.SMTPRecipientsRefused, _of_recipients),
    (smtplib.SMTPSenderRefused, _of_sender),
    (smtplib.SMTPDataError, _of_data),
    (smtplib.SMTPAuthenticationError, _of_login),
    (smtplib.SMTPConnectError, _of_greeting),
    (smtplib.SMTPHeloError, _of_greeting),
    (smtplib.SMTPNotSupportedError, _general(Outcome.DENIED)),  # no STARTTLS, or no AUTH, where it is demanded
    (smtplib.SMTPException, _general(Outcome.AMBIGUOUS)),
    (AnymailRecipientsRefused, _this_message),
    (AnymailAPIError, _of_api),
    (AnymailError, _this_message),  # what cannot be said in this provider's words; nothing was asked of it yet
    (requests.RequestException, _of_requests),
    (ImproperlyConfigured, _general(Outcome.DENIED)),
    (OSError, _of_system),
    (ValueError, _this_message),  # an address or header that cannot be written, before anything is sent
]
