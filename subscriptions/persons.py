"""Where subscriptions holds personal data. What points to other rows is registered after them, and erased before."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from newsroom import persons
from newsroom.mail.addresses import canonicalise
from newsroom.mail.models import OutboxMail
from newsroom.persons import Holding
from newsroom.templatetags.periods import period
from subscriptions import cases, ledger, rectifying, suppression, telling
from subscriptions.models import (
    AddressChange,
    ConsentPayload,
    ConsentRecord,
    EvidenceView,
    PrivacyRequest,
    RightsCase,
    SignUp,
    Subscriber,
    Subscription,
)


def register() -> None:
    for holding in (READERS, EVIDENCE, EVIDENCE_VIEWS, SUPPRESSIONS, PRIVACY_REQUESTS, CASES, SIGN_UPS,
                    ADDRESS_CHANGES, SERVICE_MAILS):  # fmt: skip
        persons.register(holding)
    for reason, models in IMPERSONAL.items():
        persons.register_without(reason, *models)


def _time(moment: datetime | None) -> str | None:
    return timezone.localtime(moment).isoformat(timespec="seconds") if moment else None


def _export_readers(address_key: str) -> list[dict[str, Any]]:
    readers = Subscriber.objects.filter(address_key=address_key).prefetch_related("subscriptions__newsletter")
    lapsed = set(Subscription.objects.lapsed().filter(subscriber__in=readers).values_list("pk", flat=True))
    return [
        {
            "reader": str(reader.uuid),
            "address": reader.address,
            "language": reader.language,
            "since": _time(reader.created_at),
            "restricted_since": _time(reader.restricted_at),
            "subscriptions": [_subscription(each, lapsed) for each in reader.subscriptions.all()],
        }
        for reader in readers
    ]


def _subscription(subscription: Subscription, lapsed: Collection[int]) -> dict[str, Any]:
    return {
        "newsletter": subscription.newsletter.name,
        "state": subscription.state,
        "has_lapsed": subscription.pk in lapsed,
        "active_since": _time(subscription.active_since),
        "ended_at": _time(subscription.ended_at),
        "paused_until": subscription.paused_until.isoformat() if subscription.paused_until else None,
    }


def _erase_readers(address_key: str, now: datetime) -> int:
    return Subscriber.objects.filter(address_key=address_key).delete()[0]


def _evidence_is_kept() -> str:
    return _(
        "The proof of your consent and of its withdrawal stays locked away until the end of calendar"
        " year %(years)d after it, because we must be able to prove that we were allowed to write to you"
        " (GDPR Art. 17(3)(e))."
    ) % {"years": settings.EVIDENCE_RETENTION_YEARS}


def _export_evidence(address_key: str) -> list[dict[str, Any]]:
    """The ledger's records, but for what is somebody else's: who of our staff acted (EuGH C-579/21), and the IP address
    of whoever sent a form that nobody confirmed (GDPR Art. 15(4))."""
    records = ledger.evidence(address_key)
    confirmed = {record.get("sign_up") for record in records}
    return [_without_others(record, is_theirs=record["subject"] in confirmed) for record in records]


def _without_others(record: dict[str, Any], *, is_theirs: bool) -> dict[str, Any]:
    own = {**record, "actor": record["actor"].partition(":")[0]}
    if record["act"] == ConsentRecord.Type.REQUESTED and not is_theirs:
        return {**own, **_withheld(record["ip"])}
    return own


def _withheld(ip: str | None) -> dict[str, Any]:
    return {"ip": None, "ip_withheld": ip is not None}


def _keep(address_key: str, now: datetime) -> int:
    return 0


def _export_suppressions(address_key: str) -> list[dict[str, Any]]:
    entry = suppression.find(address_key)
    return [{"reason": entry.reason, "since": _time(entry.created_at)}] if entry else []


def _suppression_is_kept() -> str:
    return _(
        "A keyed hash of your address stays, so that it is not mailed again by mistake. The address cannot be read from"
        " it. Should you sign up again yourself, it goes."
    )


def _export_evidence_views(address_key: str) -> list[dict[str, Any]]:
    """When somebody looked, and how; not who, for that is the data of our staff (EuGH C-579/21)."""
    views = EvidenceView.objects.filter(address_hash__in=suppression.address_hashes(address_key))
    return [{"viewed_at": _time(view.viewed_at), "way": view.way} for view in views]


def _evidence_views_are_kept() -> str:
    return _("Who looked at this proof stays noted for %(period)s, beside a keyed hash of your address.") % {
        "period": period(settings.EVIDENCE_VIEW_RETENTION)
    }


def _export_privacy_requests(address_key: str) -> list[dict[str, Any]]:
    return [
        {
            "address": request.address,
            "state": request.state,
            "requested_at": _time(request.requested_at),
            "link_mailed_at": _time(request.handed_over_at),
            "link_used_at": _time(request.opened_at),
        }
        for request in PrivacyRequest.objects.filter(address_key=address_key)
    ]


def _anonymise_privacy_requests(address_key: str, now: datetime) -> int:
    requests = PrivacyRequest.objects.filter(address_key=address_key)
    return requests.update(address="", address_key="", state=PrivacyRequest.State.CLOSED)


def _privacy_request_is_kept() -> str:
    return _("That you asked for erasure stays noted, without your address, for %(period)s.") % {
        "period": period(settings.PRIVACY_REQUEST_RETENTION)
    }


def _cases_are_kept() -> str:
    return _(
        "What you asked of us, and when we answered, stays noted for %(period)s, without your address and your words."
    ) % {"period": period(settings.PRIVACY_REQUEST_RETENTION)}


def _close_privacy_requests(address_key: str, new: str, new_key: str, now: datetime) -> None:
    """A change of address takes the requests along; their links were mailed to the old one and open nothing more."""
    requests = PrivacyRequest.objects.filter(address_key=address_key)
    requests.update(address=new, address_key=new_key, state=PrivacyRequest.State.CLOSED)


def _take_cases_along(address_key: str, new: str, new_key: str, now: datetime) -> None:
    cases.note_rectified(address_key, canonicalise(new), now=now)


def _address_changes(address_key: str) -> QuerySet[AddressChange]:
    of_address = Q(old_address_key=address_key) | Q(new_address_key=address_key)
    return AddressChange.objects.filter(of_address | Q(subscriber__address_key=address_key))


def _export_address_changes(address_key: str) -> list[dict[str, Any]]:
    """Both addresses are told to the reader himself only, not to whoever reads one of the two mailboxes."""
    return [
        {
            "old_address": change.old_address if address_key in (change.old_address_key, reader_key) else None,
            "new_address": change.new_address if address_key in (change.new_address_key, reader_key) else None,
            "state": change.state,
            "requested_at": _time(change.requested_at),
            "confirmed_at": _time(change.confirmed_at),
        }
        for change in _address_changes(address_key).select_related("subscriber")
        for reader_key in [change.subscriber.address_key]
    ]


def _erase_address_changes(address_key: str, now: datetime) -> int:
    return rectifying.forget(list(_address_changes(address_key)))


def _held_by_address_changes() -> Iterator[str]:
    for keys in AddressChange.objects.values_list("old_address_key", "new_address_key").iterator():
        yield from keys


def _export_sign_ups(address_key: str) -> list[dict[str, Any]]:
    sign_ups = SignUp.objects.filter(address_key=address_key).prefetch_related("consent_texts")
    return [
        {
            "address_typed": sign_up.address_typed,
            "address": sign_up.address,
            "language": sign_up.language,
            "newsletters": [newsletter.name for newsletter in sign_up.newsletters.all()],
            "consent_texts": [text.wording for text in sign_up.consent_texts.all()],
            "form": sign_up.form_url,
            **({"ip": sign_up.ip, "ip_withheld": False} if sign_up.confirmed_at else _withheld(sign_up.ip)),
            "requested_at": _time(sign_up.requested_at),
            "confirmed_at": _time(sign_up.confirmed_at),
        }
        for sign_up in sign_ups
    ]


def _erase_sign_ups(address_key: str, now: datetime) -> int:
    return forget_sign_ups(SignUp.objects.filter(address_key=address_key))


def forget_sign_ups(sign_ups: Iterable[SignUp]) -> int:
    """Delete sign-ups; what was said in unconfirmed ones goes with them, for it proves no consent."""
    sign_ups = list(sign_ups)
    unconfirmed = [sign_up.uuid for sign_up in sign_ups if sign_up.confirmed_at is None]
    if unconfirmed:
        ledger.forget(ConsentPayload.objects.filter(record__subject__in=unconfirmed))
    SignUp.objects.filter(pk__in=[sign_up.pk for sign_up in sign_ups]).delete()
    return len(sign_ups)


def _service_mails(address_key: str) -> list[OutboxMail]:
    causes: set[UUID] = set(SignUp.objects.filter(address_key=address_key).values_list("uuid", flat=True))
    causes |= set(PrivacyRequest.objects.filter(address_key=address_key).values_list("uuid", flat=True))
    causes |= set(RightsCase.objects.filter(address_key=address_key).values_list("uuid", flat=True))
    # Whether the question went out depends on the new address, so its own mailbox alone is told.
    asked = AddressChange.objects.filter(new_address_key=address_key).values_list("uuid", flat=True)
    told = AddressChange.objects.filter(old_address_key=address_key).values_list("uuid", flat=True)
    mails = OutboxMail.objects.filter(
        Q(reference__in=causes)
        | Q(kind=rectifying.ASKED, reference__in=list(asked))
        | Q(kind=rectifying.CHANGED, reference__in=list(told))
    )
    return list(mails.order_by("created_at", "pk"))


def _export_service_mails(address_key: str) -> list[dict[str, Any]]:
    return [
        {"kind": mail.kind, "state": mail.state, "created_at": _time(mail.created_at), "sent_at": _time(mail.sent_at)}
        for mail in _service_mails(address_key)
    ]


def _erase_service_mails(address_key: str, now: datetime) -> int:
    return OutboxMail.objects.filter(pk__in=[mail.pk for mail in _service_mails(address_key)]).delete()[0]


READERS = Holding(
    name="readers",
    models=("subscriptions.Subscriber", "subscriptions.Subscription"),
    export=_export_readers,
    erase=_erase_readers,
    held=lambda: Subscriber.objects.values_list("address_key", flat=True).iterator(),
    words=telling.READERS,
)
EVIDENCE = Holding(
    name="consent_records",
    models=("subscriptions.ConsentRecord", "subscriptions.ConsentPayload"),
    export=_export_evidence,
    erase=_keep,
    kept=_evidence_is_kept,
    restricted=("subscriptions.ConsentPayload",),
    words=telling.EVIDENCE,
)
EVIDENCE_VIEWS = Holding(
    name="views_of_evidence",
    models=("subscriptions.EvidenceView",),
    export=_export_evidence_views,
    erase=_keep,
    kept=_evidence_views_are_kept,
    words=telling.EVIDENCE_VIEWS,
)
SUPPRESSIONS = Holding(
    name="suppressions",
    models=("subscriptions.Suppression",),
    export=_export_suppressions,
    erase=_keep,
    kept=_suppression_is_kept,
    words=telling.SUPPRESSIONS,
)
PRIVACY_REQUESTS = Holding(
    name="privacy_requests",
    models=("subscriptions.PrivacyRequest",),
    export=_export_privacy_requests,
    erase=_anonymise_privacy_requests,
    kept=_privacy_request_is_kept,
    held=lambda: PrivacyRequest.objects.values_list("address_key", flat=True).iterator(),
    words=telling.PRIVACY_REQUESTS,
    follow=_close_privacy_requests,
)
ADDRESS_CHANGES = Holding(
    name="address_changes",
    models=("subscriptions.AddressChange",),
    export=_export_address_changes,
    erase=_erase_address_changes,
    held=_held_by_address_changes,
    words=telling.ADDRESS_CHANGES,
)
CASES = Holding(
    name="rights_cases",
    models=("subscriptions.RightsCase", "subscriptions.RightsCase_newsletters"),
    export=cases.export,
    erase=cases.anonymise,
    kept=_cases_are_kept,
    held=cases.held,
    words=telling.CASES,
    follow=_take_cases_along,
)
SIGN_UPS = Holding(
    name="sign_ups",
    models=("subscriptions.SignUp",),
    export=_export_sign_ups,
    erase=_erase_sign_ups,
    held=lambda: SignUp.objects.values_list("address_key", flat=True).iterator(),
    words=telling.SIGN_UPS,
)
SERVICE_MAILS = Holding(
    name="service_mails",
    models=("mail.OutboxMail",),
    export=_export_service_mails,
    erase=_erase_service_mails,
    words=telling.SERVICE_MAILS,
)
IMPERSONAL = {
    "what is offered to everyone": (
        "subscriptions.Newsletter",
        "subscriptions.ConsentText",
        "subscriptions.ConsentTextUse",
    ),
    "hashes of salted hashes": ("subscriptions.ConsentSeal",),
    "which seal holds a record": ("subscriptions.SealedRecord",),
    "keyed hashes of networks, gone after a day": ("subscriptions.RequestCount",),
    "goes with the sign-up": ("subscriptions.AgreedText",),
    "numbers in the links of mails already sent": ("subscriptions.FormerLink",),
    "a place in the erasure journal": ("subscriptions.ErasureReplay",),
}
