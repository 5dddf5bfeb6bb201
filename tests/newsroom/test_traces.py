"""Every text is accounted for, and what an erasure left is found."""

import base64
import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from newsroom import persons
from newsroom.mail.addresses import canonicalise
from newsroom.management import traces
from subscriptions import privacy
from subscriptions.consent import Origin
from tests.makers import make_newsletter
from tests.subscriptions.reading import subscribe

TYPED = "Kanari.Vogel@Bücher-Kanari.de"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.VAR_DIR = tmp_path
    return tmp_path


def find_traces(address=TYPED):
    out = StringIO()
    try:
        call_command("find_traces", address, stdout=out)
    except SystemExit as end:
        return end.code, out.getvalue()
    return 0, out.getvalue()


def test_every_model_with_a_text_column_is_registered():
    assert [message for message in run_checks() if message.id == "newsroom.E001"] == []
    assert all(persons.impersonal().values())


def test_a_model_with_a_text_column_nobody_registered_fails_the_check(monkeypatch):
    monkeypatch.delitem(persons._impersonal, "articles.Article")

    errors = [message.msg for message in run_checks() if message.id == "newsroom.E001"]

    assert len(errors) == 1 and "articles.Article" in errors[0]


def test_a_reader_is_found_in_the_tables_and_after_the_erasure_in_the_evidence_only():
    subscribe(TYPED, make_newsletter())
    code, text = find_traces()
    assert code == 1 and "table subscriptions_subscriber, column address: 1\n" in text

    request = privacy.request_link(canonicalise(TYPED), now=timezone.now())
    privacy.erase(request, origin=Origin(source="page"), now=timezone.now())

    code, text = find_traces()
    assert code == 0
    assert "table subscriptions_consentpayload, column body: 5 (restricted evidence)" in text
    assert "outside the restricted evidence: 0" in text


def test_an_address_nobody_knows_leaves_no_trace():
    assert find_traces() == (0, "Traces outside the restricted evidence: 0; within it: 0.\n")


@pytest.mark.parametrize(
    "written",
    [
        "KANARI.VOGEL@BÜCHER-KANARI.DE",
        "kanari.vogel@xn--bcher-kanari-thb.de",
        json.dumps({"to": "Kanari.Vogel@bücher-kanari.de"}),
        "/?email=kanari.vogel%40xn--bcher-kanari-thb.de",
        *(base64.b64encode((" " * n + "an kanari.vogel@bücher-kanari.de!").encode()).decode() for n in range(3)),
    ],
)
def test_a_file_is_searched_for_the_address_however_it_is_written(folder, written):
    written = written.replace("xn--bcher-kanari-thb.de", canonicalise(TYPED).canonical.partition("@")[2])
    (folder / "logs").mkdir()
    (folder / "logs" / "mail.log").write_text(f"sent: {written}\n")

    assert find_traces() == (
        1,
        f"file {folder / 'logs' / 'mail.log'}: 1\nTraces outside the restricted evidence: 1; within it: 0.\n",
    )


def test_a_large_file_is_searched_in_pieces_and_nothing_is_counted_twice(folder, monkeypatch):
    monkeypatch.setattr(traces, "CHUNK", 100)
    line = "x" * 37 + canonicalise(TYPED).canonical + "\n"
    (folder / "old.sql").write_text(line * 50)

    assert find_traces()[1].startswith(f"file {folder / 'old.sql'}: 50\n")


def test_a_table_no_model_knows_is_searched_in_text_json_and_binary():
    kinds = ("text", "jsonb", "bytea") if connection.vendor == "postgresql" else ("text", "text", "blob")
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE TABLE old_import (a {kinds[0]}, b {kinds[1]}, c {kinds[2]}, "Ünüsual" text)')
        key = canonicalise(TYPED).key
        cursor.execute(
            "INSERT INTO old_import VALUES (%s, %s, %s, %s)",
            ["An " + key.upper(), json.dumps({"a": [key]}), key.encode(), None],
        )

    text = find_traces()[1]

    for column in "abc":
        assert f"table old_import, column {column}: 1\n" in text


def test_what_is_no_address_is_refused():
    with pytest.raises(CommandError):
        find_traces("kanari.vogel")


@pytest.mark.sqlite
def test_the_database_file_is_searched_by_its_tables_alone(settings):
    settings.VAR_DIR = Path(connection.settings_dict["NAME"]).parent
    subscribe(TYPED, make_newsletter())

    assert "test.sqlite3" not in find_traces()[1]
