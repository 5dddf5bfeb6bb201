import re

import pytest

from digests.models import Digest
from tests.compliance.post import LEAVE, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader

pytestmark = pytest.mark.django_db
PAGES = ["/", "/newsletter/", "/meine-daten/", "/datenschutz/", "/impressum/"]


@pytest.fixture
def two(post):
    """One issue as two readers get it."""
    newsletter = make_newsletter()
    for number in range(2):
        post.subscribe(f"leserin{number}@leser.example", newsletter)
    return post.issue(newsletter, articles=5)


def without_personal_links(mail):
    token = link_in(mail, LEAVE).split("/")[-2]
    return [
        re.sub(r"/newsletter/(abmelden|einstellungen|warum)/[\w-]+/", "", part).replace(token, "")
        for part in (mail.text, mail.html)
    ]


def test_r46_all_readers_of_a_newsletter_get_the_same(two):
    assert without_personal_links(two[0]) == without_personal_links(two[1])
    assert two[0].message["Subject"] == two[1].message["Subject"]


def test_r47_nothing_is_loaded_from_elsewhere(two):
    make_newsletter()
    loaded = [a_reader().get(path).content.decode() for path in PAGES] + [mail.html for mail in two]

    sources = [source for page in loaded for source in re.findall(r"(?:src=|<link[^>]*href=)\"([^\"]+)\"", page)]

    assert sources
    assert all(re.match(r"/(?!/)|http://localhost:8000/", source) for source in sources)


def test_r48_nobody_is_watched_while_reading(two):
    sources = [re.findall(r"<img[^>]*src=\"([^\"]+)\"", mail.html) for mail in two]
    targets = [re.findall(r"href=\"([^\"]+/artikel/[^\"]+)\"", mail.html) for mail in two]

    assert sources[0] == sources[1]
    assert targets[0] == targets[1] and targets[0]
    assert all("?" not in target for target in targets[0])
    assert not any(re.search(r"<img[^>]*(?:width|height)=\"[01]\"", mail.html) for mail in two)


def test_r49_pages_and_mails_are_marked_up_for_everyone(two):
    make_newsletter()
    for path in PAGES:
        page = a_reader().get(path).content.decode()
        assert '<html lang="de"' in page and page.count("<h1") == 1
        labels = set(re.findall(r'<label[^>]*for="([^"]+)"', page))
        assert set(re.findall(r'<input type="(?:email|checkbox|text)"[^>]*\bid="([^"]+)"', page)) <= labels
    for mail in two:
        assert '<html lang="de" dir="ltr"' in mail.html and re.search(r"<title>\s*\S", mail.html)
        assert all("alt=" in picture for picture in re.findall(r"<img[^>]*>", mail.html))
        assert all("role=" in table for table in re.findall(r"<table[^>]*>", mail.html.split("-->")[-1]))


def test_e26_e29_text_first_small_and_without_anything_that_acts(two):
    mail = two[0]

    assert mail.message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.message.iter_parts()] == ["text/plain", "text/html"]
    assert len(mail.html.encode()) < 80_000 and len(mail.content) < 200_000
    assert not re.search(r"<(?:script|form|iframe|video)|@import|\bdata:", mail.html)
    for target in re.findall(r"href=\"([^\"]+/artikel/[^\"]+)\"", mail.html):
        assert target in mail.text


def test_e32_the_preview_is_what_the_mail_says(two):
    preview = Digest.objects.get().preheader

    words = " ".join(two[0].text.split())
    assert preview and preview in two[0].html
    assert all(part.strip(" …") in words for part in preview.partition(": ")[2].split(" · "))
