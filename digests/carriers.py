"""Three ways to hand a group of copies over, with one contract: what became of each reader's copy is told apart.

Which one it is follows from `EMAIL_BACKEND`: SMTP is pipelined over a few sessions; Mailgun takes a thousand readers in
one call; every other backend gets a message per reader, several in flight where it is one of Anymail's over HTTP.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import compress
from queue import SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Self

from anymail.backends.base_requests import AnymailRequestsBackend
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from digests import handover
from digests.handover import Letter
from digests.models import Digest
from newsroom.mail import transport
from newsroom.mail.pipelining import Pipeline
from newsroom.mail.transport import Outcome, Result

# Asked right before a copy goes: whether its reader may still get it, and whether there is time for it.
MayGo = Callable[[Letter], bool]

# Copies that may be on their way unrecorded when a worker dies: the price of a kill, against a commit per group. Where
# a group takes but a moment, it grows: its commit then costs more than what a kill in that moment would.
SMALL_GROUP = 10
LARGE_GROUP = 48
MOMENT = 0.1  # seconds

# What is made once for many copies bears the date of its making.
COPIES_KEPT = 60.0  # seconds


class RefusedAsWhole(Exception):
    """A call for many readers was refused because of one of them; nothing was sent."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.detail)
        self.result = result


class Carrier(ABC):
    """Hands copies of one digest over."""

    # So many letters between two commits at first, and at most.
    fewest = SMALL_GROUP
    most = LARGE_GROUP

    @abstractmethod
    def hand_over(self, letters: Sequence[Letter], *, may_go: MayGo) -> list[Result | None]:
        """Return what became of each letter; None: surely not sent, and nobody's fault.

        After a fault that lies with the provider the rest is not begun. Raises `RefusedAsWhole`.
        """


class _Together(Carrier):
    """One call for all letters, which the provider takes apart."""

    def __init__(self, digest: Digest, connection: BaseEmailBackend) -> None:
        self.fewest = self.most = settings.DELIVERY_CALL_SIZE
        self._copies = handover.ReadyCopies(digest, connection)
        self._connection = connection

    def hand_over(self, letters: Sequence[Letter], *, may_go: MayGo) -> list[Result | None]:
        goes = [may_go(letter) for letter in letters]
        going = list(compress(letters, goes))
        if not going:
            return [None] * len(letters)
        whole = self._call(going)
        if whole.outcome is Outcome.REFUSED and len(going) > 1:
            raise RefusedAsWhole(whole)
        return [_own_result(whole, letter) if went else None for letter, went in zip(letters, goes, strict=True)]

    def _call(self, letters: Sequence[Letter]) -> Result:
        try:
            message = self._copies.message_for(letters)
        except ValueError as error:  # of one of them; who it is will be found as with the provider
            return Result(Outcome.REFUSED, type(error).__name__)
        return transport.hand_over(message, connection=self._connection)


def _own_result(whole: Result, letter: Letter) -> Result:
    """Return what a call that was taken says of one reader; one that was not says the same of all."""
    own = (whole.recipients or {}).get(letter.address, whole.outcome)
    if whole.outcome is not Outcome.ACCEPTED or own is Outcome.ACCEPTED:
        return whole
    return Result(Outcome.REFUSED, whole.detail)


class _Singly(Carrier):
    """One message per reader, over one connection or over several at a time."""

    def __init__(
        self, digest: Digest, connections: Sequence[BaseEmailBackend], executor: ThreadPoolExecutor | None
    ) -> None:
        self.most = LARGE_GROUP if executor else SMALL_GROUP
        self._copies = handover.ReadyCopies(digest, connections[0])
        self._count = len(connections)
        self._free: SimpleQueue[BaseEmailBackend] = SimpleQueue()
        self._executor = executor
        for connection in connections:
            self._free.put(connection)

    def hand_over(self, letters: Sequence[Letter], *, may_go: MayGo) -> list[Result | None]:
        results: list[Result | None] = [None] * len(letters)
        waiting: dict[Future[Result], int] = {}
        for index, letter in enumerate(letters):
            if len(waiting) == self._count and _stops(_collect(waiting, results)):
                break
            if not may_go(letter):
                continue
            try:
                message = self._copies.message(letter)
            except ValueError as error:  # a reader whose copy cannot be built must not keep the others waiting
                results[index] = Result(Outcome.REFUSED, type(error).__name__)
                continue
            waiting[self._start(message)] = index
        while waiting:
            _collect(waiting, results)
        return results

    def _start(self, message: EmailMessage) -> Future[Result]:
        if self._executor:
            return self._executor.submit(self._send, message)
        done: Future[Result] = Future()
        done.set_result(self._send(message))
        return done

    def _send(self, message: EmailMessage) -> Result:
        connection = self._free.get()
        try:
            return transport.hand_over(message, connection=connection)
        finally:
            self._free.put(connection)


def _collect(waiting: dict[Future[Result], int], results: list[Result | None]) -> list[Result]:
    """Wait for a call to end, and write down those that did."""
    ended = wait(waiting, return_when=FIRST_COMPLETED).done
    for future in ended:
        results[waiting.pop(future)] = future.result()
    return [future.result() for future in ended]


def _stops(results: Sequence[Result]) -> bool:
    return any(stops(result) for result in results)


def stops(result: Result | None) -> bool:
    """Whether a result speaks against going on: the fault may not lie with that one copy."""
    match result:
        case None | Result(outcome=Outcome.ACCEPTED | Outcome.REFUSED):
            return False
        case Result(outcome=Outcome.THROTTLED | Outcome.NOT_SENT, is_general=False):
            return False
        case _:
            return True


class _Pipelined(Carrier):
    """SMTP: prepared octets, sent without waiting for each answer."""

    def __init__(self, digest: Digest, pipeline: Pipeline) -> None:
        self._copies = handover.PreparedCopies(digest)
        self._pipeline = pipeline

    def hand_over(self, letters: Sequence[Letter], *, may_go: MayGo) -> list[Result | None]:
        return self._pipeline.hand_over(self._copies.parcels(letters), may_begin=lambda index: may_go(letters[index]))


class Lines:
    """The connections of one turn: opened when first used, kept from batch to batch, closed at its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._pipeline: Pipeline | None = None
        self._connections: list[BaseEmailBackend] = []
        self._executor: ThreadPoolExecutor | None = None
        self._carrier: tuple[int, Carrier] | None = None
        self._made_at = 0.0
        self._group = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; the next digest opens anew."""
        self._stack.close()
        self._pipeline, self._connections, self._executor, self._carrier = None, [], None, None

    def group_for(self, carrier: Carrier) -> int:
        """Return how many letters the next group has."""
        return max(carrier.fewest, min(self._group, carrier.most))

    def learn(self, count: int, *, seconds: float) -> None:
        """Make the next group larger if this one took but a moment, and smaller if it took long."""
        if seconds < MOMENT:
            self._group = 2 * count
        elif seconds > 2 * MOMENT:
            self._group = count // 2

    def carrier_for(self, digest: Digest) -> Carrier:
        """Return who hands this digest's copies over; raise `transport.CannotConnect`.

        What is made once per digest is kept for its next batches: a digest that is being sent does not change.
        """
        is_old = monotonic() - self._made_at > COPIES_KEPT
        if self._carrier is None or self._carrier[0] != digest.pk or is_old:
            self._carrier, self._made_at = (digest.pk, self._make_carrier(digest)), monotonic()
        return self._carrier[1]

    def _make_carrier(self, digest: Digest) -> Carrier:
        if transport.is_smtp():
            if self._pipeline is None:
                self._pipeline = self._stack.enter_context(transport.open_pipeline())
            return _Pipelined(digest, self._pipeline)
        if not self._connections:
            self._open()
        if handover.takes_many():
            return _Together(digest, self._connections[0])
        return _Singly(digest, self._connections, self._executor)

    def _open(self) -> None:
        first = self._stack.enter_context(transport.open_connection())
        # Each has its own HTTP session; of other backends nobody knows whether they bear company.
        side_by_side = isinstance(first, AnymailRequestsBackend) and not handover.takes_many()
        others = range(settings.DELIVERY_CONNECTIONS - 1) if side_by_side else ()
        self._connections = [first, *(self._stack.enter_context(transport.open_connection()) for _each in others)]
        if others:
            self._executor = self._stack.enter_context(ThreadPoolExecutor(len(self._connections)))
