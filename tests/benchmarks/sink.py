"""A mail server or provider of the benchmark's own: takes everything, counts each reader, keeps nothing.

    python -m tests.benchmarks.sink smtp|http [EXTENSION ...]

It prints its port, and then answers each line it reads: `reset`, `total`, `cpu` (its own processor seconds), `distance
SECONDS`, by which its answers come later from then on, or `check FILE [LEAVERS]`, where FILE names who should have got
one mail each and LEAVERS who of them need not have got it. It ends when the pipe closes.

It must not be what limits a fast sender, so it is one thread that waits for all sockets at once, looks for the end of a
message only where one may be (nowhere, if it comes as a chunk), and keeps one octet for each of a million readers.
"""

import json
import os
import re
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes

DOT = b".\r\n"
END_OF_MESSAGE = b"\r\n" + DOT
ADDRESS = re.compile(rb"[^\s<>,\"]+@[^\s<>,\"]+")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
BOUNDARY = re.compile(rb'(?i)\r\ncontent-type: *multipart/form-data;[^\r]*boundary=(?:"([^"\r]+)"|([^\s;]+))')
# Inside a JSON string the quotes would be escaped, so no article can look like the field.
POSTMARK_TO = re.compile(rb'"To": ?"((?:[^"\\]|\\.)*)"')
MAILGUN_ANSWER = b'{"id": "<1@sink.example>", "message": "Queued. Thank you."}'
# The address as it came, within quotes that are JSON's.
POSTMARK_ANSWER = b'{"To": "%s", "MessageID": "1", "ErrorCode": 0, "Message": "OK"}'
TAKEN = b"250 2.0.0 taken\r\n"
EXTENSIONS = ("PIPELINING", "CHUNKING")
AT_ONCE = 1 << 20

NEAR = 1024  # octets: so near the end of what came in a message's end is, in all but rare cases
SCRUTINY = 64  # one message of so many is read from the front

# Readers are numbered, so that an octet each will do.
ZERO = ord("0")
NAME, DOMAIN = b"leserin", b"@leser.example"
# Who signs up while a digest goes out gets a mail that is none of the digest's.
VISITORS = b"@besuch.example"


class Tally:
    """How many mails each reader got, and how many bytes they had."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._numbered = bytearray()
        self._others: dict[bytes, int] = {}
        self.total = self.bytes = 0

    def add(self, address: bytes) -> None:
        if address.endswith(VISITORS):
            return
        self.total += 1
        number = _number_of(address)
        if number is None:
            self._others[address] = self._others.get(address, 0) + 1
            return
        if number >= len(self._numbered):
            self._numbered.extend(bytes(number + 1000))
        self._numbered[number] = min(self._numbered[number] + 1, 255)

    def check(self, expected: Path, leavers: Path | None = None) -> dict[str, int]:
        excused = set(leavers.read_bytes().split()) if leavers else set()
        missing = twice = known = 0
        with expected.open("rb") as lines:
            for line in lines:
                address = line.strip()
                mails = self.count_of(address)
                missing += mails == 0 and address not in excused
                twice += mails > 1
                known += mails > 0
        everyone = len(self._numbered) - self._numbered.count(0) + len(self._others)
        return {"missing": missing, "twice": twice, "strangers": everyone - known, "bytes": self.bytes}

    def count_of(self, address: bytes) -> int:
        number = _number_of(address)
        if number is None:
            return self._others.get(address, 0)
        return self._numbered[number] if number < len(self._numbered) else 0


def _number_of(address: bytes) -> int | None:
    if not (address.startswith(NAME) and address.endswith(DOMAIN)):
        return None
    digits = address[len(NAME) : -len(DOMAIN)]
    # Not "007", which is somebody else's address.
    return int(digits) if digits.isdigit() and digits[0] != ZERO and len(digits) < 9 else None


class Session(Protocol):
    """One client's connection: takes what came in, the first octets of a buffer, and returns what to answer."""

    greeting: bytes
    is_over: bool

    def __init__(self, tally: Tally) -> None: ...
    def feed(self, data: bytes | bytearray, count: int) -> bytes: ...


class Smtp:
    """RFC 5321 with 8BITMIME and the extensions it is to offer, as far as a sender needs it."""

    greeting = b"220 sink.example ESMTP\r\n"

    def __init__(self, tally: Tally, *, offers: Sequence[str] = EXTENSIONS) -> None:
        self._tally, self._offers = tally, offers
        self._rest = b""  # of a command that is not whole yet
        self._readers: list[bytes] = []
        self._is_in_message = self.is_over = False
        self._last = b""  # octets of the message, for an end that is cut in two
        self._taken = 0
        self._chunk = -1  # octets of a chunk that are still to come; without one, less than none

    def feed(self, data: bytes | bytearray, count: int) -> bytes:
        if not self._is_in_message:
            if not self._rest:
                return self._take_commands(data, count)
            words, self._rest = self._rest + data[:count], b""
            return self._take_commands(words, len(words))
        end = self._end_of_message(data, count)
        self._tally.bytes += count if end < 0 else end - len(DOT)
        if end < 0:
            self._last = (self._last + data[max(0, count - 4) : count])[-4:]
            return b""
        self._take_message()
        return TAKEN + self._take_commands(bytes(data[end:count]), count - end)

    def _end_of_message(self, data: bytes | bytearray, count: int) -> int:
        """Return where the message's end is over, or -1.

        It is looked for from behind: what follows it in the same breath are commands, as more content would have to
        wait for our word (RFC 2920), and a line of nothing but a dot stands nowhere else (RFC 5321 section 4.5.2). As
        that is the sender's part to keep, some messages are read from the front.
        """
        joint = self._last + data[: min(count, 4)]
        if (end := joint.find(END_OF_MESSAGE)) >= 0 and end < len(self._last):
            return end + len(END_OF_MESSAGE) - len(self._last)
        if self._taken % SCRUTINY == 0:
            end = data.find(END_OF_MESSAGE, 0, count)
        else:
            near = max(0, count - NEAR)
            end = data.rfind(END_OF_MESSAGE, near, count)
            if end < 0 and near:
                end = data.rfind(END_OF_MESSAGE, 0, near + 4)
        return end if end < 0 else end + len(END_OF_MESSAGE)

    def _take_message(self) -> None:
        for reader in self._readers:
            self._tally.add(reader)
        self._readers, self._is_in_message = [], False
        self._taken += 1

    def _take_commands(self, words: bytes | bytearray, count: int) -> bytes:
        """Take commands, and chunks between them, where they lie."""
        answers, place = [], 0
        while True:
            if self._chunk >= 0:
                here = min(self._chunk, count - place)
                place, self._chunk = place + here, self._chunk - here
                self._tally.bytes += here
                if self._chunk:
                    break
                self._chunk = -1
                self._take_message()
                answers.append(TAKEN)
            end = words.find(b"\r\n", place, count)
            if end < 0:
                self._rest = bytes(words[place:count])
                break
            line, place = bytes(words[place:end]), end + 2
            answers.append(self._obey(line))
            if self._is_in_message:
                answers.append(self.feed(words[place:count], count - place))
                break
        return b"".join(answers)

    def _obey(self, line: bytes) -> bytes:
        match line[:4].upper():
            case b"MAIL":
                self._readers = []
                return b"250 2.1.0 ok\r\n"
            case b"RCPT":
                self._readers.append(line[line.find(b"<") + 1 : line.find(b">")])
                return b"250 2.1.5 ok\r\n"
            case b"DATA":
                self._is_in_message = True
                self._last = b"\r\n"  # of its own line: an empty message is nothing but a dot behind it
                return b"354 go on\r\n"
            case b"BDAT" if "CHUNKING" in self._offers:
                _word, size, _last = line.split()
                self._chunk = int(size)
                return b""
            case b"EHLO":
                offered = "".join(f"250-{extension}\r\n" for extension in self._offers)
                return f"250-sink.example\r\n{offered}250 8BITMIME\r\n".encode()
            case b"QUIT":
                self.is_over = True
                return b"221 2.0.0 bye\r\n"
            case b"RSET" | b"NOOP" | b"HELO":
                self._readers = []
                return b"250 2.0.0 ok\r\n"
        return b"500 5.5.1 unknown\r\n"


class Http:
    """The sending calls of Mailgun (many readers) and Postmark (one), over connections that are kept."""

    greeting = b""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = bytearray()
        self._head = b""  # of the request under way
        self._end = 0
        self.is_over = False

    def feed(self, data: bytes | bytearray, count: int) -> bytes:
        self._buffer += memoryview(data)[:count]
        answers = []
        while self._has_whole_request():
            answers.append(self._answer())
        return b"".join(answers)

    def _has_whole_request(self) -> bool:
        if not self._end:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head = bytes(self._buffer[:end])
            length = LENGTH.search(self._head)
            self._end = end + 4 + (int(length[1]) if length else 0)
        return len(self._buffer) >= self._end

    def _answer(self) -> bytes:
        body = bytes(memoryview(self._buffer)[len(self._head) + 4 : self._end])
        del self._buffer[: self._end]
        self._end = 0
        self._tally.bytes += len(body)
        is_mailgun = self._head.split(b" ", 2)[1].endswith(b"/messages")
        to = _mailgun_to(self._head, body) if is_mailgun else _postmark_to(body)
        for address in ADDRESS.findall(to):
            self._tally.add(address)
        return _ok(MAILGUN_ANSWER if is_mailgun else POSTMARK_ANSWER % to)


def _mailgun_to(head: bytes, body: bytes) -> bytes:
    """Return all fields `to` of a form, either kind, with commas between them."""
    if boundary := BOUNDARY.search(head):
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + (boundary[1] or boundary[2]))]
        return b",".join(value for names, _blank, value in parts if b'; name="to"' in names)
    values = [field[3:] for field in body.split(b"&") if field.startswith(b"to=")]
    return unquote_to_bytes(b",".join(values).replace(b"+", b" "))


def _postmark_to(body: bytes) -> bytes:
    found = POSTMARK_TO.search(body)
    return found[1] if found else b""


def _ok(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content


class Server:
    """All sockets and the pipe of whoever asks, in one loop."""

    def __init__(self, kind: Callable[[Tally], Session]) -> None:
        self._kind, self._tally = kind, Tally()
        self._sockets = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self._buffer = bytearray(AT_ONCE)  # of all sessions: nothing of a message is kept
        self._unsaid: dict[socket.socket, bytes] = {}
        self._distance = 0.0  # seconds there and back
        self._on_their_way: deque[tuple[float, socket.socket, Session, bytes]] = deque()
        self._asked = b""
        self._sockets.register(self._listener, selectors.EVENT_READ, None)
        self._sockets.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        print(self._listener.getsockname()[1], flush=True)

    def serve(self) -> None:
        while True:
            for key, events in self._sockets.select(self._until_next_arrival()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is None:
                    if not self._hear():
                        return
                elif events & selectors.EVENT_WRITE:
                    self._say(key.fileobj, key.data, b"")
                else:
                    self._read(key.fileobj, key.data)
            self._let_arrive()

    def _accept(self) -> None:
        client, _address = self._listener.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = self._kind(self._tally)
        self._sockets.register(client, selectors.EVENT_READ, session)
        self._answer(client, session, session.greeting)

    def _read(self, client: socket.socket, session: Session) -> None:
        try:
            count = client.recv_into(self._buffer)
        except OSError:
            count = 0
        if not count:
            self._hang_up(client)
        elif answer := session.feed(self._buffer, count):
            self._answer(client, session, answer)

    def _answer(self, client: socket.socket, session: Session, answer: bytes) -> None:
        """Answer at once, or when the distance is covered; what comes meanwhile is read, as on a network."""
        if self._distance or self._on_their_way:
            self._on_their_way.append((time.monotonic() + self._distance, client, session, answer))
        else:
            self._say(client, session, answer)

    def _until_next_arrival(self) -> float | None:
        return max(0.0, self._on_their_way[0][0] - time.monotonic()) if self._on_their_way else None

    def _let_arrive(self) -> None:
        while self._on_their_way and self._on_their_way[0][0] <= time.monotonic():
            _due_at, client, session, answer = self._on_their_way.popleft()
            if client.fileno() >= 0:  # not hung up meanwhile
                self._say(client, session, answer)

    def _say(self, client: socket.socket, session: Session, answer: bytes) -> None:
        before = self._unsaid.pop(client, b"")
        words = before + answer
        try:
            said = client.send(words) if words else 0
        except BlockingIOError:
            said = 0
        except OSError:
            self._hang_up(client)
            return
        if left := words[said:]:
            self._unsaid[client] = left
        if bool(left) != bool(before):
            self._sockets.modify(client, selectors.EVENT_WRITE if left else selectors.EVENT_READ, session)
        if session.is_over and not left and all(each is not client for _due_at, each, *_ in self._on_their_way):
            self._hang_up(client)

    def _hang_up(self, client: socket.socket) -> None:
        self._unsaid.pop(client, None)
        self._sockets.unregister(client)
        client.close()

    def _hear(self) -> bool:
        """Answer whoever started us; False when that one is gone."""
        data = os.read(sys.stdin.fileno(), 1 << 16)
        *lines, self._asked = (self._asked + data).split(b"\n")
        for line in lines:
            self._obey(*line.decode().split())
        return bool(data)

    def _obey(self, word: str, *words: str) -> None:
        match word:
            case "reset":
                self._tally.reset()
                print("0", flush=True)
            case "distance":
                self._distance = float(words[0])
                print(self._distance, flush=True)
            case "total":
                print(self._tally.total, flush=True)
            case "cpu":
                print(time.process_time(), flush=True)
            case "check":
                print(json.dumps(self._tally.check(*map(Path, words))), flush=True)


if __name__ == "__main__":
    _module, kind, *offers = sys.argv
    Server({"smtp": partial(Smtp, offers=offers), "http": Http}[kind]).serve()
