"""Where personal data are held: each app states it here, so that export and erasure miss nothing.

An app registers one `Holding` per table (or group of tables) from its `AppConfig.ready`. Export asks every holding,
erasure asks every holding, and a test asks every model whether it is registered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One place that holds personal data of a reader.

    `export` returns JSON-ready data for the reader with this address key; `erase` deletes or anonymises them and
    returns how many rows it touched. `kept` says in a sentence what stays after erasure and until when; empty if
    nothing does.
    """

    name: str
    models: tuple[str, ...]
    export: Callable[[str], list[dict[str, Any]]]
    erase: Callable[[str, datetime], int]
    kept: Callable[[], str] = lambda: ""


_holdings: dict[str, Holding] = {}


def register(holding: Holding) -> None:
    """State a place that holds personal data; a second one of the same name replaces the first."""
    _holdings[holding.name] = holding


def holdings() -> list[Holding]:
    """Return all registered places in the order of their registration."""
    return list(_holdings.values())
