"""Workers die in the middle of whatever they do: nobody is mailed twice, nobody is forgotten."""

import time
from random import Random

import pytest
from django.conf import settings as project
from django.utils import timezone

from digests import audit
from tests.torture.harness import Killer, account_of, hurry, is_done, make_digest_to, only_long, strike_through

pytestmark = pytest.mark.django_db(transaction=True)

UNANSWERED = 0.02


@pytest.mark.postgresql
@pytest.mark.parametrize("api", ["smtp", "resend", only_long("postmark")])
def test_killed_workers_mail_nobody_twice_and_lose_nobody(site, carrier, api, sized, seed, figure):
    kills, readers = sized(6, 200), sized(400, 24_000)
    provider = carrier(api)
    site.env |= provider.environment()
    provider.do_wrong(mode="unanswered", chance=UNANSWERED)
    digest, addresses = make_digest_to(readers)
    site.beat()
    killer = Killer(site, Random(seed))

    strike_through(killer, kills, progress=lambda: len(provider.mailed) / readers)
    site.wait_until(lambda: is_done(digest) and not is_asked_again(digest, api), timeout=600)

    account = account_of(digest, addresses, provider)
    per_kill = account.uncertain / kills
    struck = f"{kills} SIGKILLs ({killer.child} children, {killer.whole} whole workers)"
    figure(f"{api}, {struck}, {UNANSWERED:.0%} never answered: {account}; {per_kill:.1f} uncertain per kill")
    account.check()
    assert not provider.entries("conflict")  # what is asked again by a key is the same to the last letter
    assert not list(audit.broken_invariants(timezone.now()))


def is_asked_again(digest, api):
    """Whether somebody uncertain is still to be asked again, which only a provider that knows keys can be."""
    left = digest.deliveries.uncertain().filter(batch__attempts__lt=project.DELIVERY_MAX_ATTEMPTS)
    return api == "resend" and left.exists()


@pytest.mark.sqlite
@pytest.mark.parametrize("api", ["smtp", only_long("postmark")])
def test_a_killed_process_that_delivers_from_sqlite_mails_nobody_twice_and_loses_nobody(
    site, carrier, api, sized, seed, figure
):
    """On SQLite one process delivers; it is killed, and the next one goes on."""
    kills, readers, dice = sized(3, 15), sized(200, 1500), Random(seed)
    provider = carrier(api)
    site.env |= provider.environment()
    provider.do_wrong(mode="unanswered", chance=UNANSWERED, delay=0.005)
    digest, addresses = make_digest_to(readers)

    for number in range(kills):
        process = site.start(f"deliver-{number}", "manage.py", "deliver")
        goal = readers * (number + dice.random()) / kills
        deadline = time.monotonic() + 10
        while len(provider.mailed) < goal and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        site.kill(process)
        hurry()
    site.start("deliver-last", "manage.py", "deliver")
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    per_kill = account.uncertain / kills
    figure(f"SQLite, {api}, {kills} SIGKILLs, {UNANSWERED:.0%} never answered: {account}; {per_kill:.1f} per kill")
    account.check()
    assert not list(audit.broken_invariants(timezone.now()))
