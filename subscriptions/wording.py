"""The words a reader agrees to, as shown and as kept: versioned, in each language, never changed once written.

A newsletter without a text of its own, and the declaration, begin with the wordings below as version 1. They become
rows when the first reader sends a form that showed them.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property, lru_cache
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Max
from django.template.loader import select_template
from django.utils.translation import get_language

from subscriptions import statements
from subscriptions.models import ConsentText, ConsentTextUse, Newsletter

DECLARATION = {
    "de": (
        "Ja, {publisher} darf mir die gewählten Newsletter in der jeweils genannten Häufigkeit an meine"
        " E-Mail-Adresse senden. Die Ausgaben können Werbung enthalten. Meine Einwilligung kann ich jederzeit mit"
        " Wirkung für die Zukunft widerrufen, am einfachsten über den Abmeldelink in jeder Ausgabe."
    ),
    "en": (
        "Yes, {publisher} may send the newsletters I choose to my e-mail address, as often as stated with each."
        " Issues may contain advertising. I can withdraw my consent at any time with effect for the future, most easily"
        " by the unsubscribe link in every issue."
    ),
}
OFFER = {"de": "{description} Erscheint {frequency}.", "en": "{description} Appears {frequency}."}
# Stated narrowly, because the stated frequency binds the sender (KG Berlin 5 U 1043/20).
FREQUENCY = {
    "de": {
        Newsletter.Frequency.DAILY: "täglich, mit höchstens einer Ausgabe am Tag",
        Newsletter.Frequency.WEEKDAYS: "montags bis freitags, mit höchstens einer Ausgabe am Tag",
        Newsletter.Frequency.WEEKLY: "einmal in der Woche",
    },
    "en": {
        Newsletter.Frequency.DAILY: "daily, at most one issue a day",
        Newsletter.Frequency.WEEKDAYS: "Monday to Friday, at most one issue a day",
        Newsletter.Frequency.WEEKLY: "once a week",
    },
}
FORM_TEMPLATE = "subscriptions/_sign_up_form.html"
NEWSLETTER_FACTS = ("id", "name", "slug", "description", "frequency", "position", "state")


@dataclass(frozen=True, slots=True)
class Choice:
    """A newsletter as offered, with the words that stand beside it."""

    newsletter: Newsletter
    text: ConsentText


@dataclass(frozen=True)
class Offer:
    """What a form shows: the newsletters, and the declaration beside its button. One is shown to many readers."""

    language: str
    declaration: ConsentText
    choices: tuple[Choice, ...]
    # By what the database knows whether it offers this still.
    mark: Any = None

    @property
    def texts(self) -> tuple[ConsentText, ...]:
        return (self.declaration, *(choice.text for choice in self.choices))

    @property
    def is_borne(self) -> bool:
        """Whether readers have agreed to all of it before."""
        return all(text.is_borne for text in self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of every word offered, so that a form sent later is known to have shown just these."""
        shown = [
            self.language,
            self.declaration.wording,
            [[choice.newsletter.pk, choice.newsletter.name, choice.text.wording] for choice in self.choices],
            template_version(),
        ]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:20]

    def narrowed(self, slugs: Collection[str]) -> "Offer":
        """Return the part of the offer that concerns these newsletters."""
        choices = tuple(choice for choice in self.choices if choice.newsletter.slug in slugs)
        return Offer(self.language, self.declaration, choices, self.mark)

    def with_text(self, text: ConsentText) -> "Offer":
        """Return the offer as it would be with another text, also of a newsletter that is not open for sign-up."""
        if text.newsletter is None:
            return Offer(self.language, text, self.choices)
        others = tuple(choice for choice in self.choices if choice.newsletter != text.newsletter)
        choices = sorted((*others, Choice(text.newsletter, text)), key=lambda choice: choice.newsletter.position)
        return Offer(self.language, self.declaration, tuple(choices))


def form_language() -> str:
    """Return the language in which a form is shown now, one of those that have wordings."""
    language = (get_language() or settings.LANGUAGE_CODE).split("-")[0]
    return language if language in DECLARATION else settings.LANGUAGE_CODE.split("-")[0]


def offer(language: str) -> Offer:
    """Return what is offered now; it writes nothing."""
    publisher = settings.PUBLISHER["name"]
    found = _last_offers[language, publisher] = _offer_of(language, statements.read_offer(language), publisher)
    return found


def last_offer(language: str) -> Offer:
    """Return what was offered when this process read it last, for whoever asks the database whether it is so still."""
    return _last_offers.get((language, settings.PUBLISHER["name"])) or offer(language)


_last_offers: dict[tuple[str, str], Offer] = {}


@lru_cache(maxsize=16)  # by all that was read, so it is never out of date
def _offer_of(language: str, read: statements.ReadOffer, publisher: str) -> Offer:
    declaration, choices = _first_declaration(language), []
    for *facts, pk, version, wording, is_borne in read.rows:
        newsletter = Newsletter.from_db(None, NEWSLETTER_FACTS, facts) if facts[0] else None
        text = ConsentText(pk=pk, newsletter=newsletter, language=language, version=version, wording=wording)
        text.is_borne = bool(is_borne)
        if newsletter is None:
            declaration = text
        else:
            choices.append(Choice(newsletter, text if pk else _first_text(newsletter, language)))
    return Offer(language, declaration, tuple(choices), read.mark)


@transaction.atomic
def keep(text: ConsentText, *, now: datetime) -> ConsentText:
    """Return the row of a text that a reader agreed to, written now if he is the first; it stays for good.

    Should staff discard it in this very moment, the consent wins.
    """
    kept, _created = ConsentText.objects.select_for_update(no_key=True).get_or_create(
        newsletter=text.newsletter,
        language=text.language,
        version=text.version,
        wording=text.wording,
        defaults={"created_at": now},
    )
    ConsentTextUse.objects.get_or_create(text=kept, defaults={"first_at": now})
    return kept


def in_force(newsletter: Newsletter | None, language: str) -> ConsentText:
    """Return the text that the forms show; without a row if it is the wording every text begins with."""
    latest = ConsentText.objects.of(newsletter, language).with_standing().first()
    return latest or (_first_text(newsletter, language) if newsletter else _first_declaration(language))


def is_own(text: ConsentText) -> bool:
    """Whether staff wrote it: it is not what Newsroom makes of a newsletter's description and frequency."""
    first = _first_text(text.newsletter, text.language) if text.newsletter else _first_declaration(text.language)
    return text.wording != first.wording


def revise(
    newsletter: Newsletter | None, *, language: str, wording: str, now: datetime, after: int | None = None
) -> ConsentText:
    """Write a new version of a text. Readers who agreed to an older one stay bound to that.

    With `after` it follows that version or none: an IntegrityError says that somebody else was faster.
    """
    texts = ConsentText.objects.filter(newsletter=newsletter, language=language)
    last = after if after is not None else texts.aggregate(last=Max("version"))["last"] or 0
    return ConsentText.objects.create(
        newsletter=newsletter, language=language, version=last + 1, wording=wording, created_at=now
    )


def discard(text: ConsentText) -> bool:
    """Take back the newest version of a text if nobody has agreed to it; the one before is in force again."""
    latest = ConsentText.objects.of(text.newsletter, text.language).first()
    if latest != text or ConsentTextUse.objects.filter(text=text).exists():
        return False
    try:
        with transaction.atomic():
            ConsentText.objects.filter(pk=text.pk).delete()
    except DatabaseError:  # in this very moment somebody agreed to it
        return False
    return True


def revise_offer(newsletter: Newsletter, now: datetime, *, before: Newsletter) -> list[ConsentText]:
    """Write new versions of a newsletter's texts after its description or frequency changed, where that changes any.

    What staff wrote stays, but for the stated frequency.
    """
    languages = newsletter.consent_texts.values_list("language", flat=True).order_by("language").distinct()
    revised = []
    for language in languages:
        current = in_force(newsletter, language).wording
        if current == _offer_wording(before, language):
            new = _offer_wording(newsletter, language)
        else:
            new = current.replace(frequency(before, language), frequency(newsletter, language))
        if new != current:
            revised.append(revise(newsletter, language=language, wording=new, now=now))
    return revised


@cache
def template_version() -> str:
    """Return a short hash of the form's template, which the evidence names (R-11)."""
    return _source_version(FORM_TEMPLATE)


@cache
def privacy_notice_version(language: str) -> str:
    """Return a short hash of the privacy notice that the form links to."""
    return _source_version(f"legal/privacy.{language}.html", "legal/privacy.de.html")


def _source_version(*template_names: str) -> str:
    source: str = select_template(template_names).template.source
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def frequency(newsletter: Newsletter, language: str) -> str:
    return FREQUENCY[language][Newsletter.Frequency(newsletter.frequency)]


def _first_text(newsletter: Newsletter, language: str) -> ConsentText:
    return ConsentText(
        newsletter=newsletter, language=language, version=1, wording=_offer_wording(newsletter, language)
    )


def _first_declaration(language: str) -> ConsentText:
    wording = DECLARATION[language].format(publisher=settings.PUBLISHER["name"])
    return ConsentText(language=language, version=1, wording=wording)


def _offer_wording(newsletter: Newsletter, language: str) -> str:
    return OFFER[language].format(description=newsletter.description, frequency=frequency(newsletter, language))
