"""Where an address still stands: in every column of every table, and in the files under `var/`.

What is searched for are its forms as typed, as sent to and as compared, with the domain in either spelling, and each as
JSON, a URL or Base64 would write it. It may be found within a longer address: a trace too many rather than one too few.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.db import connection, transaction

from newsroom import persons
from newsroom.mail.addresses import Address

CHUNK = 1_000_000  # of a file in memory at a time, however large it is
ROWS = 2_000
# Values an address cannot stand in.
_NO_TEXT = (bool, int, float, Decimal, date, datetime, time, timedelta, UUID, type(None))


@dataclass(frozen=True, slots=True)
class Trace:
    place: str
    count: int
    is_restricted: bool = False


class Pattern:
    """All forms of an address as one expression."""

    def __init__(self, address: Address) -> None:
        forms = {address.typed, address.canonical, address.key, address.display, address.display.lower()}
        written = forms | {json.dumps(form)[1:-1] for form in forms} | {quote(form) for form in forms}
        encoded = {piece for form in forms for piece in _base64_pieces(form)}
        self.longest = max(map(len, written | encoded))
        self._expression = re.compile(f"(?i:{_any_of(written)})|{_any_of(encoded)}")

    def matches(self, text: str) -> list[re.Match[str]]:
        return list(self._expression.finditer(text))


def find(address: Address) -> Iterator[Trace]:
    """Yield the places where the address stands, tables first."""
    pattern = Pattern(address)
    yield from _in_tables(pattern)
    yield from _in_files(pattern, settings.VAR_DIR)


def _any_of(texts: set[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text)))


def _base64_pieces(form: str) -> Iterator[str]:
    """Yield what Base64 makes of the text at each of the three places within a group it may begin at."""
    for offset in range(3):
        code = base64.b64encode(b"\0" * offset + form.encode()).decode().rstrip("=")
        # The first and the last sign depend on what stands before and after.
        yield code[(0, 2, 3)[offset] : -1]


def _in_tables(pattern: Pattern) -> Iterator[Trace]:
    restricted = {apps.get_model(label)._meta.db_table for label in persons.restricted_models()}
    for table in sorted(connection.introspection.table_names()):
        for column, count in sorted(_columns_with(pattern, table).items()):
            yield Trace(f"table {table}, column {column}", count, table in restricted)


def _columns_with(pattern: Pattern, table: str) -> Counter[str]:
    found: Counter[str] = Counter()
    # A cursor that does not bring the whole table into memory needs a transaction.
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608
        while rows := cursor.fetchmany(ROWS):
            columns = [column[0] for column in cursor.description or ()]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    if not isinstance(value, _NO_TEXT) and pattern.matches(_text(value)):
                        found[column] += 1
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return json.dumps(value, ensure_ascii=False, default=str)


def _in_files(pattern: Pattern, folder: Path) -> Iterator[Trace]:
    for path in sorted(folder.rglob("*")):
        if path in _database_files() or path.is_symlink() or not path.is_file():
            continue
        try:
            count = len(pattern.matches(str(path.relative_to(folder)))) + _count_in_file(pattern, path)
        except FileNotFoundError:  # a message of the broker that was just taken
            continue
        if count:
            yield Trace(f"file {path}", count)


def _database_files() -> set[Path]:
    """Return the files of the database itself: it is searched by its tables."""
    if connection.vendor != "sqlite":
        return set()
    name = str(connection.settings_dict["NAME"])
    return {Path(name + suffix) for suffix in ("", "-wal", "-shm", "-journal")}


def _count_in_file(pattern: Pattern, path: Path) -> int:
    count, rest = 0, ""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            text = rest + chunk.decode("utf-8", "replace")
            matches = pattern.matches(text)
            count += len(matches)
            # What may be cut in two by the end of the chunk is looked at again, what was counted is not.
            rest = text[max(matches[-1].end() if matches else 0, len(text) - pattern.longest) :]
    return count
