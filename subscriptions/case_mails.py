"""Mails about readers' cases: warnings for the officer, which name nobody, and what a reader must be told in time."""

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.urls import reverse

from newsroom.mail import outbox
from newsroom.mail.messages import make_message, make_message_id
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared, Withheld
from subscriptions import cases, wording
from subscriptions.models import RightsCase, Subscriber

SOON_DUE, OVERDUE = "case_soon_due", "case_overdue"
EXTENDED, REFUSED = "case_extended", "case_refused"


def register() -> None:
    for kind in (SOON_DUE, OVERDUE):
        outbox.register(kind, make_warning)
    outbox.register(EXTENDED, make_extension_notice)
    outbox.register(REFUSED, make_refusal_notice)


def make_warning(mail: OutboxMail) -> Prepared | Withheld:
    """Tell the officer the number of a case and where it is found; if it was answered meanwhile, nothing."""
    case = next((case for case in RightsCase.objects.open() if cases.reference_of(case) == mail.reference), None)
    if case is None:
        return Withheld("the case is closed")
    path = reverse("admin:subscriptions_rightscase_change", args=[case.pk])
    context = {"case": case, "is_overdue": mail.kind == OVERDUE, "url": f"{settings.SITE_URL}{path}"}
    return Prepared(
        make_message(
            "subscriptions/case_warning",
            to=settings.DPO["email"],
            context=context,
            message_id=make_message_id(mail.uuid),
            language=settings.LANGUAGE_CODE,
        )
    )


def make_extension_notice(mail: OutboxMail) -> Prepared | Withheld:
    return _to_reader(mail, "subscriptions/case_extended")


def make_refusal_notice(mail: OutboxMail) -> Prepared | Withheld:
    return _to_reader(mail, "subscriptions/case_refused")


def _to_reader(mail: OutboxMail, stem: str) -> Prepared | Withheld:
    case = RightsCase.objects.filter(uuid=mail.reference).first()
    if case is None or not case.address:
        return Withheld("the case is closed and its address gone")
    return Prepared(_message(case, stem, mail))


def _message(case: RightsCase, stem: str, mail: OutboxMail) -> EmailMultiAlternatives:
    reader = Subscriber.objects.filter(address_key=case.address_key).first()
    return make_message(
        stem,
        to=case.address,
        context={"case": case, "authority": settings.SUPERVISORY_AUTHORITY},
        message_id=make_message_id(mail.uuid),
        language=reader.language if reader else wording.form_language(),
    )
