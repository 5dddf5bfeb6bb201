import pytest
from django.core.management import call_command
from django.db import connection

from subscriptions import ledger

pytestmark = pytest.mark.django_db


def test_a_missing_trigger_is_named_and_can_be_created_anew():
    name = "subscriptions_consentrecord_refuses_update"
    on_table = " ON subscriptions_consentrecord" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name}{on_table}")
    assert ledger.missing_triggers() == [name]

    call_command("guard_ledger")

    assert ledger.missing_triggers() == []
