"""Deliveries of which nobody knows whether they left: asked again where that is safe, else decided by a rule.

A provider that knows a mail by its key is asked again with the same mail, soon and a few times. What is uncertain
still at the deadline goes by the schedule's rule; what that leaves is for staff. An event of the provider may tell at
any time: every step here takes up only what is uncertain at that moment.

While it is asked again a delivery stays `uncertain`, so that neither a dead worker nor a digest whose time is over
makes anything else of it than what is known.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Min
from django.utils.translation import ngettext

from digests import audience, outcomes, providers
from digests.clock import let_others_write
from digests.models import (
    Delivery,
    DeliveryBatch,
    DeliveryBatchQuerySet,
    Digest,
    DigestChange,
    DigestSchedule,
)
from newsroom.mail import repeating

log = logging.getLogger(__name__)

Policy = DigestSchedule.UncertainPolicy

FIRST_PAUSE = timedelta(seconds=30)


def resolve(now: datetime) -> None:
    """Bring on what can be known or decided without a person. Safe to run anywhere, any number of times at once."""
    waiting = Digest.objects.sending().filter(deliveries__state=Delivery.State.UNCERTAIN).distinct()
    for digest in waiting.select_related("schedule"):
        _ask_again(digest, now=now)
        _decide(digest, now=now)
        let_others_write()


def _ask_again(digest: Digest, *, now: datetime) -> None:
    lifetime = repeating.lifetime()
    if not lifetime or now >= digest.not_after:
        return
    provider = providers.current()
    for batch in _settled(digest).filter(attempts__lt=settings.DELIVERY_MAX_ATTEMPTS):
        # Another provider would not know the key.
        attempt = batch.tries.order_by("-fence").first()
        if attempt is not None and attempt.provider_id == provider.pk:
            at = now + FIRST_PAUSE * 2 ** (batch.attempts - 1)
            _try_again(batch, written_after=now - lifetime, keyed_for=lifetime, at=at)


def _decide(digest: Digest, *, now: datetime) -> None:
    """Let the schedule's rule decide about what is uncertain for too long."""
    policy = digest.schedule.uncertain_policy if digest.schedule else Policy.WAIT
    deadline = now - settings.UNCERTAIN_DEADLINE
    if policy == Policy.LEAVE:
        _leave(digest, written_before=deadline, now=now)
    elif policy == Policy.RESEND and now < digest.not_after:
        # Once: what is uncertain after that as well is for staff.
        batches = _settled(digest).filter(is_second_try=False)
        count = sum(_try_again(batch, written_before=deadline, at=now) for batch in batches)
        if count:
            reason = ngettext(
                "%(count)d uncertain reader is mailed once more, as the schedule says.",
                "%(count)d uncertain readers are mailed once more, as the schedule says.",
                count,
            ) % {"count": count}
            DigestChange.objects.create(digest=digest, state=digest.state, at=now, reason=reason)


def _settled(digest: Digest) -> DeliveryBatchQuerySet:
    """Return the batches that are through, with uncertain deliveries among them."""
    uncertain = digest.deliveries.uncertain().filter(subscriber__isnull=False)
    return DeliveryBatch.objects.filter(pk__in=uncertain.values("batch")).exclude(state__in=DeliveryBatch.OPEN_STATES)


def _try_again(
    batch: DeliveryBatch,
    *,
    at: datetime,
    written_after: datetime | None = None,
    written_before: datetime | None = None,
    keyed_for: timedelta | None = None,
) -> int:
    """Move a batch's uncertain deliveries of that time to a batch of their own, due at `at`; return how many.

    With `keyed_for` they are handed over within that time of the first attempt, or not at all.
    """
    with transaction.atomic():
        batch = DeliveryBatch.objects.select_for_update().get(pk=batch.pk)
        if batch.state in DeliveryBatch.OPEN_STATES:
            return 0
        uncertain = batch.deliveries.uncertain().filter(subscriber__isnull=False)
        if written_after is not None:
            uncertain = uncertain.filter(created_at__gt=written_after)
        if written_before is not None:
            uncertain = uncertain.filter(created_at__lt=written_before)
        readers = dict(uncertain.order_by("subscriber_id").values_list("pk", "subscriber"))
        if not readers:
            return 0
        new = audience.add_batch(batch.digest, list(readers.values()), at=at, parent=batch)
        keyed_until = uncertain.aggregate(first=Min("created_at"))["first"] + keyed_for if keyed_for else None
        DeliveryBatch.objects.filter(pk=new.pk).update(
            attempts=batch.attempts, is_second_try=True, keyed_until=keyed_until
        )
        Delivery.objects.filter(pk__in=readers).update(batch=new)
        leaving = set(readers.values())
        batch.reader_ids = [pk for pk in batch.reader_ids if pk not in leaving]
        batch.size -= len(leaving)
        batch.save(update_fields=["reader_ids", "size"])
    log.info("digest %s: %s uncertain deliveries are asked again", batch.digest_id, len(readers))
    return len(readers)


def _leave(digest: Digest, *, written_before: datetime, now: datetime) -> None:
    with transaction.atomic():
        old = digest.deliveries.uncertain().filter(created_at__lt=written_before)
        count = outcomes.leave(old.exclude(batch__state__in=DeliveryBatch.OPEN_STATES))
        if not count:
            return
        reason = ngettext(
            "%(count)d uncertain delivery is left as it is, as the schedule says.",
            "%(count)d uncertain deliveries are left as they are, as the schedule says.",
            count,
        ) % {"count": count}
        DigestChange.objects.create(digest=digest, state=digest.state, at=now, reason=reason)
