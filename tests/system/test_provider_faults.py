"""The provider throttles, fails, hangs, refuses, shuts the door: each reader once, or on a list that says why not."""

import math
import time

import pytest
from django.conf import settings as project
from django.utils import timezone

from digests import audit, providers
from digests.models import Provider
from newsroom.mail.sessions import CHUNKS_AT_ONCE
from tests.torture.harness import account_of, is_done, is_done_without_hurry, make_digest_to, only_long

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def working(site):
    """Start a worker and a beat for a provider, once the digest is there."""

    def start(provider, *, concurrency=3):
        site.env |= provider.environment()
        site.worker(concurrency=concurrency)
        site.beat()

    return start


def test_storms_of_429_lose_nobody_and_use_up_no_attempt(site, carrier, working, sized, figure):
    rate, provider = 5, carrier("postmark")  # even a busy machine sends faster
    provider.do_wrong(mode="throttle", rate=rate, retry_after="1")
    digest, addresses = make_digest_to(sized(60, 300))
    working(provider)
    started = time.monotonic()
    site.wait_until(lambda: is_done_without_hurry(digest), timeout=600)

    account = account_of(digest, addresses, provider)
    refused = sum(1 for call in provider.entries("call") if call["fault"])
    took, ideal = time.monotonic() - started, len(addresses) / rate
    figure(f"429 above {rate} a second: {account}; {refused} refused, {took:.0f} s where {ideal:.0f} s are ideal")
    account.check()
    assert account.mailed == len(addresses) and account.listed == {}
    assert refused > 0


@pytest.mark.parametrize("when", [only_long("before"), "after"])
def test_500_before_or_after_taking_the_mail_is_uncertain_and_never_sent_again(
    site, carrier, working, sized, figure, when
):
    provider = carrier("postmark")
    provider.do_wrong(mode=f"fault_{when}", chance=0.03)
    digest, addresses = make_digest_to(sized(200, 2000))
    working(provider)
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    faults = sum(1 for call in provider.entries("call") if call["fault"])
    figure(f"500 {when} taking, 3 %: {account}; {faults} faults")
    account.check()
    assert account.listed == ({"uncertain": faults} if faults else {})
    assert account.mailed == len(addresses) - (faults if when == "before" else 0)


def test_a_whole_digest_taken_and_never_answered_is_uncertain_and_not_sent_again(
    site, carrier, working, sized, figure, settings
):
    settings.DELIVERY_BATCH_SIZE = 100
    site.env["DELIVERY_CALL_SIZE"] = "100"
    provider = carrier("mailgun")
    provider.do_wrong(mode="unanswered")
    digest, addresses = make_digest_to(sized(300, 2000))
    working(provider)
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    figure(f"taken and never answered, all of it: {account}; {len(provider.entries('call'))} calls")
    account.check()
    assert account.listed == {"uncertain": len(addresses)}
    assert len(provider.entries("call")) == len(addresses) / 100


def test_401_closes_the_gate_at_once_and_nobody_is_lost_when_it_opens_again(site, carrier, working, sized, figure):
    provider = carrier("postmark")
    provider.do_wrong(mode="deny")
    digest, addresses = make_digest_to(sized(200, 2000))
    working(provider)
    site.wait_until(lambda: Provider.objects.filter(gate=Provider.Gate.CLOSED).exists())
    calls = len(provider.entries("call"))
    provider.do_wrong()
    for closed in Provider.objects.filter(gate=Provider.Gate.CLOSED):
        providers.reopen(closed)
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    figure(f"401: the gate closed after {calls} calls by 3 workers; opened again: {account}")
    account.check()
    assert calls <= 3 * project.DELIVERY_CONNECTIONS
    assert account.mailed == len(addresses)


def test_one_poison_among_a_thousand_is_refused_and_all_others_mailed(site, carrier, working, sized, figure, settings):
    readers = settings.DELIVERY_BATCH_SIZE = sized(128, 1000)
    site.env["DELIVERY_CALL_SIZE"] = str(readers)
    provider = carrier("mailgun")
    digest, addresses = make_digest_to(readers)
    provider.do_wrong(poison=[addresses[readers // 3]])
    working(provider, concurrency=1)
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    calls, most = len(provider.entries("call")), 2 * math.ceil(math.log2(readers)) + 1
    figure(f"one poison among {readers}: {account}; {calls} calls, {most} at most")
    account.check()
    assert account.mailed == readers - 1 and account.listed == {"refused": 1}
    assert calls <= most


@pytest.mark.parametrize(
    "cut", [*(pytest.param(cut, marks=pytest.mark.torture) for cut in ("before", "within")), "after"]
)
def test_a_session_cut_at_any_message_before_or_after_the_dot(site, carrier, working, sized, figure, settings, cut):
    sessions = sized(6, 50)
    # Session k is cut at its mail k; what was on its way behind the first cut comes to no session.
    readers = settings.DELIVERY_BATCH_SIZE = sessions * (sessions + 1) // 2 + CHUNKS_AT_ONCE - 1
    provider = carrier("smtp")
    site.env["DELIVERY_CONNECTIONS"] = "1"  # side by side not every session would come so far
    provider.do_wrong(cut=cut)
    digest, addresses = make_digest_to(readers)
    working(provider, concurrency=1)
    site.wait_until(lambda: is_done(digest), timeout=300)

    account = account_of(digest, addresses, provider)
    cuts = len(provider.entries("cut"))
    figure(f"session k cut at its mail k ({cut} the dot), {cuts} cuts: {account}")
    account.check()
    assert cuts >= sessions
    # Of the session that is cut first some chunks are on their way; the worker sends no more of them after it.
    expected = 0 if cut == "before" else cuts
    assert expected <= account.uncertain <= expected + CHUNKS_AT_ONCE
    assert account.mailed >= readers - (account.uncertain if cut != "after" else CHUNKS_AT_ONCE - 1)
    assert not list(audit.broken_invariants(timezone.now()))
