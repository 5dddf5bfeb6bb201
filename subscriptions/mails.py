"""The service mails of subscriptions, made when they are sent: only now is it decided what an address is told.

Registered with the outbox by `apps.py`.
"""

from datetime import datetime

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db.models import Q, QuerySet
from django.utils import timezone

from newsroom.mail import outbox
from newsroom.mail.messages import make_message, make_message_id
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared, Withheld
from newsroom.mail.transport import Result
from subscriptions import consent, ledger, links, privacy, suppression, throttling, wording
from subscriptions.links import Purpose, TokenSeed
from subscriptions.models import ConsentRecord, PrivacyRequest, RightsCase, SignUp, Subscriber, Subscription


def register() -> None:
    outbox.register("sign_up", make_sign_up_mail)
    outbox.register("rights_link", make_rights_mail)


def make_sign_up_mail(mail: OutboxMail) -> Prepared | Withheld:
    """Ask for the confirmation, or say that there is nothing to confirm."""
    sign_up = SignUp.objects.filter(uuid=mail.reference).first()
    if sign_up is None:
        return Withheld("the sign-up is gone")
    if reason := _why_no_sign_up_mail(sign_up):
        return Withheld(reason)
    if subscription := _known_subscription(sign_up):
        return Prepared(_already_subscribed(sign_up, subscription, mail))
    try:
        token = links.derive_token(Purpose.CONFIRM, sign_up.uuid, TokenSeed(sign_up.nonce, sign_up.token_hash))
    except links.KeyGone:
        return Withheld("the key of its link is gone")
    message = _confirmation(sign_up, token, mail)
    return Prepared(message, on_sent=lambda at, result: _record_sent(sign_up, message, token, at=at, result=result))


def make_rights_mail(mail: OutboxMail) -> Prepared | Withheld:
    """Send the link to a reader's data, or say that nothing is held."""
    request = PrivacyRequest.objects.filter(uuid=mail.reference).first()
    if request is None or not request.address:
        return Withheld("the request is gone")
    if reason := _why_no_rights_mail(request):
        return Withheld(reason)
    try:
        token = links.derive_token(Purpose.RIGHTS, request.uuid, TokenSeed(request.nonce, request.token_hash))
    except links.KeyGone:
        return Withheld("the key of its link is gone")
    message = _rights_message(request, token, mail)
    uuid, key = request.uuid, request.address_key
    return Prepared(message, on_sent=lambda at, result: privacy.note_handed_over(uuid, address_key=key, at=at))


def _why_no_sign_up_mail(sign_up: SignUp) -> str:
    # The outbox calls without a time: a mail is made at the moment it is sent.
    if sign_up.confirmed_at:
        return "confirmed already"
    if sign_up.expires_at <= timezone.now():
        return "the link has expired"
    if suppression.is_blocked(sign_up.address_key):
        return "the address is blocked"
    same_address = SignUp.objects.filter(address_key=sign_up.address_key)
    return "asked for too often" if _is_repeat("sign_up", sign_up, same_address) else ""


def _why_no_rights_mail(request: PrivacyRequest) -> str:
    """A blocked address gets this mail all the same: the rights do not end with a complaint."""
    if request.state != PrivacyRequest.State.REQUESTED or request.expires_at <= timezone.now():
        return "the link has expired"
    if request.cases.exclude(way=RightsCase.Way.PAGE).exists():
        return ""  # staff's answer to a letter or a call: the limits are for the form that anybody can send
    same_address = PrivacyRequest.objects.filter(address_key=request.address_key)
    return "asked for too often" if _is_repeat("rights_link", request, same_address) else ""


def _is_repeat(
    kind: str, cause: SignUp | PrivacyRequest, same_address: "QuerySet[SignUp] | QuerySet[PrivacyRequest]"
) -> bool:
    """Say whether the mails that earlier requests of this address caused already use up its limits (E-42)."""
    limits = settings.SIGN_UPS_PER_ADDRESS
    longest = max(window for _limit, window in limits)
    before = Q(requested_at__lt=cause.requested_at) | Q(requested_at=cause.requested_at, pk__lt=cause.pk)
    earlier = same_address.filter(before, requested_at__gt=cause.requested_at - longest)
    causes = earlier.order_by().values("uuid")
    mails = OutboxMail.objects.filter(kind=kind, reference__in=causes)  # type: ignore[misc]
    mailed = mails.exclude(state=OutboxMail.State.WITHHELD).values_list("reference", flat=True)
    times = same_address.filter(uuid__in=list(mailed)).values_list("requested_at", flat=True)
    return throttling.exceeds(times, cause.requested_at, limits)


def _known_subscription(sign_up: SignUp) -> Subscription | None:
    """Return one of the reader's subscriptions if he has every newsletter he signs up for already."""
    chosen = set(sign_up.newsletters.values_list("pk", flat=True))
    active = Subscription.objects.fresh().filter(subscriber__address_key=sign_up.address_key, newsletter__in=chosen)
    return active[0] if len(active) == len(chosen) else None


def _confirmation(sign_up: SignUp, token: str, mail: OutboxMail) -> EmailMultiAlternatives:
    return make_message(
        "subscriptions/confirmation",
        to=sign_up.address,
        context={
            "newsletters": [newsletter.name for newsletter in sign_up.newsletters.all()],
            "requested_at": sign_up.requested_at,
            "confirmation_url": links.confirmation_url(token),
            "lifetime": settings.CONFIRMATION_LIFETIME,
            "retention": settings.SIGN_UP_RETENTION,
        },
        message_id=make_message_id(mail.uuid),
        language=sign_up.language,
    )


def _already_subscribed(sign_up: SignUp, subscription: Subscription, mail: OutboxMail) -> EmailMultiAlternatives:
    return make_message(
        "subscriptions/already_subscribed",
        to=sign_up.address,
        context={
            "newsletters": [newsletter.name for newsletter in sign_up.newsletters.all()],
            "requested_at": sign_up.requested_at,
            "preferences_url": links.preferences_url(subscription.uuid),
        },
        message_id=make_message_id(mail.uuid),
        language=sign_up.language,
    )


def _rights_message(request: PrivacyRequest, token: str, mail: OutboxMail) -> EmailMultiAlternatives:
    reader = Subscriber.objects.filter(address_key=request.address_key).first()
    return make_message(
        "subscriptions/rights_link" if privacy.is_held(request.address_key) else "subscriptions/nothing_held",
        to=request.address,
        context={
            "requested_at": request.requested_at,
            "rights_url": links.rights_url(token),
            "lifetime": settings.RIGHTS_LINK_LIFETIME,
            "retention": settings.SIGN_UP_RETENTION,
        },
        message_id=make_message_id(mail.uuid),
        language=reader.language if reader else wording.form_language(),
    )


def _record_sent(sign_up: SignUp, message: EmailMultiAlternatives, token: str, *, at: datetime, result: Result) -> None:
    """Keep the mail as it was sent, but for the token: its hash stands in its place."""
    if not SignUp.objects.filter(pk=sign_up.pk).exists():  # erased while the mail was on its way
        return
    body = {
        "actor": "newsroom",
        "address": sign_up.address,
        "address_typed": sign_up.address_typed,
        "newsletters": [consent.named(newsletter) for newsletter in sign_up.newsletters.all()],
        "mail_subject": message.subject,
        "text": links.hide_tokens(str(message.body), token, links.why_token(sign_up.uuid)),
        "message_id": message.extra_headers["Message-ID"],
        "provider_message_id": result.provider_message_id,
    }
    ledger.record(
        ledger.Act(type=ConsentRecord.Type.MAIL_SENT, subject=sign_up.uuid, address_key=sign_up.address_key, body=body),
        at=at,
    )
