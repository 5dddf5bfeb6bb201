"""The two mails of a change of address: one asks the new address, the other tells the old one, once.

Neither names the other address: the one may be mistyped, the other read by somebody else by now.
"""

from datetime import datetime

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db.models import Q
from django.utils import timezone

from newsroom.mail import outbox
from newsroom.mail.messages import make_message, make_message_id
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared, Withheld
from newsroom.mail.transport import Result
from subscriptions import ledger, links, rectifying, suppression, throttling
from subscriptions.consent import Confirmation
from subscriptions.links import Purpose, TokenSeed
from subscriptions.models import AddressChange, ConsentRecord, Suppression


def register() -> None:
    outbox.register(rectifying.ASKED, make_asking_mail)
    outbox.register(rectifying.CHANGED, make_telling_mail)


def make_asking_mail(mail: OutboxMail) -> Prepared | Withheld:
    """Ask the new address whether the reader may be written to there."""
    change = _find(mail)
    if change is None:
        return Withheld("the change of address is gone")
    if reason := _why_not_asked(change):
        return Withheld(reason)
    try:
        token = links.derive_token(Purpose.ADDRESS, change.uuid, TokenSeed(change.nonce, change.token_hash))
    except links.KeyGone:
        return Withheld("the key of its link is gone")
    message = _message("address_change", change, mail, to=change.new_address, url=links.address_url(token))
    return Prepared(message, on_sent=lambda at, result: _record_sent(change, message, token, at=at, result=result))


def make_telling_mail(mail: OutboxMail) -> Prepared | Withheld:
    """Tell the old address that it is not written to any more. Not even an objection stands in the way of that."""
    change = _find(mail)
    if change is None or change.state != AddressChange.State.CONFIRMED:
        return Withheld("the change of address is gone")
    entry = suppression.find(change.old_address_key)
    if entry and entry.reason == Suppression.Reason.HARD_BOUNCE:
        return Withheld("the address does not exist")
    return Prepared(_message("address_changed", change, mail, to=change.old_address))


def _find(mail: OutboxMail) -> AddressChange | None:
    return AddressChange.objects.filter(uuid=mail.reference).select_related("subscriber").first()


def _why_not_asked(change: AddressChange) -> str:
    # The outbox calls without a time: a mail is made at the moment it is sent.
    match rectifying.state_of(change, timezone.now()):
        case None:
            return "asked for too often" if _is_asked_too_often(change) else ""
        case Confirmation.ALREADY:
            return "confirmed already"
        case Confirmation.BLOCKED:
            return "the address is blocked"
    return "the link has expired"


def _is_asked_too_often(change: AddressChange) -> bool:
    """Say whether the new address got as many of these mails as it may, whoever asked for them (E-42)."""
    limits = settings.SIGN_UPS_PER_ADDRESS
    longest = max(window for _limit, window in limits)
    before = Q(requested_at__lt=change.requested_at) | Q(requested_at=change.requested_at, pk__lt=change.pk)
    same_address = AddressChange.objects.filter(new_address_key=change.new_address_key)
    earlier = dict(
        same_address.filter(before, requested_at__gt=change.requested_at - longest).values_list("uuid", "requested_at")
    )
    mails = OutboxMail.objects.filter(kind=rectifying.ASKED, reference__in=list(earlier))
    mailed = mails.exclude(state=OutboxMail.State.WITHHELD).values_list("reference", flat=True)
    return throttling.exceeds([earlier[uuid] for uuid in mailed], change.requested_at, limits)


def _message(stem: str, change: AddressChange, mail: OutboxMail, *, to: str, url: str = "") -> EmailMultiAlternatives:
    return make_message(
        f"subscriptions/{stem}",
        to=to,
        context={
            "requested_at": change.requested_at,
            "confirmed_at": change.confirmed_at,
            "confirmation_url": url,
            "lifetime": settings.CONFIRMATION_LIFETIME,
            "retention": settings.SIGN_UP_RETENTION,
            "dpo_email": settings.DPO["email"] or settings.PUBLISHER["email"],
        },
        message_id=make_message_id(mail.uuid),
        language=change.subscriber.language,
    )


def _record_sent(
    change: AddressChange, message: EmailMultiAlternatives, token: str, *, at: datetime, result: Result
) -> None:
    """Keep the mail as it was sent, but for the token. It is of the new address, and goes with the change."""
    if not AddressChange.objects.filter(pk=change.pk).exists():  # erased while the mail was on its way
        return
    body = {
        "actor": "newsroom",
        "address": change.new_address,
        "mail_subject": message.subject,
        "text": links.hide_tokens(str(message.body), token, links.why_token(change.uuid)),
        "message_id": message.extra_headers["Message-ID"],
        "provider_message_id": result.provider_message_id,
    }
    ledger.record(
        ledger.Act(
            type=ConsentRecord.Type.MAIL_SENT, subject=change.uuid, address_key=change.new_address_key, body=body
        ),
        at=at,
    )
