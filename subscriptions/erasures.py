"""The erasure journal: which addresses were erased when, as keyed hashes in a file outside the database.

A restored backup brings erased readers back. The journal was not restored with it, and the database remembers how far
it knows the journal: where the two differ, no mail goes until `manage.py replay_erasures` has erased them again.

A line is written before the erasure commits. So the journal may know one too many (the reader had asked for it all the
same), never one too few.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
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


@transaction.atomic
def note(address_key: str, *, at: datetime) -> None:
    """Write an erasure down, as the last step of its transaction, and move the database's position with it.

    A database that did not know the whole journal before keeps its position, for it has to replay.
    """
    known = _known(lock=True)
    with _locked_journal() as journal:
        is_whole = known == _end_of(journal)
        _append(journal, Erasure(suppression.address_hash(address_key), at))
        end = _end_of(journal)
    if is_whole:
        set_replayed(end, at=at)


def set_replayed(position: Position, *, at: datetime) -> None:
    """Note that this database knows the journal up to a place."""
    values = {"length": position.length, "digest": position.digest, "replayed_at": at}
    ErasureReplay.objects.update_or_create(pk=ROW, defaults=values)


def pending() -> tuple[list[Erasure], Position]:
    """Return the erasures this database does not know, and the place in the journal it will know with them."""
    known = _known()
    try:
        with open(settings.ERASURE_JOURNAL, "rb") as journal:
            end = _end_of(journal)
            start = known.length if _is_in(journal, known) else 0
            journal.seek(start)
            return list(_parse(journal.read(end.length - start))), end
    except FileNotFoundError:
        return [], Position()


def find_obstacle() -> str:
    """Return why no mail may go: the journal says more than this database knows, or is not the one it knew."""
    if _known() == _end() or _adopt():
        return ""
    sleep(COMMIT_PAUSE)
    known, end = _known(), _end()
    if known == end:
        return ""
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
    firsts = [
        ConsentRecord.objects.aggregate(at=Min("at"))["at"],
        Subscriber.objects.aggregate(at=Min("created_at"))["at"],
    ]
    if any(first is not None and erasure.at >= first for first in firsts for erasure in erasures):
        return False
    set_replayed(end, at=timezone.now())
    return True


def is_shortened() -> bool:
    """Say whether the journal is missing or shorter than this database knew it."""
    return _end().length < _known().length


def _known(*, lock: bool = False) -> Position:
    rows = ErasureReplay.objects.filter(pk=ROW)
    if lock:
        ErasureReplay.objects.get_or_create(pk=ROW)
        rows = rows.select_for_update()
    row = rows.first()
    return Position(row.length, row.digest) if row else Position()


def _end() -> Position:
    try:
        with open(settings.ERASURE_JOURNAL, "rb") as journal:
            return _end_of(journal)
    except FileNotFoundError:
        return Position()


def _end_of(journal: BinaryIO) -> Position:
    return _position_at(journal, journal.seek(0, os.SEEK_END))


def _position_at(journal: BinaryIO, length: int) -> Position:
    journal.seek(max(length - LONGEST_LINE, 0))
    last_line = journal.read(min(length, LONGEST_LINE)).removesuffix(b"\n").rpartition(b"\n")[2]
    return Position(length, hashlib.sha256(last_line).hexdigest() if length else "")


def _is_in(journal: BinaryIO, position: Position) -> bool:
    return position.length <= journal.seek(0, os.SEEK_END) and _position_at(journal, position.length) == position


@contextmanager
def _locked_journal() -> Iterator[BinaryIO]:
    path = Path(settings.ERASURE_JOURNAL)
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", opener=lambda file, flags: os.open(file, flags, 0o600)) as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        yield journal
    if is_new:
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
