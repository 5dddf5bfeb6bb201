"""What staff ask about the consent texts: what changed from one version to another, and what is missing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from django.utils.translation import get_language_info
from django.utils.translation import gettext as _

from subscriptions import wording
from subscriptions.models import ConsentText, Newsletter


class Change(StrEnum):
    NONE = "none"
    GONE = "gone"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some words of two wordings, and whether both have them."""

    change: Change
    words: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A text in one language, as the forms show it now."""

    newsletter: Newsletter | None
    language: str
    language_name: str
    text: ConsentText
    lacks: str


def differences(before: str, after: str) -> list[Piece]:
    """Return the words of both wordings in reading order, what is gone before what is new."""
    old, new = (re.findall(r"\w+\s*|\W\s*", wording) for wording in (before, after))
    pieces = []
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(Piece(Change.NONE, "".join(new[j1:j2])))
            continue
        pieces.append(Piece(Change.GONE, "".join(old[i1:i2])))
        pieces.append(Piece(Change.NEW, "".join(new[j1:j2])))
    return [piece for piece in pieces if piece.words]


def standings() -> Iterator[Standing]:
    """Yield the declaration and every newsletter's text in each language, with what is missing."""
    for newsletter in (None, *Newsletter.objects.all()):
        yield from standings_of(newsletter)


def standings_of(newsletter: Newsletter | None) -> list[Standing]:
    texts = {language: wording.in_force(newsletter, language) for language in wording.DECLARATION}
    written = [language for language, text in texts.items() if wording.is_own(text)]
    names = {language: language_name(language) for language in texts}
    return [
        Standing(newsletter, language, names[language], text, _lack(language, written=written, names=names))
        for language, text in texts.items()
    ]


def language_name(language: str) -> str:
    """Return how the language is called in the language of whoever looks."""
    return str(get_language_info(language)["name_translated"])


def gaps() -> list[Standing]:
    """Return the texts that were written in one language and not in another."""
    return [standing for standing in standings() if standing.lacks]


def _lack(language: str, *, written: list[str], names: dict[str, str]) -> str:
    if language in written or not written:
        return ""
    there = ", ".join(names[each] for each in written)
    return _(
        "There is a text of your own in %(there)s, but none in %(missing)s: the form in that language shows the"
        " standard wording."
    ) % {"there": there, "missing": names[language]}
