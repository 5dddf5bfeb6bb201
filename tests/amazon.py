"""Amazon's SNS, as far as the site sees it: certificates of its own, and a proxy behind which its host answers.

The site asks the true host name over TLS; only that the way there leads through a local proxy is the test's doing.
"""

import base64
import json
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

HOST = "sns.eu-central-1.amazonaws.com"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:newsletter-events"
CERTIFICATE_URL = f"https://{HOST}/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem"
_SIGNED = ("Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type")


class Amazon:
    """What signs messages and serves the certificate; `requests` holds the paths it was asked for."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.status = 200
        self._key, self.certificate = _certified("sns.amazonaws.com")
        self._folder = tempfile.TemporaryDirectory()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self._write("host.pem", *_certified(HOST)))

    def __enter__(self) -> Self:
        amazon = self

        class Tunnel(StreamRequestHandler):
            def handle(self) -> None:
                amazon._serve(self)

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._folder.cleanup()

    def lead_there(self, monkeypatch: Any) -> None:
        """Let the site's way to Amazon end here."""
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{self._server.server_address[1]}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Path(self._folder.name) / "host.pem"))
        monkeypatch.setenv("NO_PROXY", "")

    def message(self, text: str, **values: Any) -> dict[str, Any]:
        message: dict[str, Any] = {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": TOPIC,
            "Message": text,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "SignatureVersion": "2",
            "SigningCertURL": CERTIFICATE_URL,
            "UnsubscribeURL": f"https://{HOST}/?Action=Unsubscribe",
            **values,
        }
        return {**message, "Signature": self.sign(message)}

    def sign(self, message: dict[str, Any]) -> str:
        text = "".join(f"{name}\n{message[name]}\n" for name in _SIGNED if name in message)
        way = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()  # noqa: S303
        return base64.b64encode(self._key.sign(text.encode(), padding.PKCS1v15(), way)).decode()

    def _write(self, name: str, key: rsa.RSAPrivateKey, certificate: bytes) -> str:
        path = Path(self._folder.name) / name
        plain = serialization.NoEncryption()
        path.write_bytes(
            certificate + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )
        return str(path)

    def _serve(self, tunnel: StreamRequestHandler) -> None:
        target = tunnel.rfile.readline().split()[1].decode()
        while tunnel.rfile.readline().strip():
            pass
        assert target == f"{HOST}:443", target
        tunnel.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self._tls.wrap_socket(tunnel.connection, server_side=True) as stream:
            request = stream.recv(65_536).decode()
            path = request.split()[1]
            self.requests.append(path)
            body = self.certificate if path.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"
            head = f"HTTP/1.1 {self.status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            stream.sendall(head.encode() + body)


def as_post(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a test client posts, the way Amazon does it."""
    headers = {"X-Amz-Sns-Message-Type": message["Type"], "X-Amz-Sns-Message-Id": message.get("MessageId", "")}
    return {"data": json.dumps(message), "content_type": "text/plain; charset=UTF-8", "headers": headers}


@cache  # a new key costs a tenth of a second and more
def _certified(host: str) -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.PEM)
