"""What every public page promises: no cookie, no foreign host, the headers, the imprint."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from django.utils import translation

from tests.makers import make_article, make_newsletter, make_picture

pytestmark = pytest.mark.django_db

READING_PAGES = ["/", "/datenschutz/", "/impressum/"]
PAGES = [
    *READING_PAGES,
    "/newsletter/",
    "/meine-daten/",
    "/gibt-es-nicht/",
    "/robots.txt",
    "/health/live",
    "/health/ready",
]


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def loaded(self) -> list[str]:
        """The addresses a browser fetches without being asked."""
        links = [link["href"] for link in self.all("link") if link.get("rel") not in {"canonical", "prev", "next"}]
        sources = [attributes["src"] for _, attributes in self.tags if "src" in attributes]
        return links + sources + [part for _, a in self.tags for part in a.get("srcset", "").split(",") if part]


def crawl(client: Client) -> dict[str, Page]:
    """Read every page that links lead to from the front page."""
    pages: dict[str, Page] = {}
    waiting = ["/", "/gibt-es-nicht/"]
    while waiting:
        address = waiting.pop()
        if address in pages:
            continue
        response = client.get(address)
        pages[address] = Page(response.content.decode())
        links = [urlsplit(link.get("href", "")) for link in pages[address].all("a")]
        waiting += [link.path for link in links if link.path.startswith("/") and not link.netloc]
    return pages


@pytest.fixture
def site(client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    make_newsletter()
    for _ in range(3):
        make_article(image=make_picture(size=(120, 90)), image_alt="Eine Brücke")
    return client


@pytest.mark.parametrize("address", PAGES)
def test_reading_sets_no_cookie(site, address):
    response = site.get(address)

    assert "Set-Cookie" not in response.headers
    assert "Cookie" not in response.headers.get("Vary", "")


@pytest.mark.parametrize("address", PAGES)
def test_every_answer_carries_the_security_headers(site, address):
    headers = site.get(address).headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"


def test_a_session_is_opened_for_the_admin_alone(site, admin_client):
    assert admin_client.get("/admin/").wsgi_request.user.is_staff
    for address in PAGES:
        request = admin_client.get(address).wsgi_request
        assert not hasattr(request, "session") and not hasattr(request, "user"), address


def test_the_policy_kept_is_the_one_that_the_settings_say(site):
    said = dict(part.split(" ", 1) for part in site.get("/")["Content-Security-Policy"].split("; "))

    assert said == {name: " ".join(values) for name, values in settings.CONTENT_SECURITY_POLICY["DIRECTIVES"].items()}


def test_no_page_loads_anything_from_elsewhere_or_runs_a_script(site):
    pages = crawl(site)

    assert len(pages) >= 10
    for address, page in pages.items():
        assert not page.all("script"), address
        assert not [a for _, a in page.tags if "style" in a or any(name.startswith("on") for name in a)], address
        assert not page.all("style"), address
        for loaded in page.loaded():
            assert not urlsplit(loaded).netloc, (address, loaded)


def test_the_style_sheet_loads_nothing(settings):
    sheet = (settings.BASE_DIR / "newsroom/static/newsroom/site.css").read_text()

    assert not re.search(r"url\(|@import|@font-face", sheet)


def test_every_page_has_one_heading_its_language_and_a_way_to_the_imprint(site):
    for address, page in crawl(site).items():
        assert page.all("html")[0]["lang"] == "de", address
        assert len(page.all("h1")) == 1, address
        links = {link.get("href") for link in page.all("a")}
        assert {"/impressum/", "/datenschutz/", "/newsletter/", "/meine-daten/"} <= links, address


def test_every_link_of_the_site_leads_somewhere(site):
    for address in crawl(site):
        assert site.get(address).status_code == (404 if address == "/gibt-es-nicht/" else 200), address


def test_pictures_say_how_large_they_are_so_that_nothing_jumps(site):
    for address, page in crawl(site).items():
        for picture in page.all("img"):
            assert picture["width"] == "120", address
            assert picture["height"] == "90", address
            assert "alt" in picture, address


@pytest.mark.parametrize("address", READING_PAGES)
def test_a_page_is_asked_for_again_by_its_etag(site, address):
    first = site.get(address)

    again = site.get(address, headers={"If-None-Match": first["ETag"]})

    assert "public" in first["Cache-Control"]
    assert again.status_code == 304
    assert not again.content


@pytest.mark.parametrize("address", READING_PAGES)
def test_reading_pages_are_for_reading(site, address):
    assert site.post(address).status_code == 405


def test_the_imprint_names_the_publisher(client, settings):
    page = client.get("/impressum/").content.decode()

    for name, value in settings.PUBLISHER.items():
        assert value in page, name


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("CONFIRMATION_LIFETIME", timedelta(hours=47), "47"),
        ("SIGN_UP_RETENTION", timedelta(days=11), "11"),
        ("RIGHTS_LINK_LIFETIME", timedelta(hours=23), "23"),
        ("RIGHTS_FORM_LIFETIME", timedelta(minutes=37), "37"),
        ("DELIVERY_RETENTION", timedelta(days=83), "83"),
        ("EVIDENCE_RETENTION_YEARS", 5, "31. Dezember des 5. Jahres"),
        ("PRIVACY_REQUEST_RETENTION", timedelta(days=9 * 365), "9"),
        ("LOG_RETENTION", timedelta(days=13), "13"),
        ("BACKUP_RETENTION", timedelta(days=41), "41"),
        ("NETWORK_COUNT_RETENTION", timedelta(hours=19), "19"),
        ("MAIL_PROVIDER", "Posthaus GmbH, Kiel", "Posthaus GmbH, Kiel"),
        ("MAIL_PROVIDER", "Posthaus GmbH, Kiel", "Art. 28 DSGVO"),
        ("HOSTING_PROVIDER", "Rechenhaus GmbH, Jena", "Rechenhaus GmbH, Jena"),
        ("SUPERVISORY_AUTHORITY", "die Aufsicht in Kiel", "die Aufsicht in Kiel"),
        ("THIRD_COUNTRY_TRANSFER", "Übermittelt wird nach Kanada.", "Übermittelt wird nach Kanada."),
        ("DPO", {"name": "Dr. Dora Schutz", "email": "dora@wochenblitz.example"}, "dora@wochenblitz.example"),
        ("EVIDENCE_IP", "none", "speichern wir dabei nicht"),
        ("EVIDENCE_IP", "truncated", "gekürzt"),
    ],
)
def test_the_privacy_page_says_what_is_configured(client, settings, name, value, shown):
    setattr(settings, name, value)

    assert re.search(rf"(?<!\d){re.escape(shown)}", client.get("/datenschutz/").content.decode())


@pytest.mark.parametrize(
    "item",
    [
        "Verantwortlich", "Datenschutzbeauftragte", "Art. 6 Abs. 1 Buchst. a", "Art. 6 Abs. 1 Buchst. f",
        "§ 7 Abs. 2 Nr. 2 UWG", "Europäischen Union", "Art. 15", "Art. 16", "Art. 17", "Art. 18", "Art. 20", "Art. 21",
        "Art. 77", "Art. 7 Abs. 3", "Art. 22", "Art. 8", "16 Jahre", "§ 25 TDDDG", "keine Cookies", "keine Zählpixel",
    ],
)  # fmt: skip
def test_the_privacy_page_has_every_item_the_law_asks_for(client, item):
    assert item in client.get("/datenschutz/").content.decode()


def test_the_legal_pages_exist_in_every_language(client, settings):
    for language, _ in settings.LANGUAGES:
        for address in ("/datenschutz/", "/impressum/"):
            with translation.override(language):
                assert f'<div class="page page-narrow" lang="{language}">' in client.get(address).content.decode()


def test_robots_may_read_all_but_the_admin(client):
    assert client.get("/robots.txt").content.decode() == "User-agent: *\nDisallow: /admin/\n"


def test_a_picture_is_served_to_be_kept(client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    (tmp_path / "bild.jpg").write_bytes(b"a picture")

    response = client.get("/media/bild.jpg")

    assert b"".join(response.streaming_content) == b"a picture"
    assert response["Cache-Control"] == "public, max-age=86400"
    assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert client.get("/media/").status_code == 404
    assert client.get("/media/../settings.py").status_code in {400, 404}


def test_the_mailbox_is_not_there_outside_the_demo(client):
    assert client.get("/postfach/").status_code == 404


def test_an_article_with_its_form_is_asked_for_again_by_its_etag_for_a_minute(site, time_machine):
    article = make_article()
    time_machine.move_to("2030-01-01T10:00:01+00:00", tick=False)
    first = site.get(article.get_absolute_url())
    time_machine.move_to("2030-01-01T10:00:58+00:00", tick=False)

    again = site.get(article.get_absolute_url(), headers={"If-None-Match": first["ETag"]})

    assert b'name="stamp"' in first.content
    assert again.status_code == 304


def test_a_change_of_an_article_is_seen_at_once_by_who_asks_again(site):
    article = make_article()
    first = site.get(article.get_absolute_url())
    article.headline = "Stadtrat verschiebt Neubau"
    article.save()

    again = site.get(article.get_absolute_url(), headers={"If-None-Match": first["ETag"]})

    assert again.status_code == 200 and "Stadtrat verschiebt Neubau" in again.content.decode()
