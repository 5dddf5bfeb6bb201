"""Django's PostgreSQL with some things spared that every request would pay for."""

import select
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import psycopg
from django.db import DatabaseError, connection
from django.db.backends.postgresql import base
from django.db.backends.utils import CursorWrapper
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

# What is no text: a truth value, a whole number (by PostgreSQL's numbers of its types).
_READERS: dict[int, Callable[[bytes], Any]] = {16: b"t".__eq__, 20: int, 21: int, 23: int}


class DatabaseWrapper(base.DatabaseWrapper):
    health_check_done: bool
    _prepared: dict[str, bytes]

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection:
        self._prepared = {}
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
        self.close_if_health_check_failed()
        self.ensure_connection()
        with self.wrap_database_errors:
            return cast(CursorWrapper, self._prepare_cursor(psycopg.Cursor(self.connection)))  # type: ignore[attr-defined]

    def ask(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Execute a busy statement and return its rows: a cursor takes longer than all else about it.

        A value goes as `str` writes it, and PostgreSQL reads it as what the statement has in its place. By a cursor all
        the same within a transaction, which psycopg may have to begin, and where somebody looks on.
        """
        self.close_if_health_check_failed()
        self.ensure_connection()
        is_direct = self.autocommit and self.connection.prepare_threshold is not None
        if not is_direct or self.execute_wrappers or self.queries_logged:
            with self.prepared_cursor() as cursor:
                cursor.execute(statement, cast(list[Any], values))
                return cast(list[tuple[Any, ...]], cursor.fetchall())
        with self.wrap_database_errors:
            return self._rows_of(statement, [None if value is None else str(value).encode() for value in values])

    def _rows_of(self, statement: str, texts: list[bytes | None]) -> list[tuple[Any, ...]]:
        if b"\0" in b"".join(filter(None, texts)):  # there the text would end for libpq
            raise psycopg.DataError("PostgreSQL's texts cannot contain NUL (0x00).")
        name = self._prepared.get(statement) or self._prepare(statement)
        result = self._checked(self.connection.pgconn.exec_prepared(name, cast(list[bytes], texts)))
        columns = [(column, _READERS.get(result.ftype(column), bytes.decode)) for column in range(result.nfields)]
        value_at = result.get_value
        return [
            tuple([None if (value := value_at(row, column)) is None else read(value) for column, read in columns])
            for row in range(result.ntuples)
        ]

    def _prepare(self, statement: str) -> bytes:
        first, *others = statement.split("%s")
        numbered = first + "".join(f"${number}{piece}" for number, piece in enumerate(others, start=1))
        name = f"direct_{len(self._prepared)}".encode()
        self._checked(self.connection.pgconn.prepare(name, numbered.encode()))
        self._prepared[statement] = name
        return name

    def _checked(self, result: PGresult) -> PGresult:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return result
        if self.connection.pgconn.status == ConnStatus.BAD:
            raise psycopg.OperationalError(result.get_error_message())
        raise error_from_result(result)

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


def ask(statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    """Return what PostgreSQL's `ask` does."""
    return cast(DatabaseWrapper, connection).ask(statement, values)


def ask_for_row(statement: str, values: Sequence[object]) -> tuple[Any, ...] | None:
    """Return the first row of what PostgreSQL's `ask` returns."""
    return next(iter(ask(statement, values)), None)


def is_deadlock(error: DatabaseError) -> bool:
    """Whether two transactions waited for each other, and PostgreSQL ended this one; begun anew it will pass."""
    return isinstance(error.__cause__, psycopg.errors.DeadlockDetected)


def array_of(numbers: Iterable[int]) -> str:
    """Return numbers as PostgreSQL reads an array: psycopg asks each of them how it is to be written."""
    return f"{{{','.join(map(str, numbers))}}}"
