"""A reader's rights: see, take along and erase what is held. Who reads the mailbox is the reader (R-29).

What is held stands in the registry of `newsroom.persons`, so nothing here names another app's tables.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from newsroom import persons
from newsroom.mail import outbox
from newsroom.mail.addresses import Address
from newsroom.templatetags.periods import period
from subscriptions import consent, erasures, ledger, links, suppression
from subscriptions.consent import Origin
from subscriptions.models import ConsentRecord, PrivacyRequest, SignUp, Subscriber, Suppression

logger = logging.getLogger(__name__)

# What exists only because the reader asked what exists.
CAUSED_BY_ASKING = {"privacy_requests", "service_mails"}
EXPORT_SCHEMA = 1


@transaction.atomic
def request_link(address: Address, *, now: datetime) -> PrivacyRequest:
    """Keep the wish and the mail it causes; the same for every address. What it says is decided when it is sent."""
    uuid = uuid4()
    seed = links.new_seed(links.Purpose.RIGHTS, uuid)
    outbox.enqueue("rights_link", reference=uuid, now=now)
    return PrivacyRequest.objects.create(
        uuid=uuid,
        address=address.canonical,
        address_key=address.key,
        nonce=seed.nonce,
        token_hash=seed.token_hash,
        requested_at=now,
        expires_at=now + settings.RIGHTS_LINK_LIFETIME,
    )


def find_usable(token: str, now: datetime) -> PrivacyRequest | None:
    """Return the request whose link this is, if it is still good for its one use."""
    usable = PrivacyRequest.objects.filter(state=PrivacyRequest.State.REQUESTED, expires_at__gt=now)
    return usable.filter(token_hash=links.hash_token(token)).first()


def open_page(token: str, now: datetime) -> PrivacyRequest | None:
    """Use the link up and return its request; None if it is not good (any more)."""
    request = find_usable(token, now)
    if request is None:
        return None
    unused = PrivacyRequest.objects.filter(pk=request.pk, state=PrivacyRequest.State.REQUESTED)
    return request if unused.update(state=PrivacyRequest.State.OPENED, opened_at=now) else None


def find_opened(form_token: str, now: datetime) -> PrivacyRequest | None:
    """Return the request whose opened page sent this form. A page that stays in use closes all the same after a day."""
    uuid = links.read_rights_form_token(form_token, now)
    if uuid is None:
        return None
    opened = PrivacyRequest.objects.filter(uuid=uuid, state=PrivacyRequest.State.OPENED)
    return opened.filter(opened_at__gt=now - settings.RIGHTS_LINK_LIFETIME).first()


def note_handed_over(request: UUID, *, address_key: str, at: datetime) -> None:
    """Note that the link was mailed. Only now do the older links of this address end; so far it had no other."""
    PrivacyRequest.objects.filter(uuid=request).update(handed_over_at=at)
    older = PrivacyRequest.objects.filter(address_key=address_key, state=PrivacyRequest.State.REQUESTED)
    newest = PrivacyRequest.objects.filter(uuid=request).values_list("requested_at", flat=True).first()
    if newest:
        older.filter(requested_at__lt=newest).update(state=PrivacyRequest.State.CLOSED)


def is_held(address_key: str) -> bool:
    """Say whether anything is held about an address, but for the question itself."""
    return any(holding.export(address_key) for holding in persons.holdings() if holding.name not in CAUSED_BY_ASKING)


def export(request: PrivacyRequest, now: datetime) -> dict[str, Any]:
    """Return everything held about the reader, and what the law wants said along with it (GDPR Art. 15 and 20)."""
    return {
        "schema": EXPORT_SCHEMA,
        "exported_at": timezone.localtime(now).isoformat(timespec="seconds"),
        "address": request.address,
        "about": about_processing(),
        "data": {holding.name: holding.export(request.address_key) for holding in persons.holdings()},
    }


@transaction.atomic
def object_to(request: PrivacyRequest, *, origin: Origin, now: datetime) -> None:
    """Stop at once, and remember the address as one not to be mailed (GDPR Art. 21); it need be no reader's."""
    consent.suppress(request.address_key, Suppression.Reason.OBJECTION, origin=origin, now=now)
    if subscriber := Subscriber.objects.filter(address_key=request.address_key).first():
        consent.note_objection(subscriber, origin=origin, now=now)


def what_stays() -> list[str]:
    """Return a sentence for each thing that erasure leaves, saying until when."""
    return [sentence for holding in persons.holdings() if (sentence := holding.kept())]


@transaction.atomic
def erase(request: PrivacyRequest, *, origin: Origin, now: datetime) -> dict[str, int]:
    """Delete what is held about the reader, at once, and return how many rows went from where.

    What stays is the restricted evidence (Art. 17(3)(e)) and a keyed hash that keeps the address from being mailed.
    """
    counts = erase_everywhere(request.address_key, origin=origin, now=now)
    logger.info("Privacy request %s: erased %s.", request.uuid, counts)
    erasures.note(request.address_key, at=now)
    return counts


@transaction.atomic
def erase_everywhere(key: str, *, origin: Origin, now: datetime) -> dict[str, int]:
    """Erase an address from every holding, without a line in the erasure journal: for `erase` and for replaying it."""
    # A confirmation on its way ends before we look for a reader, so that it leaves none behind.
    list(SignUp.objects.select_for_update().filter(address_key=key).values_list("pk"))
    if subscriber := Subscriber.objects.select_for_update().filter(address_key=key).first():
        consent.withdraw_all(subscriber, origin=origin, now=now)
        ledger.record(_erased(subscriber, origin), at=now)
    # Whoever registered later holds rows that point to those of who registered earlier.
    counts = {holding.name: holding.erase(key, now) for holding in reversed(persons.holdings())}
    suppression.note(key, Suppression.Reason.ERASURE, now)
    return counts


def _erased(subscriber: Subscriber, origin: Origin) -> ledger.Act:
    body = {"address": subscriber.address, "actor": origin.actor, "source": origin.source, "ip": origin.ip}
    return ledger.Act(
        type=ConsentRecord.Type.ERASED, subject=subscriber.uuid, address_key=subscriber.address_key, body=body
    )


@dataclass(frozen=True, slots=True)
class Purpose:
    purpose: str
    legal_basis: str
    period: str

    def as_dict(self) -> dict[str, str]:
        return {"purpose": self.purpose, "legal_basis": self.legal_basis, "period": self.period}


def about_processing() -> dict[str, Any]:
    """Return the information of GDPR Art. 15(1), every period as configured."""
    recipients = [settings.HOSTING_PROVIDER, settings.MAIL_PROVIDER]
    return {
        "controller": settings.PUBLISHER,
        "data_protection_officer": settings.DPO,
        "purposes": [purpose.as_dict() for purpose in _purposes()],
        "recipients": [name for name in recipients if name] or [_("hosting and mail providers, bound by contract")],
        "source": _("You gave us the data yourself, on our forms and by pressing the buttons behind our links."),
        "rights": _(
            "You may ask for access, rectification, erasure, restriction and portability, object to the processing, and"
            " withdraw your consent at any time with effect for the future."
        ),
        "complaints_to": settings.SUPERVISORY_AUTHORITY,
        "automated_decisions": _("There are none, and no profiling."),
    }


def _purposes() -> list[Purpose]:
    return [
        Purpose(_("Sending the newsletters you ordered"), _("GDPR Art. 6(1)(a)"), _("until you withdraw your consent")),
        Purpose(
            _("Asking for the confirmation of a sign-up"),
            _("GDPR Art. 6(1)(a) and (f)"),
            _("%(period)s, if it is not confirmed") % {"period": period(settings.SIGN_UP_RETENTION)},
        ),
        Purpose(
            _("Proving your consent"),
            _("GDPR Art. 6(1)(c) and (f), Art. 7(1)"),
            _("until the end of the %(years)d. calendar year after you withdrew it")
            % {"years": settings.EVIDENCE_RETENTION_YEARS},
        ),
        Purpose(_("Knowing which issue was delivered"), _("GDPR Art. 6(1)(a)"), period(settings.DELIVERY_RETENTION)),
        Purpose(
            _("Keeping addresses from being mailed that must not be"),
            _("GDPR Art. 6(1)(c) and (f)"),
            _("as a keyed hash, as long as we send newsletters"),
        ),
    ]
