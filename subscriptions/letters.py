"""What a letter or a call asks for, done by staff with the effect and the evidence it has when readers do it (R-26)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from newsroom.mail.addresses import canonicalise
from subscriptions import cases, consent, persons, privacy, rectifying
from subscriptions.consent import Origin
from subscriptions.models import RightsCase, SignUp, Subscriber, Subscription
from subscriptions.rectifying import ChangeRefused

Kind, State = RightsCase.Kind, RightsCase.State

# What is held about an address because its reader wrote to us.
CAUSED_BY_WRITING = privacy.CAUSED_BY_ASKING | {"rights_cases"}


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it, in a sentence for staff and the file; an act that waits for the reader leaves its case open."""

    outcome: str
    is_answered: bool = True


Act = Callable[[RightsCase, Origin, datetime], Done]


@transaction.atomic
def carry_out(case: RightsCase, *, by: str, now: datetime) -> str:
    """Do what an open case asks for, close it, and return what was done; nothing if it was closed meanwhile."""
    still_open = RightsCase.objects.open().select_for_update().filter(pk=case.pk).first()
    if still_open is None:
        return ""
    origin = Origin(source=case.way, actor=by, received_on=case.received_on)
    done = ACTS[Kind(case.kind)](still_open, origin, now)
    if done.is_answered:
        # By its key alone: it is ours until the transaction ends, and an erasure has closed it already.
        answered = {"state": State.DONE, "outcome": done.outcome, "closed_by": by, "closed_at": now}
        RightsCase.objects.filter(pk=case.pk).update(**answered)
    return done.outcome


@transaction.atomic
def mail_link(case: RightsCase, *, by: str, now: datetime) -> bool:
    """Answer a wish for access by the link to the page on which readers help themselves (R-29)."""
    outcome = _("The link to the page “My data” is mailed to the address.")
    if not cases.close(case, outcome=outcome, by=by, now=now):
        return False
    request = privacy.request_link(canonicalise(case.address), now=now)
    RightsCase.objects.filter(pk=case.pk).update(request=request)
    return True


def _reader(case: RightsCase) -> Subscriber | None:
    return Subscriber.objects.filter(address_key=case.address_key).first()


def _unknown() -> Done:
    return Done(_("There is no reader with this address: nothing had to be done."))


def _withdraw_all(case: RightsCase, origin: Origin, now: datetime) -> Done:
    reader = _reader(case)
    return _ended(consent.withdraw_all(reader, origin=origin, now=now)) if reader else _unknown()


def _withdraw(case: RightsCase, origin: Origin, now: datetime) -> Done:
    chosen = Subscription.objects.filter(
        subscriber__address_key=case.address_key, newsletter__in=case.newsletters.all()
    )
    standing = chosen.select_related("subscriber", "newsletter")
    return _ended(sum(consent.withdraw(subscription, origin=origin, now=now) for subscription in standing))


def _ended(count: int) -> Done:
    if not count:
        return Done(_("None of these newsletters went to this address: nothing had to be done."))
    return Done(
        ngettext("%(count)d subscription has ended.", "%(count)d subscriptions have ended.", count) % {"count": count}
    )


def _forget_sign_up(case: RightsCase, origin: Origin, now: datetime) -> Done:
    """What an unconfirmed form said proves no consent: it goes, and the link in the mail with it."""
    pending = SignUp.objects.unconfirmed().select_for_update().filter(address_key=case.address_key)
    if not persons.forget_sign_ups(pending):
        return Done(_("No sign-up of this address is waiting for its confirmation: nothing had to be done."))
    return Done(_("The sign-up is deleted, and the link in its mail does nothing any more."))


def _object(case: RightsCase, origin: Origin, now: datetime) -> Done:
    privacy.mail_no_more(case.address_key, origin=origin, now=now)
    return Done(_("All newsletters have ended, and the address is noted as one not to be mailed."))


def _restrict(case: RightsCase, origin: Origin, now: datetime) -> Done:
    reader = _reader(case)
    if reader is None:
        return _unknown()
    consent.restrict(reader, origin=origin, now=now)
    return Done(_("The processing is restricted: nothing is mailed and nothing deleted until it is lifted."))


def _lift_restriction(case: RightsCase, origin: Origin, now: datetime) -> Done:
    reader = _reader(case)
    if reader is None or not consent.lift_restriction(reader, origin=origin, now=now):
        return Done(_("The processing was not restricted: nothing had to be done."))
    return Done(_("The restriction is lifted, and everything goes on as before."))


def _erase(case: RightsCase, origin: Origin, now: datetime) -> Done:
    if not privacy.is_held(case.address_key, but_for=CAUSED_BY_WRITING):
        cases.anonymise(case.address_key, now)
        return Done(_("Nothing was held about this address."))
    privacy.erase_address(case.address_key, origin=origin, now=now)
    return Done(_("Everything about this address is deleted but for what the law lets us keep."))


def _rectify(case: RightsCase, origin: Origin, now: datetime) -> Done:
    """Ask at the new address; its confirmation closes the case (see `cases.note_rectified`)."""
    reader = _reader(case)
    if reader is None:
        return _unknown()
    if not case.new_address:
        return Done(_("Not done. The new address was deleted, as its owner asked."), is_answered=False)
    try:
        rectifying.request_change(reader, canonicalise(case.new_address), origin=origin, now=now)
    except ChangeRefused as refused:
        return Done(_("Not done. The reader would be told: “%(sentence)s”") % {"sentence": refused}, is_answered=False)
    return Done(
        _(
            "A mail asks at the new address for its confirmation. Until then the case stays open, and the old address"
            " in use."
        ),
        is_answered=False,
    )


ACTS: dict[RightsCase.Kind, Act] = {
    Kind.WITHDRAW_ALL: _withdraw_all,
    Kind.WITHDRAW: _withdraw,
    Kind.FORGET_SIGN_UP: _forget_sign_up,
    Kind.OBJECT: _object,
    Kind.RESTRICT: _restrict,
    Kind.LIFT_RESTRICTION: _lift_restriction,
    Kind.RECTIFY: _rectify,
    Kind.ERASE: _erase,
}
