"""One session with an SMTP server that never waits: octets out, replies in, and what is known of each message.

What was written up to its last octet and not answered is ambiguous; what was not is surely unsent.
"""

import re
import smtplib
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from time import monotonic

from newsroom.mail.smtp import MESSAGES_PER_SESSION, SECONDS_PER_SESSION, LostBeforeDot

# At thousands of mails a second a session of a hundred would be mostly greetings; common servers allow as many.
MESSAGES_PER_PIPELINE = 1000

# Messages on their way in a session whose server takes them as chunks: with as many, two sessions take a small group at
# once, far away too. What a lost session leaves in doubt is all of them.
CHUNKS_AT_ONCE = 5

GOODBYE_PATIENCE = 1.0  # seconds
LONGEST_REPLY = 65_536
TLS_RECORD = 16_384  # RFC 8446 section 5.1: what is sent at once is one record, and no part of one can be read
READ_SIZE = 4096  # the answers to a message and an envelope are a tenth of that

# A server may hold its next answer back until the last one's arrival is confirmed (RFC 896), which the kernel puts off
# for 40 ms where nothing is written meanwhile. Linux forgets that it should not, and is told again.
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)

# What nearly every server says at once to a message and the envelope after it, where all is well.
_USUAL_ANSWERS = re.compile(rb"250 [^\n]*\n250 [^\n]*\n250 [^\n]*\n354 [^\n]*\n")
_USUALLY_EXPECTED = 4
_ALL_WELL = re.compile(rb"(?:250 [^\n]*\n)+")


class Step(Enum):
    """What the next answer will be about; a chunk is answered like the dot that ends a message."""

    RESET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    DOT = auto()


# Looked up once: in its class a member costs Python 3.11 as much as three calls, and a mail would do it five times.
RESET, MAIL, RCPT, DATA, DOT = Step


@dataclass(slots=True, eq=False)
class Errand:
    """A parcel on its way through a session.

    `end` is how many octets the session has written when it has left; `is_put_off` says that what refuses it ends the
    session, and has nothing to do with it.
    """

    index: int
    envelope: bytes
    content: Sequence[bytes]
    may_repeat: bool
    asked_at: float
    end: float = float("inf")
    refusal: smtplib.SMTPException | None = None
    is_put_off: bool = False


class Session:
    """A connection that smtplib opened and secured."""

    def __init__(self, connection: smtplib.SMTP, *, timeout: float, takes_chunks: bool = True) -> None:
        connection.ehlo_or_helo_if_needed()
        if connection.sock is None:
            raise LostBeforeDot("closed in the greeting")
        self.eight_bit = connection.has_extn("8bitmime")
        self.is_pipelined = connection.has_extn("pipelining")
        self.is_chunked = takes_chunks and self.is_pipelined and connection.has_extn("chunking")
        self.socket: socket.socket = connection.sock
        self.expected: deque[tuple[Step, Errand | None]] = deque()
        self.carried = 0
        self.is_gone = self.has_hung_up = False
        self.farewell: smtplib.SMTPException | None = None  # by which the server said that it ends the session
        self.opened_at = monotonic()
        self.deadline = 0.0
        self.is_watched_for_room = False
        self._most = MESSAGES_PER_PIPELINE if self.is_pipelined else MESSAGES_PER_SESSION
        self._at_once = CHUNKS_AT_ONCE if self.is_chunked else 1
        self._timeout = timeout
        self._connection = connection
        self._is_tls = isinstance(connection.sock, ssl.SSLSocket)
        self._out: bytes | memoryview = b""
        self._queued = self._written = 0  # octets
        self._in = b""
        self._continued = 0
        self.socket.setblocking(False)
        with suppress(OSError):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError, ValueError):
            if connection.file is not None:
                self._in = connection.file.peek()  # what smtplib read ahead

    def is_used_up(self) -> bool:
        return self.carried >= self._most or monotonic() - self.opened_at >= SECONDS_PER_SESSION

    @property
    def is_full(self) -> bool:
        """Whether the network takes no more for now."""
        return bool(self._out)

    @property
    def has_room(self) -> bool:
        """Whether a further envelope may be written now."""
        most = (self._at_once - 1) * _USUALLY_EXPECTED
        return len(self.expected) <= most and not self._out and self.farewell is None

    def has_left(self, errand: Errand) -> bool:
        """Whether the server may have the whole message."""
        return errand.end <= self._written

    @property
    def has_sent(self) -> bool:
        """Whether a message has left that may have been taken."""
        return any(errand and not errand.refusal and self.has_left(errand) for _step, errand in self.expected)

    def send(self, octets: bytes, *, errand: Errand | None = None, after: int = 0) -> None:
        """Write as much as the network takes; but for so many octets `after` it they end with the errand's message."""
        self._queued += len(octets)
        if errand is not None:
            errand.end = self._queued - after
        self._out = b"".join((self._out, octets)) if self._out else octets
        self.deadline = monotonic() + self._timeout
        self.flush()

    def flush(self) -> None:
        """Write what the network takes. If it takes nothing any more, reading will tell what was answered before."""
        while out := self._out:
            try:
                count = self.socket.send(memoryview(out)[:TLS_RECORD] if self._is_tls else out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self._out = b""
                return
            self._written += count
            self._out = memoryview(out)[count:] if count < len(out) else b""
        self.deadline = monotonic() + self._timeout

    def read(self) -> None:
        """Take in what has come; `is_gone` then says whether more can come."""
        try:
            while octets := self.socket.recv(READ_SIZE):
                self._in += octets
                if self.is_chunked and QUICK_ACK is not None:
                    self.socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
                if not self._is_tls or len(self._in) > LONGEST_REPLY:
                    return  # the selector knows whether there is more; within TLS it does not
            self.is_gone = self.has_hung_up = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.is_gone = self.has_hung_up = True

    def take_usual_answers(self) -> tuple[Errand, Errand] | None:
        """Return whose message was taken and who is next, if the server said just that and nothing else.

        All four replies at once are by far the most frequent case; any other is for `take_replies`.
        """
        expected = self.expected
        if (
            len(expected) != _USUALLY_EXPECTED
            or expected[0][0] is not DOT
            or self._continued
            or not _USUAL_ANSWERS.fullmatch(self._in)
        ):
            return None
        (_dot, taken), (_mail, following) = expected[0], expected[1]
        assert taken and following
        if not self.has_left(taken):
            return None
        expected.clear()
        self._in = b""
        return taken, following

    def take_acceptances(self) -> list[Errand] | None:
        """Return whose messages were taken, if the server took all it was sent and says nothing else.

        The same for chunks, of whose replies any number may come together.
        """
        if self._continued or self.farewell or not _ALL_WELL.fullmatch(self._in):
            return None
        expected, count = self.expected, self._in.count(b"\n")
        answered = [errand for step, errand in islice(expected, count) if step is DOT and errand is not None]
        if len(expected) < count or any(errand.refusal or not self.has_left(errand) for errand in answered):
            return None
        for _answer in range(count):
            expected.popleft()
        self._in = b""
        self.deadline = monotonic() + self._timeout
        return answered

    def take_replies(self) -> list[tuple[int, bytes]]:
        *lines, self._in = self._in.split(b"\n")
        replies: list[tuple[int, bytes]] = []
        for line in lines:
            code, sign = line[:3], line[3:4]
            if len(code) != 3 or not code.isdigit() or code[0] not in b"2345" or sign not in b" -\r":
                self.is_gone = True
                return replies
            if sign == b"-":
                self._continued += len(line)
                continue
            self._continued = 0
            replies.append((int(code), line[4:]))
        if self._continued + len(self._in) > LONGEST_REPLY:
            self.is_gone = True
        if replies:
            self.deadline = monotonic() + self._timeout
        return replies

    def say_goodbye(self) -> None:
        with suppress(OSError):
            self.socket.settimeout(GOODBYE_PATIENCE)
            self.socket.sendall(b"QUIT\r\n")

    def hear_goodbye(self) -> None:
        with suppress(OSError):
            self.socket.recv(512)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.close()
