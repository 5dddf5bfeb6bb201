"""Real workers, beats and a web server, on PostgreSQL and a real broker: what holds when they double or die."""

import re
import time
import urllib.parse
import urllib.request
from collections import Counter
from datetime import time as time_of_day

import pytest
import redis
from django.utils import timezone

from digests import audit, carriers, outcomes
from digests.models import DeliveryBatch, Digest
from newsroom.mail.models import OutboxMail
from subscriptions.models import SignUp
from tests.makers import make_article, make_newsletter, make_schedule, make_subscriptions
from tests.processes import free_port
from tests.servers import start_valkey
from tests.stand_ins import SmtpStandIn

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def smtp():
    with SmtpStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def site(processes, smtp):
    """Processes that send to the stand-in and look for work often enough for a test."""
    processes.env |= smtp.environment() | {
        "TICK_SECONDS": "1",
        "SWEEP_SECONDS": "1",
        "OUTBOX_SECONDS": "0.5",
        "DELIVERY_LEASE_SECONDS": "4",
        "EMAIL_TIMEOUT": "2",
        "DELIVERY_BATCH_SIZE": "50",
    }
    return processes


def make_due_newsletter(readers):
    newsletter = make_newsletter()
    make_article()
    make_subscriptions(newsletter, readers)
    make_schedule(newsletter, local_time=time_of_day(0, 0))
    return newsletter


def mails_per_reader(smtp):
    return Counter(address for mail in smtp.received for address in mail.recipients)


def test_two_workers_and_two_beats_make_one_digest_and_one_mail_per_reader(site, smtp):
    newsletter = make_due_newsletter(readers=120)
    site.worker("worker-1", concurrency=2)
    site.worker("worker-2", concurrency=2)
    site.beat("beat-1")
    site.beat("beat-2")

    site.wait_until(lambda: Digest.objects.filter(state="finished", expected_count=120).exists(), timeout=60)
    time.sleep(3)  # long enough for a second digest or copy to follow, if one would

    digest = Digest.objects.get()
    assert digest.newsletter == newsletter
    assert outcomes.counts(digest)["accepted"] == 120
    assert len(mails_per_reader(smtp)) == 120
    assert set(mails_per_reader(smtp).values()) == {1}


@pytest.mark.parametrize("after", [37])
def test_a_worker_killed_in_mid_send_leaves_each_reader_with_one_mail_or_on_the_list_of_uncertain_ones(
    site, smtp, after
):
    newsletter = make_due_newsletter(readers=120)
    smtp.delay = 0.02
    site.manage("tick")
    digest = Digest.objects.get()
    worker = site.worker("worker-1")
    beat = site.beat("beat-1")

    site.wait_until(lambda: len(smtp.received) >= after)
    site.kill(worker)
    site.worker("worker-2")
    site.wait_until(lambda: not DeliveryBatch.objects.open().exists(), timeout=60)
    site.stop(beat)

    mailed = mails_per_reader(smtp)
    uncertain = set(digest.deliveries.uncertain().values_list("subscriber__address", flat=True))
    everyone = set(newsletter.subscriptions.values_list("subscriber__address", flat=True))
    print(
        f"killed after {after}: {len(mailed)} mailed once, {len(uncertain)} uncertain, {max(mailed.values()) - 1} twice"
    )
    assert max(mailed.values()) == 1
    assert everyone - set(mailed) <= uncertain
    assert len(uncertain) <= carriers.LARGE_GROUP
    assert not list(audit.broken_invariants(timezone.now()))


def test_sign_ups_made_while_the_broker_is_gone_lose_no_mail(site, smtp, guard):
    newsletter = make_newsletter()
    port = free_port()
    broker_url = site.env["BROKER_URL"] = start_valkey(guard, port=port)
    url = site.web()
    site.worker()
    site.beat()
    redis.Redis.from_url(broker_url).shutdown(nosave=True)

    started = time.monotonic()
    for number in range(10):
        sign_up(url, newsletter, f"leserin{number}@leser.example")
    duration = time.monotonic() - started
    assert SignUp.objects.count() == 10
    time.sleep(3)
    assert smtp.received == []
    start_valkey(guard, port=port)

    site.wait_until(lambda: len(smtp.received) == 10, timeout=90)
    time.sleep(2)
    print(f"10 sign-ups without a broker in {duration:.1f} s, 10 mails after it came back")
    assert set(mails_per_reader(smtp).values()) == {1}
    assert set(OutboxMail.objects.values_list("state", flat=True)) == {"sent"}


def sign_up(url, newsletter, address):
    with urllib.request.urlopen(f"{url}/newsletter/") as answer:
        page = answer.read().decode()
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    form |= {"email": address, "newsletters": newsletter.slug}
    with urllib.request.urlopen(f"{url}/newsletter/", data=urllib.parse.urlencode(form).encode()) as answer:
        assert answer.status == 200
