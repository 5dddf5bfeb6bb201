"""The database's clock and its pace: leases are compared by one clock, whichever host asks."""

import time
from datetime import datetime

from django.db import connection
from django.db.models import DateTimeField, Func, Value
from django.db.models.expressions import Combinable
from django.utils import timezone

# Two busy writers starve everybody else on SQLite; this much air between transactions lets a sign-up in at once.
SQLITE_PAUSE = 0.02


def database_now() -> datetime:
    """Return the time by the database's clock; SQLite has none but this machine's."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def database_clock() -> Combinable:
    """Return the same as an expression, for a query that is needed anyway."""
    if connection.vendor != "postgresql":
        return Value(timezone.now(), output_field=DateTimeField())
    return Func(function="clock_timestamp", output_field=DateTimeField())


def let_others_write() -> None:
    """Leave a gap between two write transactions where the database knows only one writer."""
    if connection.vendor == "sqlite":
        time.sleep(SQLITE_PAUSE)
