"""What stops and goes on later finds the world changed: a worker past its lease, a broker, a database."""

import contextlib
import os
import signal
import time
from random import Random

import pytest
import redis
from django.db import connection
from django.utils import timezone

from digests import audit
from tests.processes import free_port
from tests.servers import start_valkey
from tests.torture.harness import account_of, children, frozen, is_done, make_digest_to, only_long

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    "stage", [*(pytest.param(stage, marks=pytest.mark.torture) for stage in ("greeting", "recipient")), "answer"]
)
def test_a_worker_frozen_past_its_lease_sends_and_writes_nothing_more(site, carrier, sized, figure, settings, stage):
    """Frozen before the intent (no greeting yet), in the call (before the mail), before the result (mail taken)."""
    settings.DELIVERY_BATCH_SIZE = 20
    provider = carrier("smtp")
    site.env |= provider.environment()
    site.beat()
    uncertain = 0
    for round_ in range(sized(1, 5)):
        before = provider.mailed
        # Greetings come when a turn begins.
        provider.do_wrong(hold=stage, hold_after=len(before) + (0 if stage == "greeting" else 25))
        digest, addresses = make_digest_to(100)
        first = site.worker(f"first-{round_}")
        held = len(provider.entries("held"))
        site.wait_until(lambda held=held: len(provider.entries("held")) > held)
        with frozen(first.pid):
            provider.do_wrong()
            second = site.worker(f"second-{round_}")
            site.wait_until(lambda digest=digest: is_done(digest), timeout=60)
        time.sleep(2)  # the zombie is awake, and could do harm

        account = account_of(digest, addresses, provider, since=before)
        account.check()
        uncertain += account.uncertain
        for worker in (first, second):
            site.kill(worker)
    assert uncertain <= settings.DELIVERY_BATCH_SIZE * sized(1, 5)
    figure(f"worker frozen past its lease at the {stage}, {sized(1, 5)} times: twice 0, lost 0, {uncertain} uncertain")


@pytest.mark.parametrize("accident", ["flushed", only_long("stopped"), only_long("frozen")])
def test_a_broker_that_fails_in_mid_send_costs_time_and_nothing_else(
    site, carrier, sized, figure, guard, accident, settings
):
    settings.DELIVERY_BATCH_SIZE = 20
    port = free_port()
    url = site.env["BROKER_URL"] = start_valkey(guard, port=port)
    broker = redis.Redis.from_url(url)
    provider = carrier("postmark")
    provider.do_wrong(delay=0.01)
    site.env |= provider.environment()
    digest, addresses = make_digest_to(sized(300, 3000))
    site.worker("worker-1", concurrency=2)
    site.worker("worker-2", concurrency=2)
    site.beat()
    site.wait_until(lambda: len(provider.mailed) > len(addresses) / 4)

    started = time.monotonic()
    match accident:
        case "flushed":
            broker.flushall()
        case "stopped":
            broker.shutdown(nosave=True)
            time.sleep(3)
            start_valkey(guard, port=port)
        case "frozen":
            pid = broker.info()["process_id"]
            os.kill(pid, signal.SIGSTOP)
            time.sleep(sized(5, 30))
            os.kill(pid, signal.SIGCONT)
    site.wait_until(lambda: is_done(digest), timeout=180)

    account = account_of(digest, addresses, provider)
    figure(f"broker {accident}: {account}; finished {time.monotonic() - started:.0f} s later")
    account.check()
    assert account.mailed == len(addresses) and account.listed == {}


@pytest.mark.torture
def test_a_database_that_crashes_again_and_again_loses_and_doubles_nothing(
    durable_site, durable_postgres, carrier, sized, seed, figure, settings
):
    settings.DELIVERY_BATCH_SIZE = 50
    site, dice, crashes = durable_site, Random(seed), sized(3, 20)
    provider = carrier("postmark")
    provider.do_wrong(delay=0.02)
    site.env |= provider.environment()
    digest, addresses = make_digest_to(sized(1000, 6000))
    connection.close()
    for number in range(2):
        site.worker(f"worker-{number}", concurrency=2)
    site.beat()
    for _ in range(crashes):
        time.sleep(dice.uniform(1, 3))
        connection.close()
        durable_postgres.crash()
        time.sleep(dice.uniform(0, 1))
        durable_postgres.start()
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    figure(f"PostgreSQL stopped immediately {crashes} times: {account}")
    account.check()
    assert not list(audit.broken_invariants(timezone.now()))


@pytest.mark.torture
def test_a_database_frozen_for_half_a_minute_loses_and_doubles_nothing(
    durable_site, durable_postgres, carrier, sized, figure, settings
):
    settings.DELIVERY_BATCH_SIZE = 50
    site, provider = durable_site, carrier("postmark")
    provider.do_wrong(delay=0.02)
    site.env |= provider.environment()
    digest, addresses = make_digest_to(1500)
    site.worker(concurrency=3)
    site.beat()
    site.wait_until(lambda: len(provider.mailed) > 300)
    connection.close()
    send(signal.SIGSTOP, [durable_postgres.process.pid])  # first, so that it starts no other
    stopped = [durable_postgres.process.pid, *children(durable_postgres.process)]
    send(signal.SIGSTOP, stopped)
    time.sleep(sized(8, 30))
    send(signal.SIGCONT, stopped)
    thawed = time.monotonic()
    site.wait_until(lambda: is_done(digest), timeout=180)

    account = account_of(digest, addresses, provider)
    figure(f"PostgreSQL frozen {sized(8, 30)} s: {account}; finished {time.monotonic() - thawed:.0f} s after it")
    account.check()


def send(number, pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # one of PostgreSQL's that had just done its work
            os.kill(pid, number)
