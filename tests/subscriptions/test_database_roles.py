"""With the roles that docs/ledger.md recommends, the application cannot get past the ledger's triggers (R-11)."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from subscriptions import ledger, wording
from subscriptions.models import ConsentPayload
from tests.subscriptions.test_ledger import execute, write

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]
DOCUMENT = Path(__file__).parents[2] / "docs" / "ledger.md"
RECORDS = "subscriptions_consentrecord"


@pytest.fixture
def as_application():
    """The document's own SQL, then the role it makes, until the test's transaction is rolled back."""
    [sql] = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for statement in filter(str.strip, sql.split(";")):
        execute(statement)
    execute("SET LOCAL ROLE newsroom_app")


@pytest.mark.parametrize(
    "statement",
    [
        f"ALTER TABLE {RECORDS} DISABLE TRIGGER USER",
        f"ALTER TABLE {RECORDS} DISABLE TRIGGER ALL",
        f"DROP TRIGGER {RECORDS}_refuses_update ON {RECORDS}",
        f"ALTER TRIGGER {RECORDS}_refuses_update ON {RECORDS} RENAME TO harmless",
        "CREATE OR REPLACE FUNCTION subscriptions_refuse_change() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NEW; END $$",
        "DROP FUNCTION subscriptions_refuse_change() CASCADE",
        "SET session_replication_role = replica",
        f"DROP TABLE {RECORDS} CASCADE",
        f"TRUNCATE {RECORDS} CASCADE",
        f"UPDATE {RECORDS} SET type = 'confirmed'",
        f"DELETE FROM {RECORDS}",
    ],
)
def test_r11_the_application_cannot_get_past_the_triggers(as_application, statement):
    with pytest.raises(DatabaseError, match=r"permission denied|must be owner"), transaction.atomic():
        execute(statement)

    assert ledger.missing_triggers() == []


def test_the_application_can_do_its_work_in_that_role(as_application):
    [first, _second] = write(2)
    wording.revise(None, language="de", wording="Ja.", now=timezone.now())
    assert ledger.seal(timezone.now() + timedelta(seconds=1)) == 2
    ledger.forget(ConsentPayload.objects.filter(record=first))

    assert ledger.verify() == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("newsroom_app",)


def test_the_door_lets_the_application_delete_payloads_alone(as_application):
    write()

    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic(), ledger.door():
        execute(f"DELETE FROM {RECORDS}")
