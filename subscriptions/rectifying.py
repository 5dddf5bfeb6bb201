"""Change of address (GDPR Art. 16): asked for from the old mailbox, confirmed from the new one, told the old one once.

The reader remains the same row, so his subscriptions, the links in mails already sent, and his deliveries stay with
him. Nothing is looked up about the new address until the mail to it is made, and nothing is told but in that mailbox.

- If the new address is a reader's already, whoever confirms reads both mailboxes, so the two become one reader: what
  only one had goes on as it was; of a newsletter both had, the later word counts if it ended it, and else a pause.
- A restriction of either holds for the one they become.
- A complaint or an objection bars both ways: from such an address nobody moves, and to such an address nothing is
  written, for a change of address is no consent. Who wants newsletters there signs up there.
- Each mailbox's proof names that mailbox only; what was agreed to from the old one is carried along to the new one.
"""

import logging
from collections.abc import Collection
from datetime import datetime
from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from newsroom import persons
from newsroom.mail import outbox
from newsroom.mail.addresses import Address, canonicalise
from newsroom.mail.models import OutboxMail
from newsroom.postgresql.base import is_deadlock
from subscriptions import consent, ledger, links, suppression
from subscriptions.consent import Confirmation, Origin
from subscriptions.models import AddressChange, ConsentPayload, Newsletter, Subscriber, Subscription, Suppression

logger = logging.getLogger(__name__)

State = AddressChange.State

ASKED, CHANGED = "address_change", "address_changed"  # the mails: to the new address, and to the old one
BARRING = (Suppression.Reason.COMPLAINT, Suppression.Reason.OBJECTION)


class ChangeRefused(ValueError):
    """A change that cannot be asked for. `str()` is a sentence for the field, and tells nothing of the new address."""


@transaction.atomic
def request_change(subscriber: Subscriber, new: Address, *, origin: Origin, now: datetime) -> AddressChange:
    """Keep the wish, its proof and the mail to the new address; until its button is pressed nothing changes.

    Raises `ChangeRefused`, for reasons that lie with the reader himself: the answer is the same for every new address.
    """
    reader = Subscriber.objects.select_for_update(no_key=True).filter(pk=subscriber.pk).first()
    if obstacle := _why_not(reader, new, now):
        raise ChangeRefused(obstacle)
    assert reader is not None
    # A link to another mailbox, perhaps mistyped, must not work any longer; one to the same stays good.
    reader.address_changes.filter(state=State.REQUESTED).exclude(new_address=new.canonical).update(state=State.CLOSED)
    uuid = uuid4()
    seed = links.new_seed(links.Purpose.ADDRESS, uuid)
    change = AddressChange.objects.create(
        uuid=uuid,
        subscriber=reader,
        old_address=reader.address,
        old_address_key=reader.address_key,
        new_address=new.canonical,
        new_address_key=new.key,
        nonce=seed.nonce,
        token_hash=seed.token_hash,
        requested_at=now,
        expires_at=now + settings.CONFIRMATION_LIFETIME,
    )
    consent.note_address_wish(reader, change, origin=origin, now=now)
    outbox.enqueue(ASKED, reference=uuid, now=now)
    return change


def withdraw_wish(subscriber: Subscriber, *, now: datetime) -> bool:
    """Let the links that wait for a confirmation end. Return whether there were any."""
    return subscriber.address_changes.pending(now).update(state=State.CLOSED) > 0


def pending_wish(subscriber: Subscriber, now: datetime) -> AddressChange | None:
    """Return the change that waits for its confirmation."""
    return subscriber.address_changes.pending(now).order_by("-requested_at").first()


def newsletters_to_come(change: AddressChange) -> list[Newsletter]:
    """Return what will come to the new address: what the reader has, but for what was left there since he has it."""
    there = Subscription.objects.filter(
        subscriber__address_key=change.new_address_key, state=Subscription.State.ENDED
    ).exclude(subscriber=change.subscriber_id)
    left = dict(there.values_list("newsletter", "ended_at"))
    standing = change.subscriber.subscriptions.standing().select_related("newsletter").order_by("newsletter__position")
    return [
        each.newsletter
        for each in standing
        if not (left_at := left.get(each.newsletter_id)) or left_at < each.active_since
    ]


def is_barred(address_key: str) -> bool:
    """Say whether nobody can move from or to this address."""
    entry = suppression.find(address_key)
    return entry is not None and entry.reason in BARRING


def find(token: str) -> AddressChange | None:
    """Return the change a link belongs to. The look-up is by hash, so it tells nothing by its timing."""
    return AddressChange.objects.filter(token_hash=links.hash_token(token)).select_related("subscriber").first()


def state_of(change: AddressChange | None, now: datetime) -> Confirmation | None:
    """Say why a change cannot be confirmed (any more); None if it can."""
    if change is None:
        return Confirmation.UNKNOWN
    if change.state == State.CONFIRMED:
        return Confirmation.ALREADY
    if change.state == State.CLOSED or change.expires_at <= now:
        return Confirmation.EXPIRED
    is_blocked = is_barred(change.new_address_key) or is_barred(change.old_address_key)
    return Confirmation.BLOCKED if is_blocked else None


def confirm(token: str, *, origin: Origin, now: datetime) -> Confirmation:
    """Let the reader be written to at the new address, once, however often and however fast the button is pressed."""
    try:
        return _confirm(token, origin=origin, now=now)
    except OperationalError as error:
        if not is_deadlock(error):
            raise
        # A digest was begun for one of two readers who become one in this very moment; by now it is under way.
        return _confirm(token, origin=origin, now=now)


@transaction.atomic
def _confirm(token: str, *, origin: Origin, now: datetime) -> Confirmation:
    change = find(token)
    if change is None:
        return Confirmation.UNKNOWN
    # Readers are locked before their changes, here as by erasure, and those of one act in the order of their numbers.
    reader, other = _lock_readers(change)
    obstacle = state_of(find(token), now)
    if reader is None or obstacle:
        return obstacle or Confirmation.UNKNOWN
    if not AddressChange.objects.pending(now).filter(pk=change.pk).update(state=State.CONFIRMED, confirmed_at=now):
        return state_of(find(token), now) or Confirmation.UNKNOWN
    try:
        with transaction.atomic():
            _settle_in(reader, other, change, origin=origin, now=now)
    except IntegrityError:  # a sign-up from there was confirmed in this very moment
        reader, other = _lock_readers(change)
        assert reader is not None
        _settle_in(reader, other, change, origin=origin, now=now)
    outbox.enqueue(CHANGED, reference=change.uuid, now=now)
    logger.info("Reader %s is written to at another address (change %s).", reader.uuid, change.uuid)
    return Confirmation.CONFIRMED


def former_addresses(address_key: str) -> dict[str, datetime]:
    """Return the keys of the addresses whose history came along to this one, each with the time it was left."""
    changes = [payload for payload in ledger.payloads(address_key) if "address_before" in payload.body]
    left = {payload.body["address_before"].lower(): payload.record.at for payload in changes}
    return {key: at for key, at in left.items() if key != address_key}


def address_key_at(subscriber: Subscriber, moment: datetime) -> str:
    """Return the key of the address the reader was written to at a moment, as far back as changes are kept."""
    later = subscriber.address_changes.filter(state=State.CONFIRMED, confirmed_at__gt=moment).order_by("confirmed_at")
    left = later.values_list("old_address_key", flat=True).first()
    return left or subscriber.address_key


def last_moved_at(subscriber: Subscriber) -> datetime | None:
    """Return since when the reader has been at the present address, as far back as changes are kept."""
    confirmed = subscriber.address_changes.filter(state=State.CONFIRMED).order_by("-confirmed_at")
    return confirmed.values_list("confirmed_at", flat=True).first()


def wait_for_changes(address_key: str) -> None:
    """Lock whoever is at this address or may be about to move there, so that a confirmation on its way ends first."""
    moving = AddressChange.objects.filter(new_address_key=address_key, state=State.REQUESTED).values("subscriber")
    concerned = Subscriber.objects.filter(Q(address_key=address_key) | Q(pk__in=moving))
    list(concerned.select_for_update().order_by("pk").values_list("pk"))


def forget(changes: Collection[AddressChange]) -> int:
    """Delete changes and what is to be mailed about them; what one that was never confirmed said proves nothing."""
    unconfirmed = [change.uuid for change in changes if change.state != State.CONFIRMED]
    if unconfirmed:
        ledger.forget(ConsentPayload.objects.filter(record__subject__in=unconfirmed))
    OutboxMail.objects.filter(reference__in=[change.uuid for change in changes]).delete()
    AddressChange.objects.filter(pk__in=[change.pk for change in changes]).delete()
    return len(changes)


def _why_not(reader: Subscriber | None, new: Address, now: datetime) -> str:
    if reader is None:
        return _("There is nobody any more whose address could be changed.")
    if new.canonical == reader.address:
        return _("We write to this address already.")
    if is_barred(reader.address_key):
        return _("We write to you no more, so there is no address to change. You can sign up with the new one.")
    limit, window = settings.ADDRESS_CHANGES_PER_READER
    if reader.address_changes.filter(requested_at__gt=now - window).count() >= limit:
        return _("You have given us several addresses in a short time. Please try again tomorrow.")
    return ""


def _lock_readers(change: AddressChange) -> tuple[Subscriber | None, Subscriber | None]:
    """Return the reader who moves, and the one who is at the new address already, locked until the transaction ends."""
    concerned = Q(pk=change.subscriber_id) | Q(address_key=change.new_address_key)
    readers = {each.pk: each for each in Subscriber.objects.select_for_update().filter(concerned).order_by("pk")}
    reader = readers.pop(change.subscriber_id, None)
    return reader, next(iter(readers.values()), None)


def _settle_in(
    reader: Subscriber, other: Subscriber | None, change: AddressChange, *, origin: Origin, now: datetime
) -> None:
    old_key, new = reader.address_key, canonicalise(change.new_address)
    if other:
        _unite(reader, other)
    reader.address_changes.filter(state=State.REQUESTED).update(state=State.CLOSED)
    consent.change_address(reader, change, absorbed=other, origin=origin, now=now)
    suppression.lift(new.key)
    for holding in persons.holdings():
        holding.follow(old_key, new.canonical, new.key, now)


def _unite(reader: Subscriber, other: Subscriber) -> None:
    """Make two readers one, of whom `other` was known at the new address."""
    consent.absorb(other, into=reader)
    for holding in persons.holdings():
        holding.merge(other.pk, reader.pk)
    other.address_changes.filter(state=State.REQUESTED).update(state=State.CLOSED)
    other.address_changes.update(subscriber=reader)
    other.delete()
