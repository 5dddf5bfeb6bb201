"""Workers die in the middle of whatever they do: nobody is mailed twice, nobody is forgotten."""

from random import Random

import pytest
from django.utils import timezone

from digests import audit
from tests.torture.harness import Killer, account_of, is_done, make_digest_to, strike_through

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

UNANSWERED = 0.02


@pytest.mark.parametrize("api", ["smtp", "postmark", "resend"])
def test_killed_workers_mail_nobody_twice_and_lose_nobody(site, carrier, api, sized, seed, figure):
    kills, readers = sized(6, 200), sized(400, 24_000)
    provider = carrier(api)
    site.env |= provider.environment()
    provider.do_wrong(mode="unanswered", chance=UNANSWERED)
    digest, addresses = make_digest_to(readers)
    site.beat()
    killer = Killer(site, Random(seed))

    strike_through(killer, kills, progress=lambda: len(provider.mailed) / readers)
    site.wait_until(lambda: is_done(digest), timeout=600)

    account = account_of(digest, addresses, provider)
    per_kill = account.uncertain / kills
    struck = f"{kills} SIGKILLs ({killer.child} children, {killer.whole} whole workers)"
    figure(f"{api}, {struck}, {UNANSWERED:.0%} never answered: {account}; {per_kill:.1f} uncertain per kill")
    account.check()
    assert not list(audit.broken_invariants(timezone.now()))
