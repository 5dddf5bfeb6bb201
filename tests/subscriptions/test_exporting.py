import json
import re
import tracemalloc
from datetime import timedelta
from io import BytesIO
from time import monotonic
from zipfile import ZipFile

import jsonschema_rs
import pytest
from django.conf import settings as project
from django.test import Client
from django.utils import timezone
from django.utils.text import capfirst

from digests import delivery
from digests.models import Delivery, DeliveryBatch, Digest, ProviderEvent
from newsroom import persons
from newsroom.mail.addresses import canonicalise
from subscriptions import consent, evidence, exporting, rectifying, suppression
from subscriptions.consent import Origin
from subscriptions.models import EvidenceView, PrivacyRequest, SignUp, Subscriber, Subscription, Suppression
from tests.compliance.post import freeze
from tests.makers import make_newsletter, make_subscription
from tests.subscriptions.reading import (
    IP,
    exported,
    form_token,
    mails_to,
    open_rights_page,
    send_form,
    subscribe,
)

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"
STAFF = "staff:4711"


def export(address=ADDRESS):
    with ZipFile(BytesIO(exporting.export_file(address, address, now=timezone.now()))) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def data_of(address=ADDRESS):
    return json.loads(export(address)["daten.json"])["data"]


def words(html):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def validator():
    schema = json.loads(exporting.SCHEMA_FILE.read_text(encoding="utf-8"))
    return jsonschema_rs.validator_for(schema, validate_formats=True)


@pytest.fixture
def whole_life():
    """A reader who did all there is, once."""
    now, newsletter = timezone.now(), make_newsletter(name="Der Tag")
    subscribe("Leserin@leser.example", newsletter)
    freeze(newsletter)
    delivery.deliver_due()
    bounce = {"kind": ProviderEvent.Kind.SOFT_BOUNCE, "code": "4.2.2", "state": ProviderEvent.State.DONE}
    ProviderEvent.objects.create(
        delivery=Delivery.objects.get(), source="dsn", key="1", received_at=now, next_attempt_at=now, **bounce
    )
    reader = Subscriber.objects.get()
    staff, page = Origin(source="letter", actor=STAFF), Origin(source="rights_page", ip=IP)
    consent.pause(reader.subscriptions.get(), until=timezone.localdate() + timedelta(days=9), origin=page, now=now)
    consent.restrict(reader, origin=staff, now=now)
    consent.lift_restriction(reader, origin=staff, now=now)
    evidence.note_view(ADDRESS, actor=STAFF, way=EvidenceView.Way.PAGE, now=now)
    rectifying.request_change(reader, canonicalise("neu@leser.example"), origin=page, now=now)
    browser, opened = open_rights_page(ADDRESS)
    browser.post("/meine-daten/export/", {"token": form_token(opened)})
    consent.withdraw_all(reader, origin=staff, now=now)
    suppression.note(ADDRESS, Suppression.Reason.OBJECTION, now)
    SignUp.objects.update(requested_at=now - timedelta(hours=1))
    send_form(ADDRESS, newsletter)
    mails_to(ADDRESS)


def test_the_file_is_what_its_schema_says(whole_life):
    document = json.loads(export()["daten.json"])

    assert [error.message for error in validator().iter_errors(document)] == []
    assert document["schema"] == exporting.SCHEMA
    assert [name for name, rows in document["data"].items() if not rows] == []


def test_the_schema_lies_beside_the_data_and_knows_every_place_and_its_every_field():
    files = export()

    schema = json.loads(files["daten.schema.json"])
    assert set(schema["properties"]["data"]["properties"]) == {holding.name for holding in persons.holdings()}
    for path, part in _objects(schema):
        assert "additionalProperties" in part, path
        for name, field in part["properties"].items():
            assert {"description", "$ref", "properties"} & field.keys(), f"{path}/{name} says nothing"


def _objects(part, path="#"):
    if isinstance(part, dict):
        if part.get("type") == "object" and "properties" in part:
            yield path, part
        for name, inner in part.items():
            yield from _objects(inner, f"{path}/{name}")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.pop("about"),
        lambda document: document["data"].pop("deliveries"),
        lambda document: document["data"]["readers"][0].update(mood="good"),
        lambda document: document["data"]["sign_ups"][0].update(requested_at="gestern"),
        lambda document: document["about"].update(recipients="alle"),
    ],
)
def test_the_schema_refuses_what_it_does_not_say(spoil):
    subscribe(ADDRESS, make_newsletter())
    document = json.loads(export()["daten.json"])

    spoil(document)

    assert not validator().is_valid(document)


def test_every_place_is_told_in_words(whole_life):
    page = words(export()["lesen.html"])

    for holding in persons.holdings():
        if holding.export(ADDRESS):
            for said in (holding.words.title, holding.words.why, holding.words.legal_basis, holding.words.until()):
                assert capfirst(str(said)) in page
    assert Subscription.objects.get().declaration.wording in page


def test_nothing_raw_stands_in_the_words(whole_life):
    PrivacyRequest.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    for page in (export()["lesen.html"], open_rights_page(ADDRESS)[1].content.decode()):
        said = words(page)
        for raw in (
            "rights_page",
            "one_click",
            "mail_sent",
            "address_change",
            "None",
            "True",
            "function",
            "[{",
            "T00:",
            "+01:00",
        ):
            assert raw not in said
        assert not re.search(r"\d{4}-\d\d-\d\dT", said)


def test_the_page_behind_the_link_tells_the_same():
    newsletter = make_newsletter(name="Der Tag")
    subscribe(ADDRESS, newsletter)
    agreed = Subscription.objects.get().consent_text.wording

    page = words(open_rights_page(ADDRESS)[1].content.decode())

    for held in exporting.held(ADDRESS):
        assert str(held.words.title) in page and str(held.words.why) in page and capfirst(held.words.until()) in page
    assert agreed in page and "Link verschickt" in page


def test_what_is_of_staff_or_of_others_stays_here(whole_life):
    files = export()

    assert all(STAFF not in text and "4711" not in text for text in files.values())
    assert {act["actor"] for act in json.loads(files["daten.json"])["data"]["consent_records"]} >= {"reader", "staff"}


def test_the_ip_address_of_a_form_nobody_confirmed_may_be_anybodys():
    newsletter = make_newsletter()
    subscribe(ADDRESS, newsletter)
    SignUp.objects.update(requested_at=timezone.now() - timedelta(hours=1))
    stranger = "198.51.100.9"
    send_form(ADDRESS, make_newsletter(), client=Client(REMOTE_ADDR=stranger))

    files = export()

    rows = json.loads(files["daten.json"])["data"]["sign_ups"]
    [own, others] = sorted(rows, key=lambda row: row["confirmed_at"] is None)
    assert (own["ip"], own["ip_withheld"]) == (IP, False)
    assert (others["ip"], others["ip_withheld"]) == (None, True)
    assert all(stranger not in text for text in files.values())
    asked = [act for act in data_of()["consent_records"] if act["act"] == "requested"]
    assert [act["ip"] for act in asked] == [IP, None]


def test_the_page_reads_alone_loads_nothing_and_runs_nothing(whole_life):
    page = export()["lesen.html"]

    assert not re.search(r"<(script|link|img|iframe|form|object)\b|url\(|@import|\ssrc=|\son\w+=", page)
    assert "default-src 'none'" in page and '<html lang="de">' in page
    assert set(re.findall(r'href="([^"#][^"]*)"', page)) == {
        f"{project.SITE_URL}/datenschutz/",
        f"{project.SITE_URL}/impressum/",
    }
    assert page.count("<h1") == 1
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids


def test_what_someone_typed_cannot_become_part_of_the_page():
    newsletter = make_newsletter(name="<b onclick=x>Tag</b>", description="<script>alert(1)</script>")
    subscribe(ADDRESS, newsletter)

    page = export()["lesen.html"]

    assert "<script" not in page and "<b onclick" not in page and "&lt;script&gt;" in page


def test_the_download_is_a_file_of_its_day_kept_nowhere(time_machine):
    time_machine.move_to("2026-11-22T23:30:00Z", tick=False)  # half past midnight in Berlin
    subscribe(ADDRESS, make_newsletter())
    reader, page = open_rights_page(ADDRESS)

    answer = reader.post("/meine-daten/export/", {"token": form_token(page)})

    assert answer["Content-Disposition"] == 'attachment; filename="meine-daten-2026-11-23.zip"'
    assert answer["Cache-Control"] == "no-store" and answer["Content-Type"] == "application/zip"
    with ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {"daten.json", "lesen.html", "LIESMICH.txt", "daten.schema.json"}
    assert exported(answer)["exported_at"] == "2026-11-23T00:30:00+01:00"


def test_the_note_speaks_the_readers_language_and_names_the_files():
    subscribe(ADDRESS, make_newsletter())
    german = export()["LIESMICH.txt"]
    Subscriber.objects.update(language="en")
    english = export()["LIESMICH.txt"]

    assert "Alles in Worten" in german and "Everything in words" in english
    assert all(name in german for name in ("lesen.html", "daten.json", "daten.schema.json"))


def test_of_an_address_nothing_is_held_about_the_file_says_so():
    files = export("niemand@leser.example")

    assert "nichts gespeichert" in words(files["lesen.html"])
    assert not any(json.loads(files["daten.json"])["data"].values())


def test_what_is_said_of_the_processing_is_as_configured(settings):
    settings.DELIVERY_RETENTION = timedelta(days=77)
    settings.MAIL_PROVIDER = "Brieftaube GmbH"

    files = export()

    about = json.loads(files["daten.json"])["about"]
    assert "Brieftaube GmbH" in about["recipients"] and "Brieftaube GmbH" in files["lesen.html"]
    assert any("77 Tage" in purpose["period"] for purpose in about["purposes"])


def test_ten_years_of_daily_issues_are_a_small_file_soon_made():
    newsletter = make_newsletter()
    subscription = make_subscription(newsletter)
    reader, count = subscription.subscriber, 3652
    _ten_years_of_deliveries(newsletter, reader, count)

    tracemalloc.start()
    begun = monotonic()
    content = exporting.export_file(reader.address, reader.address_key, now=timezone.now())
    seconds, peak = monotonic() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    with ZipFile(BytesIO(content)) as archive:
        document, page = json.loads(archive.read("daten.json")), archive.read("lesen.html").decode()
    print(f"Export of {count} deliveries: {len(content)} octets, {seconds:.2f} s traced, peak {peak / 1e6:.1f} MB.")
    assert len(document["data"]["deliveries"]) == count
    assert len(content) < 150_000 and len(page) < 60_000 and peak < 30e6 and seconds < 20
    assert "3652 Ausgaben" in page


def _ten_years_of_deliveries(newsletter, reader, count):
    today = timezone.localdate()
    dates = [today - timedelta(days=back) for back in range(count)]
    now = timezone.now()
    digests = Digest.objects.bulk_create(
        Digest(newsletter=newsletter, date=date, due_at=now, not_after=now, created_at=now, state="finished")
        for date in dates
    )
    batches = DeliveryBatch.objects.bulk_create(
        DeliveryBatch(digest=digest, number=1, reader_ids=[reader.pk], size=1, state="done", next_attempt_at=now)
        for digest in digests
    )
    Delivery.objects.bulk_create(
        Delivery(digest=batch.digest, batch=batch, subscriber=reader, created_at=now) for batch in batches
    )
