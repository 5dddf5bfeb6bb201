"""Whatever is done to the ledger past its triggers is found, and what retention does is not (R-11)."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsroom.mail.addresses import Address, canonicalise
from newsroom.retention import purging
from subscriptions import consent, ledger, links, missing, privacy, retention, wording
from subscriptions.consent import Origin
from subscriptions.ledger import Act
from subscriptions.links import TokenSeed
from subscriptions.models import ConsentPayload, ConsentRecord, ConsentSeal, SignUp, Subscriber
from tests.makers import make_newsletter
from tests.subscriptions.test_ledger import execute, tamper

pytestmark = pytest.mark.django_db
few = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# How many records each of the first seals holds; the last group is left unsealed where a test says so.
groups = st.lists(st.integers(1, 3), min_size=2, max_size=4)

RECORD, PAYLOAD, SEAL, FILED = (
    "subscriptions_consentrecord",
    "subscriptions_consentpayload",
    "subscriptions_consentseal",
    "subscriptions_sealedrecord",
)
CHANGES = [
    (RECORD, "type", "'withdrawn'"),
    (RECORD, "at", "'2020-01-01 00:00:00+00:00'"),
    (RECORD, "subject", "'00000000000000000000000000000000'"),
    (RECORD, "uuid", "'00000000000000000000000000000000'"),
    (RECORD, "commitment", f"'{'0' * 64}'"),
    (PAYLOAD, "address_key", "'other@example.com'"),
    (PAYLOAD, "salt", f"'{'0' * 64}'"),
    (PAYLOAD, "body", """'{"address": "other@example.com"}'"""),
    (SEAL, "number", "9999"),
    (SEAL, "previous_hash", f"'{'1' * 64}'"),
    (SEAL, "hash", f"'{'1' * 64}'"),
    (SEAL, "entries", "'[]'"),
    (SEAL, "sealed_at", "'2020-01-01 00:00:00+00:00'"),
]
KEYS = {RECORD: "id", PAYLOAD: "record_id", SEAL: "id", FILED: "record_id"}


class Undo(Exception):
    pass


class _Undone:
    """Each example begins with an empty ledger and leaves one behind."""

    def __enter__(self):
        self._block = transaction.atomic()
        self._block.__enter__()

    def __exit__(self, kind, error, trace):
        undone = error or Undo()
        with suppress(Undo):
            self._block.__exit__(type(undone), undone, trace)


def build(sizes: list[int]) -> list[ConsentRecord]:
    now = timezone.now()
    records = []
    for size in sizes:
        records += [_write(now) for _number in range(size)]
        ledger.seal(now)
    return records


def _write(now) -> ConsentRecord:
    address = f"{uuid4().hex}@example.com"
    body = {"address": address, "wording": "Ja, „täglich“ – für 0 €."}
    act = Act(type=ConsentRecord.Type.REQUESTED, subject=uuid4(), address_key=address, body=body)
    return ledger.record(act, at=now)


def keys_of(table: str) -> list[int]:
    model = {RECORD: ConsentRecord, PAYLOAD: ConsentPayload, SEAL: ConsentSeal}[table]
    return list(model.objects.order_by("pk").values_list("pk", flat=True))


@few
@given(sizes=groups, change=st.sampled_from(CHANGES), data=st.data())
def test_r11_any_single_change_is_found(sizes, change, data):
    table, column, value = change
    with _Undone():
        build(sizes)
        pk = data.draw(st.sampled_from(keys_of(table)))
        assert ledger.verify() == []

        tamper(f"UPDATE {table} SET {column} = {value} WHERE {KEYS[table]} = {pk}")

        assert ledger.verify()


@few
@given(sizes=groups, data=st.data())
def test_r11_any_removed_sealed_record_is_found(sizes, data):
    with _Undone():
        pk = data.draw(st.sampled_from([record.pk for record in build(sizes)]))

        tamper(*(f"DELETE FROM {table} WHERE {KEYS[table]} = {pk}" for table in (FILED, PAYLOAD, RECORD)))

        assert any(f"Record {pk} stands in seal" in sentence for sentence in ledger.verify())


@few
@given(sizes=groups, data=st.data())
def test_r11_any_removed_seal_but_the_newest_is_found_by_the_chain(sizes, data):
    """Of the newest only the head noted outside tells; see test_anchoring."""
    with _Undone():
        build(sizes)
        number = data.draw(st.integers(1, len(sizes) - 1))
        pk = ConsentSeal.objects.get(number=number).pk

        tamper(f"DELETE FROM {FILED} WHERE seal_id = {pk}", f"DELETE FROM {SEAL} WHERE id = {pk}")

        assert f"Seal {number + 1} does not follow the one before it." in ledger.verify()


@few
@given(sizes=groups, data=st.data())
def test_r11_any_two_seals_put_in_another_order_are_found(sizes, data):
    with _Undone():
        build(sizes)
        pair = data.draw(st.permutations(range(1, len(sizes) + 1)))[:2]
        one, other = (ConsentSeal.objects.get(number=number) for number in pair)

        tamper(
            f"UPDATE {SEAL} SET number = 9999 WHERE id = {one.pk}",
            f"UPDATE {SEAL} SET number = {one.number} WHERE id = {other.pk}",
            f"UPDATE {SEAL} SET number = {other.number} WHERE id = {one.pk}",
        )

        assert ledger.verify()


@few
@given(sizes=groups, data=st.data())
def test_r11_any_two_payloads_exchanged_are_found(sizes, data):
    with _Undone():
        records = data.draw(st.permutations(build(sizes)))[:2]
        one, other = (ConsentPayload.objects.get(record=record) for record in records)

        tamper(
            f"UPDATE {PAYLOAD} SET salt = '{other.salt}', address_key = '{other.address_key}'"
            f" WHERE record_id = {one.pk}",
            f"UPDATE {PAYLOAD} SET salt = '{one.salt}', address_key = '{one.address_key}' WHERE record_id = {other.pk}",
        )

        broken = " ".join(ledger.verify())
        assert f"Record {one.pk} " in broken and f"Record {other.pk} " in broken


@few
@given(sizes=groups, data=st.data())
def test_r11_any_record_inserted_under_an_old_seal_is_found(sizes, data):
    with _Undone():
        build(sizes)
        seal = ConsentSeal.objects.get(number=data.draw(st.integers(1, len(sizes))))
        forged = _write(timezone.now() - timedelta(days=400))

        execute(f"INSERT INTO {FILED} (record_id, seal_id) VALUES ({forged.pk}, {seal.pk})")

        assert f"Record {forged.pk} is filed under seal {seal.number}, which does not list it." in ledger.verify()


@few
@given(sizes=groups, data=st.data())
def test_r11_a_seal_inserted_into_the_chain_is_found(sizes, data):
    with _Undone():
        build(sizes)
        after = ConsentSeal.objects.get(number=data.draw(st.integers(1, len(sizes) - 1)))
        later = list(ConsentSeal.objects.filter(number__gt=after.number).order_by("-number"))
        forged = ConsentSeal(number=after.number + 1, previous_hash=after.hash, entries=[], sealed_at=timezone.now())
        forged.hash = ledger._seal_hash(forged)

        tamper(*(f"UPDATE {SEAL} SET number = {seal.number + 1} WHERE id = {seal.pk}" for seal in later))
        forged.save(force_insert=True)

        assert ledger.verify()


@few
@given(sizes=groups, data=st.data())
def test_r11_no_legal_deletion_of_payloads_is_reported(sizes, data):
    with _Undone():
        records = build(sizes)
        chosen = data.draw(st.lists(st.sampled_from([record.pk for record in records]), unique=True))

        ledger.forget(ConsentPayload.objects.filter(pk__in=chosen))
        build([1])

        assert ledger.verify() == []
        assert ConsentPayload.objects.count() == len(records) - len(chosen) + 1


# A reader's life: what may happen to him, and how many days pass before the next thing.
lives = st.lists(
    st.tuples(
        st.sampled_from(["sign up", "confirm", "leave", "restrict", "free", "erase"]),
        st.sampled_from([0, 1, 8, 100, 365, 1000, 1200]),
    ),
    min_size=1,
    max_size=8,
)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
ORIGIN = Origin(source="test")


def live(life: list[tuple[str, int]], address: str) -> Iterator[datetime]:
    """Lead a reader's life by the functions that readers' pages call, and yield when things were purged."""
    now = BEGINNING
    for act, days in life:
        _act(act, canonicalise(address), now)
        for _half in range(2):
            now += timedelta(days=days) / 2
            purging.purge(now)
            yield now


def _act(act: str, address: Address, now: datetime) -> None:
    reader = Subscriber.objects.filter(address_key=address.key).first()
    if act == "sign up":
        consent.request_sign_up(address, wording.offer("de"), origin=ORIGIN, now=now)
    elif act == "confirm":
        sign_up = consent.request_sign_up(address, wording.offer("de"), origin=ORIGIN, now=now)
        seed = TokenSeed(sign_up.nonce, sign_up.token_hash)
        consent.confirm(links.derive_token(links.Purpose.CONFIRM, sign_up.uuid, seed), origin=ORIGIN, now=now)
    elif act == "erase":
        privacy.erase_everywhere(address.key, origin=ORIGIN, now=now)
    elif reader:
        change = {"leave": consent.withdraw_all, "restrict": consent.restrict, "free": consent.lift_restriction}[act]
        change(reader, origin=ORIGIN, now=now)


def _answered_for(now: datetime) -> list[int]:
    """Return the payloads whose loss must show: those of acts young enough, and those of who is a reader today."""
    readers = Subscriber.objects.exclude(subscriptions__state="ended", restricted_at=None).values("uuid")
    sign_ups = SignUp.objects.values("uuid")
    acts = ConsentPayload.objects.exclude(record__type__in=retention.OF_SIGN_UPS)
    young = acts.filter(record__at__gte=retention.evidence_limit(now))
    of_readers = acts.filter(record__subject__in=readers).exclude(record__type="erased")
    waiting = ConsentPayload.objects.filter(record__subject__in=sign_ups)
    return sorted({payload.pk for some in (young, of_readers, waiting) for payload in some})


@settings(few, max_examples=15)
@given(life=lives)
def test_r37_no_run_of_the_purge_is_ever_reported(life):
    with _Undone():
        make_newsletter(slug="der-tag", name="Der Tag")

        for now in live([("confirm", 1), *life, ("leave", 1000), ("leave", 1200)], "leserin@example.com"):
            assert list(missing.find(now)) == []
        assert ledger.verify() == []


@settings(few, max_examples=15)
@given(life=lives, data=st.data())
def test_r13_any_proof_that_is_removed_before_its_time_is_reported(life, data):
    with _Undone():
        make_newsletter(slug="der-tag", name="Der Tag")
        *_before, now = live([("confirm", 1), *life], "leserin@example.com")
        if not (keys := _answered_for(now)):
            return
        gone = data.draw(st.sets(st.sampled_from(keys), min_size=1, max_size=10))

        ledger.forget(ConsentPayload.objects.filter(pk__in=gone))

        assert {f"What record {pk} said was deleted before its time." for pk in gone} <= set(missing.find(now))
