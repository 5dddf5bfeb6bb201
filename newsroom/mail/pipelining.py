"""SMTP without waiting for each answer, over a few sessions at once, each reader's outcome told apart.

Where a server takes chunks (RFC 3030), envelope and message leave together and a session waits for nothing: some mails
are always on their way. Where it only offers PIPELINING (RFC 2920), a message leaves together with the envelope of the
next one, and a session waits once per mail. Where it offers neither, each command waits for its answer.
"""

import selectors
import smtplib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from newsroom.mail.classification import classify, classify_opening
from newsroom.mail.outcomes import Outcome, Result
from newsroom.mail.sessions import DATA, DOT, MAIL, RCPT, RESET, Errand, Session, Step
from newsroom.mail.smtp import SERVICE_NOT_AVAILABLE, EmailBackend, LostAfterDot, LostBeforeDot

PARCELS_PER_SESSION = 5  # for fewer a further session does not pay
EXTRA_PATIENCE = 5.0  # a session more is welcome, not needed: seconds that the others may wait for it
EXTRA_PAUSE = 60.0  # after a server refused one

# So many seconds a process sends no chunks after a session was lost with some unanswered. A server that hangs up on
# what it has not read takes its last answers back (RST), and may do so whenever a session has carried what it allows.
CHUNK_PAUSE = 3600.0
DEFAULT_TIMEOUT = 60.0

# An answer that was asked for longer ago is asked for again before the message leaves: a process may have stood still.
LONGEST_ANSWER_AGE = 2.0

LOOK_AROUND = 0.25  # seconds after which it is looked at who is silent
READY_FOR_MESSAGE = 354

# An address in an envelope is printable ASCII without spaces and angle brackets, so that nothing can break out of it.
_SIGNS_OF_ADDRESS = bytes(set(range(ord("!"), ord("~") + 1)) - set(b"<>"))
_COMMANDS = (MAIL, RCPT, DATA)  # as they stand in an envelope
_ACCEPTED = Result(Outcome.ACCEPTED, "")


@dataclass(slots=True)
class Parcel:
    """One reader's copy; `content` is asked right before the copy goes.

    It is asked with whether the server takes eight bits, and whether it takes chunks, which have no dots of SMTP's. It
    comes in pieces, lest they be joined twice, and with whether any of them has eight bits.
    """

    address: str
    sender: str
    content: Callable[[bool, bool], tuple[Sequence[bytes], bool]]


class Pipeline:
    """Sessions with the SMTP server of Django's settings."""

    no_chunks_until = 0.0  # of the whole process

    def __init__(self, *, connections: int = 4) -> None:
        self._connections = connections
        self._selector: selectors.BaseSelector | None = None
        self._no_extras_until = 0.0
        self.sessions: list[Session] = []

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

    def part_from(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            session.say_goodbye()
        for session in sessions:
            session.hear_goodbye()
            self.drop(session)

    def drop(self, session: Session) -> None:
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
            takes_chunks = monotonic() >= Pipeline.no_chunks_until
            session = Session(backend.connection, timeout=timeout, takes_chunks=takes_chunks)
        except BaseException:
            if backend.connection is not None:
                backend.connection.close()
            raise
        self.selector.register(session.socket, selectors.EVENT_READ, session)
        self.sessions.append(session)


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

    def _attend(self, session: Session, mask: int) -> None:
        if session not in self._pipeline.sessions:
            return
        if mask & selectors.EVENT_WRITE:
            session.flush()
        if mask & selectors.EVENT_READ:
            session.read()
            self._take_answers(session)
            if session.is_gone and session in self._pipeline.sessions:
                self._lose(session)
        if session.is_chunked and session in self._pipeline.sessions:
            self._begin(session)
        self._watch(session)

    def _take_answers(self, session: Session) -> None:
        if session.is_chunked:
            taken = session.take_acceptances()
            if taken is not None:
                for errand in taken:
                    self.results[errand.index] = _ACCEPTED
                return
        elif usual := session.take_usual_answers():
            self._go_on(session, *usual)
            return
        self._hear_all(session)

    def _hear_all(self, session: Session) -> None:
        for code, text in session.take_replies():
            self._hear(session, code, text)
            if session not in self._pipeline.sessions:
                return

    def _watch(self, session: Session) -> None:
        """Have the selector tell of room to write while there is something to write."""
        if session.is_full != session.is_watched_for_room and session in self._pipeline.sessions:
            session.is_watched_for_room = session.is_full
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.is_full else 0)
            self._pipeline.selector.modify(session.socket, events, session)

    # What is written

    def _begin(self, session: Session, before: bytes = b"") -> None:
        """Write the envelope of the next parcel, together with what goes before it; or as many chunks as have room."""
        if session.is_chunked:
            while session.has_room and (errand := self._next_errand(session)):
                self._send_chunk(session, errand)
        elif octets := before + self._next_envelope(session):
            session.send(octets)

    def _begin_anew(self, session: Session) -> None:
        """Go on after an envelope that came to nothing, of which the server may still know a part."""
        session.expected.append((RESET, None))
        if session.is_pipelined:
            self._begin(session, b"RSET\r\n")
        else:
            session.send(b"RSET\r\n")

    def _next_envelope(self, session: Session) -> bytes:
        """Return what begins the next parcel: all of its envelope, or as much as may go without waiting."""
        errand = self._next_errand(session)
        if errand is None:
            return b""
        if not session.is_pipelined:
            session.expected.append((MAIL, errand))
            return _command(errand, MAIL)
        session.expected += ((MAIL, errand), (RCPT, errand), (DATA, errand))
        return errand.envelope

    def _next_errand(self, session: Session) -> Errand | None:
        while self._waiting and not self._is_stopped and not session.is_used_up():
            index = self._waiting.popleft()
            parcel = self._parcels[index]
            try:
                content, has_eight_bit = parcel.content(session.eight_bit, session.is_chunked)
                last = f"BDAT {sum(map(len, content))} LAST" if session.is_chunked else "DATA"
                envelope = _envelope(parcel, has_eight_bit=session.eight_bit and has_eight_bit, last=last)
            except ValueError as error:
                self.results[index] = Result(Outcome.REFUSED, type(error).__name__)
                continue
            if self._may_begin(index):
                may_repeat = session.carried > 0 or session.opened_at < self._begun_at
                session.carried += 1
                return Errand(index, envelope, content, may_repeat, monotonic())
        return None

    def _send_chunk(self, session: Session, errand: Errand) -> None:
        """Write a mail whole. What became of the one before is not known yet, and none of it may be left (RFC 3030)."""
        before: Sequence[bytes] = ()
        if session.carried > 1:
            before = (b"RSET\r\n",)
            session.expected.append((RESET, None))
        session.expected += ((MAIL, errand), (RCPT, errand), (DOT, errand))
        session.send(b"".join((*before, errand.envelope, *errand.content)), errand=errand)

    def _send_message(self, session: Session, errand: Errand) -> None:
        if errand.refusal:  # the server is ready though it took no recipient (RFC 2920 section 3.1)
            session.expected.append((DOT, errand))
            session.send(b".\r\n", errand=errand)
        elif self._is_stopped or not self._may_still_go(errand):
            self._lose(session)
        else:
            session.expected.append((DOT, errand))
            following = self._next_envelope(session) if session.is_pipelined else b""
            session.send(b"".join((*errand.content, following)), errand=errand, after=len(following))

    def _may_still_go(self, errand: Errand) -> bool:
        return monotonic() - errand.asked_at <= LONGEST_ANSWER_AGE or self._may_begin(errand.index)

    # What is answered

    def _go_on(self, session: Session, taken: Errand, following: Errand) -> None:
        self.results[taken.index] = _ACCEPTED
        self._send_message(session, following)

    def _hear(self, session: Session, code: int, text: bytes) -> None:
        if not session.expected:  # most often a goodbye
            self._lose(session)
            return
        step, errand = session.expected[0]
        is_meant = code >= 400 or (code == READY_FOR_MESSAGE if step is DATA else code < 300)
        if not is_meant:
            self._lose(session)
            return
        session.expected.popleft()
        if code == SERVICE_NOT_AVAILABLE:
            self._hear_of_end(session, errand, _refusal(step, code, text))
        elif errand is None:
            self._hear_of_reset(session, code)
        elif step is DOT:
            self._hear_of_message(session, errand, code, text)
        elif step is DATA:
            self._hear_of_data(session, errand, code, text)
        else:
            self._hear_of_envelope(session, errand, step, code, text)
        if session.farewell and not session.has_sent and session in self._pipeline.sessions:
            self._lose(session)

    def _hear_of_reset(self, session: Session, code: int) -> None:
        if code >= 400:
            self._lose(session)
        elif not session.expected:
            self._begin(session)

    def _hear_of_envelope(self, session: Session, errand: Errand, step: Step, code: int, text: bytes) -> None:
        if code >= 400 and errand.refusal is None:
            errand.refusal = _refusal(step, code, text)
        if session.is_pipelined:
            return
        if errand.refusal:
            self._finish(errand.index, classify(errand.refusal))
            self._begin_anew(session)
        elif step is MAIL:
            session.expected.append((RCPT, errand))
            session.send(_command(errand, RCPT))
        else:
            session.expected.append((DATA, errand))
            session.send(_command(errand, DATA))

    def _hear_of_data(self, session: Session, errand: Errand, code: int, text: bytes) -> None:
        if code == READY_FOR_MESSAGE:
            self._send_message(session, errand)
            return
        errand.refusal = errand.refusal or _refusal(DATA, code, text)
        self._tell_unsent(errand, errand.refusal)
        self._begin_anew(session)

    def _hear_of_message(self, session: Session, errand: Errand, code: int, text: bytes) -> None:
        if not session.has_left(errand) and code < 300:  # taken before it was whole: that cannot be
            session.expected.appendleft((DOT, errand))
            self._lose(session)
            return
        if code < 300 and (errand.refusal is None or errand.is_put_off):
            self.results[errand.index] = _ACCEPTED
        else:
            errand.refusal = errand.refusal or _refusal(DOT, code, text)
            self._tell_unsent(errand, errand.refusal)
        if not session.has_left(errand):  # refused before it was whole: what is left of it would be read as commands
            self._lose(session)
        elif not session.expected:
            self._begin(session)

    # What goes wrong

    def _hear_of_end(self, session: Session, errand: Errand | None, error: smtplib.SMTPException) -> None:
        """The server ends the session and says so. What left before is still heard of: many a server answers on."""
        session.farewell = error
        if errand is None:
            return
        if errand.refusal is None:
            errand.refusal, errand.is_put_off = error, True
        if all(each is not errand for _step, each in session.expected):
            self._tell_unsent(errand, errand.refusal)

    def _lose(self, session: Session) -> None:
        """Tell what became of the parcels in a session that is over."""
        self._pipeline.drop(session)
        ended = session.farewell if session.has_hung_up else None  # as it said: it took nothing any more
        for errand in dict.fromkeys(errand for _step, errand in session.expected if errand):
            if errand.refusal:
                self._tell_unsent(errand, errand.refusal)
            elif session.has_left(errand) and not ended:
                self._finish(errand.index, classify(LostAfterDot()))
                if session.is_chunked:
                    Pipeline.no_chunks_until = monotonic() + CHUNK_PAUSE
            else:
                self._put_back(errand, ended or LostBeforeDot())

    def _tell_unsent(self, errand: Errand, refusal: smtplib.SMTPException) -> None:
        if errand.is_put_off:
            self._put_back(errand, refusal)
        else:
            self._finish(errand.index, classify(refusal))

    def _put_back(self, errand: Errand, error: smtplib.SMTPException) -> None:
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
            if session.expected and not session.has_sent:
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


def _envelope(parcel: Parcel, *, has_eight_bit: bool, last: str) -> bytes:
    if not parcel.address or (parcel.sender + parcel.address).encode().translate(None, _SIGNS_OF_ADDRESS):
        raise ValueError("An address in an envelope is printable ASCII without spaces and angle brackets.")
    body = " BODY=8BITMIME" if has_eight_bit else ""
    return f"MAIL FROM:<{parcel.sender}>{body}\r\nRCPT TO:<{parcel.address}>\r\n{last}\r\n".encode()


def _command(errand: Errand, step: Step) -> bytes:
    return errand.envelope.splitlines(keepends=True)[_COMMANDS.index(step)]


def _refusal(step: Step, code: int, text: bytes) -> smtplib.SMTPException:
    """Return the answer as smtplib would raise it, but for the addresses."""
    if step is MAIL:
        return smtplib.SMTPSenderRefused(code, text, "")
    if step is RCPT:
        return smtplib.SMTPRecipientsRefused({"": (code, text)})
    return smtplib.SMTPDataError(code, text)
