"""Django's PostgreSQL with two things spared that every request would pay for."""

import select
from collections.abc import Iterable
from typing import cast

import psycopg
from django.db import DatabaseError, connection
from django.db.backends.postgresql import base
from django.db.backends.utils import CursorWrapper


class DatabaseWrapper(base.DatabaseWrapper):
    health_check_done: bool

    def close_if_health_check_failed(self) -> None:
        """Ask a kept connection only if it has something to say: a server that went away has closed it."""
        if self.connection is None or self.health_check_done or not self._is_quiet():
            super().close_if_health_check_failed()
        else:
            self.health_check_done = True

    def prepared_cursor(self) -> CursorWrapper:
        """Return a cursor whose statements PostgreSQL parses and plans once a connection, instead of each time.

        For few busy statements. Behind a pooler that shares connections by transaction it is switched off
        (DATABASE_PREPARED_STATEMENTS).
        """
        self.close_if_health_check_failed()
        self.ensure_connection()
        with self.wrap_database_errors:
            return cast(CursorWrapper, self._prepare_cursor(psycopg.Cursor(self.connection)))  # type: ignore[attr-defined]

    def _is_quiet(self) -> bool:
        poll = select.poll()
        try:
            poll.register(self.connection.pgconn.socket, select.POLLIN)
        except psycopg.Error:  # closed on our side
            return False
        return not poll.poll(0)


def busy_cursor() -> CursorWrapper:
    """Return a cursor for a statement that is executed all the time: prepared where the database is PostgreSQL."""
    if connection.vendor == "postgresql":
        return cast(DatabaseWrapper, connection).prepared_cursor()
    return connection.cursor()


def is_deadlock(error: DatabaseError) -> bool:
    """Whether two transactions waited for each other, and PostgreSQL ended this one; begun anew it will pass."""
    return isinstance(error.__cause__, psycopg.errors.DeadlockDetected)


def array_of(numbers: Iterable[int]) -> str:
    """Return numbers as PostgreSQL reads an array: psycopg asks each of them how it is to be written."""
    return f"{{{','.join(map(str, numbers))}}}"
