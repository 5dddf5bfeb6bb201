"""Whoever asks gets a complete and checkable answer, and every look is noted (R-11, R-14)."""

import hashlib
import json
from datetime import timedelta
from io import BytesIO

import pytest
from django.core.management import call_command
from django.utils import timezone
from pypdf import PdfReader

from newsroom.tasks import purge_all
from subscriptions import evidence, evidence_pdf, ledger, suppression, wording
from subscriptions.models import EvidenceView, Subscriber
from tests.makers import make_newsletter
from tests.subscriptions.reading import subscribe
from tests.subscriptions.test_staff import staff_client

pytestmark = pytest.mark.django_db
ADDRESS = "Leserin@example.com"
ASK = "/admin/subscriptions/evidenceview/address/"


@pytest.fixture
def reader() -> Subscriber:
    subscribe(ADDRESS, make_newsletter(name="Die Woche – für Łódź"))
    ledger.seal(timezone.now())
    return Subscriber.objects.get()


def test_r11_a_typed_address_shows_the_form_the_mail_and_every_act(admin_client, reader, settings):
    page = admin_client.post(ASK, {"address": "LESERIN@Example.com", "way": "page"}).content.decode()

    assert wording.DECLARATION["de"].format(publisher=settings.PUBLISHER["name"]) in page
    assert "Die Woche – für Łódź" in page and "höchstens einer Ausgabe am Tag" in page
    assert "sha256:" in page and "Betreff" in page
    positions = [page.index(evidence.ACTS[act]) for act in ("requested", "mail_sent", "confirmed")]
    assert positions == sorted(positions)
    assert " UTC (" in page and "IP-Adresse" in page and "reader" in page


def test_r11_a_third_person_can_recompute_the_proof_from_the_json_file(admin_client, reader):
    document = json.loads(admin_client.post(ASK, {"address": ADDRESS, "way": "json"}).content)

    seals = {seal["number"]: seal for seal in document["seals"]}
    assert [act["act"] for act in document["acts"]] == ["requested", "mail_sent", "confirmed"]
    for act in document["acts"]:
        proof = act["proof"]
        assert hashlib.sha256((proof["salt"] + proof["committed"]).encode()).hexdigest() == act["commitment"]
        assert json.loads(proof["committed"])["record"] == act["record"]
        sealed = seals[proof["seal"]]["sealed"]
        assert hashlib.sha256(sealed.encode()).hexdigest() == seals[proof["seal"]]["hash"]
        assert [act["number"], act["commitment"]] in json.loads(sealed)[2]


def test_r11_the_printed_document_is_a4_with_its_fonts_and_whole_at_any_length(admin_client, reader):
    answer = admin_client.post(ASK, {"address": ADDRESS, "way": "pdf"})

    assert answer["Content-Type"] == "application/pdf" and "example" not in answer["Content-Disposition"]
    assert answer.content.startswith(b"%PDF-") and answer.content.rstrip().endswith(b"%%EOF")
    assert b"595.2756 841.8898" in answer.content
    assert b"/FontFile2" in answer.content


def test_r11_the_printed_document_shows_names_in_the_letters_of_all_europe(admin_client):
    names = "Ęžő şŁ ð ẞ – Ελλάδα, Болгария, Україна, Việt"
    subscribe(ADDRESS, make_newsletter(name=names))

    printed = admin_client.post(ASK, {"address": ADDRESS, "way": "pdf"}).content

    text = " ".join(page.extract_text() for page in PdfReader(BytesIO(printed)).pages)
    assert names in " ".join(text.split()) and "[U+" not in text


def test_a_letter_the_font_lacks_is_printed_as_its_number():
    evidence_pdf._load_fonts()

    assert evidence_pdf._marked_up("„Straße“ <5 €>") == "„Straße“ &lt;5 €&gt;"
    assert evidence_pdf._marked_up("日") == "[U+65E5]"


@pytest.mark.parametrize("way", ["page", "json", "pdf"])
def test_r14_each_view_and_download_is_noted_without_the_address(client, reader, way):
    staff = staff_client(client, "view_evidence")

    assert staff.post(ASK, {"address": ADDRESS, "way": way}).status_code == 200

    view = EvidenceView.objects.get()
    assert view.address_hash == suppression.address_hash(reader.address_key)
    assert (view.way, view.actor) == (way, f"staff:{staff.session['_auth_user_id']}")
    listed = staff.get("/admin/subscriptions/evidenceview/").content.decode()
    assert "redaktion" in listed and "leserin" not in listed.lower()


def test_r14_the_readers_page_leads_there_and_only_its_own_permission_opens_it(client, reader):
    page = f"/admin/subscriptions/subscriber/{reader.pk}/"
    staff = staff_client(client, "view_subscriber", "view_evidence")

    assert f"{page}evidence/" in staff.get(f"{page}change/").content.decode()
    assert staff.get(f"{page}evidence/").status_code == 200
    assert EvidenceView.objects.count() == 1
    assert staff.get(ASK).status_code == 200


def test_r14_without_the_permission_nothing_is_shown_and_nothing_noted(client, reader):
    staff = staff_client(client, "view_subscriber", "view_consentpayload")

    assert staff.get(f"/admin/subscriptions/subscriber/{reader.pk}/evidence/").status_code == 403
    assert staff.post(ASK, {"address": ADDRESS, "way": "json"}).status_code == 403
    assert not EvidenceView.objects.exists()


def test_what_is_no_address_is_answered_with_a_word_and_not_noted(admin_client):
    page = admin_client.post(ASK, {"address": "leserin", "way": "page"})

    assert page.status_code == 200 and "id_address_error" in page.content.decode()
    assert not EvidenceView.objects.exists()


def test_an_address_nothing_is_known_about_gets_a_document_that_says_so(admin_client):
    page = admin_client.post(ASK, {"address": ADDRESS, "way": "page"}).content.decode()

    assert "nichts verzeichnet" in page


def test_notes_of_views_go_after_their_time(settings):
    now = timezone.now()
    evidence.note_view("leserin@example.com", actor="staff:1", way=EvidenceView.Way.PAGE, now=now)

    assert purge_all(now + settings.EVIDENCE_VIEW_RETENTION - timedelta(seconds=1))["views_of_evidence"] == 0
    assert purge_all(now + settings.EVIDENCE_VIEW_RETENTION)["views_of_evidence"] == 1


def test_the_command_writes_the_document_and_notes_that_it_did(tmp_path, reader):
    call_command("evidence", ADDRESS, pdf=tmp_path / "nachweis.pdf")

    assert (tmp_path / "nachweis.pdf").read_bytes().startswith(b"%PDF-")
    assert EvidenceView.objects.get().way == EvidenceView.Way.COMMAND


def test_a_broken_ledger_is_said_so_on_the_document(monkeypatch, reader):
    found = evidence.collect(ADDRESS, reader.address_key, now=timezone.now())
    broken = evidence.Evidence(found.address, found.made_at, found.entries, ("Record 1 is gone.",), found.head)

    assert any("nicht unversehrt" in block.text for block in evidence.blocks(broken))
