"""How long what is kept: the one source for purge, the privacy page, the export and the officer's page.

An app states one `Rule` per kind of data from its `AppConfig.ready`; `purging.purge` carries out every rule that has a
store. Rules are purged in the reverse order of their registration: what points to other rows goes before them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

# Writes down how many rows went, within the transaction in which they did.
Note = Callable[[int], None]


class Store(Protocol):
    """Where the data of a rule stand, and how they go."""

    def count(self) -> int:
        """Return how many there are."""

    def count_due(self, now: datetime) -> int:
        """Return for how many the period is over at a moment, which may lie ahead."""

    def purge(self, now: datetime, *, limit: int, note: Note) -> Iterator[None]:
        """Remove what is due, at most so many rows in one transaction, and yield after each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of data, in words for readers and staff, and for how long it is kept.

    `period` says how long, as the settings have it now; `since` from when that counts; `basis` on what ground it is
    kept. A rule without a store is kept by hand or by others: server logs, backups. `is_purged` is false where what is
    due is not deleted but left alone. `is_public` says whether it is about readers and so belongs on the privacy page.
    """

    name: str
    what: "_StrOrPromise"
    period: Callable[[], str]
    since: "_StrOrPromise"
    basis: "_StrOrPromise"
    store: Store | None = None
    is_purged: bool = True
    is_public: bool = True


_rules: dict[str, Rule] = {}


def register(*rules: Rule) -> None:
    """State rules; a second one of a name replaces the first."""
    _rules.update({rule.name: rule for rule in rules})


def rules() -> list[Rule]:
    """Return all rules in the order of their registration."""
    return list(_rules.values())


def public_rules() -> list[Rule]:
    """Return the rules that readers are told of."""
    return [rule for rule in _rules.values() if rule.is_public]


def period_of(name: str) -> Callable[[], str]:
    """Return what tells the period of a rule, for words that are put together before all rules are stated."""
    return lambda: _rules[name].period()


def purged_rules() -> list[Rule]:
    """Return the rules that are carried out here, in the order in which they are."""
    return [rule for rule in reversed(_rules.values()) if rule.store and rule.is_purged]
