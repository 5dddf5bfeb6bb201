"""A reader's newsletters, opened by a link in every digest or by a rights link: leave one, some or all, add one."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from subscriptions import consent, links, throttling, wording
from subscriptions.consent import Origin
from subscriptions.models import Newsletter, Subscriber, Subscription
from subscriptions.reader_forms import token_page
from subscriptions.wording import Choice, Offer

LONGEST_PAUSE = timedelta(days=183)  # a consent lapses long after


class Refusal(str):
    """A sentence that says why nothing was done; the page shows it as such."""

    is_refusal = True


@dataclass(frozen=True, slots=True)
class Standing:
    """One newsletter as a reader has it; `choice` is the offer to add it, if it can be added now."""

    newsletter: Newsletter
    subscription: Subscription | None
    choice: Choice | None
    has_lapsed: bool = False


@require_http_methods(["GET", "HEAD", "POST"])
@token_page
def preferences(request: HttpRequest, token: str) -> HttpResponse:
    """The link stands in every issue and works for years; so export and erasure are behind a rights link, not here."""
    uuid = links.read_preferences_token(token)
    subscriber = (
        Subscriber.objects.filter(subscriptions__in=Subscription.objects.linked_by(uuid)).first() if uuid else None
    )
    if subscriber is None:
        return render(request, "subscriptions/preferences_gone.html", status=404)
    notice = ""
    if request.method == "POST":
        origin = Origin(source="preferences_link", ip=throttling.evidence_ip(request))
        notice = change(subscriber, request.POST, origin)
    return render(request, "subscriptions/preferences.html", {"notice": notice, **choices_context(subscriber)})


def choices_context(subscriber: Subscriber) -> dict[str, Any]:
    offer = wording.offer(wording.form_language())
    standings = _standings(subscriber, offer)
    first_day, last_day = _pause_bounds()
    return {
        "standings": standings,
        "leavable": [standing.newsletter for standing in standings if standing.subscription],
        "lapse_months": settings.CONSENT_LAPSE_MONTHS,
        "declaration": offer.declaration.wording,
        "shown": offer.fingerprint,
        "first_day": first_day,
        "last_day": last_day,
    }


def change(subscriber: Subscriber, data: QueryDict, origin: Origin) -> str:
    """Do what the pressed button says and return the sentence to show."""
    act, slug = data.get("act", ""), data.get("newsletter", "")
    if act == "leave_all":
        consent.withdraw_all(subscriber, origin=origin, now=timezone.now())
        return _("Done. You will receive no more newsletters from us.")
    if act == "leave_some":
        return _leave_some(subscriber, data.getlist("ticked"), origin)
    if act == "leave":
        return _leave(subscriber, slug, origin)
    if act == "pause":
        return _pause(subscriber, slug, origin, until=data.get("until", ""))
    if act == "resume":
        return _resume(subscriber, slug, origin)
    return _add(subscriber, slug, origin, shown=data.get("shown", "")) if act == "add" else ""


def _held(subscriber: Subscriber, slug: str) -> Subscription | None:
    held = subscriber.subscriptions.select_related("newsletter", "subscriber")
    return next((one for one in held if one.newsletter.slug == slug), None)


def _pause(subscriber: Subscriber, slug: str, origin: Origin, *, until: str) -> str:
    subscription, first, last = _held(subscriber, slug), *_pause_bounds()
    try:
        day = date.fromisoformat(until)
    except ValueError:
        day = None
    if day is None or not first <= day <= last:
        return Refusal(
            _("Nothing was changed. Please choose a day from %(first)s to %(last)s.")
            % {"first": date_format(first, "DATE_FORMAT"), "last": date_format(last, "DATE_FORMAT")}
        )
    if subscription is None or not consent.pause(subscription, until=day, origin=origin, now=timezone.now()):
        return Refusal(_("Nothing was changed."))
    return _("Done. “%(name)s” comes again from %(day)s.") % {
        "name": subscription.newsletter.name,
        "day": date_format(day, "DATE_FORMAT"),
    }


def _resume(subscriber: Subscriber, slug: str, origin: Origin) -> str:
    subscription = _held(subscriber, slug)
    if subscription is None or not consent.resume(subscription, origin=origin, now=timezone.now()):
        return Refusal(_("Nothing was changed."))
    return _("Done. From now on you will receive “%(name)s”.") % {"name": subscription.newsletter.name}


def _pause_bounds() -> tuple[date, date]:
    """Return the first and the last day a pause may end on."""
    today = timezone.localdate()
    return today + timedelta(days=1), today + LONGEST_PAUSE


def _leave(subscriber: Subscriber, slug: str, origin: Origin) -> str:
    subscription = _held(subscriber, slug)
    if subscription is None:
        return ""
    consent.withdraw(subscription, origin=origin, now=timezone.now())
    return _("Done. You will no longer receive “%(name)s”.") % {"name": subscription.newsletter.name}


def _leave_some(subscriber: Subscriber, slugs: list[str], origin: Origin) -> str:
    if not slugs:
        return Refusal(_("Nothing was changed. Please tick the newsletters you want to leave."))
    consent.withdraw_some(subscriber, slugs, origin=origin, now=timezone.now())
    return _("Done. You will no longer receive the newsletters you ticked.")


def _add(subscriber: Subscriber, slug: str, origin: Origin, *, shown: str) -> str:
    offer = wording.offer(wording.form_language())
    choice = next((choice for choice in offer.choices if choice.newsletter.slug == slug), None)
    if choice is None:
        return Refusal(_("This newsletter can no longer be ordered."))
    if shown != offer.fingerprint:
        return Refusal(_("Our texts have changed in the meantime. Please look at them again before you order."))
    if consent.add_newsletter(subscriber, choice, origin=origin, now=timezone.now()):
        return _("Done. From now on you will receive “%(name)s”.") % {"name": choice.newsletter.name}
    return Refusal(_("Nothing was changed."))


def _standings(subscriber: Subscriber, offer: Offer) -> list[Standing]:
    standing = subscriber.subscriptions.standing().select_related("newsletter")
    lapsed = set(subscriber.subscriptions.lapsed().values_list("newsletter_id", flat=True))
    held = {subscription.newsletter_id: subscription for subscription in standing}
    offered = {choice.newsletter.pk: choice for choice in offer.choices}
    newsletters = {sub.newsletter for sub in held.values()} | {choice.newsletter for choice in offer.choices}
    in_order = sorted(newsletters, key=lambda newsletter: (newsletter.position, newsletter.name))
    return [Standing(new, held.get(new.pk), offered.get(new.pk), new.pk in lapsed) for new in in_order]
