"""Several hosts work on one digest, and one of them is cut off from everything in the middle of it."""

import os
import time

import pytest
from django.core.management import call_command

from tests.processes import Processes
from tests.servers import Postgres, start_valkey
from tests.torture import backups, networks
from tests.torture.harness import account_of, is_done, make_digest_to
from tests.torture.quickness import QUICK

pytestmark = [pytest.mark.postgresql, pytest.mark.torture]


@pytest.fixture
def hosts():
    built = networks.build_hosts(3)
    yield built
    for host in built:
        host.remove()


@pytest.fixture
def shared_database(hosts, transactional_db, guard):
    """A PostgreSQL that all hosts reach over TCP; the test's own connection leads there, too."""
    server = Postgres(guard, host=networks.ADDRESS, clients=networks.CLIENTS)
    with backups.connected_to(server.url):
        call_command("migrate", verbosity=0)
        yield server
    server.crash()


def test_a_host_cut_off_in_mid_send_neither_loses_nor_doubles_a_copy(
    hosts, shared_database, guard, tmp_path, carrier, sized, figure, settings
):
    settings.DELIVERY_BATCH_SIZE = 50
    provider = carrier("postmark", host=networks.ADDRESS)
    provider.do_wrong(delay=0.4)
    site = Processes(guard=guard, folder=tmp_path, broker_url=start_valkey(guard, host=networks.ADDRESS))
    site.env |= QUICK | provider.environment()
    digest, addresses = make_digest_to(sized(1000, 10_000))
    for number, host in enumerate(hosts):
        site.prefix = host.prefix
        site.worker(f"worker-{number}", concurrency=2)
        site.beat(f"beat-{number}")
    site.wait_until(lambda: len(provider.mailed) > len(addresses) / 4)

    hosts[-1].cut_off()
    cut_off_at = time.monotonic()
    site.wait_until(lambda: is_done(digest), timeout=300)
    took = time.monotonic() - cut_off_at
    hosts[-1].plug_in()
    time.sleep(10)  # what the lost host still holds arrives now

    account = account_of(digest, addresses, provider)
    figure(f"3 hosts, one cut off in mid-send: {account}; finished {took:.0f} s after the cut")
    account.check()
    site.end()


@pytest.mark.parametrize("delay", [0.1, 0.01])
def test_workers_of_two_hosts_add_up_until_something_else_is_full(
    hosts, shared_database, guard, tmp_path, carrier, sized, figure, settings, delay
):
    """With a provider that takes its time, so that cores are not what ends first; with a quick one, they are."""
    settings.DELIVERY_BATCH_SIZE = 20
    provider = carrier("postmark", host=networks.ADDRESS)
    provider.do_wrong(delay=delay)
    speeds = {}
    for workers in (1, 2, 4):
        folder = tmp_path / f"{workers}-workers"
        folder.mkdir()
        site = Processes(guard=guard, folder=folder, broker_url=start_valkey(guard, host=networks.ADDRESS))
        site.env |= QUICK | provider.environment()
        for number in range(workers):
            site.prefix = hosts[number % 2].prefix
            site.worker(f"worker-{number}")
        before = provider.mailed
        digest, addresses = make_digest_to(sized(100, 1000) * workers)
        site.beat()
        site.wait_until(lambda before=before: (provider.mailed - before).total() > 0, timeout=60)
        begun_at, begun_with = time.monotonic(), (provider.mailed - before).total()
        site.wait_until(lambda digest=digest: is_done(digest), timeout=300)
        speeds[workers] = (len(addresses) - begun_with) / (time.monotonic() - begun_at)

        account = account_of(digest, addresses, provider, since=before)
        account.check()
        assert account.mailed == len(addresses)
        site.end()
    seen = ", ".join(f"{workers} workers {speed:.0f}/s" for workers, speed in speeds.items())
    figure(f"2 hosts, {os.cpu_count()} cores, {delay * 1000:.0f} ms an answer: {seen}")
    if delay == 0.1:  # beyond two workers, and with a quick provider sooner, the cores may be full
        assert speeds[2] > 1.3 * speeds[1]
        assert speeds[4] > speeds[1]
