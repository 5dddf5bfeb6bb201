"""Who leaves or erases while a digest is being sent is not mailed any more once the answer is there."""

import threading
import time
from random import Random

import pytest
from django.db import connection
from django.utils import timezone

from digests import audit
from subscriptions import links
from subscriptions.models import Subscription
from tests.makers import make_newsletter
from tests.torture import reader
from tests.torture.harness import account_of, is_done, make_readers, only_long, start_digest

pytestmark = pytest.mark.django_db(transaction=True)

# Acts come while readers so near in the order are being mailed: the moment that is hardest to get right.
NEIGHBOURS = 15


@pytest.mark.parametrize("api", ["postmark", only_long("smtp"), only_long("mailgun")])
def test_r25_r33_after_the_answer_to_who_left_or_erased_no_mail_is_handed_over(site, carrier, api, sized, seed, figure):
    is_largest = api == "postmark" and connection.vendor == "postgresql"
    each, readers = (sized(10, 200), sized(400, 5000)) if is_largest else (sized(10, 50), sized(400, 1200))
    dice, provider = Random(seed), carrier(api)
    site.env |= provider.environment()
    newsletter = make_newsletter()
    addresses = make_readers(newsletter, readers)
    url = site.web()
    worker, _beat = site.worker(concurrency=1 if connection.vendor == "sqlite" else 2), site.beat()
    chosen = dice.sample(range(NEIGHBOURS, len(addresses)), 2 * each)
    erasing = chosen[each:]
    tokens = reader.open_rights_page(site, url, provider, [addresses[place] for place in erasing])
    uuids = dict(Subscription.objects.values_list("subscriber__address", "uuid"))
    provider.do_wrong(delay=0.01)
    answered: dict[str, float] = {}

    def act(place):
        """Wait until a neighbour is mailed, then leave or erase."""
        address, neighbour = addresses[place], addresses[place - dice.randrange(1, NEIGHBOURS)]
        while neighbour not in mailed:
            time.sleep(0.01)
        if address in tokens:
            answered[address] = reader.erase(url, tokens[address])
        else:
            answered[address] = reader.leave(url, links.unsubscribe_token(uuids[address]))

    mailed: set[str] = set()
    acts = [threading.Thread(target=act, args=(place,), daemon=True) for place in chosen]
    for thread in acts:
        thread.start()
    digest, look_at = start_digest(newsletter), 0.0
    deadline = time.monotonic() + 600
    while any(thread.is_alive() for thread in acts):
        assert time.monotonic() < deadline, "not everybody has left or erased"
        mailed.update(entry["to"] for entry in provider.digests[len(mailed) :])
        time.sleep(0.01)
        if time.monotonic() > look_at:  # a neighbour who left will never be mailed
            mailed.update(addresses if is_done(digest) else [])
            look_at = time.monotonic() + 0.5
    site.wait_until(lambda: is_done(digest), timeout=120)
    site.stop(worker)

    copies = {entry["to"]: entry for entry in provider.digests}
    begun_after = [copies[who]["begun_at"] - at for who, at in answered.items() if who in copies]
    late = [gap for gap in begun_after if gap > 0]
    spared = sum(1 for who in answered if who not in copies)
    account = account_of(digest, addresses, provider)
    lost = set(account.lost) - answered.keys()  # who is erased stands on no list
    figure(
        f"{api}, {each} unsubscribed and {each} erased in mid-send: {spared} of them not mailed; {len(late)} begun"
        f" after the answer, {max(late, default=0) * 1000:.0f} ms at most; twice {account.twice}, lost {len(lost)}"
    )
    assert len(answered) == 2 * each
    assert account.twice == 0 and late == [] and not lost
    assert not list(audit.broken_invariants(timezone.now()))
