"""The head of the chain, noted outside daily: who rewrites the whole database cannot rewrite a mailbox and a log."""

import logging
from datetime import datetime
from uuid import UUID, uuid5

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone

from newsroom.mail import outbox
from newsroom.mail.messages import make_message, make_message_id
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared, Withheld
from subscriptions import ledger
from subscriptions.models import ConsentSeal

logger = logging.getLogger(__name__)

KIND = "anchor"
# A name space of our own, so that a day has one mail however often the task runs.
DAYS = UUID("6f0c4f5e-6b0e-4c39-9d0e-6a1b8a3f4c55")


def anchor(now: datetime) -> ConsentSeal | None:
    """Seal what is waiting, and note the head of the chain in the log and, once a day, in the officer's mailbox."""
    ledger.seal(now)
    head = ledger.head()
    if head is None:
        logger.info("The ledger has no seal yet.")
        return None
    logger.info("Head of the ledger: %s, sealed %s", written(head), head.sealed_at.isoformat(timespec="seconds"))
    outbox.enqueue(KIND, reference=uuid5(DAYS, timezone.localdate(now).isoformat()), now=now)
    return head


def written(head: ConsentSeal) -> str:
    """Return the head as `audit --anchor` takes it."""
    return f"{head.number}:{head.hash}"


def make_anchor_mail(mail: OutboxMail) -> Prepared | Withheld:
    """Tell the officer the head as it is when the mail goes; the newest holds all earlier ones fast."""
    head = ledger.head()
    return Prepared(_message(head, mail)) if head else Withheld("there is no seal")


def _message(head: ConsentSeal, mail: OutboxMail) -> EmailMultiAlternatives:
    return make_message(
        "subscriptions/anchor",
        to=settings.DPO["email"],
        context={"head": head, "anchor": written(head)},
        message_id=make_message_id(mail.uuid),
        language=settings.LANGUAGE_CODE,
    )
