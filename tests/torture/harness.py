"""What the torture tests share: readers by the thousand, a digest to them, and the account of who got it."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.utils import timezone

from digests import providers, release
from digests.models import OUTCOME, DeliveryBatch, Digest, Provider
from subscriptions.models import Newsletter, Subscriber, Subscription
from tests.makers import make_digest, make_newsletter
from tests.processes import Processes
from tests.torture.carrier import Carrier

HINT_PATIENCE = timedelta(seconds=3)
_numbers = count(1)


def only_long(value: str) -> Any:
    """Return a case of a test that `make test` leaves to `make torture`."""
    return pytest.param(value, marks=pytest.mark.torture)


def make_readers(newsletter: Newsletter, number: int) -> list[str]:
    """Make so many readers of a newsletter at once and return their addresses."""
    now = timezone.now()
    addresses = [f"leserin{next(_numbers)}@leser.example" for _ in range(number)]
    readers = Subscriber.objects.bulk_create(
        [Subscriber(address=each, address_key=each, language="de", created_at=now) for each in addresses]
    )
    Subscription.objects.bulk_create(
        [Subscription(newsletter=newsletter, subscriber=reader, active_since=now) for reader in readers],
        batch_size=2000,
    )
    return addresses


def make_digest_to(number: int, *, newsletter: Newsletter | None = None) -> tuple[Digest, list[str]]:
    """Begin to send a digest to so many new readers."""
    newsletter = newsletter or make_newsletter()
    addresses = make_readers(newsletter, number)
    return start_digest(newsletter), addresses


def start_digest(newsletter: Newsletter) -> Digest:
    """Begin to send a digest that no beat would start yet: it is sent before its time."""
    digest = make_digest(newsletter, due_at=timezone.now() + timedelta(hours=1))
    assert release.start_sending(digest, now=timezone.now())
    return digest


@dataclass(frozen=True)
class Account:
    """The provider's log held against our tables."""

    readers: int
    mailed: int
    twice: int
    lost: list[str]
    strangers: int
    listed: dict[str, int]

    @property
    def uncertain(self) -> int:
        return self.listed.get("uncertain", 0)

    def check(self) -> None:
        assert self.twice == 0, self
        assert self.lost == [], self
        assert self.strangers == 0, self

    def __str__(self) -> str:
        listed = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.listed.items())) or "nobody"
        return (
            f"{self.readers} readers, {self.mailed} mailed, twice {self.twice}, lost {len(self.lost)}; listed: {listed}"
        )


def account_of(
    digest: Digest, addresses: Iterable[str], carrier: Carrier, *, since: Counter[str] | None = None
) -> Account:
    """Lost is who got nothing and stands on no list that says so: neither mailed nor uncertain, failed, suppressed …"""
    everyone, mailed = set(addresses), carrier.mailed - (since or Counter())
    listed = unmailed_by_our_tables(digest)
    counts: dict[str, int] = {}
    for outcome in listed.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    return Account(
        readers=len(everyone),
        mailed=len(mailed),
        twice=sum(1 for copies in mailed.values() if copies > 1),
        lost=sorted(everyone - mailed.keys() - listed.keys()),
        strangers=len(mailed.keys() - everyone),
        listed=counts,
    )


def unmailed_by_our_tables(digest: Digest) -> dict[str, str]:
    """Return the readers of whom our tables do not say that the digest was handed over, and what they say."""
    rows = digest.deliveries.annotate(outcome=OUTCOME).exclude(outcome="accepted").exclude(subscriber=None)
    listed = dict(rows.values_list("subscriber__address", "outcome"))
    begun = set(digest.deliveries.exclude(subscriber=None).values_list("subscriber_id", flat=True))
    for reader_ids, state in digest.batches.exclude(state="done").values_list("reader_ids", "state"):
        waiting = Subscriber.objects.filter(pk__in=set(reader_ids) - begun)
        listed |= dict.fromkeys(waiting.values_list("address", flat=True), state)
    return listed


def is_done(digest: Digest) -> bool:
    hurry()
    return is_done_without_hurry(digest)


def is_done_without_hurry(digest: Digest) -> bool:
    return not DeliveryBatch.objects.open().filter(digest=digest).exists()


def hurry() -> None:
    """Cut short what would only cost minutes: the pauses after a fault, and the one before a lost hint is repeated."""
    now = timezone.now()
    for provider in Provider.objects.filter(resume_at__gt=now):
        providers.reopen(provider)
        Provider.objects.filter(pk=provider.pk).update(resume_at=None, failures=0)
    waiting = DeliveryBatch.objects.open()
    waiting.filter(state=DeliveryBatch.State.PENDING, next_attempt_at__gt=now).update(next_attempt_at=now)
    waiting.filter(hinted_at__lt=now - HINT_PATIENCE).update(hinted_at=None)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes a process has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if path.exists():
        return [int(pid) for pid in path.read_text().split()]
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


class Killer:
    """Workers that are killed, one child or the whole of one, by the dice, and replaced."""

    def __init__(self, site: Processes, dice: Random, *, workers: int = 2, concurrency: int = 3) -> None:
        self._site, self._dice, self._concurrency = site, dice, concurrency
        self._workers = [site.worker(f"worker-{number}", concurrency=concurrency) for number in range(workers)]
        self.whole = self.child = 0

    def strike(self) -> None:
        prey = [pid for worker in self._workers for pid in children(worker)]
        if prey and self._dice.random() < 0.5:
            os.kill(self._dice.choice(prey), signal.SIGKILL)
            self.child += 1
            return
        number = self._dice.randrange(len(self._workers))
        self._site.kill(self._workers[number])
        self._workers[number] = self._site.worker(f"worker-{number}", concurrency=self._concurrency, waits=False)
        self.whole += 1


def strike_through(killer: Killer, kills: int, *, progress: Callable[[], float], patience: float = 120) -> None:
    """Strike at even steps of the progress from 0 to 1; where it hangs, strike all the same after some seconds."""
    for number in range(kills):
        goal, deadline = 0.9 * (number + 0.5) / kills, time.monotonic() + 8
        while progress() < goal and time.monotonic() < deadline:
            hurry()
            time.sleep(0.05)
        killer.strike()


@contextmanager
def frozen(group: int) -> Any:
    """Stop a group of processes for as long as the block lasts, as a paused virtual machine would be."""
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)
