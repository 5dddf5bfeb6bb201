"""Service mails are rows, written in the transaction that causes them and sent by a relay, once.

A second time only where the first outcome is ambiguous, with the same token and Message-ID (R-21). The relay claims a
row by a guarded update with a lease and a fence, commits that it is about to send before it does, sends with no
transaction open, and commits what came of it.
"""

import logging
import random
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic, sleep
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)
from django.db.models import Q
from django.utils.translation import gettext as _

from newsroom.mail import gate, marks, messages, transport
from newsroom.mail.messages import make_message_id
from newsroom.mail.models import OutboxMail, OutboxMailQuerySet
from newsroom.mail.transport import CannotConnect, Outcome, Result

log = logging.getLogger(__name__)

State = OutboxMail.State

FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(hours=1)
# With these pauses about a day: then the provider's trouble is no longer a passing one, nor the reader waiting.
MAX_ATTEMPTS = 32
# A run ends before the task's time limit, one hand-over (30 s at most) included.
RUN_TIME = 40.0
# Between two write transactions on SQLite, which has one writer: a sign-up gets in at once.
SQLITE_PAUSE = 0.02
_OURS = Q(state__in=[State.LEASED, State.SUBMITTING])


@dataclass(frozen=True)
class Prepared:
    """A mail ready to go. `on_sent` runs in the transaction that marks the row sent."""

    message: EmailMessage
    on_sent: Callable[[datetime, Result], None] | None = None


@dataclass(frozen=True)
class Withheld:
    """The mail must not go (any more). The reason is shown to staff and holds no address."""

    reason: str


Builder = Callable[[OutboxMail], Prepared | Withheld]

_builders: dict[str, Builder] = {}


def register(kind: str, builder: Builder) -> None:
    """State how a kind of service mail is made, from an app's `ready`; a second one of a kind replaces the first."""
    _builders[kind] = builder


def enqueue(kind: str, *, reference: UUID, now: datetime) -> OutboxMail:
    """Note a mail to be sent, in the transaction that causes it; once per kind and cause."""
    mail, _created = OutboxMail.objects.get_or_create(
        kind=kind, reference=reference, defaults={"next_attempt_at": now, "created_at": now}
    )
    return mail


def draft(kind: str, *, reference: UUID, now: datetime) -> dict[str, Any]:
    """Return the fields of a mail to be sent, for who writes it together with its cause, which is new."""
    return {"uuid": uuid4(), "kind": kind, "reference": reference, "next_attempt_at": now, "created_at": now}


def send_due(now: datetime, *, limit: int = 100) -> int:
    """Send the mails that are due and return how many were taken up. Safe to run anywhere, any number of times at once.

    It ends early when the provider cannot be reached, when the hour's budget is spent, and before a task's time is up.
    """
    _settle_lost(now)
    if gate.is_closed():
        return 0
    due = _due(now, limit=min(limit, _rest_of_budget(now)))
    with _Relay(now) as relay:
        return sum(relay.take_up(pk) for pk in due if not relay.is_over)


def retry(mails: OutboxMailQuerySet, *, now: datetime) -> int:
    """Let failed mails be tried again from the start, and waiting ones at once; return how many."""
    failed = mails.filter(state=State.FAILED).update(
        state=State.PENDING, reason="", attempts=0, ambiguous_attempts=0, next_attempt_at=now
    )
    return failed + mails.filter(state=State.PENDING, next_attempt_at__gt=now).update(next_attempt_at=now)


def _due(now: datetime, *, limit: int) -> list[int]:
    return list(OutboxMail.objects.due(now).order_by("next_attempt_at", "id").values_list("pk", flat=True)[:limit])


def _rest_of_budget(now: datetime) -> int:
    """Return how many mails may still go this hour; a flood of sign-ups is held here (E-42)."""
    rest = settings.CONFIRMATIONS_PER_HOUR - OutboxMail.objects.sent_since(now - timedelta(hours=1)).count()
    if rest <= 0 and OutboxMail.objects.due(now).exists():
        log.error("service mails are held: %s were sent within an hour", settings.CONFIRMATIONS_PER_HOUR)
    return max(rest, 0)


def _settle_lost(now: datetime) -> None:
    """Give mails whose relay died during the call their one second try, and no third."""
    result = Result(Outcome.AMBIGUOUS, "relay lost")
    for mail in list(OutboxMail.objects.lost(now)):
        change = decide(result, attempts=mail.attempts, ambiguous_attempts=mail.ambiguous_attempts, now=now)
        if OutboxMail.objects.lost(now).filter(pk=mail.pk, fence=mail.fence).update(**change, fence=mail.fence + 1):
            log.warning("service mail %s (%s): %s %s", mail.uuid, mail.kind, result.outcome, result.detail)


def decide(result: Result, *, attempts: int, ambiguous_attempts: int, now: datetime) -> dict[str, Any]:
    """Return what an outcome changes in the row of a mail that was not sent, or not surely."""
    if result.outcome is Outcome.REFUSED:
        return {"state": State.FAILED, "reason": _reason(_("refused"), result.detail)}
    if result.outcome is Outcome.AMBIGUOUS:
        return _decide_ambiguous(result, ambiguous_attempts=ambiguous_attempts, now=now)
    if attempts >= MAX_ATTEMPTS:
        return {"state": State.FAILED, "reason": _reason(_("given up"), result.detail)}
    # The provider's wish is the least; the pause grows all the same, so that attempts last for about a day.
    wait = max(_pause(attempts), result.retry_after or timedelta())
    return {"state": State.PENDING, "reason": _reason(_("not sent yet"), result.detail), "next_attempt_at": now + wait}


def _decide_ambiguous(result: Result, *, ambiguous_attempts: int, now: datetime) -> dict[str, Any]:
    change = {"ambiguous_attempts": ambiguous_attempts + 1, "reason": _reason(_("uncertain"), result.detail)}
    if ambiguous_attempts:
        return {**change, "state": State.FAILED}
    return {**change, "state": State.PENDING, "next_attempt_at": now + _pause(1)}


def _pause(attempts: int) -> timedelta:
    """Return 15 s, 30 s … 1 h, each a fifth more or less, so that what failed together does not return together."""
    exponential = FIRST_PAUSE * int(2 ** min(max(attempts - 1, 0), 10))
    return min(exponential * random.uniform(0.8, 1.2), LONGEST_PAUSE)  # noqa: S311


def _reason(words: str, detail: str) -> str:
    return f"{words} ({detail})"[:200] if detail else words


class _ClaimLost(Exception):
    """Another relay has the mail, or may soon have it: nothing more may be sent or written."""


class _Relay(ExitStack):
    """One run: its clock, and its connection, opened when the first mail is ready and closed with the run."""

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self._began, self._began_at = now, monotonic()
        self._connection: BaseEmailBackend | None = None
        self._is_stopped = False

    @property
    def now(self) -> datetime:
        return self._began + timedelta(seconds=monotonic() - self._began_at)

    @property
    def is_over(self) -> bool:
        return self._is_stopped or monotonic() - self._began_at > RUN_TIME

    def take_up(self, pk: int) -> bool:
        """Claim one mail and bring it as far as it gets; return whether it was ours."""
        mail = self._claim(pk)
        if mail is None:
            return False
        try:
            self._bring_on(mail)
        except _ClaimLost:
            log.warning("service mail %s: claim lost, nothing more is done", mail.uuid)
        if connection.vendor == "sqlite":
            sleep(SQLITE_PAUSE)
        return True

    def _claim(self, pk: int) -> OutboxMail | None:
        if gate.is_closed():
            return None
        now = self.now
        mail = OutboxMail.objects.due(now).filter(pk=pk).first()
        if mail is None:
            return None
        free = OutboxMail.objects.due(now).filter(pk=pk, fence=mail.fence)
        mail.fence += 1
        mail.attempts += 1  # by the claim, so that a mail whose making kills the relay is given up some day
        claimed = free.update(
            state=State.LEASED, fence=mail.fence, attempts=mail.attempts, lease_until=now + settings.DELIVERY_LEASE
        )
        return mail if claimed else None

    def _bring_on(self, mail: OutboxMail) -> None:
        prepared = _prepare(mail)
        if isinstance(prepared, Withheld):
            _write(mail, state=State.WITHHELD, reason=prepared.reason[:200])
        elif isinstance(prepared, Result):
            self._settle(mail, prepared)
        else:
            prepared.message.extra_headers["Message-ID"] = make_message_id(mail.uuid)
            marks.mark(prepared.message, mail.uuid)
            self._send(mail, prepared)

    def _send(self, mail: OutboxMail, prepared: Prepared) -> None:
        try:
            connection = self._open()
        except CannotConnect as error:
            self._settle(mail, error.result)
            return
        self._commit_intent(mail)
        result = transport.hand_over(prepared.message, connection=connection)
        if result.outcome is Outcome.ACCEPTED:
            _mark_sent(mail, prepared, result=result, now=self.now)
        else:
            self._settle(mail, result)

    def _open(self) -> BaseEmailBackend:
        if self._connection is None:
            self._connection = self.enter_context(transport.open_connection())
        return self._connection

    def _commit_intent(self, mail: OutboxMail) -> None:
        """Commit that the mail is about to be sent; refuse if so much time has passed that it may not be ours soon."""
        lease_until = self.now + settings.DELIVERY_LEASE
        _write(
            mail, still=Q(state=State.LEASED, lease_until__gt=self.now), state=State.SUBMITTING, lease_until=lease_until
        )
        if lease_until - self.now < settings.DELIVERY_LEASE / 2:
            # This process was frozen here. Nothing was sent, and by the fence nobody else's row is touched.
            _write(mail, state=State.PENDING, lease_until=None)
            raise _ClaimLost

    def _settle(self, mail: OutboxMail, result: Result) -> None:
        """Write down what was not sent, or not surely; where the provider is to blame, the other mails wait as well."""
        log.warning("service mail %s (%s): %s %s", mail.uuid, mail.kind, result.outcome, result.detail)
        if result.is_general:
            self._is_stopped = True
            wait = max(FIRST_PAUSE, result.retry_after or timedelta())
            waiting = OutboxMail.objects.filter(state=State.PENDING, next_attempt_at__lte=self.now)
            waiting.update(next_attempt_at=self.now + wait)
        change = decide(result, attempts=mail.attempts, ambiguous_attempts=mail.ambiguous_attempts, now=self.now)
        _write(mail, **change)


def _prepare(mail: OutboxMail) -> Prepared | Withheld | Result:
    """Return the mail as its cause makes it, or a result that says why there is none."""
    if mail.kind not in _builders:
        return Result(Outcome.REFUSED, "unknown kind")
    if mail.attempts > MAX_ATTEMPTS:
        return Result(Outcome.NOT_SENT, "never got ready")
    try:
        with messages.caused_by(mail.reference):
            return _builders[mail.kind](mail)
    except Exception as error:  # one mail that cannot be made must not keep the others waiting
        # Where it happened, but not in the error's own words: they may quote an address.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("service mail %s (%s) cannot be made: %s\n%s", mail.uuid, mail.kind, type(error).__name__, where)
        return Result(Outcome.NOT_SENT, f"cannot be made: {type(error).__name__}")


def _mark_sent(mail: OutboxMail, prepared: Prepared, *, result: Result, now: datetime) -> None:
    def note() -> None:
        if prepared.on_sent:
            prepared.on_sent(now, result)

    sent: dict[str, Any] = {"state": State.SENT, "sent_at": now, "provider_message_id": result.provider_message_id}
    try:
        _write(mail, also=note, **sent, reason="")
    except (_ClaimLost, DatabaseError):
        raise
    except Exception as error:  # the mail is out; not to say so would send it a second time
        log.error("service mail %s (%s): noting it failed: %s", mail.uuid, mail.kind, type(error).__name__)
        _write(mail, **sent, reason=_reason(_("sent, but its cause could not note it"), type(error).__name__))


def _write(mail: OutboxMail, *, still: Q = _OURS, also: Callable[[], None] = lambda: None, **change: Any) -> None:
    """Change the row if it still is ours, and do `also` in the same transaction.

    A database that is away for a moment is waited for while the lease lasts: what was sent has to be written down.
    """
    began_at, pause = monotonic(), 0.1
    while True:
        try:
            with transaction.atomic(durable=True):
                if not OutboxMail.objects.filter(still, pk=mail.pk, fence=mail.fence).update(**change):
                    raise _ClaimLost
                also()
            return
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or monotonic() - began_at > settings.DELIVERY_LEASE.total_seconds() / 2:
                raise
            connection.close()
            sleep(pause)
            pause = min(pause * 2, 5.0)
