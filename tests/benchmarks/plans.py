"""How PostgreSQL goes about each hot query of a large digest: EXPLAIN (ANALYZE, BUFFERS) of what the site really says.

    python -m tests.benchmarks --explain --readers 1000000 [--docs]

The site's own functions are called, and each statement they make is explained, in a savepoint of its own, right before
it runs. So this page cannot explain queries that are no longer asked.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from newsroom.management.guard import Guard
from tests.benchmarks import report
from tests.benchmarks.scene import Scene

WHERE = report.ROOT / "var" / "bench" / "plans.txt"
BEGIN, END = "<!-- begin: plans -->", "<!-- end: plans -->"
EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
TIME = re.compile(r"Execution Time: ([\d.]+) ms")
# Of a long list of ids or places for values, the first few say enough.
VALUE = r"(?:%s|[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}|\d+)"
VALUES = re.compile(rf"((?:{VALUE},\s?){{4}})(?:(?:{VALUE}|…),?\s*){{4,}}")
BIG = ("subscriptions_subscriber", "subscriptions_subscription", "digests_delivery", "digests_deliverybatch")


@dataclass
class Act:
    """One thing the site does, with the plans of its statements; the same words are explained once."""

    name: str
    plans: dict[str, str] = field(default_factory=dict)

    @property
    def milliseconds(self) -> float:
        return sum(float(found[1]) for plan in self.plans.values() if (found := TIME.search(plan)))

    @property
    def scanned(self) -> list[str]:
        """Large tables that a statement read from end to end."""
        plans = "\n".join(self.plans.values())
        return sorted({table for table in BIG if re.search(rf"Seq Scan on {table}\b", plans)})


def run(readers: int, *, docs: bool) -> int:
    guard = Guard()
    try:
        acts = list(_acts(Scene(guard, readers=readers)))
    finally:
        guard.close()
    WHERE.parent.mkdir(parents=True, exist_ok=True)
    WHERE.write_text("\n\n".join(_in_full(act) for act in acts) + "\n")
    print(WHERE.read_text())
    rows = [f"| {act.name} | {len(act.plans)} | {act.milliseconds:,.1f} | {', '.join(act.scanned)} |" for act in acts]
    table = "\n".join(["| | statements | ms in all | read from end to end |", "|---|---|---|---|", *rows])
    print(table)
    if docs:
        full = "\n\n".join(
            f"<details><summary>{act.name}</summary>\n\n```text\n{_in_full(act)}\n```\n\n</details>" for act in acts
        )
        words = f'`make bench N={readers} ARGS="--explain"`'
        report.put_between(BEGIN, END, f"{words}:\n\n{table}\n\n{full}")
    return 0


def _in_full(act: Act) -> str:
    parts = [f"== {act.name}"]
    for statement, plan in act.plans.items():
        short = statement if len(statement) <= 600 else f"{statement[:400]} … {statement[-180:]}"
        parts.append(f"{short}\n{plan}")
    return VALUES.sub(r"\1 …", "\n\n".join(parts))


@contextmanager
def explained(act: Act) -> Iterator[None]:
    from django.db import connection, transaction

    is_asking = False

    def explain(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        nonlocal is_asking
        if not is_asking and sql.lstrip().startswith(EXPLAINED) and sql not in act.plans:
            is_asking = True
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", params)
                    act.plans[sql] = "\n".join(row[0] for row in cursor.fetchall())
                    transaction.set_rollback(True)
            finally:
                is_asking = False
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield
    act.plans = {" ".join(sql.split()): plan for sql, plan in act.plans.items()}


def _acts(scene: Scene) -> Iterator[Act]:
    """Freeze, send half, and ask everything that is asked while the other half waits; then everything after it."""
    from django.conf import settings
    from django.db import transaction
    from django.utils import timezone

    from digests import audience, delivery, outcomes, progress, release, retention, sweeping
    from digests.clock import database_now
    from digests.models import Delivery, Digest
    from subscriptions import consent
    from subscriptions.consent import Origin
    from subscriptions.models import Subscription

    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"

    def act(name: str, call: Callable[[], object]) -> Act:
        found = Act(name)
        with explained(found):
            call()
        print(f"{name}: {found.milliseconds:,.1f} ms {found.scanned or ''}", file=sys.stderr, flush=True)
        return found

    old = scene.make_digest()
    _send_by_hand(scene, old, share=1.0)
    digest = scene.make_digest()
    yield act("freeze the audience", lambda: _start(release, digest, database_now()))
    _send_by_hand(scene, digest, share=0.5)
    scene.tidy()
    digest.refresh_from_db()
    now = database_now()
    due: list[int] = []
    yield act("hints for workers", lambda: due.extend(sweeping.due_for_a_hint(now, limit=40)))
    yield act("one batch: claim, eligibility, deliveries, outcome, is it finished", lambda: delivery.deliver(due[0]))
    yield act("the sweeper", lambda: sweeping.sweep(now))
    yield act("is the digest finished", lambda: delivery.finish(digest.pk, now=now))
    reader = digest.deliveries.values_list("subscriber", flat=True)[0]
    yield act(
        "did this reader get that digest", lambda: Delivery.objects.filter(digest=digest, subscriber=reader).first()
    )
    newcomer = Subscription.objects.filter(newsletter=scene.newsletter).order_by("-id")[:3]
    Subscription.objects.filter(pk__in=list(newcomer.values_list("pk", flat=True))).update(active_since=now)
    Digest.objects.filter(pk=digest.pk).update(date=timezone.localdate(now))  # only today's has any
    yield act("latecomers", lambda: audience.add_latecomers(now))
    counts = outcomes.counts(digest)
    yield act("progress: the sums", lambda: outcomes.counts(digest))
    yield act("progress: the pace", lambda: progress.pace(digest, counts, now=now))
    yield act("progress: minute by minute", lambda: progress.plot(digest, now=now))
    yield act("progress: by domain, kept for a while", lambda: progress.domains(digest, counts, now=now))
    leaver = Subscription.objects.select_related("subscriber", "newsletter").get(pk=newcomer[0].pk)
    origin = Origin(source="unsubscribe_page", ip=None)
    yield act("whose link was clicked", lambda: Subscription.objects.linked_by(leaver.uuid).first())
    yield act("unsubscribe", lambda: consent.withdraw(leaver, origin=origin, now=timezone.now()))
    Digest.objects.filter(pk=old.pk).update(state="finished", due_at=now - settings.DELIVERY_RETENTION * 2)
    for rule, name in ((retention.DELIVERIES, "deliveries"), (retention.BATCHES, "batches")):
        store = rule.store
        yield act(
            f"purge of old {name}, one chunk",
            lambda store=store: next(
                store.purge(now + timedelta(seconds=1), limit=1000, note=lambda count: None), None
            ),
        )
    assert not transaction.get_connection().in_atomic_block


def _start(release: Any, digest: Any, now: Any) -> None:
    assert release.start_sending(digest, now=now)


def _send_by_hand(scene: Scene, digest: Any, *, share: float) -> None:
    """Leave a digest as if so much of it had been sent, one in a hundred refused and few uncertain."""
    from django.db import transaction

    from digests import release, statements
    from digests.clock import database_now

    if digest.state != "sending":
        assert release.start_sending(digest, now=database_now())
    database = scene.watcher
    database.execute(
        "UPDATE digests_deliverybatch SET state = 'done', attempts = 1, fence = 1 WHERE digest_id = %s AND number <="
        " (SELECT max(number) * %s FROM digests_deliverybatch WHERE digest_id = %s)",
        [digest.pk, share, digest.pk],
    )
    for batch in digest.batches.filter(state="done").order_by("number").iterator(100):
        with transaction.atomic():
            statements.write_deliveries(batch, at=database_now())
    database.execute(
        "UPDATE digests_delivery SET state = CASE WHEN subscriber_id %% 100 = 0 THEN 'refused' ELSE 'uncertain' END"
        " WHERE digest_id = %s AND (subscriber_id %% 100 = 0 OR subscriber_id %% 5000 = 1)",
        [digest.pk],
    )
    database.execute(
        "INSERT INTO digests_deliveryattempt (batch_id, fence, started_at, ended_at, acknowledged, in_flight, outcome,"
        " detail) SELECT id, 1, at, at + interval '2 seconds', size, 0, 'accepted', '' FROM digests_deliverybatch,"
        " LATERAL (SELECT now() - interval '5 minutes' + id %% 300 * interval '1 second') AS begin (at)"
        " WHERE digest_id = %s AND state = 'done'",
        [digest.pk],
    )
