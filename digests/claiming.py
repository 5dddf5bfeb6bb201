"""Who works on which batch: a guarded update with a lease and a fence, and what a worker keeps from one to the next."""

import logging
import os
import random
import socket
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Self
from uuid import UUID

from django.conf import settings
from django.db import transaction

from digests import providers, restoring, statements
from digests.audience import Audience, Recipient
from digests.carriers import Lines
from digests.clock import database_now
from digests.models import DeliveryAttempt, DeliveryBatch, DeliveryBatchQuerySet, Digest, Provider
from newsroom.mail import gate

log = logging.getLogger(__name__)

# How long a turn takes up readers: with the longest call after it, short of the time limit at which Celery would break
# into the middle of one. Those left wait for the next claim.
LONGEST_TURN = timedelta(seconds=40)

# So long a turn takes up further batches. A worker that is to stop, for a new release, stops after its turn.
SHORT_TURN = timedelta(seconds=5)

# Leases are renewed with the groups, but not more often: it writes the batch anew.
RENEWAL = timedelta(seconds=1)

# So long a leave to send, asked of the gate and of whoever may hold all mail, holds for a turn's further batches.
LEAVE = timedelta(seconds=1)

# Workers that look for a next batch choose among so many, lest all want the same one.
CHOICE = 16


@dataclass(slots=True)
class Turn:
    """What a worker does in one go: a batch and perhaps more, with what it keeps for them meanwhile."""

    lines: Lines
    begun_at: float
    _provider: Provider | None = None
    _allowed_at: float = 0.0
    _audience: Audience | None = None

    @property
    def ends_at(self) -> float:
        return self.begun_at + LONGEST_TURN.total_seconds()

    @property
    def has_time_for_another(self) -> bool:
        return monotonic() - self.begun_at < SHORT_TURN.total_seconds()

    @property
    def allowed(self) -> Provider | None:
        """The provider, if it was asked a moment ago, and any batch may go."""
        return self._provider if monotonic() - self._allowed_at < LEAVE.total_seconds() else None

    def ask(self, *, now: datetime) -> Provider | None:
        """Return the provider if mail may be handed over to it now."""
        provider = providers.current()
        if gate.is_closed() or not providers.passes(provider, now=now) or restoring.find_obstacle():
            return None
        # A trial is one batch's, and a pace is everybody's: they are asked for each time.
        is_free = provider.gate == Provider.Gate.OPEN and not providers.is_limited(provider)
        self._provider, self._allowed_at = provider if is_free else None, monotonic()
        return provider

    def begin_anew(self) -> Self:
        """Give the next batch as much time as the first had."""
        self.begun_at = monotonic()
        return self

    def stop(self) -> None:
        """After a fault: the connections may be to blame, and the gate has learnt of it."""
        self.lines.close()
        self._provider = None

    def audience_of(self, digest_id: int) -> Audience:
        """Return who gets a digest. It is kept for the next batch, for a digest that is being sent does not change."""
        if self._audience is None or self._audience.digest.pk != digest_id:
            digests = Digest.objects.select_related("newsletter").defer("html", "text")  # read when they are wanted
            self._audience = Audience(digests.get(pk=digest_id))
        return self._audience


@dataclass(slots=True)
class Claim:
    """A batch this process may work on while its lease lasts; every later write names the fence."""

    batch: DeliveryBatch
    provider: Provider
    fence: int
    turn: Turn
    begun_at: float = field(default_factory=monotonic)
    renewed_at: float = field(default_factory=monotonic)
    attempt_id: int | None = None
    deliveries: dict[int, UUID] = field(default_factory=dict)  # by the readers they were written for
    recipients: dict[int, Recipient] = field(default_factory=dict)  # by their places
    unnoted: list[int] = field(default_factory=list)  # subscriptions that were mailed, for the first time in long
    audience: Audience = field(init=False)

    def __post_init__(self) -> None:
        self.audience = self.turn.audience_of(self.batch.digest_id)
        self.batch.digest = self.audience.digest

    @property
    def rows(self) -> DeliveryBatchQuerySet:
        return DeliveryBatch.objects.filter(pk=self.batch.pk, fence=self.fence)

    @property
    def ends_at(self) -> float:
        """When during one more call another worker might take over, or this one be broken off."""
        return min(self.renewed_at + settings.DELIVERY_LEASE.total_seconds() / 2, self.turn.ends_at)

    @property
    def is_over(self) -> bool:
        return monotonic() > self.ends_at

    @property
    def is_fresh(self) -> bool:
        """Whether the lease need not be renewed yet."""
        return monotonic() - self.renewed_at < RENEWAL.total_seconds()


def claim(batch_id: int, turn: Turn) -> Claim | None:
    """Claim a batch if it is due, free, and the provider takes mail."""
    if provider := turn.allowed:
        batch = statements.claim_batch(
            batch_id, owner=_owner(), lease=settings.DELIVERY_LEASE, attempts=settings.DELIVERY_MAX_ATTEMPTS
        )
        if batch is not None:
            return Claim(batch, provider, batch.fence, turn)
    return _claim_step_by_step(batch_id, turn)


def _claim_step_by_step(batch_id: int, turn: Turn) -> Claim | None:
    now = database_now()
    batch = DeliveryBatch.objects.due(now).order_by("pk").filter(pk=batch_id).first()
    provider = turn.ask(now=now) if batch is not None else None
    if batch is None or provider is None:
        return None
    # Guarded by the batch's own columns alone: a condition on the digest would not be looked at again after a wait.
    free = DeliveryBatch.objects.filter(pk=batch.pk, state=batch.state, fence=batch.fence)
    if batch.attempts >= settings.DELIVERY_MAX_ATTEMPTS:
        if free.update(state=DeliveryBatch.State.FAILED, reason="attempts"):
            log.error("batch %s: gave up after %s attempts", batch.pk, batch.attempts)
        return None
    if not _is_safe_to_repeat(batch, provider, now=now):
        if free.update(state=DeliveryBatch.State.FAILED, reason="key"):
            log.warning("batch %s: not asked again, the provider may not know the key", batch.pk)
        return None
    with transaction.atomic():
        claimed = free.update(
            state=DeliveryBatch.State.LEASED,
            owner=_owner(),
            lease_until=now + settings.DELIVERY_LEASE,
            fence=batch.fence + 1,
            attempts=batch.attempts + 1,
        )
        if claimed and not providers.enter(provider, now=now):
            transaction.set_rollback(True)  # another batch tries already
            return None
    return Claim(batch, provider, batch.fence + 1, turn) if claimed else None


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"[:100]


def _is_safe_to_repeat(batch: DeliveryBatch, provider: Provider, *, now: datetime) -> bool:
    """Whether a batch that goes out again for its keys' sake still may: a pause, a gate or a deploy takes its time."""
    if batch.keyed_until is None:
        return True
    last = DeliveryAttempt.objects.filter(batch__in=[batch.pk, batch.parent_id]).order_by("-started_at").first()
    return now < batch.keyed_until and last is not None and last.provider_id == provider.pk


def find_next() -> int | None:
    """Return one of the batches that wait for any worker."""
    ids = statements.waiting_batches(most=CHOICE)
    return random.choice(ids) if ids else None  # noqa: S311
