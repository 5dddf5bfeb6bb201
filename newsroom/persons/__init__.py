"""Where personal data are held: each app states it here, so that export and erasure miss nothing.

An app registers one `Holding` per table (or group of tables) from its `AppConfig.ready`. Export asks every holding,
erasure asks every holding, and a test asks every model whether it is registered.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from newsroom.persons.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One place that holds personal data of a reader.

    `export` returns JSON-ready data for the reader with this address key; `erase` deletes or anonymises them and
    returns how many rows it touched. `kept` says in a sentence what stays after erasure and until when; empty if
    nothing does. `held` names the address keys that stand here, so that a restored backup can be searched for readers
    who were erased since; empty where rows are found through another holding. `restricted` are those of the models
    whose rows stay after an erasure, locked away. `words` tells a reader what this is, why it is held and until when.
    `follow` brings rows known by an address key along when a reader changes it for another address, as written and as
    compared; `merge` brings rows that point to one reader to another, for the two have become one.
    """

    name: str
    models: tuple[str, ...]
    export: Callable[[str], list[dict[str, Any]]]
    erase: Callable[[str, datetime], int]
    words: Words
    kept: Callable[[], str] = lambda: ""
    held: Callable[[], Iterable[str]] = tuple
    restricted: tuple[str, ...] = ()
    follow: Callable[[str, str, str, datetime], None] = lambda key, new, new_key, now: None
    merge: Callable[[int, int], None] = lambda gone, kept: None


_holdings: dict[str, Holding] = {}
_impersonal: dict[str, str] = {}


def register(holding: Holding) -> None:
    """State a place that holds personal data; a second one of the same name replaces the first."""
    _holdings[holding.name] = holding


def holdings() -> list[Holding]:
    """Return all registered places in the order of their registration."""
    return list(_holdings.values())


def register_without(reason: str, *models: str) -> None:
    """State which models hold no personal data of readers, and why."""
    _impersonal.update(dict.fromkeys(models, reason))


def impersonal() -> dict[str, str]:
    """Return the models said to hold no personal data of readers, each with the reason."""
    return dict(_impersonal)


def restricted_models() -> set[str]:
    """Return the models in which an address may stand after its erasure, for the law wants it kept."""
    return {model for holding in _holdings.values() for model in holding.restricted}


def registered_models() -> set[str]:
    """Return the models whose data are accounted for, as holding personal data or as not."""
    return {model for holding in _holdings.values() for model in holding.models} | _impersonal.keys()
