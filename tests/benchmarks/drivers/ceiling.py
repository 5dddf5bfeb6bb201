"""The ceiling: prepared bytes, joined per reader, sent as chunks (RFC 3030) over a few connections.

Each connection has some mails on their way before it waits for an answer; nothing is recorded.
"""

import os
import socket
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from tests.benchmarks.drivers import protocol

CONNECTIONS = 4
AT_ONCE = 4
TAKEN = b" taken\r\n"
SENDER = "newsletter@wochenblitz.example"


class Session:
    """One SMTP session, which reads answers only when it has to."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", int(os.environ["EMAIL_PORT"])))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect(b"220")
        self._socket.sendall(b"EHLO bench.example\r\n")
        self._expect(b"250 8BITMIME")
        self._unanswered = 0

    def send(self, address: str, message: bytes) -> None:
        while self._unanswered >= AT_ONCE:
            self._unanswered -= self._expect(TAKEN)
        head = f"RSET\r\nMAIL FROM:<{SENDER}> BODY=8BITMIME\r\nRCPT TO:<{address}>\r\nBDAT {len(message)} LAST\r\n"
        self._socket.sendall(head.encode() + message)
        self._unanswered += 1

    def close(self) -> None:
        while self._unanswered:
            self._unanswered -= self._expect(TAKEN)
        self._socket.sendall(b"QUIT\r\n")
        self._expect(b"221")
        self._socket.close()

    def _expect(self, answer: bytes) -> int:
        """Read until the answer has come, and return how often it has; raise if the server is not content."""
        answers = b""
        while answer not in answers or not answers.endswith(b"\n"):
            part = self._socket.recv(4096)
            if not part or b"\n5" in b"\n" + part:
                raise ConnectionError(answers + part)
            answers += part
        return answers.count(answer)


def _segments(payload: dict[str, Any]) -> list[bytes | str]:
    """Cut one serialised message where a reader's own words belong; those are named in between."""
    body = "\r\n".join(
        [
            f"From: {SENDER}",
            "To: <{{ to }}>",
            f"Subject: {payload['subject'].encode('ascii', 'replace').decode()}",
            *(f"{name}: {value}" for name, value in payload["headers"].items()),
            "List-Unsubscribe: <{{ unsubscribe_url }}>",
            "MIME-Version: 1.0",
            'Content-Type: multipart/alternative; boundary="cut"',
            "",
            *_part("plain", payload["text"]),
            *_part("html", payload["html"]),
            "--cut--",
            "",
        ]
    )
    parts: list[bytes | str] = []
    for text in body.split("{{ "):
        name, found, rest = text.partition(" }}")
        parts += [name, rest.encode()] if found else [text.encode()]
    return parts


def _part(kind: str, text: str) -> list[str]:
    head = ["--cut", f"Content-Type: text/{kind}; charset=utf-8", "Content-Transfer-Encoding: 8bit", ""]
    return [*head, *text.splitlines()]


def _messages() -> Iterator[tuple[str, bytes]]:
    segments = _segments(protocol.payload())
    for address in protocol.readers():
        own = protocol.links(address) | {"to": address}
        yield address, b"".join(each if isinstance(each, bytes) else own[each].encode() for each in segments)


def main() -> None:
    def send(first: int) -> None:
        sessions = [Session() for _ in range(CONNECTIONS)]
        for session, (address, message) in zip(cycle(sessions), islice(_messages(), first), strict=False):
            session.send(address, message)
        for session in sessions:
            session.close()

    protocol.run(send)


if __name__ == "__main__":
    main()
