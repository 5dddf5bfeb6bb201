"""One address walks through every feature; then it is looked for wherever the site can have left it."""

import logging
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import pytest
from django.apps import apps
from django.conf import settings as project
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from newsroom import persons
from newsroom.tasks import purge_all
from subscriptions import wording
from subscriptions.models import ConsentPayload, RightsCase, Subscriber, Suppression
from tests.compliance.post import CONFIRM, enter_letter, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, at, send_form

ADDRESS = "Kanarienvogel.4711@leser.example"
CANARY = "kanarienvogel.4711"
EVIDENCE = "subscriptions_consentpayload"


def rows_with_canary() -> dict[str, int]:
    """Look into every column of every table of the database."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            if hits := sum(CANARY in str(row).lower() for row in cursor.fetchall()):
                found[table] = hits
    return found


def files_with_canary() -> list[Path]:
    """Look into the octets of every file: broker, mail folder, logs, journals, media; and SQLite's own, free pages too.

    PostgreSQL keeps its files elsewhere; what it still shows is in `rows_with_canary`.
    """
    folders = {project.VAR_DIR}
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        folders.add(Path(connection.settings_dict["NAME"]).parent)
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    return sorted(path for path in files if CANARY.encode() in path.read_bytes().lower())


def unpacked(taken: bytes) -> bytes:
    """Return all that an export says, whether it is one file or an archive of some."""
    if not is_zipfile(BytesIO(taken)):
        return taken
    with ZipFile(BytesIO(taken)) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def holding_of(table: str) -> str | None:
    """Return the place of the registry that a table belongs to, and so its name in the export."""
    labels = {model._meta.label_lower for model in apps.get_models() if model._meta.db_table == table}
    names = [held.name for held in persons.holdings() if labels & {name.lower() for name in held.models}]
    return names[0] if names else None


@pytest.mark.django_db(transaction=True)
def test_r31_r33_a_canary_is_exported_from_everywhere_and_then_found_in_the_evidence_only(post, caplog, admin_client):
    caplog.set_level(logging.DEBUG)
    daily, weekly, third = make_newsletter(), make_newsletter(), make_newsletter()
    # sign up twice, confirm, add a newsletter, get an issue, be refused the next; staff look, restrict and lift
    post.subscribe(ADDRESS, daily)
    post.subscribe(ADDRESS, weekly)
    reader, token = post.rights_page(ADDRESS)
    act = {"token": token, "act": "add", "newsletter": third.slug, "shown": wording.offer("de").fingerprint}
    reader.post("/meine-daten/newsletter/", act)
    assert len(post.issue(daily)) == 1
    post.server.refused[ADDRESS] = f"550 5.1.1 <{ADDRESS}> is unknown here"
    assert post.issue(weekly) == []
    post.server.refused.clear()
    admin_client.get("/admin/subscriptions/subscriber/", {"q": ADDRESS})
    known = Subscriber.objects.get().pk
    for kind in ("restrict", "lift_restriction", "access"):
        enter_letter(admin_client, ADDRESS, kind, note=f"Rückfrage an {ADDRESS}")
    case = RightsCase.objects.get(kind="access")
    answer = {"outcome": f"Mit der Post geschickt, Zweitschrift an {ADDRESS}"}
    admin_client.post(f"/admin/subscriptions/rightscase/{case.pk}/close/do/", answer)
    assert admin_client.get(f"/admin/subscriptions/subscriber/{known}/evidence/").status_code == 200
    call_command("seal")
    send_form(ADDRESS, third)  # and one sign-up that is never confirmed

    # what is held is what the reader takes along
    held = rows_with_canary()
    reader, token = post.rights_page(ADDRESS)
    export = reader.post("/meine-daten/export/", {"token": token})
    taken = b"".join(export.streaming_content) if export.streaming else export.content
    assert export.status_code == 200
    for table in held:
        name = holding_of(table)
        assert name, f"{table} holds an address and stands in no registry"
        held_there = next(held for held in persons.holdings() if held.name == name)
        assert held_there.export(ADDRESS.lower()), f"{table} holds an address that {name} does not export"
        assert f'"{name}"'.encode() in unpacked(taken)

    post.erase(ADDRESS)

    left = rows_with_canary()
    outside = sum(hits for table, hits in left.items() if table != EVIDENCE)
    print(f"Canary: in {len(held)} tables before; after erasure {outside} rows outside the restricted evidence,")
    assert set(held) >= {EVIDENCE, "subscriptions_subscriber", "subscriptions_signup", "subscriptions_privacyrequest"}
    assert left.keys() == {EVIDENCE}
    assert CANARY not in caplog.text.lower()
    database = Path(str(connection.settings_dict["NAME"])).name
    files = {path.name.startswith(database) for path in files_with_canary()}
    assert files == (
        {True} if connection.vendor == "sqlite" else set()
    )  # the evidence itself is found, so the eye works
    assert Suppression.objects.count() == 1

    purge_all(at(f"{timezone.localdate().year + 4}-01-02T12:00"))

    assert rows_with_canary() == {} and not ConsentPayload.objects.exists()
    in_files = files_with_canary()
    print(f"and after the retention date {len(rows_with_canary())} rows and {len(in_files)} files.")
    assert in_files == []


@pytest.mark.django_db(transaction=True)
def test_r33_of_a_sign_up_that_was_never_confirmed_nothing_is_left(post):
    send_form(ADDRESS, make_newsletter())
    assert a_reader().get(link_in(post.to(ADDRESS)[0], CONFIRM)).status_code == 200

    purge_all(timezone.now() + project.SIGN_UP_RETENTION + timedelta(hours=1))

    assert rows_with_canary() == {} and files_with_canary() == []
