from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from subscriptions import audit, ledger, wording
from subscriptions.ledger import Act
from subscriptions.models import ConsentPayload, ConsentRecord, ConsentSeal, SealedRecord
from tests.makers import make_newsletter, make_subscription

pytestmark = pytest.mark.django_db
TABLES = [model._meta.db_table for model in ledger.GUARDED_MODELS]


def write(count: int = 1, **body: str) -> list[ConsentRecord]:
    return [
        ledger.record(
            Act(
                type=ConsentRecord.Type.REQUESTED,
                subject=uuid4(),
                address_key="leserin@example.com",
                body={"address": "Leserin@example.com", "wording": "Ja, „täglich“ – für 0 €.", **body},
            ),
            at=timezone.now(),
        )
        for _number in range(count)
    ]


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def tamper(*statements: str) -> None:
    """Do what only the owner of the database can: take the triggers away, change something, put them back."""
    taken, put_back = _triggers_away_and_back()
    for sql in (*taken, *statements, *put_back):
        execute(sql)


def _triggers_away_and_back() -> tuple[list[str], list[str]]:
    if connection.vendor == "postgresql":
        away = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in TABLES]
        return ["SET CONSTRAINTS ALL IMMEDIATE", *away], [sql.replace("DISABLE", "ENABLE") for sql in away]
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%_refuses_%'")
        triggers = cursor.fetchall()
    return [f"DROP TRIGGER {name}" for name, _sql in triggers], [sql for _name, sql in triggers]


def test_what_is_written_is_whole():
    write(3)
    ledger.seal(timezone.now())
    write(2)

    assert ledger.verify() == []


def test_every_record_gets_one_seal_and_seals_follow_each_other():
    write(3)
    assert ledger.seal(timezone.now()) == 3
    write(2)
    assert ledger.seal(timezone.now()) == 2
    assert ledger.seal(timezone.now()) == 0

    first, second = ConsentSeal.objects.all()
    assert (first.number, second.number) == (1, 2)
    assert second.previous_hash == first.hash
    assert [len(first.entries), len(second.entries)] == [3, 2]
    assert not ConsentRecord.objects.unsealed().exists()


def test_a_long_silence_is_sealed_in_several_seals(monkeypatch):
    monkeypatch.setattr(ledger, "MAX_ENTRIES", 2)
    write(5)

    assert ledger.seal(timezone.now()) == 5

    assert ConsentSeal.objects.count() == 3
    assert ledger.verify() == []


@pytest.mark.django_db(transaction=True)
def test_sealing_side_by_side_makes_one_chain():
    write(20)

    def seal(_number: int) -> int:
        try:
            return ledger.seal(timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(seal, range(6))) == 20

    assert SealedRecord.objects.count() == 20
    assert ledger.verify() == []


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"])
def test_the_database_refuses_to_change_or_delete(table, statement):
    write()
    ledger.seal(timezone.now())
    text = wording.revise(None, language="de", wording="Ja.", now=timezone.now())
    wording.keep(text, now=timezone.now())
    columns = {"consentpayload": "salt", "sealedrecord": "seal_id", "consenttextuse": "first_at"}
    column = columns.get(table.removeprefix("subscriptions_"), "id")

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        execute(statement.format(table=table, column=column))
    assert ledger.verify() == []


@pytest.mark.postgresql
@pytest.mark.parametrize("table", TABLES)
def test_postgresql_refuses_truncate(table):
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        execute(f"TRUNCATE {table} CASCADE")


@pytest.mark.sqlite
def test_sqlite_refuses_to_replace():
    [record] = write()

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        execute(
            "INSERT OR REPLACE INTO subscriptions_consentrecord SELECT id, uuid, 'confirmed', at, subject, commitment"
            f" FROM subscriptions_consentrecord WHERE id = {record.pk}"
        )


@pytest.mark.sqlite
@pytest.mark.parametrize("of_newsletter", [True, False])
def test_sqlite_refuses_to_replace_a_consent_text_of_the_same_version(of_newsletter):
    newsletter = make_newsletter() if of_newsletter else None
    text = wording.revise(newsletter, language="de", wording="Ja.", now=timezone.now())

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        execute(
            "INSERT OR REPLACE INTO subscriptions_consenttext (newsletter_id, language, version, wording, created_at)"
            f" SELECT newsletter_id, language, version, 'Nein.', created_at FROM subscriptions_consenttext"
            f" WHERE id = {text.pk}"
        )


def test_a_door_left_open_is_found():
    left_open = {
        "sqlite": "INSERT INTO subscriptions_ledgerdoor (id) VALUES (1)",
        "postgresql": "SELECT set_config('newsroom.ledger_door', 'open', true)",
    }
    execute(left_open[connection.vendor])

    assert any("door stands open" in sentence for sentence in ledger.verify())


def test_the_door_lets_payloads_go_but_nothing_change():
    [record] = write()

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), ledger.door():
        execute("UPDATE subscriptions_consentrecord SET type = 'confirmed'")
    ledger.forget(ConsentPayload.objects.filter(record=record))

    assert ConsentRecord.objects.count() == 1 and not ConsentPayload.objects.exists()
    assert ledger.verify() == []


def test_the_door_is_closed_again_after_use_and_after_an_error():
    write(2)
    with ledger.door():
        pass
    with pytest.raises(ValueError, match="oops"), ledger.door():
        raise ValueError("oops")

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        execute("DELETE FROM subscriptions_consentpayload")


def test_a_changed_payload_is_found():
    [record] = write(wording="Ja, wöchentlich.")

    tamper("UPDATE subscriptions_consentpayload SET salt = 'x'")

    assert any(f"Record {record.pk} " in sentence for sentence in ledger.verify())


def test_a_deleted_record_is_found():
    first, _second = write(2)
    ledger.seal(timezone.now())

    tamper(
        f"DELETE FROM subscriptions_sealedrecord WHERE record_id = {first.pk}",
        f"DELETE FROM subscriptions_consentpayload WHERE record_id = {first.pk}",
        f"DELETE FROM subscriptions_consentrecord WHERE id = {first.pk}",
    )

    assert ledger.verify() == [f"Record {first.pk} stands in seal 1 and is gone."]


def test_a_changed_record_is_found():
    [record] = write()
    ledger.seal(timezone.now())

    tamper("UPDATE subscriptions_consentrecord SET commitment = 'x'")

    assert len(ledger.verify()) == 2
    assert all(str(record.pk) in sentence for sentence in ledger.verify())


def test_a_seal_written_anew_breaks_the_chain():
    write(1)
    ledger.seal(timezone.now())
    write(1)
    ledger.seal(timezone.now())

    tamper("UPDATE subscriptions_consentseal SET hash = 'forged' WHERE number = 1")

    broken = ledger.verify()
    assert "Seal 1 is not what was sealed." in broken
    assert "Seal 2 does not follow the one before it." in broken


def test_a_missing_trigger_is_found_by_audit_and_by_the_system_check(capsys):
    name = "subscriptions_consentrecord_refuses_update"
    on = " ON subscriptions_consentrecord" if connection.vendor == "postgresql" else ""
    execute(f"DROP TRIGGER {name}{on}")

    assert any(name in sentence for sentence in ledger.verify())
    with pytest.raises(SystemExit, match="1"):
        call_command("audit")
    from django.core.checks import run_checks

    assert [error.id for error in run_checks(databases=["default"]) if error.id == "subscriptions.E001"]


def test_the_unsealed_tail_may_not_grow_old():
    write()

    assert audit.broken_invariants(timezone.now()) == []
    assert len(audit.broken_invariants(timezone.now() + timedelta(hours=1))) == 1


def test_no_subscription_without_proof():
    subscription = make_subscription()

    assert any(str(subscription.uuid) in sentence for sentence in audit.broken_invariants(timezone.now()))


def test_two_records_of_the_same_words_share_no_commitment():
    assert len({record.commitment for record in write(2)}) == 2
