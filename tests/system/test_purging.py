"""A purge is killed in the middle of it, and runs beside itself: everything goes, and each row is counted once."""

from collections import Counter
from datetime import timedelta
from random import Random
from time import sleep
from uuid import uuid4

import pytest
from django.utils import timezone

from newsroom import retention
from newsroom.retention.models import PurgeRun
from subscriptions import ledger, missing
from subscriptions.ledger import Act
from subscriptions.models import ConsentPayload, ConsentRecord, EvidenceView, RequestCount, SignUp
from tests.processes import Processes

pytestmark = pytest.mark.django_db(transaction=True)

SIGN_UPS, OTHERS = 120, 1000
GOES = {"sign_ups": SIGN_UPS, "views_of_evidence": OTHERS, "request_counts": OTHERS}


@pytest.fixture
def site(processes: Processes) -> Processes:
    """A site on which much is due, and a purge that takes many small steps."""
    long_ago = timezone.now() - timedelta(days=1000)
    for number in range(SIGN_UPS):
        address = f"leserin{number}@leser.example"
        sign_up = SignUp.objects.create(
            address=address, address_key=address, language="de", token_hash=uuid4().hex, requested_at=long_ago,
            expires_at=long_ago,
        )  # fmt: skip
        for act in (ConsentRecord.Type.REQUESTED, ConsentRecord.Type.MAIL_SENT):
            ledger.record(Act(type=act, subject=sign_up.uuid, address_key=address, body={}), at=long_ago)
    ledger.seal(timezone.now())
    looks = [EvidenceView(address_hash="h", actor="staff:1", way="page", viewed_at=long_ago) for _ in range(OTHERS)]
    EvidenceView.objects.bulk_create(looks)
    RequestCount.objects.bulk_create([RequestCount(network=str(n), window_start=long_ago) for n in range(OTHERS)])
    processes.env["PURGE_CHUNK"] = "10"
    return processes


def counted() -> Counter:
    total: Counter = Counter()
    for run in PurgeRun.objects.all():
        total.update({name: count for name, count in run.counts.items() if count})
    return total


def check_that_all_is_gone() -> None:
    assert counted() == GOES
    assert not any(rule.store.count_due(timezone.now()) for rule in retention.purged_rules())
    assert not ConsentPayload.objects.exists() and ConsentRecord.objects.count() == 2 * SIGN_UPS
    assert [*ledger.verify(), *missing.find(timezone.now())] == []


def test_r37_a_purge_killed_again_and_again_ends_with_everything_gone_and_counted_once(site):
    dice, left = Random(37), sum(GOES.values())
    for number in range(1, 4):
        process = site.start(f"purge-{number}", "manage.py", "purge")
        goal = left * number / 8 + dice.random() * 40
        # The one before may have come further than this goal until it was dead.
        site.wait_until(
            lambda number=number, goal=goal: PurgeRun.objects.count() == number and counted().total() >= goal,
            process=process,
        )
        sleep(dice.random() / 50)
        site.kill(process)
        assert 0 < counted().total() < left

    site.manage("purge")

    assert PurgeRun.objects.filter(state=PurgeRun.State.RUNNING).count() == 3
    assert PurgeRun.objects.complete().count() == 1
    check_that_all_is_gone()


def test_r37_two_purges_at_once_count_each_row_once(site):
    running = [site.start(f"purge-{number}", "manage.py", "purge") for number in range(2)]

    for process in running:
        assert process.wait(timeout=60) == 0, site.log("purge-0") + site.log("purge-1")

    assert PurgeRun.objects.complete().count() == 2
    check_that_all_is_gone()
