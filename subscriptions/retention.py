"""What is kept about readers for how long (GDPR Art. 5(1)(e)). Each rule's cutoff is in its filter.

What is held about a reader whose processing is restricted stays meanwhile (GDPR Art. 18(2)).
"""

from datetime import datetime
from functools import reduce
from operator import or_

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from newsroom import retention
from newsroom.mail.models import OutboxMail
from newsroom.retention import Rule
from newsroom.retention.rows import Rows, delete
from newsroom.templatetags.periods import period
from subscriptions import erasures, ledger, rectifying, suppression
from subscriptions.models import (
    AddressChange,
    ConsentPayload,
    ConsentRecord,
    EvidenceView,
    PrivacyRequest,
    RequestCount,
    RightsCase,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
)
from subscriptions.persons import forget_sign_ups

# These go with the sign-up, unless it was confirmed. All others are acts of a reader.
OF_SIGN_UPS = (ConsentRecord.Type.REQUESTED, ConsentRecord.Type.MAIL_SENT)


def register() -> None:
    retention.register(
        SIGN_UPS, SERVICE_MAILS, READERS, EVIDENCE, LAPSED, SUPPRESSIONS, ERASURES, EVIDENCE_VIEWS, PRIVACY_REQUESTS,
        CASES, ADDRESS_CHANGES, REQUEST_COUNTS,
    )  # fmt: skip


def evidence_limit(now: datetime) -> datetime:
    """Return the first moment of the calendar year, on our calendar, whose acts are still provable."""
    local = timezone.localtime(now)
    year = local.year - settings.EVIDENCE_RETENTION_YEARS
    return local.replace(year=year, month=1, day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)


def due_sign_ups(now: datetime) -> QuerySet[SignUp]:
    """Sign-ups, confirmed or not; of confirmed ones the ledger keeps the proof."""
    return SignUp.objects.filter(~Exists(_restricted()), requested_at__lte=now - settings.SIGN_UP_RETENTION)


def _remove_sign_ups(sign_ups: QuerySet[SignUp]) -> int:
    # Locked first, as an erasure does, so that the two never wait for each other.
    return forget_sign_ups(sign_ups.select_for_update())


def due_service_mails(now: datetime) -> QuerySet[OutboxMail]:
    """Mails whose sign-ups are deleted by now too, whatever became of them."""
    causes = [model._default_manager.filter(Exists(_restricted())) for model in (SignUp, PrivacyRequest, RightsCase)]
    changes = AddressChange.objects.filter(subscriber__restricted_at__isnull=False)
    kept = [Q(reference__in=Subquery(rows.values("uuid"))) for rows in (*causes, changes)]
    return OutboxMail.objects.old(now).exclude(reduce(or_, kept))


def due_readers(now: datetime) -> QuerySet[Subscriber]:
    """Readers without a subscription, as soon as the list of their deliveries has gone as well."""
    limit = now - settings.DELIVERY_RETENTION
    standing = Subscription.objects.filter(subscriber=OuterRef("pk")).filter(
        ~Q(state=Subscription.State.ENDED) | Q(ended_at__gt=limit)
    )
    return Subscriber.objects.filter(~Exists(standing), restricted_at=None, created_at__lte=limit)


def _remove_readers(readers: QuerySet[Subscriber]) -> int:
    # A reader who comes back at this very moment is waited for, and then not due any more.
    list(Subscriber.objects.filter(pk__in=readers.values("pk")).select_for_update())
    # What an unconfirmed change said about an address that is perhaps a stranger's stands in the ledger too.
    rectifying.forget(list(AddressChange.objects.filter(subscriber__in=readers.all())))
    return delete(readers.all())


def due_evidence(now: datetime) -> QuerySet[ConsentPayload]:
    """Proofs of who gets nothing any more, after the end of the third calendar year after the last act."""
    limit = evidence_limit(now)
    newer = ConsentPayload.objects.filter(address_key=OuterRef("address_key"), record__at__gte=limit)
    standing = Subscription.objects.exclude(state=Subscription.State.ENDED).filter(
        subscriber__address_key=OuterRef("address_key")
    )
    return ConsentPayload.objects.filter(
        ~Exists(newer.exclude(record__type__in=OF_SIGN_UPS)),
        ~Exists(standing),
        ~Exists(_restricted()),
        record__at__lt=limit,  # not the sign-up someone sent yesterday
    )


def due_suppressions(now: datetime) -> QuerySet[Suppression]:
    bounces = Suppression.objects.filter(reason=Suppression.Reason.HARD_BOUNCE)
    old = bounces.filter(created_at__lte=now - settings.BOUNCE_RETENTION)
    return old.exclude(address_hash__in=_restricted_hashes())


def due_evidence_views(now: datetime) -> QuerySet[EvidenceView]:
    old = EvidenceView.objects.filter(viewed_at__lte=now - settings.EVIDENCE_VIEW_RETENTION)
    return old.exclude(address_hash__in=_restricted_hashes())


def due_privacy_requests(now: datetime) -> QuerySet[PrivacyRequest]:
    """Requests whose link was never used go soon, the others when nobody can ask about them any more."""
    unused = Q(opened_at=None, requested_at__lte=now - settings.SIGN_UP_RETENTION)
    old = Q(requested_at__lte=now - settings.PRIVACY_REQUEST_RETENTION)
    return PrivacyRequest.objects.filter(unused | old).exclude(Exists(_restricted()))


def due_address_changes(now: datetime) -> QuerySet[AddressChange]:
    """Changes nobody confirmed go with the sign-ups, the others when the former address need not be known any more."""
    unconfirmed = Q(confirmed_at=None, requested_at__lte=now - settings.SIGN_UP_RETENTION)
    old = Q(confirmed_at__lte=now - settings.ADDRESS_CHANGE_RETENTION)
    return AddressChange.objects.filter(unconfirmed | old, subscriber__restricted_at=None)


def due_cases(now: datetime) -> QuerySet[RightsCase]:
    """Cases that were answered; an open one stays until it is."""
    old = RightsCase.objects.filter(closed_at__lte=now - settings.PRIVACY_REQUEST_RETENTION)
    return old.exclude(Exists(_restricted()))


def due_request_counts(now: datetime) -> QuerySet[RequestCount]:
    return RequestCount.objects.filter(window_start__lte=now - settings.NETWORK_COUNT_RETENTION)


def _restricted() -> QuerySet[Subscriber]:
    return Subscriber.objects.filter(address_key=OuterRef("address_key"), restricted_at__isnull=False)


def _restricted_hashes() -> list[str]:
    """Return the hashes under which restricted readers stand where their address does not; they are few."""
    keys = Subscriber.objects.filter(restricted_at__isnull=False).values_list("address_key", flat=True)
    return [address_hash for key in keys for address_hash in suppression.address_hashes(key)]


def _period_of_sign_ups() -> str:
    words = {"period": period(settings.SIGN_UP_RETENTION), "link": period(settings.CONFIRMATION_LIFETIME)}
    return gettext("%(period)s (its link is valid for %(link)s)") % words


def _period_of_readers() -> str:
    return gettext(
        "until you ask for deletion, else until %(period)s after you left the last newsletter; we stop writing to you"
        " at once"
    ) % {"period": period(settings.DELIVERY_RETENTION)}


def _period_of_evidence() -> str:
    return gettext("until 31 December of year %(years)d after you unsubscribed") % {
        "years": settings.EVIDENCE_RETENTION_YEARS
    }


def _period_of_consent() -> str:
    return gettext("no longer valid once we have not sent you the newsletter for %(months)d months") % {
        "months": settings.CONSENT_LAPSE_MONTHS
    }


def _period_of_suppressions() -> str:
    return gettext("as long as we send newsletters; if your address could not be reached, %(period)s") % {
        "period": period(settings.BOUNCE_RETENTION)
    }


def _period_of_address_changes() -> str:
    words = {"period": period(settings.ADDRESS_CHANGE_RETENTION), "short": period(settings.SIGN_UP_RETENTION)}
    return gettext("%(period)s; if it was not confirmed, %(short)s") % words


def _period_of_cases() -> str:
    return gettext("%(period)s after our answer; without your address once you have your data deleted") % {
        "period": period(settings.PRIVACY_REQUEST_RETENTION)
    }


def _period_of_privacy_requests() -> str:
    words = {"period": period(settings.PRIVACY_REQUEST_RETENTION), "short": period(settings.SIGN_UP_RETENTION)}
    return gettext("%(period)s; if the link was not used, %(short)s") % words


SIGN_UPS = Rule(
    name="sign_ups",
    what=_("Unconfirmed sign-up"),
    period=_period_of_sign_ups,
    since=_("the form was sent"),
    basis=_("GDPR Art. 6(1)(a) and (f)"),
    store=Rows(model=SignUp, due=due_sign_ups, remove=_remove_sign_ups),
)
SERVICE_MAILS = Rule(
    name="service_mails",
    what=_("That a service mail was sent to you, without its text"),
    period=lambda: period(settings.SIGN_UP_RETENTION),
    since=_("the mail was caused"),
    basis=_("GDPR Art. 6(1)(f)"),
    store=Rows(model=OutboxMail, due=due_service_mails),
)
READERS = Rule(
    name="readers",
    what=_("Address and newsletters"),
    period=_period_of_readers,
    since=_("the last newsletter was left"),
    basis=_("GDPR Art. 6(1)(a)"),
    store=Rows(model=Subscriber, due=due_readers, remove=_remove_readers),
)
EVIDENCE = Rule(
    name="evidence",
    what=_("Proof of consent"),
    period=_period_of_evidence,
    since=_("the end of the year of the last act"),
    basis=_("GDPR Art. 6(1)(c) and (f), Art. 17(3)(b) and (e)"),
    store=Rows(model=ConsentPayload, due=due_evidence, remove=ledger.forget),
)
LAPSED = Rule(
    name="lapsed_consents",
    what=_("Consent that was not used for long"),
    period=_period_of_consent,
    since=_("the newsletter was last sent to the reader"),
    basis=_("GDPR Art. 6(1)(a)"),
    store=Rows(model=Subscription, due=Subscription.objects.lapsed),
    is_purged=False,
)
SUPPRESSIONS = Rule(
    name="suppressions",
    what=_("Checksum in the suppression list"),
    period=_period_of_suppressions,
    since=_("the address was put on the list"),
    basis=_("GDPR Art. 6(1)(c) and (f), Art. 21(3)"),
    store=Rows(model=Suppression, due=due_suppressions),
)
ERASURES = Rule(
    name="erasures",
    what=_("Erasure in the journal outside the database, as a checksum"),
    period=lambda: period(settings.ERASURE_JOURNAL_RETENTION),
    since=_("the erasure"),
    basis=_("GDPR Art. 6(1)(c) and (f), Art. 17"),
    store=erasures.Lines(),
)
EVIDENCE_VIEWS = Rule(
    name="views_of_evidence",
    what=_("Who looked at a proof of consent"),
    period=lambda: period(settings.EVIDENCE_VIEW_RETENTION),
    since=_("the look"),
    basis=_("GDPR Art. 6(1)(c), Art. 5(2)"),
    store=Rows(model=EvidenceView, due=due_evidence_views),
)
PRIVACY_REQUESTS = Rule(
    name="privacy_requests",
    what=_("Requests for a link to your data"),
    period=_period_of_privacy_requests,
    since=_("the request"),
    basis=_("GDPR Art. 6(1)(c), Art. 5(2)"),
    store=Rows(model=PrivacyRequest, due=due_privacy_requests),
)
CASES = Rule(
    name="rights_cases",
    what=_("What you asked of us, by letter, call or on the page “My data”"),
    period=_period_of_cases,
    since=_("our answer"),
    basis=_("GDPR Art. 6(1)(c), Art. 5(2), Art. 12(3)"),
    store=Rows(model=RightsCase, due=due_cases),
)
ADDRESS_CHANGES = Rule(
    name="address_changes",
    what=_("Change of your address, with the former one"),
    period=_period_of_address_changes,
    since=_("the change, or else the request"),
    basis=_("GDPR Art. 6(1)(c), Art. 5(2), Art. 16"),
    store=Rows(model=AddressChange, due=due_address_changes, remove=rectifying.forget),
)
REQUEST_COUNTS = Rule(
    name="request_counts",
    what=_("Counts against abuse"),
    period=lambda: period(settings.NETWORK_COUNT_RETENTION),
    since=_("the count began"),
    basis=_("GDPR Art. 6(1)(f)"),
    store=Rows(model=RequestCount, due=due_request_counts),
)
