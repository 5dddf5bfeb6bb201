"""The erasure journal: which addresses were erased when, as keyed hashes in a file outside the database.

A restored backup brings erased readers back. The journal was not restored with it, and the database remembers how far
it knows the journal: where the two differ, no mail goes until `manage.py replay_erasures` has erased them again.

A line is written before the erasure commits. So the journal may know one too many (the reader had asked for it all the
same), never one too few.

What is older than the oldest backup anybody might restore is cut off at the front. Places count from the journal's very
beginning all the same: its first line then says how much is gone, so no database has to learn of it.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from time import sleep
from typing import BinaryIO

from django.conf import settings
from django.db import transaction
from django.db.models import Min
from django.utils import timezone
from django.utils.translation import gettext as _

from subscriptions import suppression
from subscriptions.models import ConsentRecord, ErasureReplay, Subscriber

ROW = 1
LONGEST_LINE = 1_000
CUT_MARK = b'{"cut": '
# An erasure that commits at this moment has written its line, and the database will know it at once.
COMMIT_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Erasure:
    address_hash: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the journal: its length up to there, and the hash of the last line before it."""

    length: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Journal:
    """The open file. `cut` is the place up to which it was cut off, `cut_until` the newest erasure that went."""

    file: BinaryIO
    start: int = 0
    cut: Position = Position()
    cut_until: datetime | None = None

    @classmethod
    def of(cls, file: BinaryIO) -> "Journal":
        file.seek(0)
        first = file.readline(LONGEST_LINE)
        if not first.startswith(CUT_MARK):
            return cls(file)
        said = json.loads(first)["cut"]
        until = datetime.fromisoformat(said["until"])
        return cls(file, len(first), Position(said["length"], said["digest"]), until)

    def end(self) -> Position:
        return self.position_at(self._length())

    def position_at(self, length: int) -> Position:
        if length == self.cut.length:
            return self.cut
        kept = length - self.cut.length
        self.file.seek(self.start + max(kept - LONGEST_LINE, 0))
        last_line = self.file.read(min(kept, LONGEST_LINE)).removesuffix(b"\n").rpartition(b"\n")[2]
        return Position(length, hashlib.sha256(last_line).hexdigest())

    def holds(self, position: Position) -> bool:
        return self.cut.length <= position.length <= self._length() and self.position_at(position.length) == position

    def read(self, first: Position, last: Position) -> bytes:
        self.file.seek(self.start + first.length - self.cut.length)
        return self.file.read(last.length - first.length)

    def _length(self) -> int:
        return self.cut.length + self.file.seek(0, os.SEEK_END) - self.start


class Lines:
    """The journal's lines as the store of a rule of retention."""

    def count(self) -> int:
        return len(self._lines())

    def count_due(self, now: datetime) -> int:
        return len(_due(self._lines(), now))

    def purge(self, now: datetime, *, limit: int, note: Callable[[int], None]) -> Iterator[None]:
        if self.count_due(now):
            note(cut_off(now))
            yield

    def _lines(self) -> list[bytes]:
        with _open_journal() as journal:
            return journal.read(journal.cut, journal.end()).splitlines(keepends=True) if journal else []


@transaction.atomic
def note(address_key: str, *, at: datetime) -> None:
    """Write an erasure down, as the last step of its transaction, and move the database's position with it.

    A database that did not know the whole journal before keeps its position, for it has to replay.
    """
    known = _known(lock=True)
    with _locked_journal() as file:
        is_whole = known == Journal.of(file).end()
        _append(file, Erasure(suppression.address_hash(address_key), at))
        end = Journal.of(file).end()
    if is_whole:
        set_replayed(end, at=at)


def set_replayed(position: Position, *, at: datetime) -> None:
    """Note that this database knows the journal up to a place."""
    values = {"length": position.length, "digest": position.digest, "replayed_at": at}
    ErasureReplay.objects.update_or_create(pk=ROW, defaults=values)


def pending() -> tuple[list[Erasure], Position]:
    """Return the erasures this database does not know, and the place in the journal it will know with them."""
    known = _known()
    with _open_journal() as journal:
        if journal is None:
            return [], Position()
        end = journal.end()
        start = known if journal.holds(known) else journal.cut
        return list(_parse(journal.read(start, end))), end


def cut_off(now: datetime) -> int:
    """Take away the lines whose time is over, from the front, and return how many; places behind them stay the same."""
    with _locked_journal() as file:
        journal = Journal.of(file)
        due = _due(journal.read(journal.cut, journal.end()).splitlines(keepends=True), now)
        if not due:
            return 0
        cut = journal.position_at(journal.cut.length + sum(map(len, due)))
        until = max([erasure.at for erasure in _parse(b"".join(due))], default=now)
        if journal.cut_until:
            until = max(until, journal.cut_until)
        head = {"cut": {"length": cut.length, "digest": cut.digest, "until": until.isoformat()}}
        _replace(json.dumps(head).encode() + b"\n" + journal.read(cut, journal.end()))
        return len(due)


def find_obstacle() -> str:
    """Return why no mail may go: the journal says more than this database knows, or is not the one it knew."""
    if _known() == _end() or _adopt():
        return ""
    sleep(COMMIT_PAUSE)
    known, end = _known(), _end()
    if known == end:
        return ""
    if _is_too_old():
        return _(
            "This database is older than the erasure journal reaches back, so it may hold readers who were erased."
            " Restore a younger backup; if there is none, run “manage.py replay_erasures --journal-is-lost”."
        )
    if end.length < known.length:
        return _(
            "The erasure journal is missing or shorter than before. Bring it back to where ERASURE_JOURNAL says; if it"
            " is lost for good, run “manage.py replay_erasures --journal-is-lost”."
        )
    return _("This database does not know all erasures, as after a restored backup. Run “manage.py replay_erasures”.")


def _adopt() -> bool:
    """Let a new database know a journal whose last erasure is older than all it holds: there is nobody to erase."""
    if _known() != Position():
        return False
    erasures, end = pending()
    moments = [erasure.at for erasure in erasures]
    with _open_journal() as journal:
        moments += [journal.cut_until] if journal and journal.cut_until else []
    firsts = [
        ConsentRecord.objects.aggregate(at=Min("at"))["at"],
        Subscriber.objects.aggregate(at=Min("created_at"))["at"],
    ]
    if any(first is not None and moment >= first for first in firsts for moment in moments):
        return False
    set_replayed(end, at=timezone.now())
    return True


def is_incomplete() -> bool:
    """Say whether the journal is missing, shorter than this database knew it, or begins after what it knows."""
    return _end().length < _known().length or (_is_too_old() and not _adopt())


def _is_too_old() -> bool:
    with _open_journal() as journal:
        return journal is not None and _known().length < journal.cut.length


def _known(*, lock: bool = False) -> Position:
    rows = ErasureReplay.objects.filter(pk=ROW)
    if lock:
        ErasureReplay.objects.get_or_create(pk=ROW)
        rows = rows.select_for_update()
    row = rows.first()
    return Position(row.length, row.digest) if row else Position()


def _end() -> Position:
    with _open_journal() as journal:
        return journal.end() if journal else Position()


def _due(lines: Iterable[bytes], now: datetime) -> list[bytes]:
    """Return the lines at the front whose time is over; those torn by a crash go along with them."""
    limit = now - settings.ERASURE_JOURNAL_RETENTION
    old = takewhile(lambda line: line.endswith(b"\n") and all(each.at <= limit for each in _parse(line)), lines)
    return list(old)


@contextmanager
def _open_journal() -> Iterator[Journal | None]:
    """Open the journal for reading; None if there is none."""
    try:
        file = open(settings.ERASURE_JOURNAL, "rb")  # noqa: SIM115 - closed below, where there is one
    except FileNotFoundError:
        yield None
        return
    with file:
        yield Journal.of(file)


@contextmanager
def _locked_journal() -> Iterator[BinaryIO]:
    path = Path(settings.ERASURE_JOURNAL)
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a+b", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(path, file):  # cut off while we waited: this file is no journal any more
                continue
            yield file
        break
    if is_new:
        _sync_folder(path.parent)


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _private(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)


def _replace(content: bytes) -> None:
    """Put another file in the journal's place, whole or not at all."""
    path = Path(settings.ERASURE_JOURNAL)
    aside = path.with_name(path.name + ".new")
    with open(aside, "wb", opener=_private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync_folder(path.parent)


def _append(journal: BinaryIO, erasure: Erasure) -> None:
    """Add a line, after the rest of one that a crash cut off, and wait until the disk has it."""
    end = journal.seek(0, os.SEEK_END)
    journal.seek(max(end - 1, 0))
    torn = b"\n" if end and journal.read(1) != b"\n" else b""
    line = json.dumps({"at": erasure.at.isoformat(), "hash": erasure.address_hash}).encode()
    journal.write(torn + line + b"\n")
    journal.flush()
    os.fsync(journal.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse(text: bytes) -> Iterator[Erasure]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            yield Erasure(entry["hash"], datetime.fromisoformat(entry["at"]))
        except (ValueError, TypeError, KeyError):
            continue  # torn by a crash before its erasure committed
