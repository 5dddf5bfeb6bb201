"""A hint says only "look now": ten of each, from two beats, to eight workers, change nothing."""

from random import Random

import pytest
import redis
from celery import Celery

from tests.torture.harness import account_of, is_done, make_digest_to

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


def test_ten_hints_for_each_batch_and_many_workers_make_one_call_per_batch(
    site, carrier, sized, seed, figure, settings
):
    settings.DELIVERY_BATCH_SIZE = 25
    provider, workers = carrier("mailgun"), sized(4, 8)
    site.env |= provider.environment()
    digest, addresses = make_digest_to(sized(500, 10_000))
    batches = list(digest.batches.values_list("id", flat=True))
    hints = batches * 10
    Random(seed).shuffle(hints)
    for number in range(workers):
        site.worker(f"worker-{number}", waits=False)
    site.beat("beat-1")
    site.beat("beat-2")
    with Celery(broker=site.env["BROKER_URL"]) as publisher:
        for batch in hints:
            publisher.send_task("digests.tasks.deliver_batch", (batch,), queue="send")

    site.wait_until(lambda: is_done(digest), timeout=300)
    broker = redis.Redis.from_url(site.env["BROKER_URL"])
    site.wait_until(lambda: broker.llen("send") == broker.hlen("unacked") == 0, timeout=120)

    account = account_of(digest, addresses, provider)
    calls = len(provider.entries("call"))
    figure(f"{len(hints)} hints, {workers} workers, 2 beats: {account}; {calls} calls for {len(batches)} batches")
    account.check()
    assert account.mailed == len(addresses)
    assert calls == len(batches)
