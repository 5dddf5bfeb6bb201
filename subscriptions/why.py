"""Why a mail was sent, for whoever opens the link in it.

Mails are passed on, links live for years, scanners open them. So the answer names no address and no person, only what
the mail itself told or would have: which newsletter, when and on which form it was ordered, in which words.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from newsroom.mail.models import OutboxMail
from newsroom.persons.words import Quote, Row, moment
from newsroom.templatetags.periods import after_period
from subscriptions import links, telling
from subscriptions.models import (
    AddressChange,
    ConsentPayload,
    ConsentRecord,
    PrivacyRequest,
    RightsCase,
    SignUp,
    Subscriber,
    Subscription,
)

Act = ConsentRecord.Type


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """The answer: in a sentence, in facts, in the words agreed to; what to do if it was somebody else; the ways out."""

    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    quotes: tuple[Quote, ...] = ()
    if_not_you: tuple[str, ...] = ()
    unsubscribe_url: str = ""


def find(cause: UUID) -> Reason | None:
    """Return why a mail was sent that came of `cause`; None if nothing is held about it (any more)."""
    return next((reason for finder in FINDERS if (reason := finder(cause))), None)


def _of_issue(cause: UUID) -> Reason | None:
    known = Subscription.objects.select_related("newsletter", "subscriber", "consent_text", "declaration")
    subscription = known.linked_by(cause).first()
    if subscription is None:
        return None
    name, is_standing = subscription.newsletter.name, subscription.state != Subscription.State.ENDED
    consent = _consent_to(subscription)
    return Reason(
        lead=_(
            "You get “%(name)s” because it was ordered for the address this mail went to. The order counted only once"
            " it was confirmed from that mailbox."
        )
        % {"name": name},
        facts=(
            (_("Newsletter"), f"{name} ({subscription.newsletter.get_frequency_display()})"),
            *(_facts_of(consent) if consent else [(_("Ordered"), _moment(subscription.active_since))]),
            *([] if is_standing else [(_("Since then"), _("unsubscribed; nothing more will come"))]),
        ),
        quotes=_words_of(consent.body, subscription.newsletter.slug) if consent else _kept_words(subscription),
        if_not_you=(
            _("Did somebody pass this mail on to you? Then we have stored nothing about you, and you need do nothing."),
            _(
                "Did you not order it? Then unsubscribe: it takes effect at once, without an account or a reason. What"
                " is stored about your address you see, take along and delete under “My data”."
            ),
        ),
        unsubscribe_url=links.unsubscribe_url(subscription.uuid) if is_standing else "",
    )


def _consent_to(subscription: Subscription) -> ConsentPayload | None:
    """Return the proof of the consent that a subscription rests on; the latest, if there are several."""
    given = ConsentPayload.objects.filter(
        record__subject=subscription.subscriber.uuid, record__type__in=[Act.CONFIRMED, Act.ADDED]
    )
    slug = subscription.newsletter.slug
    latest = given.select_related("record").order_by("-record__at", "-record_id")
    return next((one for one in latest if any(named["slug"] == slug for named in one.body["newsletters"])), None)


def _facts_of(consent: ConsentPayload) -> Iterator[tuple[str, str]]:
    body, at = consent.body, _moment(consent.record.at)
    if consent.record.type == Act.ADDED:
        yield _("Ordered"), at
        yield _("Way"), telling.way(body["source"])
        return
    yield _("Form sent"), moment(body["requested_at"])
    if (request := _request(UUID(body["sign_up"]))) and request.body["page"]:
        yield _("On the page"), telling.page(request.body["page"])
    yield _("Confirmed"), _("%(time)s, by the button behind the link in our mail") % {"time": at}


def _words_of(body: Row, slug: str) -> tuple[Quote, ...]:
    return telling.wordings({**body, "newsletters": [each for each in body["newsletters"] if each["slug"] == slug]})


def _kept_words(subscription: Subscription) -> tuple[Quote, ...]:
    """Return the words from the subscription's own row, where the proof is that of another address."""
    body: Row = {"newsletters": []}
    if text := subscription.consent_text:
        body["newsletters"] = [{"name": subscription.newsletter.name, "wording": text.wording}]
    if declaration := subscription.declaration:
        body["declaration"] = {"wording": declaration.wording}
    return telling.wordings(body)


def _of_sign_up(cause: UUID) -> Reason | None:
    request = _request(cause)
    if request is None:
        return None
    confirmed = _confirmation_of(request)
    # After an erasure the proof stays locked away; this page is no place to read it.
    is_erased = confirmed and not _is_reader(confirmed)
    if is_erased or not (confirmed or SignUp.objects.filter(uuid=cause).exists()):
        return None
    # Only the mail that asks for a confirmation is on record; the other says that there is nothing to confirm.
    if ConsentRecord.objects.filter(subject=cause, type=Act.MAIL_SENT).exists():
        return _asked(request, confirmed)
    return _known_already(request)


def _is_reader(confirmed: ConsentPayload) -> bool:
    """Say whether who confirmed is a reader still, perhaps as one with another who moved to his address."""
    known_as = [confirmed.record.subject]
    moved_in = ConsentPayload.objects.filter(address_key=confirmed.address_key, record__type=Act.ADDRESS_CHANGED)
    for move in moved_in.select_related("record").order_by("record_id"):
        if move.body.get("absorbed") == str(known_as[-1]):
            known_as.append(move.record.subject)
    return Subscriber.objects.filter(uuid__in=known_as).exists()


def _asked(request: ConsentPayload, confirmed: ConsentPayload | None) -> Reason:
    outcome = _moment(confirmed.record.at) if confirmed else _("No; so nothing has been ordered")
    do_nothing = _(
        "Then do nothing. Without the button behind the link in the mail nothing is ordered, no further mail comes, and"
        " the entry is deleted after %(period)s."
    ) % {"period": after_period(settings.SIGN_UP_RETENTION)}
    return Reason(
        lead=_(
            "Somebody entered the address this mail went to into our sign-up form. That is why we wrote to it once and"
            " asked whether the order stands."
        ),
        facts=(*_form(request), (_("Confirmed"), outcome)),
        quotes=telling.wordings(request.body),
        if_not_you=() if confirmed else (do_nothing,),
    )


def _known_already(request: ConsentPayload) -> Reason:
    return Reason(
        lead=_(
            "Somebody entered the address this mail went to into our sign-up form, for newsletters that were ordered"
            " for it before. So there was nothing to confirm, and nothing has changed."
        ),
        facts=tuple(_form(request)),
        if_not_you=(_("Then do nothing: nothing has changed, and there will be no further mail about it."),),
    )


def _form(request: ConsentPayload) -> Iterator[tuple[str, str]]:
    yield _("Form sent"), _moment(request.record.at)
    if request.body["page"]:
        yield _("On the page"), telling.page(request.body["page"])
    yield _("Newsletters"), telling.newsletters(request.body["newsletters"])


def _request(sign_up: UUID) -> ConsentPayload | None:
    sent = ConsentPayload.objects.filter(record__subject=sign_up, record__type=Act.REQUESTED)
    return sent.select_related("record").first()


def _confirmation_of(request: ConsentPayload) -> ConsentPayload | None:
    sign_up = str(request.record.subject)
    given = ConsentPayload.objects.filter(address_key=request.address_key, record__type=Act.CONFIRMED)
    return next((one for one in given.select_related("record") if one.body.get("sign_up") == sign_up), None)


def _of_rights_request(cause: UUID) -> Reason | None:
    request = PrivacyRequest.objects.filter(uuid=cause).exclude(address="").first()
    if request is None:
        return None
    return Reason(
        lead=_(
            "Somebody asked on our page “My data” what we have stored about the address this mail went to. The answer"
            " goes to the mailbox only, because whoever reads it is the one the data are about."
        ),
        facts=((_("Requested"), _moment(request.requested_at)), (_("On the page"), "/meine-daten/")),
        if_not_you=(_("Then do nothing: without your mailbox nobody sees anything, and nothing changes."),),
    )


def _of_address_change(cause: UUID) -> Reason | None:
    change = AddressChange.objects.filter(uuid=cause).first()
    if change is None:
        return None
    done = _moment(change.confirmed_at) if change.confirmed_at else _("Not yet; until then nothing changes")
    return Reason(
        lead=_(
            "A reader asked us to write to another address from now on. So we ask at the new address, and tell the old"
            " one once it is done."
        ),
        facts=((_("Requested"), _moment(change.requested_at)), (_("Confirmed at the new address"), done)),
        if_not_you=(
            _(
                "If you were asked to confirm, do nothing: without the button nothing changes. If you"
                " were told that it is done, please write to us; our address is in every mail and in the imprint."
            ),
        ),
    )


def _of_case(cause: UUID) -> Reason | None:
    case = RightsCase.objects.filter(uuid=cause).exclude(address="").first()
    if case is None:
        return None
    return Reason(
        lead=_("You asked us for something concerning your data, and this mail is part of our answer (GDPR Art. 12)."),
        facts=(
            (_("Received"), date_format(case.received_on, "DATE_FORMAT")),
            (_("Way"), capfirst(str(case.get_way_display()))),
        ),
        if_not_you=(_("Then please write to us; our address is in every mail and in the imprint."),),
    )


def _of_notice_to_staff(cause: UUID) -> Reason | None:
    if not OutboxMail.objects.filter(reference=cause, kind__in=KINDS_FOR_STAFF).exists():
        return None
    return Reason(
        lead=_(
            "You get this mail because your address is entered in our settings as that of the staff or of the data"
            " protection officer. It is about the operation of the site, not about you."
        )
    )


def _moment(at: datetime) -> str:
    return moment(at.isoformat())


KINDS_FOR_STAFF = ("anchor", "alarm", "alarm_over", "case_soon_due", "case_overdue")
FINDERS: tuple[Callable[[UUID], Reason | None], ...] = (
    _of_issue,
    _of_sign_up,
    _of_rights_request,
    _of_address_change,
    _of_case,
    _of_notice_to_staff,
)
