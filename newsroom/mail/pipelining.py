"""SMTP without waiting for each answer (RFC 2920), over a few sessions at once, each reader's outcome told apart.

A message leaves together with the envelope of the next one, so that a session waits once per mail. What was written up
to its final dot and not answered is ambiguous; what was not is surely unsent. Where a server does not offer PIPELINING
each command waits for its answer.
"""

import re
import selectors
import smtplib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from time import monotonic

from newsroom.mail.classification import classify, classify_opening
from newsroom.mail.outcomes import Outcome, Result
from newsroom.mail.smtp import (
    MESSAGES_PER_SESSION,
    SECONDS_PER_SESSION,
    SERVICE_NOT_AVAILABLE,
    EmailBackend,
    LostAfterDot,
    LostBeforeDot,
)

# At thousands of mails a second a session of a hundred would be mostly greetings; common servers allow as many.
MESSAGES_PER_PIPELINE = 1000
PARCELS_PER_SESSION = 5  # for fewer a further session does not pay
EXTRA_PATIENCE = 5.0  # a session more is welcome, not needed: seconds that the others may wait for it
EXTRA_PAUSE = 60.0  # after a server refused one
GOODBYE_PATIENCE = 1.0
DEFAULT_TIMEOUT = 60.0

# An answer that was asked for longer ago is asked for again before the message leaves: a process may have stood still.
LONGEST_ANSWER_AGE = 2.0

LOOK_AROUND = 0.25  # seconds after which it is looked at who is silent
LONGEST_REPLY = 65_536
TLS_RECORD = 16_384  # RFC 8446 section 5.1: what is sent at once is one record, and no part of one can be read
READ_SIZE = 4096  # the answers to a message and an envelope are a tenth of that
READY_FOR_MESSAGE = 354

# An address in an envelope is printable ASCII without spaces and angle brackets, so that nothing can break out of it.
_SIGNS_OF_ADDRESS = bytes(set(range(ord("!"), ord("~") + 1)) - set(b"<>"))
# What nearly every server says at once to a message and the envelope after it, where all is well.
_USUAL_ANSWERS = re.compile(rb"250 [^\n]*\n250 [^\n]*\n250 [^\n]*\n354 [^\n]*\n")
_USUALLY_EXPECTED = 4
_ACCEPTED = Result(Outcome.ACCEPTED, "")


@dataclass(slots=True)
class Parcel:
    """One reader's copy; `content` is asked with whether the server takes eight bits, right before the copy goes.

    It comes in pieces, lest they be joined twice.
    """

    address: str
    sender: str
    content: Callable[[bool], Sequence[bytes]]


class Pipeline:
    """Sessions with the SMTP server of Django's settings."""

    def __init__(self, *, connections: int = 4) -> None:
        self._connections = connections
        self._selector: selectors.BaseSelector | None = None
        self._no_extras_until = 0.0
        self.sessions: list[_Session] = []

    def open(self) -> None:
        """Open one session, if none is; raises what smtplib and the network do."""
        if not self.sessions:
            self._add(None)

    def open_more(self, parcels: int) -> None:
        """Open as many sessions as so many parcels are worth; that one stands is enough."""
        self.open()
        wanted = min(self._connections, parcels // PARCELS_PER_SESSION)
        while len(self.sessions) < wanted and monotonic() >= self._no_extras_until:
            try:
                self._add(EXTRA_PATIENCE)
            except OSError:
                self._no_extras_until = monotonic() + EXTRA_PAUSE

    def hand_over(self, parcels: Sequence[Parcel], *, may_begin: Callable[[int], bool]) -> list[Result | None]:
        """Return what became of each parcel; None: surely not sent, and nobody's fault.

        `may_begin` is asked for each right before its envelope is written; what it raises breaks everything off. After
        a fault that lies with the server nothing more is begun.
        """
        run = _Run(self, parcels, may_begin)
        try:
            run.work()
        except BaseException:
            for session in list(self.sessions):
                self.drop(session)
            raise
        return run.results

    def close(self) -> None:
        """Say goodbye where nothing is under way; never raises."""
        self.part_from([session for session in self.sessions if not session.expected])
        for session in list(self.sessions):
            self.drop(session)
        if self._selector is not None:
            self._selector.close()
            self._selector = None

    def part_from(self, sessions: Sequence["_Session"]) -> None:
        for session in sessions:
            session.say_goodbye()
        for session in sessions:
            session.hear_goodbye()
            self.drop(session)

    def drop(self, session: "_Session") -> None:
        with suppress(KeyError, ValueError):
            self.selector.unregister(session.socket)
        self.sessions.remove(session)
        session.close()

    @property
    def selector(self) -> selectors.BaseSelector:
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
        return self._selector

    def _add(self, patience: float | None) -> None:
        backend = EmailBackend()
        timeout = backend.timeout or DEFAULT_TIMEOUT
        backend.timeout = timeout if patience is None else min(patience, timeout)
        try:
            backend.open()
            session = _Session(backend.connection, timeout=timeout)
        except BaseException:
            if backend.connection is not None:
                backend.connection.close()
            raise
        self.selector.register(session.socket, selectors.EVENT_READ, session)
        self.sessions.append(session)


class _Step(Enum):
    """What the next answer will be about."""

    RESET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    DOT = auto()


# Looked up once: in its class a member costs Python 3.11 as much as three calls, and a mail would do it five times.
_RESET, _MAIL, _RCPT, _DATA, _DOT = _Step
_COMMANDS = (_MAIL, _RCPT, _DATA)  # as they stand in an envelope


@dataclass(slots=True, eq=False)
class _Errand:
    """A parcel on its way through a session."""

    index: int
    envelope: bytes
    content: Sequence[bytes]
    may_repeat: bool
    asked_at: float = 0.0
    refusal: smtplib.SMTPException | None = None


class _Session:
    """A connection that smtplib opened and secured: octets out, replies in, never waiting."""

    def __init__(self, connection: smtplib.SMTP, *, timeout: float) -> None:
        connection.ehlo_or_helo_if_needed()
        if connection.sock is None:
            raise LostBeforeDot("closed in the greeting")
        self.eight_bit = connection.has_extn("8bitmime")
        self.is_pipelined = connection.has_extn("pipelining")
        self.socket: socket.socket = connection.sock
        self.expected: deque[tuple[_Step, _Errand | None]] = deque()
        self.to_dot = 0  # octets to be written until the final dot has left
        self.carried = 0
        self.is_gone = False
        self.opened_at = monotonic()
        self.deadline = 0.0
        self.is_watched_for_room = False
        self._most = MESSAGES_PER_PIPELINE if self.is_pipelined else MESSAGES_PER_SESSION
        self._timeout = timeout
        self._connection = connection
        self._is_tls = isinstance(connection.sock, ssl.SSLSocket)
        self._out: bytes | memoryview = b""
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

    def send(self, octets: bytes, *, to_dot: int = 0) -> None:
        """Write as much as the network takes; `to_dot` is how many of the octets end with the final dot."""
        if to_dot:
            self.to_dot = len(self._out) + to_dot
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
            self.to_dot -= count
            self._out = memoryview(out)[count:] if count < len(out) else b""
        self.deadline = monotonic() + self._timeout

    def read(self) -> None:
        """Take in what has come; `is_gone` then says whether more can come."""
        try:
            while octets := self.socket.recv(READ_SIZE):
                self._in += octets
                if not self._is_tls or len(self._in) > LONGEST_REPLY:
                    return  # the selector knows whether there is more; within TLS it does not
            self.is_gone = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.is_gone = True

    def take_usual_answers(self) -> tuple["_Errand", "_Errand"] | None:
        """Return whose message was taken and who is next, if the server said just that and nothing else.

        All four replies at once are by far the most frequent case; any other is for `take_replies`.
        """
        expected = self.expected
        if (
            len(expected) != _USUALLY_EXPECTED
            or expected[0][0] is not _DOT
            or self.to_dot > 0
            or self._continued
            or not _USUAL_ANSWERS.fullmatch(self._in)
        ):
            return None
        (_dot, taken), (_mail, following) = expected[0], expected[1]
        assert taken and following
        expected.clear()
        self._in = b""
        return taken, following

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


class _Run:
    """The way of some parcels through the sessions of a pipeline."""

    def __init__(self, pipeline: Pipeline, parcels: Sequence[Parcel], may_begin: Callable[[int], bool]) -> None:
        self.results: list[Result | None] = [None] * len(parcels)
        self._pipeline = pipeline
        self._parcels = parcels
        self._may_begin = may_begin
        self._waiting = deque(range(len(parcels)))
        self._is_stopped = False
        self._begun_at = self._look_around_at = monotonic()

    def work(self) -> None:
        self._throw_out_ended()
        while self._find_work():
            for key, mask in self._pipeline.selector.select(LOOK_AROUND):
                self._attend(key.data, mask)
            if self._is_stopped:
                self._break_off_unsent()
            self._expire()

    def _throw_out_ended(self) -> None:
        """Part from sessions that the server ended, or said something in, while nobody listened."""
        for session in list(self._pipeline.sessions):
            session.read()
            if session.take_replies() or session.is_gone:
                self._pipeline.drop(session)

    def _find_work(self) -> bool:
        """Say whether answers are awaited; where none is and parcels are left, begin with them."""
        while not self._is_awaiting():
            if self._is_stopped or not self._waiting:
                return False
            self._pipeline.part_from([session for session in self._pipeline.sessions if session.is_used_up()])
            try:
                self._pipeline.open_more(len(self._waiting))
            except OSError as error:
                self._finish(self._waiting.popleft(), classify_opening(error))
                return False
            for session in list(self._pipeline.sessions):
                self._begin(session)
                self._watch(session)
        return True

    def _is_awaiting(self) -> bool:
        for session in self._pipeline.sessions:  # noqa: SIM110, asked after each wait: a generator costs four times that
            if session.expected:
                return True
        return False

    def _attend(self, session: _Session, mask: int) -> None:
        if session not in self._pipeline.sessions:
            return
        if mask & selectors.EVENT_WRITE:
            session.flush()
        if mask & selectors.EVENT_READ:
            session.read()
            if usual := session.take_usual_answers():
                self._go_on(session, *usual)
            else:
                self._hear_all(session)
            if session.is_gone and session in self._pipeline.sessions:
                self._lose(session)
        self._watch(session)

    def _hear_all(self, session: _Session) -> None:
        for code, text in session.take_replies():
            self._hear(session, code, text)
            if session not in self._pipeline.sessions:
                return

    def _watch(self, session: _Session) -> None:
        """Have the selector tell of room to write while there is something to write."""
        if session.is_full != session.is_watched_for_room and session in self._pipeline.sessions:
            session.is_watched_for_room = session.is_full
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.is_full else 0)
            self._pipeline.selector.modify(session.socket, events, session)

    # What is written

    def _begin(self, session: _Session, before: bytes = b"") -> None:
        """Write the envelope of the next parcel, together with what goes before it."""
        if octets := before + self._next_envelope(session):
            session.send(octets)

    def _begin_anew(self, session: _Session) -> None:
        """Go on after an envelope that came to nothing, of which the server may still know a part."""
        session.expected.append((_RESET, None))
        if session.is_pipelined:
            self._begin(session, b"RSET\r\n")
        else:
            session.send(b"RSET\r\n")

    def _next_envelope(self, session: _Session) -> bytes:
        """Return what begins the next parcel: all of its envelope, or as much as may go without waiting."""
        errand = self._next_errand(session)
        if errand is None:
            return b""
        if not session.is_pipelined:
            session.expected.append((_MAIL, errand))
            return _command(errand, _MAIL)
        session.expected += ((_MAIL, errand), (_RCPT, errand), (_DATA, errand))
        return errand.envelope

    def _next_errand(self, session: _Session) -> _Errand | None:
        while self._waiting and not self._is_stopped and not session.is_used_up():
            index = self._waiting.popleft()
            parcel = self._parcels[index]
            try:
                content = parcel.content(session.eight_bit)
                has_eight_bit = session.eight_bit and not all(map(bytes.isascii, content))
                envelope = _envelope(parcel, has_eight_bit=has_eight_bit)
            except ValueError as error:
                self.results[index] = Result(Outcome.REFUSED, type(error).__name__)
                continue
            if self._may_begin(index):
                may_repeat = session.carried > 0 or session.opened_at < self._begun_at
                session.carried += 1
                return _Errand(index, envelope, content, may_repeat, monotonic())
        return None

    def _send_message(self, session: _Session, errand: _Errand) -> None:
        if errand.refusal:  # the server is ready though it took no recipient (RFC 2920 section 3.1)
            session.expected.append((_DOT, errand))
            session.send(b".\r\n")
        elif self._is_stopped or not self._may_still_go(errand):
            self._lose(session)
        else:
            session.expected.append((_DOT, errand))
            following = self._next_envelope(session) if session.is_pipelined else b""
            octets = b"".join((*errand.content, following))
            session.send(octets, to_dot=len(octets) - len(following))

    def _may_still_go(self, errand: _Errand) -> bool:
        return monotonic() - errand.asked_at <= LONGEST_ANSWER_AGE or self._may_begin(errand.index)

    # What is answered

    def _go_on(self, session: _Session, taken: _Errand, following: _Errand) -> None:
        self.results[taken.index] = _ACCEPTED
        self._send_message(session, following)

    def _hear(self, session: _Session, code: int, text: bytes) -> None:
        if not session.expected:  # most often a goodbye
            self._lose(session)
            return
        step, errand = session.expected[0]
        is_meant = code >= 400 or (code == READY_FOR_MESSAGE if step is _DATA else code < 300)
        if not is_meant:
            self._lose(session)
            return
        session.expected.popleft()
        if errand is None:
            self._hear_of_reset(session, code)
        elif code == SERVICE_NOT_AVAILABLE:
            self._end(session, errand, _refusal(step, code, text))
        elif step is _DOT:
            self._hear_of_message(session, errand, code, text)
        elif step is _DATA:
            self._hear_of_data(session, errand, code, text)
        else:
            self._hear_of_envelope(session, errand, step, code, text)

    def _hear_of_reset(self, session: _Session, code: int) -> None:
        if code >= 400:
            self._lose(session)
        elif not session.expected:
            self._begin(session)

    def _hear_of_envelope(self, session: _Session, errand: _Errand, step: _Step, code: int, text: bytes) -> None:
        if code >= 400 and errand.refusal is None:
            errand.refusal = _refusal(step, code, text)
        if session.is_pipelined:
            return
        if errand.refusal:
            self._finish(errand.index, classify(errand.refusal))
            self._begin_anew(session)
        elif step is _MAIL:
            session.expected.append((_RCPT, errand))
            session.send(_command(errand, _RCPT))
        else:
            session.expected.append((_DATA, errand))
            session.send(_command(errand, _DATA))

    def _hear_of_data(self, session: _Session, errand: _Errand, code: int, text: bytes) -> None:
        if code == READY_FOR_MESSAGE:
            self._send_message(session, errand)
            return
        self._finish(errand.index, classify(errand.refusal or _refusal(_DATA, code, text)))
        self._begin_anew(session)

    def _hear_of_message(self, session: _Session, errand: _Errand, code: int, text: bytes) -> None:
        if session.to_dot > 0 and code < 300:  # taken before it was whole: that cannot be
            session.expected.appendleft((_DOT, errand))
            self._lose(session)
            return
        if errand.refusal:
            self._finish(errand.index, classify(errand.refusal))
        elif code < 300:
            self.results[errand.index] = _ACCEPTED
        else:
            self._finish(errand.index, classify(_refusal(_DOT, code, text)))
        if session.to_dot > 0:  # refused before it was whole: what is left of it would be read as commands
            self._lose(session)
        elif not session.expected:
            self._begin(session)

    # What goes wrong

    def _end(self, session: _Session, errand: _Errand, error: smtplib.SMTPException) -> None:
        """The server ends the session and says so; it has nothing of this parcel."""
        session.expected = deque(each for each in session.expected if each[1] is not errand)
        if errand.refusal:
            self._finish(errand.index, classify(errand.refusal))
        else:
            self._put_back(errand, error)
        self._lose(session)

    def _lose(self, session: _Session) -> None:
        """Tell what became of the parcels in a session that is over."""
        self._pipeline.drop(session)
        sent = {errand for step, errand in session.expected if step is _DOT and session.to_dot <= 0}
        for errand in dict.fromkeys(errand for _step, errand in session.expected if errand):
            if errand.refusal:
                self._finish(errand.index, classify(errand.refusal))
            elif errand in sent:
                self._finish(errand.index, classify(LostAfterDot()))
            else:
                self._put_back(errand, LostBeforeDot())

    def _put_back(self, errand: _Errand, error: smtplib.SMTPException) -> None:
        """Try a parcel that is surely unsent again, if the session's age may be to blame.

        That ends: the first parcel of a session begun in this run is told as it is.
        """
        if self._is_stopped:
            return
        if errand.may_repeat:
            self._waiting = deque(sorted([errand.index, *self._waiting]))
        else:
            self._finish(errand.index, classify(error))

    def _break_off_unsent(self) -> None:
        for session in list(self._pipeline.sessions):
            if session.expected and session.expected[0][0] is not _DOT:
                self._lose(session)

    def _expire(self) -> None:
        now = monotonic()
        if now < self._look_around_at:
            return
        self._look_around_at = now + LOOK_AROUND
        for session in list(self._pipeline.sessions):
            if session.expected and now > session.deadline:
                self._lose(session)

    def _finish(self, index: int, result: Result) -> None:
        self.results[index] = result
        self._is_stopped = self._is_stopped or result.is_general


def _envelope(parcel: Parcel, *, has_eight_bit: bool) -> bytes:
    if not parcel.address or (parcel.sender + parcel.address).encode().translate(None, _SIGNS_OF_ADDRESS):
        raise ValueError("An address in an envelope is printable ASCII without spaces and angle brackets.")
    body = " BODY=8BITMIME" if has_eight_bit else ""
    return f"MAIL FROM:<{parcel.sender}>{body}\r\nRCPT TO:<{parcel.address}>\r\nDATA\r\n".encode()


def _command(errand: _Errand, step: _Step) -> bytes:
    return errand.envelope.splitlines(keepends=True)[_COMMANDS.index(step)]


def _refusal(step: _Step, code: int, text: bytes) -> smtplib.SMTPException:
    """Return the answer as smtplib would raise it, but for the addresses."""
    if step is _MAIL:
        return smtplib.SMTPSenderRefused(code, text, "")
    if step is _RCPT:
        return smtplib.SMTPRecipientsRefused({"": (code, text)})
    return smtplib.SMTPDataError(code, text)
