from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from newsroom.postgresql.base import ask, ask_for_row

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

AS_TEXT = "SELECT %s::uuid::text, %s::timestamptz = %s::timestamptz, %s::jsonb ->> 'ort', %s::int + 1, %s::inet IS NULL"
COUNT = "INSERT INTO subscriptions_requestcount (network, window_start, count) VALUES (%s, %s, %s) RETURNING count"
COUNTED = "SELECT count(*) FROM subscriptions_requestcount WHERE count >= %s"
NOW = datetime(2026, 11, 23, 9, 0, 0, 120, tzinfo=UTC)


def test_values_arrive_as_what_the_statement_has_in_their_place():
    uuid = uuid4()

    found = ask_for_row(AS_TEXT, [uuid, NOW, "2026-11-23 10:00:00.00012+01:00", '{"ort": "Köln %s"}', 41, None])

    assert found == (str(uuid), True, "Köln %s", 42, True)


def test_each_row_is_told_and_each_column_as_what_it_is():
    words = "SELECT number, number < %s, 'Nr. ' || number, NULL FROM generate_series(1, %s) AS number"

    assert ask(words, [2, 3]) == [(1, True, "Nr. 1", None), (2, False, "Nr. 2", None), (3, False, "Nr. 3", None)]
    assert ask(words, [2, 0]) == []


def test_a_statement_is_parsed_once_a_connection():
    for _ in range(2):
        assert ask_for_row("SELECT %s::text, NULL", ["ä"]) == ("ä", None)
        assert ask_for_row("SELECT 1 WHERE %s::text = ''", ["ä"]) is None

    assert _prepared() == 2
    connection.close()
    assert ask_for_row("SELECT %s::text, NULL", ["ä"]) == ("ä", None)
    assert _prepared() == 1


def _prepared() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'direct%%'")
        return cursor.fetchone()[0]


def test_errors_are_told_as_by_any_cursor():
    assert ask_for_row(COUNT, ["a network", NOW, 3]) == (3,)

    with pytest.raises(IntegrityError, match="one_count_per_network_and_window"):
        ask_for_row(COUNT, ["a network", NOW, 3])
    with pytest.raises(DataError, match="NUL"):
        ask_for_row(COUNT, ["a net\0work", NOW, 3])
    assert ask_for_row(COUNT, ["another", NOW, 1]) == (1,)


def test_a_connection_lost_meanwhile_is_an_operational_error():
    with pytest.raises(OperationalError):
        ask_for_row("SELECT pg_terminate_backend(pg_backend_pid(), %s)", [0])
    with pytest.raises(OperationalError):  # who asks on all the same, as by any cursor
        ask_for_row("SELECT %s::int", [1])
    connection.close_if_unusable_or_obsolete()

    assert ask_for_row("SELECT %s::int", [1]) == (1,)


def test_in_a_transaction_it_is_part_of_it():
    with transaction.atomic():
        assert ask_for_row(COUNT, ["a network", NOW, 3]) == (3,)
        transaction.set_rollback(True)

    assert ask_for_row(COUNTED, [0]) == (0,)


def test_who_looks_on_sees_it():
    with CaptureQueriesContext(connection) as asked:
        assert ask_for_row(COUNTED, [0]) == (0,)

    assert len(asked) == 1


def test_behind_a_pooler_nothing_is_prepared():
    connection.ensure_connection()
    connection.connection.prepare_threshold = None
    try:
        assert ask_for_row(COUNTED, [0]) == (0,)
        assert _prepared() == 0
    finally:
        connection.close()
