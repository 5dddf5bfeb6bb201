"""The ledger proves what was asked, said and done, and shows when it was tampered with (GDPR Art. 7(1)).

A record commits to its payload by a salted hash, so that retention can delete what was said without breaking the chain;
seals chain the records by explicit list. The database refuses to change any of it; `door` is the one exception.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, models, transaction

from subscriptions.models import ConsentPayload, ConsentRecord, ConsentSeal, ConsentText, ConsentTextUse, SealedRecord

GUARDED_MODELS = (ConsentRecord, ConsentPayload, ConsentSeal, SealedRecord, ConsentText, ConsentTextUse)
CARRIED = "carried"  # what a change of address brought along, in its payload
NAMES_OF_CAUSES = ("sign_up", "address_change", "absorbed")
FIRST_PREVIOUS_HASH = "0" * 64
MAX_ENTRIES = 5_000  # of one seal, so that a long silence is caught up in transactions of bearable size
_WRITER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
SEAL_LOCK = 0x6E657773_7365616C  # "newsseal": any number that nobody else in this database uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something a reader, the staff or the system did to a consent. `address_key` says whose; `body` is the proof."""

    type: ConsentRecord.Type
    subject: UUID
    address_key: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Break:
    """Something in the ledger that is not as it was written, and its place: the seal, if it has one, and the record."""

    sentence: str
    seal: int | None = None
    record: int | None = None

    @property
    def place(self) -> tuple[float, int]:
        """Where it stands in the chain: by the seals, what is not sealed yet last; a seal before its records."""
        return (float("inf") if self.seal is None else self.seal, self.record or 0)


def record(act: Act, *, at: datetime) -> ConsentRecord:
    """Write the proof of an act, in the transaction that does it."""
    row, payload = draft(act, at=at)
    proof = ConsentRecord.objects.create(**row)
    ConsentPayload.objects.create(record=proof, **payload)
    return proof


def draft(act: Act, *, at: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of an act's proof and of what it commits to, for who writes both with the act itself."""
    salt = secrets.token_hex(32)
    facts = {"uuid": uuid4(), "type": str(act.type), "at": at, "subject": act.subject}
    commitment = _commitment(**facts, salt=salt, address_key=act.address_key, body=act.body)
    payload = {"address_key": act.address_key, "salt": salt, "body": act.body}
    return {**facts, "commitment": commitment}, payload


def evidence(address_key: str) -> list[dict[str, Any]]:
    """Return everything on record about an address, oldest first, each with the number of its seal."""
    return [_shown(payload) for payload in payloads(address_key)]


def payloads(address_key: str) -> list[ConsentPayload]:
    """Return the payloads about an address, oldest first, with those that came along from a former address.

    The latter are no rows: their rows stand under the former address, and go when its own time has come.
    """
    kept = list(ConsentPayload.objects.filter(address_key=address_key).select_related("record__sealed__seal"))
    found = {payload.record_id: payload for payload in (*_brought_along(kept), *kept)}
    return sorted(found.values(), key=lambda payload: (payload.record.at, payload.record_id))


def to_carry(address_key: str, reader: UUID, *, to: str) -> list[dict[str, Any]]:
    """Return what a change of address carries along: the acts of this reader under the old one, salt and all.

    So the proof of a consent stays whole and can be recomputed, however long the reader stays at the new address. What
    stands there already stays behind: else the proof of who moves to and fro would grow beyond all measure.
    """
    rows = payloads(address_key)
    subjects: set[str] = set()
    causes = {str(reader)}
    while causes - subjects:  # an act names the subject of what it followed from; a mere wish has led to nothing
        subjects |= causes
        acts = [row for row in rows if str(row.record.subject) in subjects]
        acts = [row for row in acts if row.record.type != ConsentRecord.Type.CHANGED]
        causes = {row.body[name] for row in acts for name in NAMES_OF_CAUSES if name in row.body}
    there = {row.record_id for row in payloads(to)}
    return [_packed(row) for row in rows if str(row.record.subject) in subjects and row.record_id not in there]


def without_luggage(body: dict[str, Any]) -> dict[str, Any]:
    """Return what an act said, with the names of the records it carried along instead of their contents.

    This is what its own record commits to; each of those has a commitment of its own.
    """
    if not isinstance(body.get(CARRIED), list):
        return body
    names = [entry.get("record") if isinstance(entry, dict) else entry for entry in body[CARRIED]]
    return {**body, CARRIED: names}


def forget(payloads: models.QuerySet[ConsentPayload]) -> int:
    """Delete what was said, for retention and erasure; the records' commitments stay, and tell nothing without it."""
    with door():
        return payloads.delete()[0]


def seal(now: datetime) -> int:
    """Seal every committed record that has no seal yet and return how many there were. Safe to run side by side."""
    count = 0
    while sealed := _seal_some(now):
        count += sealed
    return count


def verify() -> list[str]:
    """Return a sentence for everything that is not as it was written; none if the ledger is whole."""
    return [found.sentence for found in find_breaks()]


def find_breaks() -> list[Break]:
    """Return everything that is not as it was written, the chain's in its order."""
    guards = [Break(sentence) for sentence in (*_broken_triggers(), *_open_door())]
    return [*guards, *sorted((*_broken_records(), *_broken_seals()), key=lambda found: found.place)]


def first_break(breaks: Iterable[Break]) -> str:
    """Return up to where the chain is whole, and what is the first that is not; nothing if none of it is broken."""
    first = next((found for found in breaks if found.seal or found.record), None)
    if first is None:
        return ""
    whole = "up to the newest seal" if first.seal is None else f"before seal {first.seal}"
    return f"First in the chain ({whole} it is whole): {first.sentence}"


def head() -> ConsentSeal | None:
    """Return the newest seal: who notes its hash outside holds every earlier record fast."""
    return ConsentSeal.objects.order_by("-number").first()


def check_anchor(number: int, seal_hash: str) -> str:
    """Return what is wrong if the chain no longer holds a head that was noted outside; nothing if it does."""
    link = ConsentSeal.objects.filter(number=number).first()
    if link is None:
        return f"Seal {number}, noted outside, is gone: the chain was cut off or written anew."
    if link.hash != seal_hash.lower():
        return f"Seal {number} is not the one noted outside: the chain was written anew."
    return ""


def committed_text(payload: ConsentPayload) -> str:
    """Return the text that a record commits to: the SHA-256 of the salt and this text is the commitment."""
    return _committed(**_facts(payload)).decode()


def sealed_text(link: ConsentSeal) -> str:
    """Return the text whose SHA-256 is the hash of the seal."""
    return _sealed(link).decode()


def missing_triggers() -> list[str]:
    """Return the names of the triggers that should protect the ledger and are not there (or are switched off)."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')")
        else:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        present = {name for (name,) in cursor.fetchall()}
    return sorted(_expected_triggers() - present)


@contextmanager
def door() -> Iterator[None]:
    """Let this transaction delete from the ledger. For retention, and for tests that empty their database; nobody else.

    Changing a record stays impossible even through the door.
    """
    with transaction.atomic():
        _set_door("open")
        yield
        # After an error the rollback closes it, for both databases undo what was set within.
        _set_door("closed")


def _set_door(state: str) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT set_config('newsroom.ledger_door', %s, true)", [state])
        elif state == "open":
            cursor.execute("INSERT OR IGNORE INTO subscriptions_ledgerdoor (id) VALUES (1)")
        else:
            cursor.execute("DELETE FROM subscriptions_ledgerdoor")


def _is_door_open() -> bool:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT coalesce(current_setting('newsroom.ledger_door', true), '') = 'open'")
        else:
            cursor.execute("SELECT EXISTS (SELECT 1 FROM subscriptions_ledgerdoor)")
        return bool(cursor.fetchone()[0])


def _expected_triggers() -> set[str]:
    # SQLite has no TRUNCATE, but INSERT OR REPLACE, which deletes without asking a delete trigger.
    acts = ("update", "delete", "truncate" if connection.vendor == "postgresql" else "replace")
    return {f"{model._meta.db_table}_refuses_{act}" for model in GUARDED_MODELS for act in acts}


def _canonical(value: Any) -> bytes:
    """Return the one way in which a value is written for hashing."""
    return _WRITER.encode(value).encode()


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _commitment(*, salt: str, **facts: Any) -> str:
    return hashlib.sha256(salt.encode() + _committed(**facts)).hexdigest()


def _facts(payload: ConsentPayload) -> dict[str, Any]:
    proof = payload.record
    facts = {"uuid": proof.uuid, "type": str(proof.type), "at": proof.at, "subject": proof.subject}
    return {**facts, "address_key": payload.address_key, "body": payload.body}


def _committed(
    *,
    uuid: UUID,
    type: str,
    at: datetime,
    subject: UUID,
    address_key: str,
    body: dict[str, Any],
) -> bytes:
    facts = {
        "record": str(uuid),
        "type": type,
        "at": _stamp(at),
        "subject": str(subject),
        "address_key": address_key,
        "body": without_luggage(body),
    }
    return _canonical(facts)


def _shown(payload: ConsentPayload) -> dict[str, Any]:
    proof = payload.record
    sealed = getattr(proof, "sealed", None)
    return {
        "record": str(proof.uuid),
        "act": str(proof.type),
        "at": proof.at.astimezone(UTC).isoformat(timespec="seconds"),
        "subject": str(proof.subject),
        "commitment": proof.commitment,
        "seal": sealed.seal.number if sealed else None,
        **{name: value for name, value in payload.body.items() if name != CARRIED},
    }


def _packed(payload: ConsentPayload) -> dict[str, Any]:
    return {
        "record": str(payload.record.uuid),
        "address_key": payload.address_key,
        "salt": payload.salt,
        "body": without_luggage(payload.body),
    }


def _is_packed(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.keys() == {"record", "address_key", "salt", "body"}


def _brought_along(payloads: Iterable[ConsentPayload]) -> list[ConsentPayload]:
    packed = [entry for payload in payloads for entry in payload.body.get(CARRIED, []) if _is_packed(entry)]
    proofs = ConsentRecord.objects.filter(uuid__in=[entry["record"] for entry in packed]).select_related("sealed__seal")
    by_uuid = {str(proof.uuid): proof for proof in proofs}
    return [
        ConsentPayload(
            record=by_uuid[entry["record"]], **{name: entry[name] for name in ("address_key", "salt", "body")}
        )
        for entry in packed
        if entry["record"] in by_uuid
    ]


@transaction.atomic
def _seal_some(now: datetime) -> int:
    _wait_for_turn()
    records = list(ConsentRecord.objects.unsealed().order_by("id")[:MAX_ENTRIES])
    if not records:
        return 0
    last = ConsentSeal.objects.order_by("-number").first()
    new = ConsentSeal(
        number=last.number + 1 if last else 1,
        previous_hash=last.hash if last else FIRST_PREVIOUS_HASH,
        entries=[[proof.pk, proof.commitment] for proof in records],
        sealed_at=now,
    )
    new.hash = _seal_hash(new)
    new.save(force_insert=True)
    SealedRecord.objects.bulk_create([SealedRecord(record=proof, seal=new) for proof in records], batch_size=500)
    return len(records)


def _wait_for_turn() -> None:
    # SQLite needs no lock of ours: its transactions begin as IMMEDIATE, so only one writes at a time.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SEAL_LOCK])


def _seal_hash(link: ConsentSeal) -> str:
    return hashlib.sha256(_sealed(link)).hexdigest()


def _sealed(link: ConsentSeal) -> bytes:
    return _canonical([link.number, link.previous_hash, link.entries, _stamp(link.sealed_at)])


def _broken_triggers() -> Iterator[str]:
    for name in missing_triggers():
        yield f"Trigger {name} is missing: the database would let the ledger be changed."


def _open_door() -> Iterator[str]:
    """`door` closes what it opens; one that stands open was opened by hand, by a row or a setting of the database."""
    if _is_door_open():
        yield "The ledger's door stands open: the database would let records be deleted."


def _broken_records() -> Iterator[Break]:
    filed = models.F("record__sealed__seal__number")
    for payload in ConsentPayload.objects.select_related("record").annotate(filed=filed).iterator(chunk_size=500):
        proof = payload.record
        if not _says_what_it_said(payload):
            yield Break(f"Record {proof.pk} does not say what it said when it was written.", payload.filed, proof.pk)
        elif CARRIED in payload.body and not _is_luggage_whole(payload):
            sentence = f"What record {proof.pk} carries along from a former address is not what was said there."
            yield Break(sentence, payload.filed, proof.pk)


def _says_what_it_said(payload: ConsentPayload) -> bool:
    return _commitment(salt=payload.salt, **_facts(payload)) == payload.record.commitment


def _is_luggage_whole(payload: ConsentPayload) -> bool:
    brought = _brought_along([payload])
    return len(brought) == len(payload.body[CARRIED]) and all(
        _says_what_it_said(each) and without_luggage(each.body) == each.body for each in brought
    )


def _broken_seals() -> Iterator[Break]:
    previous_hash, number = FIRST_PREVIOUS_HASH, 0
    for link in ConsentSeal.objects.order_by("number").iterator(chunk_size=20):
        number += 1
        if link.number != number or link.previous_hash != previous_hash:
            yield Break(f"Seal {link.number} does not follow the one before it.", link.number)
        if link.hash != _seal_hash(link):
            yield Break(f"Seal {link.number} is not what was sealed.", link.number)
        yield from _broken_entries(link)
        previous_hash, number = link.hash, link.number


def _broken_entries(link: ConsentSeal) -> Iterator[Break]:
    listed: dict[int, str] = dict(link.entries)
    present = dict(ConsentRecord.objects.filter(sealed__seal=link).values_list("pk", "commitment"))
    for pk in sorted(listed.keys() | present.keys()):
        if pk not in present:
            yield Break(f"Record {pk} stands in seal {link.number} and is gone.", link.number, pk)
        elif pk not in listed:
            yield Break(f"Record {pk} is filed under seal {link.number}, which does not list it.", link.number, pk)
        elif listed[pk] != present[pk]:
            yield Break(f"Record {pk} is not the one that seal {link.number} lists.", link.number, pk)
