"""What is purged when (GDPR Art. 5(1)(e)). Each purge is one query, its cutoff in the filter, and safe to repeat."""

from datetime import datetime

from django.conf import settings
from django.db.models import Exists, Max, OuterRef, Q
from django.utils import timezone

from subscriptions import consent, ledger
from subscriptions.models import (
    ConsentPayload,
    ConsentRecord,
    EvidenceView,
    PrivacyRequest,
    RequestCount,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from subscriptions.persons import forget_sign_ups

# Acts of a reader. Sign-ups and their mails go with the sign-up, unless it was confirmed.
ACTS = [
    ConsentRecord.Type.CONFIRMED,
    ConsentRecord.Type.ADDED,
    ConsentRecord.Type.CHANGED,
    ConsentRecord.Type.WITHDRAWN,
    ConsentRecord.Type.ERASED,
]


def purge(now: datetime) -> dict[str, int]:
    """Delete everything whose time has come and return how many rows went."""
    return {
        "pauses_ended": consent.resume_due(now),
        "sign_ups": purge_sign_ups(now),
        "readers": purge_readers(now),
        "evidence": purge_evidence(now),
        "views_of_evidence": purge_evidence_views(now),
        "privacy_requests": purge_privacy_requests(now),
        "suppressions": purge_bounces(now),
        "request_counts": purge_request_counts(now),
    }


def purge_sign_ups(now: datetime) -> int:
    """Sign-ups go after `SIGN_UP_RETENTION`; of confirmed ones the ledger keeps the proof."""
    restricted = Subscriber.objects.filter(address_key=OuterRef("address_key"), restricted_at__isnull=False)
    old = SignUp.objects.filter(requested_at__lt=now - settings.SIGN_UP_RETENTION)
    return forget_sign_ups(old.filter(~Exists(restricted)))


def purge_readers(now: datetime) -> int:
    """Readers without a subscription go as soon as the list of their deliveries has gone as well."""
    standing = Subscription.objects.filter(subscriber=OuterRef("pk")).filter(
        ~Q(state=Subscription.State.ENDED) | Q(ended_at__gte=now - settings.DELIVERY_RETENTION)
    )
    gone = Subscriber.objects.filter(~Exists(standing), restricted_at=None)
    return gone.filter(created_at__lt=now - settings.DELIVERY_RETENTION).delete()[1].get("subscriptions.Subscriber", 0)


def purge_evidence(now: datetime) -> int:
    """Proofs go after the end of the third calendar year after the reader's last act, if he gets nothing any more."""
    first_day_kept = timezone.localtime(now).replace(
        year=timezone.localtime(now).year - settings.EVIDENCE_RETENTION_YEARS,
        month=1, day=1, hour=0, minute=0, second=0, microsecond=0,
    )  # fmt: skip
    last_acts = (
        ConsentPayload.objects.filter(record__type__in=ACTS)
        .values("address_key")
        .annotate(last=Max("record__at"))
        .filter(last__lt=first_day_kept)
    )
    standing = Subscription.objects.exclude(state=Subscription.State.ENDED).filter(
        subscriber__address_key=OuterRef("address_key")
    )
    restricted = Subscriber.objects.filter(address_key=OuterRef("address_key"), restricted_at__isnull=False)
    expired = ConsentPayload.objects.filter(
        ~Exists(standing),
        ~Exists(restricted),
        record__at__lt=first_day_kept,  # not the sign-up someone sent yesterday
        address_key__in=last_acts.values("address_key"),
    )
    return ledger.forget(expired) if expired.exists() else 0


def purge_evidence_views(now: datetime) -> int:
    return EvidenceView.objects.filter(viewed_at__lt=now - settings.EVIDENCE_VIEW_RETENTION).delete()[0]


def purge_privacy_requests(now: datetime) -> int:
    """Requests whose link was never used go soon, the others when nobody can ask about them any more."""
    unused = Q(opened_at=None, requested_at__lt=now - settings.SIGN_UP_RETENTION)
    old = Q(requested_at__lt=now - settings.PRIVACY_REQUEST_RETENTION)
    return PrivacyRequest.objects.filter(unused | old).delete()[0]


def purge_bounces(now: datetime) -> int:
    bounces = Suppression.objects.filter(reason=Suppression.Reason.HARD_BOUNCE)
    return bounces.filter(created_at__lt=now - settings.BOUNCE_RETENTION).delete()[0]


def purge_request_counts(now: datetime) -> int:
    return RequestCount.objects.filter(window_start__lt=now - settings.NETWORK_COUNT_RETENTION).delete()[0]
