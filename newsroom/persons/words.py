"""What is held, in words: labels and values in place of keys and codes, dates as people write them.

Page, export and paper are told from the rows that the export gives out, so that none says more or less than another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import TextChoices
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext as _

Row = dict[str, Any]
Text = str | Promise


@dataclass(frozen=True, slots=True)
class Quote:
    """Words as they were, such as a consent's, under a line that says what they are."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One row as it is told: perhaps under a title, its facts by label and value, then words as they were."""

    title: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a holding is told to the person it is about (GDPR Art. 15(1)): what it is, why we have it, until when.

    `tell` turns exported rows into passages; `passages` below makes such a function from labels.
    """

    title: Text
    why: Text
    legal_basis: Text
    until: Callable[[], str]
    tell: Callable[[list[Row]], list[Passage]]


Format = Callable[[Any], str]
Labels = Mapping[str, tuple[Text, Format]]


def passages(labels: Labels) -> Callable[[list[Row]], list[Passage]]:
    """Return a `tell` that names each row's values by these labels, in their order, and leaves out what is empty."""

    def tell(rows: list[Row]) -> list[Passage]:
        return [Passage(facts=facts(row, labels)) for row in rows]

    return tell


def facts(row: Row, labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple((str(label), form(row[key])) for key, (label, form) in labels.items() if row.get(key))


def text(value: object) -> str:
    return str(value)


def moment(value: str) -> str:
    """Tell an exported time to the minute, on the site's clock."""
    at = timezone.localtime(datetime.fromisoformat(value))
    return _("%(day)s at %(time)s") % {"day": date_format(at, "DATE_FORMAT"), "time": date_format(at, "TIME_FORMAT")}


def day(value: str) -> str:
    return date_format(date.fromisoformat(value), "DATE_FORMAT")


def listing(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def choice(choices: type[TextChoices]) -> Format:
    """Return a format that tells a code by its label; an unknown one as it stands."""

    def tell(value: str) -> str:
        return capfirst(str(choices(value).label)) if value in choices.values else str(value)

    return tell
