"""Django's PostgreSQL with some things spared that every request would pay for."""

import select
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, cast

import psycopg
from django.db import DatabaseError, connection
from django.db.backends.postgresql import base
from django.db.backends.utils import CursorWrapper
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus

# What is no text: a truth value, a whole number (by PostgreSQL's numbers of its types).
_READERS: dict[int, Callable[[bytes], Any]] = {16: b"t".__eq__, 20: int, 21: int, 23: int}


class DirectCursor:
    """A cursor for a prepared statement of many values and one row: psycopg's own takes longer than all else about it.

    A value goes as `str` writes it, and PostgreSQL reads it as what the statement has in its place.
    """

    def __init__(self, connection: psycopg.Connection, names: dict[str, bytes]) -> None:
        self._connection, self._names = connection.pgconn, names
        self._result: psycopg.pq.abc.PGresult | None = None

    def execute(self, statement: str, values: Sequence[object]) -> None:
        texts = [None if value is None else str(value).encode() for value in values]
        if b"\0" in b"".join(filter(None, texts)):  # there the text would end for libpq
            raise psycopg.DataError("PostgreSQL's texts cannot contain NUL (0x00).")
        name = self._names.get(statement) or self._prepare(statement)
        self._result = self._checked(self._connection.exec_prepared(name, cast(list[bytes], texts)))

    def fetchone(self) -> tuple[Any, ...] | None:
        if self._result is None or not self._result.ntuples:
            return None
        return tuple(_read(self._result, column) for column in range(self._result.nfields))

    def close(self) -> None:
        self._result = None

    def _prepare(self, statement: str) -> bytes:
        numbers = count(1)
        pieces = statement.split("%s")
        numbered = pieces[0] + "".join(f"${next(numbers)}{piece}" for piece in pieces[1:])
        name = f"direct_{len(self._names)}".encode()
        self._checked(self._connection.prepare(name, numbered.encode()))
        self._names[statement] = name
        return name

    def _checked(self, result: psycopg.pq.abc.PGresult) -> psycopg.pq.abc.PGresult:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return result
        if self._connection.status == ConnStatus.BAD:
            raise psycopg.OperationalError(result.get_error_message())
        raise error_from_result(result)


def _read(result: psycopg.pq.abc.PGresult, column: int) -> Any:
    value = result.get_value(0, column)
    return None if value is None else _READERS.get(result.ftype(column), bytes.decode)(value)


class DatabaseWrapper(base.DatabaseWrapper):
    health_check_done: bool
    _direct_names: dict[str, bytes]

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection:
        self._direct_names = {}
        return super().get_new_connection(conn_params)

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
        return self._cursor_of(psycopg.Cursor)

    def direct_cursor(self) -> CursorWrapper:
        """Return a cursor for a statement that is a transaction of its own; within one it is `prepared_cursor`'s."""
        return self._cursor_of(self._make_direct)

    def _make_direct(self, connection: psycopg.Connection) -> object:
        if not self.autocommit or connection.prepare_threshold is None:
            return psycopg.Cursor(connection)
        return DirectCursor(connection, self._direct_names)

    def _cursor_of(self, make: Callable[[psycopg.Connection], object]) -> CursorWrapper:
        self.close_if_health_check_failed()
        self.ensure_connection()
        with self.wrap_database_errors:
            return cast(CursorWrapper, self._prepare_cursor(make(self.connection)))  # type: ignore[attr-defined]

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


def direct_cursor() -> CursorWrapper:
    """Return PostgreSQL's `direct_cursor`."""
    return cast(DatabaseWrapper, connection).direct_cursor()


def is_deadlock(error: DatabaseError) -> bool:
    """Whether two transactions waited for each other, and PostgreSQL ended this one; begun anew it will pass."""
    return isinstance(error.__cause__, psycopg.errors.DeadlockDetected)


def array_of(numbers: Iterable[int]) -> str:
    """Return numbers as PostgreSQL reads an array: psycopg asks each of them how it is to be written."""
    return f"{{{','.join(map(str, numbers))}}}"
