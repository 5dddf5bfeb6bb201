"""Providers to send to: a local Mailgun, a local Postmark and a local SMTP server, which keep what arrives.

Each is a context manager and knows how the site is pointed at it:

    with MailgunStandIn() as mailgun:
        mailgun.configure(settings)
        ...
        assert mailgun.delivered[0].to == "reader@example.com"
"""

import asyncio
import json
import logging
import re
import socket
import ssl
import uuid
from base64 import b64decode
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Self
from urllib.parse import parse_qs

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SMTPServer
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from requests.structures import CaseInsensitiveDict

API_KEY = "a-key-that-must-never-be-logged"


@dataclass
class Request:
    """One HTTP request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Delivered:
    """One mail as one recipient would get it, with the provider's variables filled in."""

    to: str
    subject: str
    text: str
    html: str
    headers: CaseInsensitiveDict[str]
    metadata: dict[str, str] = field(default_factory=dict)


class ApiStandIn:
    """A provider's HTTP API. `mode` says how it behaves from now on, `rejected` whom it does not take.

    Modes: ok, throttle (429 with Retry-After), fault (500), deny (401), refuse (400), garbage (takes the mail, answers
    nonsense), hang (takes the mail, answers never), drop (takes the mail, closes the connection).
    """

    backend = ""

    def __init__(self) -> None:
        self.mode = "ok"
        self.retry_after = "7"
        self.rejected: set[str] = set()
        self.requests: list[Request] = []
        self.delivered: list[Delivered] = []
        self._closed = Event()
        self._lock = Lock()

    def __enter__(self) -> Self:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stand_in._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def anymail(self) -> dict[str, Any]:
        """The `ANYMAIL` setting that points Anymail at this stand-in."""
        raise NotImplementedError

    def configure(self, settings: Any) -> None:
        """Point the site at this stand-in; give pytest-django's `settings`."""
        settings.EMAIL_BACKEND = self.backend
        settings.ANYMAIL = {"REQUESTS_TIMEOUT": (2, 0.5), **self.anymail()}

    def environment(self) -> dict[str, str]:
        """The environment that points processes of the site at this stand-in."""
        anymail = {f"ANYMAIL_{name}": str(value) for name, value in self.anymail().items()}
        return {"EMAIL_BACKEND": self.backend, **anymail}

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        request = Request(handler.path, dict(handler.headers), body)
        with self._lock:
            self.requests.append(request)
            status, answer, headers = self._status_of(request)
        if self.mode == "hang":
            self._closed.wait(30)
        if self.mode in {"hang", "drop"}:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(answer)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer)

    def _status_of(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        if self.mode == "throttle":
            return 429, b'{"message": "slow down"}', {"Retry-After": self.retry_after}
        if self.mode == "fault":
            return 500, b'{"message": "oops"}', {}
        if self.mode == "deny" or not self._is_authorised(request):
            return 401, b'{"message": "Forbidden"}', {}
        if self.mode == "refuse":
            return 400, b'{"message": "not like this"}', {}
        status, answer = self._take(request)
        if self.mode == "garbage":
            return 200, b"<html>not what you expect</html>", {}
        return status, json.dumps(answer).encode(), {}

    def _is_authorised(self, request: Request) -> bool:
        raise NotImplementedError

    def _take(self, request: Request) -> tuple[int, Any]:
        raise NotImplementedError


class MailgunStandIn(ApiStandIn):
    """Mailgun's messages API. A batch arrives as one request and is delivered to each recipient on its own."""

    backend = "anymail.backends.mailgun.EmailBackend"

    def anymail(self) -> dict[str, Any]:
        return {
            "MAILGUN_API_KEY": API_KEY,
            "MAILGUN_API_URL": f"{self.url}/v3",
            "MAILGUN_SENDER_DOMAIN": "mg.wochenblitz.example",
        }

    def _is_authorised(self, request: Request) -> bool:
        scheme, _space, value = request.headers.get("Authorization", "").partition(" ")
        return scheme == "Basic" and b64decode(value).decode() == f"api:{API_KEY}"

    def _take(self, request: Request) -> tuple[int, Any]:
        if not re.fullmatch(r"/v3/[^/]+/messages", request.path):
            return 404, {"message": "not found"}
        fields = form_fields(request)
        recipients = [address for value in fields.get("to", []) for address in bare_addresses(value)]
        if self.rejected & set(recipients):  # one bad recipient refuses the whole call
            return 400, {"message": "to parameter is not a valid address. please check documentation"}
        variables = json.loads(fields.get("recipient-variables", ["{}"])[0])
        self.delivered += [_mailgun_copy(fields, address, variables.get(address, {})) for address in recipients]
        return 200, {"id": f"<{uuid.uuid4()}@mg.wochenblitz.example>", "message": "Queued. Thank you."}


def _mailgun_copy(fields: dict[str, list[str]], address: str, variables: dict[str, str]) -> Delivered:
    def fill(text: str) -> str:
        return re.sub(r"%recipient\.([^%]+)%", lambda slot: str(variables.get(slot[1], "")), text)

    return Delivered(
        to=address,
        subject=fill(fields["subject"][0]),
        text=fill(fields.get("text", [""])[0]),
        html=fill(fields.get("html", [""])[0]),
        headers=CaseInsensitiveDict(
            {name[2:]: fill(values[0]) for name, values in fields.items() if name.startswith("h:")}
        ),
        metadata={name[2:]: fill(values[0]) for name, values in fields.items() if name.startswith("v:")},
    )


class PostmarkStandIn(ApiStandIn):
    """Postmark's API for single messages. `rejected` are inactive addresses."""

    backend = "anymail.backends.postmark.EmailBackend"

    def anymail(self) -> dict[str, Any]:
        return {"POSTMARK_SERVER_TOKEN": API_KEY, "POSTMARK_API_URL": self.url}

    def _is_authorised(self, request: Request) -> bool:
        return request.headers.get("X-Postmark-Server-Token") == API_KEY

    def _take(self, request: Request) -> tuple[int, Any]:
        if request.path != "/email":
            return 404, {"ErrorCode": 404, "Message": "not found"}
        message = json.loads(request.body)
        recipients = bare_addresses(message["To"])
        if inactive := self.rejected & set(recipients):
            words = "You tried to send to recipient(s) that have been marked as inactive."
            listed = ", ".join(sorted(inactive))
            found = (
                f"Found inactive addresses: {listed}. Inactive recipients are ones that have generated a hard bounce."
            )
            return 422, {"ErrorCode": 406, "Message": f"{words} {found}"}
        headers = CaseInsensitiveDict({header["Name"]: header["Value"] for header in message.get("Headers", [])})
        self.delivered += [
            Delivered(
                to=address,
                subject=message["Subject"],
                text=message.get("TextBody", ""),
                html=message.get("HtmlBody", ""),
                headers=headers,
                metadata=message.get("Metadata", {}),
            )
            for address in recipients
        ]
        answer = {"To": message["To"], "MessageID": str(uuid.uuid4()), "ErrorCode": 0, "Message": "OK"}
        return 200, answer | {"SubmittedAt": "2026-01-01T00:00:00Z"}


class ResendStandIn(ApiStandIn):
    """Resend's API for single messages. It knows a key again, and refuses another mail under it (409)."""

    backend = "anymail.backends.resend.EmailBackend"

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, bytes] = {}

    def anymail(self) -> dict[str, Any]:
        return {"RESEND_API_KEY": API_KEY, "RESEND_API_URL": self.url}

    def _is_authorised(self, request: Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {API_KEY}"

    def _key(self, request: Request) -> str:
        return request.headers.get("Idempotency-Key", "")

    def _take(self, request: Request) -> tuple[int, Any]:
        key = self._key(request)
        if key in self.keys:
            is_same = self.keys[key] == request.body
            return (200, {"id": key}) if is_same else (409, {"name": "invalid_idempotent_request"})
        self.keys[key] = request.body
        self.delivered.append(self._copy(json.loads(request.body)))
        return 200, {"id": key}

    def _copy(self, message: dict[str, Any]) -> Delivered:
        return Delivered(
            to=bare_addresses(message["to"][0])[0],
            subject=message["subject"],
            text=message.get("text", ""),
            html=message.get("html", ""),
            headers=CaseInsensitiveDict(message.get("headers", {})),
        )


class BrevoStandIn(ResendStandIn):
    """Brevo's, which reads the key among the mail's own headers."""

    backend = "anymail.backends.brevo.EmailBackend"

    def anymail(self) -> dict[str, Any]:
        return {"BREVO_API_KEY": API_KEY, "BREVO_API_URL": self.url}

    def _is_authorised(self, request: Request) -> bool:
        return request.headers.get("api-key") == API_KEY

    def _key(self, request: Request) -> str:
        return CaseInsensitiveDict(json.loads(request.body)["headers"]).get("idempotencyKey", "")

    def _take(self, request: Request) -> tuple[int, Any]:
        status, answer = super()._take(request)
        return status, {"messageId": answer["id"]} if status == 200 else answer

    def _copy(self, message: dict[str, Any]) -> Delivered:
        return Delivered(
            to=message["to"][0]["email"],
            subject=message["subject"],
            text=message.get("textContent", ""),
            html=message.get("htmlContent", ""),
            headers=CaseInsensitiveDict(message.get("headers", {})),
        )


def bare_addresses(value: str) -> list[str]:
    """Return the addresses of a recipient field without their display names."""
    return re.findall(r"[^\s<>,\"]+@[^\s<>,\"]+", value)


def form_fields(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form in either encoding."""
    content_type = request.headers["Content-Type"]
    if content_type.startswith("application/x-www-form-urlencoded"):
        return parse_qs(request.body.decode(), keep_blank_values=True)
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    fields: dict[str, list[str]] = {}
    for part in message_from_bytes(head + request.body).get_payload():
        name = part.get_param("name", header="Content-Disposition")
        fields.setdefault(str(name), []).append(part.get_payload(decode=True).decode())
    return fields


@dataclass
class Received:
    """One mail as the SMTP server took it: envelope and octets."""

    sender: str
    recipients: list[str]
    content: bytes
    options: list[str]

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=policy.default)

    @property
    def text(self) -> str:
        return str(self.message.get_body(("plain",)).get_content())

    @property
    def html(self) -> str:
        return str(self.message.get_body(("html",)).get_content())


logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's, a line per command


class SmtpStandIn:
    """An SMTP server that keeps what it takes.

    `refused` maps an address to the answer to its RCPT; `per_session` messages are taken before the session is ended
    with 421; `drop` is "before" or "after" the final dot (after it, the mail is kept and the answer is not given);
    `answer_to_data` is the answer to the dot, given after `delay` seconds; `eight_bit` says whether 8BITMIME is
    offered; with `password` AUTH is demanded, with `tls` a TLS session begun by STARTTLS.
    """

    def __init__(
        self, *, user: str = "", password: str = "", eight_bit: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.user, self.password, self.eight_bit, self.tls = user, password, eight_bit, tls
        self.received: list[Received] = []
        self.refused: dict[str, str] = {}
        self.per_session: int | None = None
        self.drop = ""
        self.answer_to_data = "250 2.0.0 taken"
        self.delay = 0.0
        self.sessions = 0

    def __enter__(self) -> Self:
        self._controller = _SmtpController(self)
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone, sessions included; a second time is harmless."""
        if not self._controller.loop.is_closed():
            self._controller.stop()

    @property
    def port(self) -> int:
        return int(self._controller.port)

    def configure(self, settings: Any) -> None:
        """Point the site at this server; give pytest-django's `settings`."""
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", self.port
        settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = self.user, self.password
        settings.EMAIL_USE_TLS, settings.EMAIL_TIMEOUT = False, 2

    def environment(self) -> dict[str, str]:
        """The environment that points processes of the site at this server."""
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": str(self.port),
            "EMAIL_HOST_USER": self.user,
            "EMAIL_HOST_PASSWORD": self.password,
        }

    # Hooks of aiosmtpd

    async def handle_EHLO(
        self, server: SMTPServer, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.sessions += 1
        session.taken = 0
        return [line for line in responses if self.eight_bit or "8BITMIME" not in line]

    async def handle_MAIL(
        self, server: SMTPServer, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.password and not session.authenticated:
            return "530 5.7.0 authentication required"
        if self.per_session is not None and session.taken >= self.per_session:
            return "421 4.7.0 enough for one session"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(
        self, server: SMTPServer, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        if self.drop == "before":
            _abort(server)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTPServer, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self.delay)
        if self.answer_to_data.startswith("250"):
            content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
            received = Received(envelope.mail_from or "", envelope.rcpt_tos, content, envelope.mail_options)
            self.received.append(received)
            session.taken += 1
        if self.drop == "after":
            _abort(server)
        return self.answer_to_data

    def authenticate(
        self, server: SMTPServer, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data == LoginPassword(self.user.encode(), self.password.encode())
        return AuthResult(success=is_right, handled=False)


def _abort(server: SMTPServer) -> None:
    transport = server.transport
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()


class _SmtpController(Controller):
    """aiosmtpd's controller on a port of the system's choice, which it must know before it starts."""

    def __init__(self, stand_in: SmtpStandIn) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        options: dict[str, Any] = {}
        if stand_in.tls:
            options |= {"tls_context": stand_in.tls, "require_starttls": True}
        if stand_in.password:
            options |= {"auth_require_tls": stand_in.tls is not None, "authenticator": stand_in.authenticate}
        super().__init__(stand_in, hostname="127.0.0.1", port=self._socket.getsockname()[1], **options)

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)
