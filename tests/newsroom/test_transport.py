"""Whatever a provider answers becomes one of six outcomes, and nothing of it is quoted."""

import smtplib
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from anymail.exceptions import (
    AnymailAPIError,
    AnymailConfigurationError,
    AnymailError,
    AnymailRecipientsRefused,
    AnymailRequestsAPIError,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
from django.core.mail import BadHeaderError
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProtocolError, ProxyError

from newsroom.mail.smtp import LostAfterDot, LostBeforeDot
from newsroom.mail.transport import CannotConnect, Outcome, Result, classify, hand_over, open_connection
from tests.newsroom.service_mails import URL, make_service_mail
from tests.stand_ins import API_KEY, ApiStandIn, MailgunStandIn, PostmarkStandIn, SmtpStandIn

READER = "leserin@leser.example"


def api_error(status: int, *, body: str = "", headers: dict[str, str] | None = None) -> AnymailRequestsAPIError:
    response = requests.Response()
    response.status_code = status
    response._content = body.encode()
    response.headers.update(headers or {})
    return AnymailRequestsAPIError(response=response)


def network_error(cause: Exception) -> AnymailRequestsAPIError:
    """An error as Anymail makes it: of both classes, with the cause behind it."""
    kind = type("AnymailRequestsAPIError", (AnymailRequestsAPIError, type(cause)), {})
    error = kind("Error posting")
    error.__cause__ = cause
    return error


def boto_error(name: str, *, code: str = "", status: int = 0) -> AnymailAPIError:
    cause = type(name, (Exception,), {"__module__": "botocore.exceptions"})()
    if code:
        cause.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = AnymailAPIError("boto")
    error.__cause__ = cause
    return error


POOL: Any = SimpleNamespace(host="provider.example", port=443)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        # The way to the provider
        (
            network_error(requests.ConnectionError(MaxRetryError(POOL, "/", NewConnectionError(POOL, "refused")))),
            "not_sent",
        ),
        (network_error(requests.ConnectTimeout(MaxRetryError(POOL, "/", ConnectTimeoutError()))), "not_sent"),
        (
            network_error(requests.exceptions.ProxyError(MaxRetryError(POOL, "/", ProxyError("407", OSError())))),
            "not_sent",
        ),
        (network_error(requests.exceptions.SSLError(ssl.SSLCertVerificationError())), "not_sent"),
        (network_error(requests.exceptions.SSLError(ssl.SSLError("wrong version number"))), "not_sent"),
        (network_error(requests.exceptions.SSLError(ssl.SSLEOFError())), "ambiguous"),
        (network_error(requests.exceptions.InvalidURL()), "not_sent"),
        (network_error(requests.ReadTimeout()), "ambiguous"),
        (network_error(requests.ConnectionError(ProtocolError("reset", ConnectionResetError()))), "ambiguous"),
        (network_error(requests.exceptions.ChunkedEncodingError()), "ambiguous"),
        # What the provider answers
        (api_error(200, body="<html>"), "accepted"),
        (api_error(202), "accepted"),
        (api_error(200, body="Mailgun Magnificent API"), "denied"),
        (api_error(302), "not_sent"),
        (api_error(400), "refused"),
        (api_error(413), "refused"),
        (api_error(422), "refused"),
        (api_error(422, body='{"ErrorCode": 405, "Message": "Not allowed to send"}'), "denied"),
        (api_error(422, body='{"ErrorCode": 300, "Message": "Invalid"}'), "refused"),
        (api_error(401), "denied"),
        (api_error(402), "denied"),
        (api_error(403), "denied"),
        (api_error(404), "denied"),
        (api_error(407), "not_sent"),
        (api_error(408), "ambiguous"),
        (api_error(409), "ambiguous"),
        (api_error(429), "throttled"),
        (api_error(500), "ambiguous"),
        (api_error(502), "ambiguous"),
        (api_error(503), "ambiguous"),
        (api_error(504), "ambiguous"),
        # Amazon's client
        (boto_error("ClientError", code="TooManyRequestsException", status=429), "throttled"),
        (boto_error("ClientError", code="Throttling", status=400), "throttled"),
        (boto_error("ClientError", code="AccountSuspendedException", status=400), "denied"),
        (boto_error("ClientError", code="SignatureDoesNotMatch", status=403), "denied"),
        (boto_error("ClientError", code="MessageRejected", status=400), "refused"),
        (boto_error("ClientError", code="InternalFailure", status=500), "ambiguous"),
        (boto_error("EndpointConnectionError"), "not_sent"),
        (boto_error("NoCredentialsError"), "denied"),
        (boto_error("ReadTimeoutError"), "ambiguous"),
        # What Anymail itself refuses, before it asks the provider
        (AnymailRecipientsRefused(), "refused"),
        (AnymailUnsupportedFeature(), "refused"),
        (AnymailSerializationError(), "refused"),
        (AnymailError(), "refused"),
        (AnymailConfigurationError(), "denied"),
        (AnymailAPIError(), "ambiguous"),
        # SMTP
        (LostBeforeDot(), "not_sent"),
        (LostAfterDot(), "ambiguous"),
        (smtplib.SMTPServerDisconnected(), "ambiguous"),  # of somebody else's backend: who knows when
        (smtplib.SMTPRecipientsRefused({READER: (550, b"5.1.1 no such user")}), "refused"),
        (smtplib.SMTPRecipientsRefused({READER: (450, b"4.2.0 greylisted")}), "throttled"),
        (smtplib.SMTPRecipientsRefused({READER: (421, b"closing")}), "throttled"),
        (smtplib.SMTPRecipientsRefused({READER: (530, b"authenticate first")}), "denied"),
        (smtplib.SMTPRecipientsRefused({READER: (550, b""), "b@c.example": (451, b"")}), "throttled"),
        (smtplib.SMTPRecipientsRefused({}), "not_sent"),
        (smtplib.SMTPSenderRefused(553, b"not yours", "us@own.example"), "denied"),
        (smtplib.SMTPSenderRefused(552, b"too big", "us@own.example"), "refused"),
        (smtplib.SMTPSenderRefused(451, b"later", "us@own.example"), "throttled"),
        (smtplib.SMTPDataError(554, b"spam"), "refused"),
        (smtplib.SMTPDataError(452, b"disk full"), "throttled"),
        (smtplib.SMTPDataError(252, b"odd but fine"), "accepted"),
        (smtplib.SMTPAuthenticationError(535, b"no"), "denied"),
        (smtplib.SMTPAuthenticationError(454, b"later"), "throttled"),
        (smtplib.SMTPConnectError(554, b"no service"), "not_sent"),
        (smtplib.SMTPConnectError(421, b"busy"), "throttled"),
        (smtplib.SMTPHeloError(501, b"who?"), "not_sent"),
        (smtplib.SMTPNotSupportedError(), "denied"),
        (smtplib.SMTPException(), "ambiguous"),
        # Network and disk, met by any other backend
        (ConnectionRefusedError(111, "refused"), "not_sent"),
        (socket.gaierror(-2, "unknown"), "not_sent"),
        (ssl.SSLCertVerificationError(), "not_sent"),
        (OSError(28, "no space"), "not_sent"),
        (PermissionError(13, "no"), "not_sent"),
        (ConnectionResetError(104, "reset"), "ambiguous"),
        (TimeoutError(), "ambiguous"),
        # A message that cannot be written, and what nobody foresaw
        (BadHeaderError(), "refused"),
        (ValueError(), "refused"),
        (RuntimeError(), "ambiguous"),
    ],
)
def test_every_error_has_its_outcome(error: BaseException, outcome: str) -> None:
    assert classify(error).outcome == outcome


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ({"Retry-After": "90"}, timedelta(seconds=90)),
        ({"Retry-After": "999999"}, timedelta(hours=1)),
        (
            {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:00 GMT"},
            timedelta(minutes=1),
        ),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 09:00:00 GMT"}, timedelta()),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_throttling_provider_is_believed_for_how_long(header: dict[str, str], wait: timedelta | None) -> None:
    assert classify(api_error(429, headers=header)).retry_after == wait


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPRecipientsRefused({READER: (550, f"5.1.1 <{READER}> unknown".encode())}),
        smtplib.SMTPSenderRefused(553, f"<{READER}>".encode(), READER),
        api_error(400, body=f'{{"message": "{READER} {API_KEY}"}}'),
        network_error(requests.ReadTimeout(f"{READER} {API_KEY}")),
        ValueError(READER),
    ],
)
def test_a_result_quotes_nothing_of_the_error(error: BaseException) -> None:
    result = classify(error)

    assert READER not in repr(result)
    assert API_KEY not in repr(result)
    assert len(result.detail) < 60


def test_an_enhanced_status_code_is_kept() -> None:
    error = smtplib.SMTPRecipientsRefused({READER: (550, b"5.1.1 no such user")})

    assert classify(error) == Result(Outcome.REFUSED, "SMTPRecipientsRefused 550 5.1.1")


def test_only_faults_that_meet_every_message_are_general() -> None:
    assert classify(api_error(429)).is_general
    assert classify(smtplib.SMTPRecipientsRefused({READER: (421, b"")})).is_general
    assert not classify(smtplib.SMTPRecipientsRefused({READER: (450, b"greylisted")})).is_general
    assert not classify(api_error(422)).is_general


# HTTP providers


@pytest.mark.parametrize("provider", [MailgunStandIn, PostmarkStandIn])
def test_a_service_mail_arrives_through_an_api(provider: type[ApiStandIn], settings: Any) -> None:
    with provider() as stand_in:
        stand_in.configure(settings)
        with open_connection() as connection:
            result = hand_over(make_service_mail(READER), connection=connection)

    (mail,) = stand_in.delivered
    assert result.outcome == Outcome.ACCEPTED
    assert result.provider_message_id
    assert result.recipients == {READER: Outcome.ACCEPTED}
    assert mail.to == READER
    assert mail.subject == "Ein Gruß an Frau Müller & Söhne"
    assert "Guten Tag Frau Müller & Söhne," in mail.text
    assert URL in mail.text
    assert "Guten Tag Frau Müller &amp; Söhne," in mail.html
    assert f'href="{URL}"' in mail.html
    assert mail.headers["Message-ID"].endswith("@wochenblitz.example>")
    assert mail.headers["Auto-Submitted"] == "auto-generated"
    assert mail.headers["Content-Language"] == "de"


def test_an_api_is_told_not_to_track(settings: Any) -> None:
    with PostmarkStandIn() as postmark:
        postmark.configure(settings)
        with open_connection() as connection:
            hand_over(make_service_mail(), connection=connection)

    body = postmark.requests[0].body.decode()
    assert '"TrackOpens": false' in body
    assert '"TrackLinks": "None"' in body


def test_one_session_carries_many_messages(settings: Any) -> None:
    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        with open_connection() as connection:
            results = [hand_over(make_service_mail(f"r{n}@leser.example"), connection=connection) for n in range(3)]

    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3
    assert [mail.to for mail in mailgun.delivered] == [f"r{n}@leser.example" for n in range(3)]


def test_mailgun_fills_each_readers_data_in_a_batch(settings: Any) -> None:
    message = make_service_mail("a@leser.example", context={"url": "%recipient.link%"})
    message.to = ["a@leser.example", "b@leser.example"]
    message.merge_data = {address: {"link": f"https://x.example/{address[0]}"} for address in message.to}

    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        with open_connection() as connection:
            result = hand_over(message, connection=connection)

    assert len(mailgun.requests) == 1
    assert [mail.to for mail in mailgun.delivered] == message.to
    assert "https://x.example/a" in mailgun.delivered[0].text
    assert "https://x.example/b" in mailgun.delivered[1].text
    assert result.recipients == dict.fromkeys(message.to, Outcome.ACCEPTED)


@pytest.mark.parametrize(
    ("mode", "outcome", "arrived"),
    [
        ("throttle", Outcome.THROTTLED, 0),
        ("fault", Outcome.AMBIGUOUS, 0),
        ("deny", Outcome.DENIED, 0),
        ("refuse", Outcome.REFUSED, 0),
        ("garbage", Outcome.ACCEPTED, 1),
        ("hang", Outcome.AMBIGUOUS, 1),
        ("drop", Outcome.AMBIGUOUS, 1),
    ],
)
@pytest.mark.parametrize("provider", [MailgunStandIn, PostmarkStandIn])
def test_an_apis_moods_are_told_apart(
    provider: type[ApiStandIn], mode: str, outcome: Outcome, arrived: int, settings: Any
) -> None:
    with provider() as stand_in:
        stand_in.configure(settings)
        stand_in.mode = mode
        with open_connection() as connection:
            result = hand_over(make_service_mail(READER), connection=connection)

    assert result.outcome == outcome
    assert len(stand_in.delivered) == arrived
    assert len(stand_in.requests) == 1
    assert READER not in repr(result)


def test_a_rejected_recipient_is_refused(settings: Any) -> None:
    for provider in (MailgunStandIn, PostmarkStandIn):
        with provider() as stand_in:
            stand_in.configure(settings)
            stand_in.rejected = {"Gesperrt@leser.example", "gesperrt@leser.example"}
            with open_connection() as connection:
                result = hand_over(make_service_mail("Gesperrt@leser.example"), connection=connection)

        assert result.outcome == Outcome.REFUSED, provider


def test_a_key_the_provider_does_not_know_is_denied(settings: Any) -> None:
    with PostmarkStandIn() as postmark:
        postmark.configure(settings)
        settings.ANYMAIL = {**settings.ANYMAIL, "POSTMARK_SERVER_TOKEN": "another"}
        with open_connection() as connection:
            result = hand_over(make_service_mail(), connection=connection)

    assert result.outcome == Outcome.DENIED


def test_an_unreachable_api_is_not_sent(settings: Any) -> None:
    with PostmarkStandIn() as postmark:
        postmark.configure(settings)
    with open_connection() as connection:
        result = hand_over(make_service_mail(), connection=connection)

    assert result.outcome == Outcome.NOT_SENT
    assert result.is_general


def test_a_backend_that_lacks_its_settings_cannot_be_opened(settings: Any) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
    settings.ANYMAIL = {}

    with pytest.raises(CannotConnect) as caught, open_connection():
        pass

    assert caught.value.result.outcome == Outcome.DENIED


# SMTP


def test_a_service_mail_arrives_by_smtp(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        with open_connection() as connection:
            result = hand_over(make_service_mail(READER), connection=connection)

    (mail,) = server.received
    assert result == Result(Outcome.ACCEPTED, "")
    assert (mail.sender, mail.recipients) == ("newsletter@wochenblitz.example", [READER])
    assert mail.message["Subject"] == "Ein Gruß an Frau Müller & Söhne"
    assert "Frau Müller & Söhne" in mail.text
    assert URL in mail.html
    assert "BODY=8BITMIME" in mail.options


def test_a_server_without_8bitmime_gets_seven_bits(settings: Any) -> None:
    with SmtpStandIn(eight_bit=False) as server:
        server.configure(settings)
        with open_connection() as connection:
            result = hand_over(make_service_mail(), connection=connection)

    (mail,) = server.received
    assert result.outcome == Outcome.ACCEPTED
    assert mail.content.isascii()
    assert "Frau Müller & Söhne" in mail.text
    assert "Frau Müller &amp; Söhne" in mail.html


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("550 5.1.1 no such user", Outcome.REFUSED),
        ("450 4.2.1 later", Outcome.THROTTLED),
        ("421 bye", Outcome.THROTTLED),
    ],
)
def test_a_recipient_the_server_does_not_take(answer: str, outcome: Outcome, settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        server.refused[READER] = answer
        with open_connection() as connection:
            refused = hand_over(make_service_mail(READER), connection=connection)
            accepted = hand_over(make_service_mail("anderer@leser.example"), connection=connection)

    assert refused.outcome == outcome
    assert accepted.outcome == Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("answer", "outcome"), [("554 5.7.1 spam", Outcome.REFUSED), ("451 4.3.0 disk full", Outcome.THROTTLED)]
)
def test_an_answer_to_the_final_dot_is_definite(answer: str, outcome: Outcome, settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        server.answer_to_data = answer
        with open_connection() as connection:
            result = hand_over(make_service_mail(), connection=connection)

    assert result.outcome == outcome


def test_a_connection_lost_before_the_dot_is_not_sent(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        server.drop = "before"
        with open_connection() as connection:
            result = hand_over(make_service_mail(), connection=connection)

    assert result.outcome == Outcome.NOT_SENT
    assert server.received == []


def test_a_connection_lost_after_the_dot_is_ambiguous_and_nothing_is_repeated(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        with open_connection() as connection:
            hand_over(make_service_mail("erster@leser.example"), connection=connection)
            server.drop = "after"
            result = hand_over(make_service_mail(READER), connection=connection)
            server.drop = ""
            next_result = hand_over(make_service_mail("letzter@leser.example"), connection=connection)

    assert result.outcome == Outcome.AMBIGUOUS
    assert next_result.outcome == Outcome.ACCEPTED
    assert [mail.recipients for mail in server.received].count([READER]) == 1


def test_a_server_that_ends_sessions_early_gets_a_new_one(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        server.per_session = 2
        with open_connection() as connection:
            outcomes = {
                hand_over(make_service_mail(f"r{n}@leser.example"), connection=connection).outcome for n in range(7)
            }

    assert outcomes == {Outcome.ACCEPTED}
    assert [mail.recipients[0] for mail in server.received] == [f"r{n}@leser.example" for n in range(7)]


def test_a_server_that_is_gone_for_good_is_not_sent_to(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        server.per_session = 1
        with open_connection() as connection:
            hand_over(make_service_mail(), connection=connection)
            server.stop()
            result = hand_over(make_service_mail(), connection=connection)

    assert result.outcome == Outcome.NOT_SENT


def test_login_is_shown_and_a_wrong_password_is_denied(settings: Any) -> None:
    with SmtpStandIn(user="wochenblitz", password="geheim$1") as server:
        server.configure(settings)
        with open_connection() as connection:
            assert hand_over(make_service_mail(), connection=connection).outcome == Outcome.ACCEPTED
        settings.EMAIL_HOST_PASSWORD = "falsch"
        with pytest.raises(CannotConnect) as caught, open_connection():
            pass

    assert caught.value.result.outcome == Outcome.DENIED


def test_a_server_without_tls_is_not_used_where_tls_is_demanded(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
        settings.EMAIL_USE_TLS = True
        with pytest.raises(CannotConnect) as caught, open_connection():
            pass

    assert caught.value.result.outcome == Outcome.DENIED
    assert server.received == []


def test_no_server_at_all_is_not_sent(settings: Any) -> None:
    with SmtpStandIn() as server:
        server.configure(settings)
    with pytest.raises(CannotConnect) as caught, open_connection():
        pass

    assert caught.value.result == Result(Outcome.NOT_SENT, "ConnectionRefusedError ECONNREFUSED", is_general=True)


def test_the_way_through_a_proxy_is_taken_and_the_way_around_it(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with PostmarkStandIn() as provider, PostmarkStandIn() as proxy:
        provider.configure(settings)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        with open_connection() as connection:
            hand_over(make_service_mail(), connection=connection)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            hand_over(make_service_mail(), connection=connection)  # as it was when the connection was opened
        with open_connection() as connection:
            hand_over(make_service_mail(), connection=connection)

    assert [request.path for request in proxy.requests] == [f"{provider.url}/email"] * 2
    assert len(provider.delivered) == 1


def session_of(connection: Any) -> requests.Session:
    session: requests.Session = connection.session
    return session


def test_own_certificates_are_asked_for(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with PostmarkStandIn() as provider:
        provider.configure(settings)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ours.pem"))
        with open_connection() as own:
            assert session_of(own).verify == str(tmp_path / "ours.pem")
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        with open_connection() as usual:
            assert session_of(usual).verify is True


def test_a_password_of_netrc_is_used(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login blitz password geheim\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with PostmarkStandIn() as provider:
        provider.configure(settings)
        with open_connection() as connection:
            hand_over(make_service_mail(), connection=connection)

    assert provider.requests[0].headers["Authorization"].startswith("Basic ")
