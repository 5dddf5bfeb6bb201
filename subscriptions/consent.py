"""Request, confirm, add, withdraw: the only code that changes a subscription, and its proof with it."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from newsroom.mail import flight, outbox
from newsroom.mail.addresses import Address
from subscriptions import ledger, links, statements, suppression, wording
from subscriptions.models import (
    AddressChange,
    ConsentRecord,
    ConsentText,
    FormerLink,
    Newsletter,
    SignUp,
    Subscriber,
    Subscription,
    Suppression,
    lapse_limit,
    unused_since,
)
from subscriptions.statements import Visit
from subscriptions.wording import Choice, Offer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an act came from: the way (`source`), who acted, from which page, and the IP as far as we keep it.

    `received_on` is the day a letter or a call came in, which staff enter later.
    """

    source: str
    actor: str = "reader"
    url: str = ""
    ip: str | None = None
    received_on: date | None = None


class Confirmation(StrEnum):
    CONFIRMED = "confirmed"
    ALREADY = "already"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    BLOCKED = "blocked"


def request_sign_up(address: Address, chosen: Offer, *, origin: Origin, now: datetime) -> SignUp:
    """Keep a submitted form, its proof and the mail it causes.

    The same for every address: what the mail will say, or whether it may go at all, is decided when it is sent.
    """
    with transaction.atomic():
        texts = [wording.keep(text, now=now) for text in chosen.texts]
        form = _draft(address, chosen, texts, origin=origin, now=now)
        return statements.keep_form(form)


def request_sign_up_of(
    visit: Visit, address: Address, chosen: Offer, *, origin: Origin, now: datetime
) -> tuple[int, bool]:
    """Count a network's request and, unless it is one too many, do what `request_sign_up` does, all in one.

    For texts that others have agreed to before. Return how many requests the network has made, and whether the form was
    kept; else what it shows is no longer what is offered.
    """
    form = _draft(address, chosen, chosen.texts, origin=origin, now=now)
    return statements.admit_form(form, visit, language=chosen.language, mark=chosen.mark)


def _draft(
    address: Address, chosen: Offer, texts: Sequence[ConsentText], *, origin: Origin, now: datetime
) -> statements.Form:
    uuid = uuid4()
    seed = links.new_seed(links.Purpose.CONFIRM, uuid)
    proof, payload = ledger.draft(_requested(uuid, address, chosen.language, texts, origin), at=now)
    return statements.Form(
        sign_up={
            "uuid": uuid,
            "address_typed": address.typed,
            "address": address.canonical,
            "address_key": address.key,
            "language": chosen.language,
            "form_url": origin.url[:300],
            "ip": origin.ip,
            "nonce": seed.nonce,
            "token_hash": seed.token_hash,
            "requested_at": now,
            "expires_at": now + settings.CONFIRMATION_LIFETIME,
        },
        texts=[text.pk for text in texts],
        proof=proof,
        payload=payload,
        mail=outbox.draft("sign_up", reference=uuid, now=now),
    )


def find_sign_up(token: str) -> SignUp | None:
    """Return the sign-up a confirmation link belongs to. The look-up is by hash, so it tells nothing by its timing."""
    return SignUp.objects.filter(token_hash=links.hash_token(token)).first()


def state_of(sign_up: SignUp | None, now: datetime) -> Confirmation | None:
    """Say why a sign-up cannot be confirmed (any more); None if it can."""
    if sign_up is None:
        return Confirmation.UNKNOWN
    if sign_up.confirmed_at:
        return Confirmation.ALREADY
    if sign_up.expires_at <= now:
        return Confirmation.EXPIRED
    return Confirmation.BLOCKED if suppression.is_blocked(sign_up.address_key) else None


@transaction.atomic
def confirm(token: str, *, origin: Origin, now: datetime) -> Confirmation:
    """Turn a sign-up into subscriptions, once, however often and however fast the button is pressed."""
    sign_up = find_sign_up(token)
    obstacle = state_of(sign_up, now)
    if sign_up is None or obstacle:
        return obstacle or Confirmation.UNKNOWN
    if not SignUp.objects.unconfirmed().filter(pk=sign_up.pk, expires_at__gt=now).update(confirmed_at=now):
        return Confirmation.ALREADY
    subscriber = _reader_of(sign_up, now)
    for newsletter in sign_up.newsletters.all():
        _activate(subscriber, newsletter, now)
    _bind(subscriber, list(sign_up.consent_texts.all()))
    suppression.lift(sign_up.address_key)
    ledger.record(_confirmed(sign_up, subscriber, origin), at=now)
    logger.info("Sign-up %s was confirmed by reader %s.", sign_up.uuid, subscriber.uuid)
    return Confirmation.CONFIRMED


@transaction.atomic
def add_newsletter(subscriber: Subscriber, choice: Choice, *, origin: Origin, now: datetime) -> bool:
    """Subscribe a reader whose mailbox is proven already to one more newsletter, by a consent of its own (R-03)."""
    offered = wording.offer(choice.text.language)
    locked = Subscriber.objects.select_for_update(no_key=True).filter(pk=subscriber.pk).first()
    if locked is None:
        return False  # erased in this very moment
    subscriber = locked
    if suppression.is_blocked(subscriber.address_key) or not _activate(subscriber, choice.newsletter, now):
        return False
    texts = [wording.keep(text, now=now) for text in (offered.declaration, choice.text)]
    _bind(subscriber, texts)
    suppression.lift(subscriber.address_key)
    body = {**_agreed(texts), **circumstances(subscriber.address, origin)}
    ledger.record(_by_reader(ConsentRecord.Type.ADDED, subscriber, body), at=now)
    return True


@transaction.atomic
def withdraw(subscription: Subscription, *, origin: Origin, now: datetime) -> bool:
    """End one subscription at once. Return False if it had ended before; then nothing is written."""
    return _end([subscription], subscription.subscriber, origin=origin, now=now) == 1


@transaction.atomic
def withdraw_some(subscriber: Subscriber, slugs: Collection[str], *, origin: Origin, now: datetime) -> int:
    """End those of a reader's subscriptions at once whose newsletters are named, in one record."""
    standing = subscriber.subscriptions.standing().select_related("newsletter")
    named_ones = [each for each in standing if each.newsletter.slug in slugs]
    return _end(named_ones, subscriber, origin=origin, now=now)


@transaction.atomic
def withdraw_all(subscriber: Subscriber, *, origin: Origin, now: datetime) -> int:
    """End all subscriptions of a reader at once and return how many there were."""
    standing = subscriber.subscriptions.exclude(state=Subscription.State.ENDED).select_related("newsletter")
    return _end(list(standing), subscriber, origin=origin, now=now)


@transaction.atomic
def pause(subscription: Subscription, *, until: date, origin: Origin, now: datetime) -> bool:
    """Send an active subscription no more until a day, on which `resume_due` lets it go on."""
    active = Subscription.objects.active().filter(pk=subscription.pk)
    flight.wait_after_commit(subscription.subscriber_id)
    return bool(active.update(state=Subscription.State.PAUSED, paused_until=until)) and _note_change(
        subscription.subscriber,
        "paused",
        origin=origin,
        now=now,
        newsletter=named(subscription.newsletter),
        until=until.isoformat(),
    )


@transaction.atomic
def resume(subscription: Subscription, *, origin: Origin, now: datetime) -> bool:
    """Let a paused subscription go on. It is as old as it was: whoever resumes is no latecomer to today's issue."""
    paused = Subscription.objects.filter(pk=subscription.pk, state=Subscription.State.PAUSED)
    return bool(paused.update(state=Subscription.State.ACTIVE, paused_until=None)) and _note_change(
        subscription.subscriber, "resumed", origin=origin, now=now, newsletter=named(subscription.newsletter)
    )


def resume_due(now: datetime) -> int:
    """Let those subscriptions go on whose pause is over, and return how many there were."""
    due = Subscription.objects.paused_until(timezone.localdate(now)).select_related("subscriber", "newsletter")
    origin = Origin(source="end_of_pause", actor="system")
    return sum(resume(subscription, origin=origin, now=now) for subscription in due)


@transaction.atomic
def restrict(subscriber: Subscriber, *, origin: Origin, now: datetime) -> bool:
    """Stop all processing but keeping (GDPR Art. 18): nothing is mailed, nothing is purged, until it is lifted."""
    free = Subscriber.objects.filter(pk=subscriber.pk, restricted_at=None)
    flight.wait_after_commit(subscriber.pk)
    return bool(free.update(restricted_at=now)) and _note_change(subscriber, "restricted", origin=origin, now=now)


@transaction.atomic
def lift_restriction(subscriber: Subscriber, *, origin: Origin, now: datetime) -> bool:
    """Let processing go on as before."""
    restricted = Subscriber.objects.filter(pk=subscriber.pk, restricted_at__isnull=False)
    return bool(restricted.update(restricted_at=None)) and _note_change(
        subscriber, "restriction lifted", origin=origin, now=now
    )


@transaction.atomic
def suppress(address_key: str, reason: Suppression.Reason, *, origin: Origin, now: datetime) -> None:
    """Mail an address no more: its subscriptions end, and it stays known as a keyed hash only."""
    suppression.note(address_key, reason, now)
    if subscriber := Subscriber.objects.filter(address_key=address_key).first():
        withdraw_all(subscriber, origin=origin, now=now)


@transaction.atomic
def note_objection(subscriber: Subscriber, *, origin: Origin, now: datetime) -> None:
    """Write down that the reader objected, for he may have had no subscription to end."""
    _note_change(subscriber, "objected", origin=origin, now=now)


def note_address_wish(reader: Subscriber, change: AddressChange, *, origin: Origin, now: datetime) -> None:
    """Write down that the reader asked for another address, without naming it: so far it is nobody's."""
    _note_change(reader, "address change requested", origin=origin, now=now, address_change=str(change.uuid))


@transaction.atomic
def change_address(
    reader: Subscriber, change: AddressChange, *, absorbed: Subscriber | None, origin: Origin, now: datetime
) -> None:
    """Write to a reader at the confirmed address from now on, and carry the proof of his consents along.

    `rectifying.confirm` decides whether it may be. Who reads the old mailbox later does not learn the new address.
    """
    old_address, old_key = reader.address, reader.address_key
    new_key = change.new_address_key
    carried = ledger.to_carry(old_key, reader.uuid, to=new_key) if new_key != old_key else []
    reader.address, reader.address_key = change.new_address, new_key
    flight.wait_after_commit(reader.pk)
    reader.save(update_fields=["address", "address_key", "created_at", "restricted_at"])
    newsletters = [named(each.newsletter) for each in reader.subscriptions.standing().select_related("newsletter")]
    body = {
        **circumstances(reader.address, origin),
        "address_before": old_address,
        "address_change": str(change.uuid),
        "requested_at": change.requested_at.isoformat(timespec="seconds"),
        "confirmation_token_sha256": change.token_hash,
        "newsletters": newsletters,
        **({"absorbed": str(absorbed.uuid)} if absorbed else {}),
        ledger.CARRIED: carried,
    }
    proof = ledger.record(_by_reader(ConsentRecord.Type.ADDRESS_CHANGED, reader, body), at=now)
    if new_key != old_key:
        left = {"address": old_address, "actor": origin.actor, "source": origin.source, "continued_in": str(proof.uuid)}
        ledger.record(
            ledger.Act(
                type=ConsentRecord.Type.ADDRESS_CHANGED, subject=reader.uuid, address_key=old_key,
                body={**left, "newsletters": newsletters},
            ),
            at=now,
        )  # fmt: skip


@transaction.atomic
def absorb(other: Subscriber, *, into: Subscriber) -> None:
    """Give a reader what another one has, for the two are one person (see `rectifying`). Both are locked."""
    flight.wait_after_commit(other.pk)
    held = {each.newsletter_id: each for each in into.subscriptions.all()}
    for subscription in other.subscriptions.all():
        if twin := held.get(subscription.newsletter_id):
            _unite(twin, subscription)
        else:
            Subscription.objects.filter(pk=subscription.pk).update(subscriber=into)
    restrictions = [each.restricted_at for each in (into, other) if each.restricted_at]
    into.restricted_at = min(restrictions, default=None)
    into.created_at = min(into.created_at, other.created_at)


def _unite(kept: Subscription, gone: Subscription) -> None:
    """Make two subscriptions of one newsletter one: the newer consent, unless it was withdrawn later, or else a pause.

    The links in mails to either lead to it.
    """
    newer = max(kept, gone, key=lambda each: each.active_since)
    ended_at = max((each.ended_at for each in (kept, gone) if each.ended_at), default=None)
    paused_until = max((each.paused_until for each in (kept, gone) if each.paused_until), default=None)
    if ended_at and ended_at >= newer.active_since:
        state, paused_until = Subscription.State.ENDED, None
    else:
        state, ended_at = Subscription.State.PAUSED if paused_until else Subscription.State.ACTIVE, None
    Subscription.objects.filter(pk=kept.pk).update(
        state=state,
        ended_at=ended_at,
        paused_until=paused_until,
        active_since=newer.active_since,
        last_sent_at=max((each.last_sent_at for each in (kept, gone) if each.last_sent_at), default=None),
        consent_text=newer.consent_text_id,
        declaration=newer.declaration_id,
    )
    FormerLink.objects.filter(subscription=gone).update(subscription=kept)
    FormerLink.objects.create(uuid=gone.uuid, subscription=kept)
    gone.delete()


def _reader_of(sign_up: SignUp, now: datetime) -> Subscriber:
    """Return the reader of a confirmed sign-up, new or known, locked until the transaction ends."""
    subscriber = None
    while subscriber is None:  # once more if he moves to another address, or is erased, in this very moment
        Subscriber.objects.get_or_create(
            address_key=sign_up.address_key,
            defaults={"address": sign_up.address, "language": sign_up.language, "created_at": now},
        )
        locked = Subscriber.objects.select_for_update(no_key=True).filter(address_key=sign_up.address_key)
        subscriber = locked.first()
    subscriber.address, subscriber.language = sign_up.address, sign_up.language
    subscriber.save(update_fields=["address", "language"])
    return subscriber


def _activate(subscriber: Subscriber, newsletter: Newsletter, now: datetime) -> bool:
    """Make the subscription active and say whether it was not before; a lapsed one begins anew."""
    subscription, created = Subscription.objects.get_or_create(
        subscriber=subscriber, newsletter=newsletter, defaults={"active_since": now}
    )
    if created:
        return True
    inactive = Subscription.objects.filter(
        ~Q(state=Subscription.State.ACTIVE) | unused_since(lapse_limit(now)), pk=subscription.pk
    )
    return inactive.update(state=Subscription.State.ACTIVE, active_since=now, ended_at=None, paused_until=None) == 1


def _bind(subscriber: Subscriber, texts: list[ConsentText]) -> None:
    """Note at the subscriptions which words bear them: those agreed to last."""
    declaration = next((text for text in texts if text.newsletter_id is None), None)
    for text in texts:
        if text.newsletter_id is not None:
            standing = Subscription.objects.filter(subscriber=subscriber, newsletter=text.newsletter_id)
            standing.update(consent_text=text, declaration=declaration)


def _note_change(subscriber: Subscriber, change: str, *, origin: Origin, now: datetime, **details: Any) -> bool:
    body = {"change": change, **details, **circumstances(subscriber.address, origin)}
    ledger.record(_by_reader(ConsentRecord.Type.CHANGED, subscriber, body), at=now)
    return True


def _end(standing: Iterable[Subscription], subscriber: Subscriber, *, origin: Origin, now: datetime) -> int:
    ended = [subscription for subscription in standing if _end_one(subscription, now)]
    if ended:
        newsletters = [named(subscription.newsletter) for subscription in ended]
        body = {"newsletters": newsletters, **circumstances(subscriber.address, origin)}
        ledger.record(_by_reader(ConsentRecord.Type.WITHDRAWN, subscriber, body), at=now)
    # Who asks twice is answered twice: neither answer may come before a copy that is on its way.
    flight.wait_after_commit(subscriber.pk)
    return len(ended)


def _end_one(subscription: Subscription, now: datetime) -> bool:
    standing = Subscription.objects.filter(pk=subscription.pk).exclude(state=Subscription.State.ENDED)
    return standing.update(state=Subscription.State.ENDED, ended_at=now, paused_until=None) == 1


# What the proof says


def circumstances(address: str, origin: Origin) -> dict[str, Any]:
    said = {"address": address, "actor": origin.actor, "source": origin.source, "page": origin.url, "ip": origin.ip}
    return {**said, "received_on": origin.received_on.isoformat()} if origin.received_on else said


def named(newsletter: Newsletter) -> dict[str, str]:
    """Return how a record names a newsletter: as it was called, and how often it came, at the time."""
    return {"slug": newsletter.slug, "name": newsletter.name, "frequency": str(newsletter.frequency)}


def _agreed(texts: Iterable[ConsentText]) -> dict[str, Any]:
    """Return the full wording of what was agreed to, so that the proof needs no other table."""
    agreed: dict[str, Any] = {"newsletters": []}
    for text in texts:
        said = {"version": text.version, "language": text.language, "wording": text.wording}
        if text.newsletter:
            agreed["newsletters"].append({**named(text.newsletter), **said})
        else:
            agreed["declaration"] = said
    return agreed


def _by_reader(act: ConsentRecord.Type, subscriber: Subscriber, body: dict[str, Any]) -> ledger.Act:
    return ledger.Act(type=act, subject=subscriber.uuid, address_key=subscriber.address_key, body=body)


def _requested(
    sign_up: UUID, address: Address, language: str, texts: Iterable[ConsentText], origin: Origin
) -> ledger.Act:
    body = {
        **_agreed(texts),
        **circumstances(address.canonical, origin),
        "address_typed": address.typed,
        "language": language,
        "form_version": wording.template_version(),
        "privacy_notice_version": wording.privacy_notice_version(language),
    }
    return ledger.Act(type=ConsentRecord.Type.REQUESTED, subject=sign_up, address_key=address.key, body=body)


def _confirmed(sign_up: SignUp, subscriber: Subscriber, origin: Origin) -> ledger.Act:
    texts = sign_up.consent_texts.select_related("newsletter").order_by("newsletter__position", "pk")
    body = {
        **_agreed(texts),
        **circumstances(sign_up.address, origin),
        "address_typed": sign_up.address_typed,
        "language": sign_up.language,
        "sign_up": str(sign_up.uuid),
        "requested_at": sign_up.requested_at.isoformat(timespec="seconds"),
        "confirmation_token_sha256": sign_up.token_hash,
    }
    return _by_reader(ConsentRecord.Type.CONFIRMED, subscriber, body)
