"""One address walks through every feature; then it is looked for wherever the site can have left it."""

import json
import logging
import re
from base64 import b64encode
from collections import Counter
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from uuid import uuid4
from zipfile import ZipFile, is_zipfile

import pytest
from django.apps import apps
from django.conf import settings as project
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from digests import events
from digests.clock import database_now
from newsroom import persons
from newsroom.mail import marks
from newsroom.tasks import purge_all
from subscriptions import wording
from subscriptions.models import ConsentPayload, Subscriber, Suppression
from tests.compliance.post import CONFIRM, enter_letter, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, at, send_form
from tests.torture import backups

ADDRESS = "Kanarienvogel.4711@leser.example"
NEW_ADDRESS = "Umgezogener.Kanarienvogel.4711@leser.example"
MOVE = "/meine-daten/adresse/"
CANARY = "kanarienvogel.4711"
EVIDENCE = "subscriptions_consentpayload"


def rows_with_canary() -> dict[str, int]:
    """Dump the database as a backup does, and count the rows of each table in which the canary stands."""
    found: Counter[str] = Counter()
    table = ""
    for line in backups.dump_lines():
        if inserted := re.match(r'INSERT INTO (?:public\.)?"?(\w+)"?', line):
            table = inserted[1]
        if any(word in line.lower() for word in (CANARY, CANARY.encode().hex())):
            found[table] += 1
    return dict(found)


def files_with_canary() -> list[Path]:
    """Look into the octets of every file: broker, mail folder, logs, journals, media; and SQLite's own, free pages too.

    PostgreSQL keeps its files elsewhere; what a dump of it says is in `rows_with_canary`.
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


def walk_through(post, staff, settings):
    """Lead the address through every feature; return the address it has in the end."""
    daily, weekly, third = make_newsletter(), make_newsletter(), make_newsletter()
    # sign up twice, confirm, add a newsletter, get an issue, be refused the next
    post.subscribe(ADDRESS, daily)
    post.subscribe(ADDRESS, weekly)
    reader, token = post.rights_page(ADDRESS)
    change = {"token": token, "newsletter": third.slug}
    reader.post("/meine-daten/newsletter/", change | {"act": "add", "shown": wording.offer("de").fingerprint})
    [mail] = post.issue(daily)
    post.server.refused[ADDRESS] = f"550 5.1.1 <{ADDRESS}> is unknown here"
    assert post.issue(weekly) == []
    post.server.refused.clear()
    # pause and go on, restrict and lift
    tomorrow = (timezone.localdate() + timedelta(days=1)).isoformat()
    for act in (
        {"act": "pause", "until": tomorrow},
        {"act": "resume"},
        {"act": "restrict"},
        {"act": "lift_restriction"},
    ):
        assert reader.post("/meine-daten/newsletter/", change | act).status_code == 200
    # move to another address, which says the same name
    reader.post(MOVE, {"token": token, "new_address": NEW_ADDRESS})
    assert a_reader().post(link_in(post.to(NEW_ADDRESS)[-1], MOVE)).status_code == 303
    # staff search, look at the evidence, enter a letter with a note, and get one they leave open
    known = Subscriber.objects.get()
    assert known.address == NEW_ADDRESS
    staff.get("/admin/subscriptions/subscriber/", {"q": NEW_ADDRESS})
    assert staff.get(f"/admin/subscriptions/subscriber/{known.pk}/evidence/").status_code == 200
    enter_letter(staff, NEW_ADDRESS, "withdraw", newsletters=[weekly.pk], note=f"Fax von {ADDRESS}, abgelegt")
    enter_letter(staff, NEW_ADDRESS, "access", act="open", note=f"{NEW_ADDRESS} rief an")
    # the provider reports what became of the issue: a bounce for now, and a complaint, with the address in each
    report(settings, mail, RecordType="Bounce", Type="Transient", Email=ADDRESS, Details=f"<{ADDRESS}> is full")
    report(settings, mail, RecordType="SpamComplaint", Type="SpamComplaint", Email=ADDRESS)
    events.process(database_now())
    report(settings, mail, RecordType="Bounce", Type="HardBounce", Email=ADDRESS)  # and one nobody has read yet
    call_command("seal")
    send_form(ADDRESS, third)  # and one sign-up that is never confirmed
    return NEW_ADDRESS


def report(settings, mail, **said):
    """Let a provider report of a mail as Postmark does."""
    settings.ANYMAIL = {"POSTMARK_SERVER_TOKEN": "key", "WEBHOOK_SECRET": "provider:secret"}
    delivery = mail.message["Message-ID"].strip("<>").partition("@")[0]
    body = {"MessageID": str(uuid4()), "ID": 1, "Metadata": {marks.KEY: delivery}, **said}
    proof = "Basic " + b64encode(b"provider:secret").decode()
    answer = Client().post(
        "/webhooks/postmark/tracking/", json.dumps(body), content_type="application/json", HTTP_AUTHORIZATION=proof
    )
    assert answer.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_r31_r33_a_canary_is_exported_from_everywhere_and_then_found_in_the_evidence_only(
    post, caplog, admin_client, settings
):
    caplog.set_level(logging.DEBUG)
    address = walk_through(post, admin_client, settings)

    # what is held is what the reader takes along
    held = rows_with_canary()
    reader, token = post.rights_page(address)
    export = reader.post("/meine-daten/export/", {"token": token})
    taken = b"".join(export.streaming_content) if export.streaming else export.content
    assert export.status_code == 200
    for table in held:
        name = holding_of(table)
        assert name, f"{table} holds an address and stands in no registry"
        held_there = next(held for held in persons.holdings() if held.name == name)
        keys = (ADDRESS.lower(), NEW_ADDRESS.lower())
        assert any(held_there.export(key) for key in keys), f"{table} holds an address that {name} does not export"
        assert f'"{name}"'.encode() in unpacked(taken)

    post.erase(address)
    post.erase(ADDRESS)  # the sign-up that waits there is somebody's who has to say so from that mailbox

    left = rows_with_canary()
    outside = sum(hits for table, hits in left.items() if table != EVIDENCE)
    print(f"Canary: in {len(held)} tables before; after erasure {outside} rows outside the restricted evidence,")
    assert set(held) >= {
        EVIDENCE,
        "subscriptions_subscriber",
        "subscriptions_signup",
        "subscriptions_privacyrequest",
        "subscriptions_addresschange",
        "subscriptions_rightscase",
        "digests_providerevent",
    }
    assert left.keys() == {EVIDENCE}
    assert CANARY not in caplog.text.lower()
    database = Path(str(connection.settings_dict["NAME"])).name
    files = {path.name.startswith(database) for path in files_with_canary()}
    assert files == (
        {True} if connection.vendor == "sqlite" else set()
    )  # the evidence itself is found, so the eye works
    assert Suppression.objects.count() == 2

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
