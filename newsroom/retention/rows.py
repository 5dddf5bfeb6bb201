"""Rows of a table as the store of a rule. What is due is in the filter, so a purge is safe to repeat and break off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Model, QuerySet

from newsroom.retention import Note

PURGE_LOCK = 0x6E657773_70757267  # "newspurg": any number that nobody else in this database uses


def delete(rows: QuerySet) -> int:
    """Delete the rows and return how many of this table went."""
    return rows.delete()[1].get(rows.model._meta.label, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """`due` returns the rows whose period is over at a moment, past or ahead; `remove` takes some of them away."""

    model: type[Model]
    due: Callable[[datetime], QuerySet]
    remove: Callable[[QuerySet], int] = delete

    def count(self) -> int:
        return self.model._default_manager.count()

    def count_due(self, now: datetime) -> int:
        return self.due(now).count()

    def purge(self, now: datetime, *, limit: int, note: Note) -> Iterator[None]:
        last: Any = None
        while keys := self._next_keys(now, after=last, limit=limit):
            with transaction.atomic():
                _wait_for_turn()
                # Asked anew: meanwhile another run was here, or the reader came back.
                note(self.remove(self.due(now).filter(pk__in=keys)))
            last = keys[-1]
            yield

    def _next_keys(self, now: datetime, *, after: Any, limit: int) -> list[Any]:
        due = self.due(now) if after is None else self.due(now).filter(pk__gt=after)
        return list(due.order_by("pk").values_list("pk", flat=True)[:limit])


def _wait_for_turn() -> None:
    # SQLite needs no lock of ours: its transactions begin as IMMEDIATE, so only one writes at a time.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PURGE_LOCK])
