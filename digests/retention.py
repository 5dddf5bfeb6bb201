"""For how long it is known who got which digest; the sums stay.

What is held about a reader whose processing is restricted stays, too (GDPR Art. 18(2)), and goes afterwards.
"""

from collections.abc import Iterable
from datetime import datetime

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from digests.models import Delivery, DeliveryBatch, Digest, ProviderEvent
from digests.outcomes import counts, feedback
from newsroom import retention
from newsroom.retention import Rule
from newsroom.retention.rows import Rows, delete
from newsroom.templatetags.periods import period
from subscriptions.models import Subscriber

ENDED = [Digest.State.FINISHED, Digest.State.CANCELLED, Digest.State.SKIPPED]


def register() -> None:
    # The batches stand first and so go last: without them nobody could say which deliveries a digest had.
    retention.register(BATCHES, DELIVERIES, EVENTS)


def due_deliveries(now: datetime) -> QuerySet[Delivery]:
    restricted = Subscriber.objects.filter(pk=OuterRef("subscriber"), restricted_at__isnull=False)
    return Delivery.objects.filter(~Exists(restricted), digest__in=_old_digests(now))


def due_batches(now: datetime) -> QuerySet[DeliveryBatch]:
    """Batches that list readers, and batches nobody is in any more."""
    has_deliveries = Exists(Delivery.objects.filter(batch=OuterRef("pk")))
    return DeliveryBatch.objects.filter(~Q(reader_ids=[]) | ~has_deliveries, digest__in=_old_digests(now))


def _old_digests(now: datetime) -> list[int]:
    """Return the digests of which more than the sums is left; these are few, and their rows are found by index."""
    old = Digest.objects.filter(due_at__lte=now - settings.DELIVERY_RETENTION, state__in=ENDED)
    left = old.filter(Exists(DeliveryBatch.objects.filter(digest=OuterRef("pk"))))
    return list(left.values_list("pk", flat=True))


def _remove_deliveries(deliveries: QuerySet[Delivery]) -> int:
    _keep_sums(deliveries.values_list("digest", flat=True))
    return delete(deliveries)


def _remove_batches(batches: QuerySet[DeliveryBatch]) -> int:
    """Empty the batches; those in which a restricted reader still is stay, without a list of the others."""
    _keep_sums(batches.values_list("digest", flat=True))
    keys = list(batches.values_list("pk", flat=True))
    DeliveryBatch.objects.filter(parent__in=keys).update(parent=None)  # or they would go along
    DeliveryBatch.objects.filter(pk__in=keys).update(parent=None, reader_ids=[])
    has_deliveries = Exists(Delivery.objects.filter(batch=OuterRef("pk")))  # a join would read them all
    return delete(DeliveryBatch.objects.filter(~has_deliveries, pk__in=keys))


def _keep_sums(digests: Iterable[int]) -> None:
    for digest in Digest.objects.filter(pk__in=set(digests), final_counts__isnull=True):
        Digest.objects.filter(pk=digest.pk).update(final_counts={**counts(digest), **feedback(digest)})


def _period_of_events() -> str:
    return gettext("as long as the delivery it belongs to; else %(period)s") % {
        "period": period(settings.PROVIDER_EVENT_RETENTION)
    }


BATCHES = Rule(
    name="batches",
    what=_("In which batch a reader stood, as a number"),
    period=lambda: period(settings.DELIVERY_RETENTION),
    since=_("the digest was due"),
    basis=_("GDPR Art. 6(1)(a)"),
    store=Rows(model=DeliveryBatch, due=due_batches, remove=_remove_batches),
    is_public=False,
)
DELIVERIES = Rule(
    name="deliveries",
    what=_("Delivery of single issues"),
    period=lambda: gettext("%(period)s after the issue") % {"period": period(settings.DELIVERY_RETENTION)},
    since=_("the digest was due"),
    basis=_("GDPR Art. 6(1)(a)"),
    store=Rows(model=Delivery, due=due_deliveries, remove=_remove_deliveries),
)
# Those of a delivery go with it.
EVENTS = Rule(
    name="provider_events",
    what=_("Reports that a mail came back or was called spam"),
    period=_period_of_events,
    since=_("the report came"),
    basis=_("GDPR Art. 6(1)(f)"),
    store=Rows(model=ProviderEvent, due=ProviderEvent.objects.old),
)
