"""Erase again, in a restored database, whom the erasure journal names."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import uuid4

from django.db import transaction
from django.db.models import Model

from newsroom import persons
from subscriptions import erasures, privacy, suppression
from subscriptions.consent import Origin
from subscriptions.models import (
    ConsentPayload,
    ConsentRecord,
    PrivacyRequest,
    RightsCase,
    SignUp,
    Subscriber,
    Suppression,
)

logger = logging.getLogger(__name__)

ORIGIN = Origin(source="replayed erasure", actor="system")
# What a reader asks for, and when he did.
ASKED_AT: dict[type[Model], str] = {SignUp: "requested_at", PrivacyRequest: "requested_at", RightsCase: "entered_at"}


def replay(now: datetime) -> int:
    """Erase everyone whose erasure this database does not know; return how many. Broken off, it can be run again."""
    count = 0
    unknown, end = erasures.pending()
    while True:
        count += _replay({erasure.address_hash: erasure.at for erasure in unknown}, now)
        erasures.set_replayed(end, at=now)
        unknown, end = erasures.pending()  # of readers who asked meanwhile
        if not unknown:
            logger.info("Replayed the erasure journal: %s readers erased again.", count)
            return count


def _replay(latest: dict[str, datetime], now: datetime) -> int:
    count = 0
    known = set()
    for address_key in _held_keys():
        hashes = set(suppression.address_hashes(address_key)) & latest.keys()
        if hashes:
            known |= hashes
            count += _erase_again(address_key, max(latest[address_hash] for address_hash in hashes), now)
    for address_hash in latest.keys() - known:
        # Erased without a trace in this backup: still nobody may bring the address back but its owner.
        Suppression.objects.get_or_create(
            address_hash=address_hash,
            defaults={"reason": Suppression.Reason.ERASURE, "created_at": latest[address_hash]},
        )
    return count


def _held_keys() -> set[str]:
    return {address_key for holding in persons.holdings() for address_key in holding.held() if address_key}


@transaction.atomic
def _erase_again(address_key: str, erased_at: datetime, now: datetime) -> bool:
    """Erase what was there at the time of the erasure; whoever consented again since then stays."""
    if _has_come_back(address_key, erased_at):
        return False
    with _kept_aside(address_key, erased_at):
        return any(privacy.erase_everywhere(address_key, origin=ORIGIN, now=now).values())


def _has_come_back(address_key: str, erased_at: datetime) -> bool:
    readers = Subscriber.objects.filter(address_key=address_key)
    moved = ConsentPayload.objects.filter(
        address_key=address_key, record__type=ConsentRecord.Type.ADDRESS_CHANGED, record__at__gt=erased_at
    )
    if readers.filter(created_at__gt=erased_at).exists() or (readers.exists() and moved.exists()):
        return True
    return SignUp.objects.filter(address_key=address_key, confirmed_at__gt=erased_at).exists()


@contextmanager
def _kept_aside(address_key: str, erased_at: datetime) -> Iterator[None]:
    """Hide what the reader has asked for since the erasure, within the transaction, so that it is not erased."""
    aside = f"aside-{uuid4()}"
    for model, asked_at in ASKED_AT.items():
        newer = {"address_key": address_key, f"{asked_at}__gt": erased_at}
        model._default_manager.filter(**newer).update(address_key=aside)
    yield
    for model in ASKED_AT:
        model._default_manager.filter(address_key=aside).update(address_key=address_key)
