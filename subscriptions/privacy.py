"""A reader's rights: see, take along and erase what is held. Who reads the mailbox is the reader (R-29).

What is held stands in the registry of `newsroom.persons`, so nothing here names another app's tables.
"""

import logging
from collections.abc import Collection
from datetime import datetime
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from newsroom import persons
from newsroom.mail import outbox
from newsroom.mail.addresses import Address
from subscriptions import cases, consent, erasures, ledger, links, rectifying, suppression
from subscriptions.consent import Origin
from subscriptions.models import ConsentRecord, PrivacyRequest, RightsCase, SignUp, Subscriber, Suppression
from subscriptions.persons import forget_sign_ups

logger = logging.getLogger(__name__)

# What exists only because the reader asked what exists.
CAUSED_BY_ASKING = {"privacy_requests", "service_mails"}


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


def is_held(address_key: str, *, but_for: Collection[str] = CAUSED_BY_ASKING) -> bool:
    """Say whether anything is held about an address, but for the question itself."""
    return any(holding.export(address_key) for holding in persons.holdings() if holding.name not in but_for)


@transaction.atomic
def object_to(request: PrivacyRequest, *, origin: Origin, now: datetime) -> None:
    """Heed the objection of whoever opened the link (GDPR Art. 21)."""
    cases.note_answered(request, RightsCase.Kind.OBJECT, now=now)
    mail_no_more(request.address_key, origin=origin, now=now)


@transaction.atomic
def mail_no_more(address_key: str, *, origin: Origin, now: datetime) -> None:
    """Stop at once, and remember the address as one not to be mailed; it need be no reader's."""
    consent.suppress(address_key, Suppression.Reason.OBJECTION, origin=origin, now=now)
    if subscriber := Subscriber.objects.filter(address_key=address_key).first():
        consent.note_objection(subscriber, origin=origin, now=now)


def what_stays() -> list[str]:
    """Return a sentence for each thing that erasure leaves, saying until when."""
    return [sentence for holding in persons.holdings() if (sentence := holding.kept())]


@transaction.atomic
def erase(request: PrivacyRequest, *, origin: Origin, now: datetime) -> dict[str, int]:
    """Delete what is held about the reader, at once, and return how many rows went from where.

    What stays is the restricted evidence (Art. 17(3)(e)) and a keyed hash that keeps the address from being mailed.
    """
    cases.note_answered(request, RightsCase.Kind.ERASE, now=now)
    counts = erase_address(request.address_key, origin=origin, now=now)
    logger.info("Privacy request %s: erased %s.", request.uuid, counts)
    return counts


@transaction.atomic
def erase_address(key: str, *, origin: Origin, now: datetime) -> dict[str, int]:
    """Erase an address, for good: what a backup brings back is erased again."""
    former = rectifying.former_addresses(key)
    counts = erase_everywhere(key, origin=origin, now=now)
    for former_key, left_at in former.items():
        # A backup from before the change holds the reader under his former address.
        erasures.note(former_key, at=left_at)
    erasures.note(key, at=now)
    return counts


@transaction.atomic
def erase_everywhere(key: str, *, origin: Origin, now: datetime) -> dict[str, int]:
    """Erase an address from every holding, without a line in the erasure journal: for `erase` and for replaying it."""
    # A confirmation on its way ends before we look for a reader, so that it leaves none behind.
    list(SignUp.objects.select_for_update().filter(address_key=key).values_list("pk"))
    rectifying.wait_for_changes(key)
    former = rectifying.former_addresses(key)
    if subscriber := Subscriber.objects.select_for_update().filter(address_key=key).first():
        consent.withdraw_all(subscriber, origin=origin, now=now)
        ledger.record(_erased(subscriber, origin), at=now)
    # Whoever registered later holds rows that point to those of who registered earlier.
    counts = {holding.name: holding.erase(key, now) for holding in reversed(persons.holdings())}
    suppression.note(key, Suppression.Reason.ERASURE, now)
    for former_key, left_at in former.items():
        _erase_former(former_key, left_at, now)
    return counts


def _erase_former(key: str, left_at: datetime, now: datetime) -> None:
    """Erase what a reader left behind at a former address, unless somebody gets newsletters there now."""
    forget_sign_ups(SignUp.objects.filter(address_key=key, requested_at__lte=left_at))
    if not Subscriber.objects.filter(address_key=key).exists():
        suppression.note(key, Suppression.Reason.ERASURE, now)


def _erased(subscriber: Subscriber, origin: Origin) -> ledger.Act:
    body = consent.circumstances(subscriber.address, origin)
    return ledger.Act(
        type=ConsentRecord.Type.ERASED, subject=subscriber.uuid, address_key=subscriber.address_key, body=body
    )
