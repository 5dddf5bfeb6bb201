from datetime import datetime

from celery import shared_task

from digests import audience, compilation, delivery, events, restoring, sweeping
from digests.clock import database_now
from digests.models import Digest

# So many batches are told to workers at a time; the rest waits in the table, not in the broker.
HINTS_AT_ONCE = 40


@shared_task
def tick() -> None:
    """Make the digests that are due, give today's to who confirmed since, and have workers begin at once."""
    now = database_now()
    if restoring.count(now):
        compilation.make_due_digests(now)
        audience.add_latecomers(now)
        tell_workers(now)


@shared_task
def sweep() -> None:
    """Recover what dead workers left, and tell workers which batches are due."""
    now = database_now()
    is_held = Digest.objects.sending().exists() and not restoring.count(now)
    sweeping.sweep(now)
    if not is_held:
        tell_workers(now)


def tell_workers(now: datetime) -> None:
    """Give workers hints which batches are due; raises what the broker does."""
    for batch_id in sweeping.due_for_a_hint(now, limit=HINTS_AT_ONCE):
        deliver_batch.apply_async((batch_id,), expires=60)


@shared_task
def deliver_batch(batch_id: int) -> None:
    delivery.deliver_on(batch_id)


@shared_task
def process_events() -> None:
    events.process(database_now())
