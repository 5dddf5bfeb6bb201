"""A mail server or provider of the benchmark's own: takes everything, counts each reader, keeps nothing.

    python -m tests.benchmarks.sink smtp|http

It prints its port, and then answers each line it reads: `reset`, `total`, or `check FILE`, where the file names who
should have got one mail each. It ends when the pipe closes.
"""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from threading import Thread
from urllib.parse import unquote_plus

END_OF_MESSAGE = b"\r\n.\r\n"
ADDRESS = re.compile(r"[^\s<>,\"]+@[^\s<>,\"]+")
MAILGUN_TO = re.compile(rb"(?:^|&)to=([^&]*)")
# Inside a JSON string the quotes would be escaped, so no article can look like the field.
POSTMARK_TO = re.compile(rb'"To": ?"((?:[^"\\]|\\.)*)"')


class Tally:
    """How many mails each reader got, and how many bytes they had."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.mails: Counter[str] = Counter()
        self.total = self.bytes = 0

    def add(self, readers: list[str], size: int) -> None:
        self.mails.update(readers)
        self.total += len(readers)
        self.bytes += size

    def check(self, expected: list[str]) -> dict[str, int]:
        readers = set(expected)
        return {
            "missing": len(readers - self.mails.keys()),
            "twice": sum(count > 1 for count in self.mails.values()),
            "strangers": len(self.mails.keys() - readers),
            "bytes": self.bytes,
        }


class Smtp(asyncio.Protocol):
    """RFC 5321 with PIPELINING and 8BITMIME, as far as a sender needs it."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = bytearray()
        self._readers: list[str] = []
        self._is_in_message = False
        self._searched = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answers: list[bytes] = []
        while (answer := self._take_message() if self._is_in_message else self._take_command()) is not None:
            answers.append(answer)
        if answers:
            self._transport.write(b"".join(answers))
            if answers[-1].startswith(b"221"):
                self._transport.close()

    def _take_message(self) -> bytes | None:
        end = self._buffer.find(END_OF_MESSAGE, max(0, self._searched - len(END_OF_MESSAGE)))
        if end < 0:
            self._searched = len(self._buffer)
            return None
        del self._buffer[: end + len(END_OF_MESSAGE)]
        self._tally.add(self._readers, end)
        self._readers, self._is_in_message, self._searched = [], False, 0
        return b"250 2.0.0 taken\r\n"

    def _take_command(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        match line[:4].upper():
            case b"EHLO":
                return b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
            case b"RCPT":
                self._readers += ADDRESS.findall(line.decode())
                return b"250 2.1.5 ok\r\n"
            case b"DATA":
                self._is_in_message = True
                return b"354 go on\r\n"
            case b"QUIT":
                return b"221 2.0.0 bye\r\n"
            case b"MAIL" | b"RSET" | b"NOOP" | b"HELO":
                return b"250 2.0.0 ok\r\n"
        return b"500 5.5.1 unknown\r\n"


class Http(asyncio.Protocol):
    """The sending calls of Mailgun (many readers) and Postmark (one), over connections that are kept."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:head_end])
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[head_end + 4 : end])
            del self._buffer[:end]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        answer: dict[str, object]
        if path.endswith(b"/messages"):
            values = [unquote_plus(value.decode()) for value in MAILGUN_TO.findall(body)]
            answer = {"id": "<1@sink.example>", "message": "Queued. Thank you."}
        else:
            values = [value.decode() for value in POSTMARK_TO.findall(body)[:1]]
            answer = {"To": " ".join(values), "MessageID": "1", "ErrorCode": 0, "Message": "OK"}
        self._tally.add([address for value in values for address in ADDRESS.findall(value)], len(body))
        content = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._transport.write(head.encode() + content)


def _obey(tally: Tally) -> None:
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "reset":
            tally.reset()
            print("0", flush=True)
        elif word == "total":
            print(tally.total, flush=True)
        elif word == "check":
            print(json.dumps(tally.check(Path(value).read_text().split())), flush=True)
    os._exit(0)  # whoever asked for it is gone


async def main(kind: str) -> None:
    tally = Tally()
    protocol = {"smtp": Smtp, "http": Http}[kind]
    server = await asyncio.get_running_loop().create_server(lambda: protocol(tally), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    Thread(target=_obey, args=(tally,), daemon=True).start()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
