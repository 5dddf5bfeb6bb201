import difflib
import re
from email import message_from_bytes, policy
from html.parser import HTMLParser
from io import BytesIO
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.core.files.base import ContentFile
from django.utils import timezone
from PIL import Image

from digests import compilation, rendering
from digests.models import Digest
from newsroom.articles.models import Article
from subscriptions import links
from tests.makers import make_article, make_digest, make_entry, make_newsletter, make_section, make_subscription

pytestmark = pytest.mark.django_db

PICTURE = "http://localhost:8000/media/articles/lauenfelds-hafen-bekommt-eine-containerlinie-zur-kueste.jpg"
THUMBNAIL = "http://localhost:8000/media/digests/a56d9a2078272be96bbd23a2-240x180.jpg"
PERSONAL = (links.unsubscribe_url, links.preferences_url, links.why_url)
TEASER = (
    "Dreimal pro Woche soll ein Binnenschiff den Seehafen ansteuern und damit Tausende Lastwagenfahrten ersetzen. "
    "Ob die Rechnung aufgeht, hängt an zwei Brücken und am Wasserstand der Alse."
)


class Elements(HTMLParser):
    """The start tags of a page, with their attributes, and what is written between them."""

    def __init__(self, html):
        super().__init__()
        self.found, self.words, self._style = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._style += tag == "style"

    def handle_endtag(self, tag):
        self._style -= tag == "style"

    def handle_data(self, data):
        if not self._style:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def make_large_digest(count=30):
    """As many articles as a digest may hold, each with a picture and words as long as they come."""
    digest = make_digest(articles=0)
    sections = [make_section() for _ in range(6)]
    for position in range(1, count + 1):
        make_entry(
            digest,
            position=position,
            section=sections[(position - 1) * 6 // count].name,
            headline=f"Lauenfelds Hafen bekommt eine Containerlinie zur Küste ({position})",
            teaser=TEASER,
            image_url=PICTURE,
            thumbnail_url=THUMBNAIL,
            image_alt="Zeichnung eines Hafenkrans, der einen roten Container auf ein Binnenschiff hebt",
        )
    rendering.store(digest)
    return digest


def build(digest, *, subscription=None, **values):
    subscription = subscription or make_subscription(digest.newsletter)
    defaults = {
        "to": subscription.subscriber.address,
        "unsubscribe_url": links.unsubscribe_url(subscription.uuid),
        "preferences_url": links.preferences_url(subscription.uuid),
        "why_url": links.why_url(subscription.uuid),
        "message_id": f"<{subscription.uuid}@wochenblitz.example>",
    }
    return rendering.Copies(digest).message(**(defaults | values))


def as_sent(message):
    """The message as it lies on the wire, and as a mail program reads it."""
    raw = message.message().as_bytes(linesep="\r\n")
    return raw, message_from_bytes(raw, policy=policy.default)


def test_a_mail_has_text_first_and_then_html():
    _raw, parsed = as_sent(build(make_digest()))

    assert parsed.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in parsed.iter_parts()] == ["text/plain", "text/html"]


def test_both_parts_hold_every_article_the_imprint_and_the_ways_out():
    digest = make_digest(articles=5)
    subscription = make_subscription(digest.newsletter)
    _raw, parsed = as_sent(build(digest, subscription=subscription))
    text, html = (part.get_content() for part in parsed.iter_parts())
    text = " ".join(text.split())
    words = " ".join(" ".join(Elements(html).words).split())

    for entry in digest.entries.all():
        for fact in (entry.headline, entry.teaser, entry.author, entry.section):
            assert fact in text
            assert fact in words
        assert entry.url in text
        assert entry.url in html
    for value in project.PUBLISHER.values():
        assert value in text
        assert value in words
    for url in (make_url(subscription.uuid) for make_url in PERSONAL):
        assert text.count(url) == 1
        assert f'href="{url}"' in html


def test_the_way_out_is_called_what_it_is_and_set_no_smaller_than_the_text():
    digest = make_digest()

    assert "abmelden" in digest.text
    link = re.search(r'(<p [^>]*>)\s*<a[^>]*slot\.invalid/"[^>]*>([^<]*)</a>', digest.html)
    assert "abmelden" in link[2]
    assert "font-size:16px" in digest.html[: link.start()].rpartition("<div")[2]


def test_two_readers_mails_differ_in_their_links_alone():
    digest = make_digest()
    mails = [build(digest) for _ in range(2)]

    for first, second in zip(*[(mail.body, mail.alternatives[0][0]) for mail in mails], strict=True):
        lines = difflib.ndiff(first.splitlines(), second.splitlines())
        changed = [line[2:] for line in lines if line.startswith(("- ", "+ "))]
        assert len(changed) == 2 * len(PERSONAL)
        assert all(re.search("/newsletter/(abmelden|einstellungen|warum)/", line) for line in changed)


def test_a_slot_stands_on_a_line_of_its_own():
    digest = make_digest()

    for slot in rendering.SLOTS:
        assert slot in digest.text.splitlines()
        assert f'href="{slot}"' in digest.html.splitlines()


def test_no_line_is_rewrapped_on_its_way():
    raw, parsed = as_sent(build(make_large_digest()))

    assert {part["Content-Transfer-Encoding"] for part in parsed.iter_parts()} == {"8bit"}
    assert max(len(line) for line in raw.split(b"\r\n")) < 998


def test_text_lines_are_short_but_for_links():
    digest = make_large_digest()

    long = [line for line in digest.text.splitlines() if len(line) > 78]

    assert all(re.fullmatch(r"https?://\S+", line) for line in long)


def test_thirty_articles_with_pictures_stay_below_what_gmail_shows():
    raw, parsed = as_sent(build(make_large_digest()))
    html = next(part for part in parsed.iter_parts() if part.get_content_type() == "text/html")

    assert len(html.get_payload(decode=True)) <= 80_000
    assert len(html.get_payload().encode()) <= 80_000
    assert len(raw) < 200_000


def test_a_very_long_mail_offers_the_ways_out_on_top_too(monkeypatch):
    monkeypatch.setattr(rendering, "LINKS_ON_TOP_FROM", 1000)
    digest = make_digest()

    rendering.store(digest)

    assert digest.html.count(rendering.UNSUBSCRIBE_SLOT) == 2
    assert digest.html.index(rendering.UNSUBSCRIBE_SLOT) < digest.html.index(digest.entries.first().url)


def test_the_headers_are_those_of_list_mail():
    digest = make_digest(make_newsletter(name="Der Tag", slug="der-tag"))
    subscription = make_subscription(digest.newsletter)
    _raw, parsed = as_sent(build(digest, subscription=subscription))

    assert parsed["List-Unsubscribe"].strip() == f"<{links.unsubscribe_url(subscription.uuid)}>"
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert parsed["List-Id"] == '"Der Tag" <der-tag.wochenblitz.example>'
    assert parsed["List-Post"] == "NO"
    assert parsed["Precedence"] == "bulk"
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed["Content-Language"] == "de"
    assert parsed["Message-ID"] == f"<{subscription.uuid}@wochenblitz.example>"
    assert re.fullmatch(r"\d{8}:der-tag:digest:[a-z]{1,15}", parsed["Feedback-ID"])


def test_every_header_stands_once_in_plain_ascii():
    raw, parsed = as_sent(build(make_digest(make_newsletter(name="Küche & Garten", slug="kueche"))))
    head = raw.split(b"\r\n\r\n", 1)[0]

    assert head.isascii()
    names = [name.lower() for name in list(parsed)]
    assert len(names) == len(set(names))
    assert parsed["List-Id"] == "<kueche.wochenblitz.example>"


def test_the_subject_says_what_is_in_it():
    digest = make_digest(make_newsletter(name="Der Tag"), articles=0)
    for position, headline in enumerate(("Rat beschließt Brücke", "Hafen wächst", "Kino gerettet"), start=1):
        make_entry(digest, position=position, headline=headline)

    rendered = rendering.render(digest)

    assert rendered.subject == "Der Tag: Rat beschließt Brücke · Hafen wächst"
    assert rendered.preheader.endswith("Kino gerettet")
    assert rendered.preheader in " ".join(Elements(rendered.html).words)


def test_a_subject_is_cut_between_words():
    digest = make_digest(articles=0)
    make_entry(digest, position=1, headline=("Donaudampfschiff " * 11).strip())

    subject = rendering.render(digest).subject

    assert len(subject) <= rendering.SUBJECT_LENGTH
    assert subject.endswith("Donaudampfschiff…")


HOSTILE = [
    "Zeile\r\nBcc: opfer@example.org",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</mj-text><mj-raw><b>roh</b></mj-raw>",
    "{{ settings.SECRET_KEY }} {% include 'x' %}",
    "%recipient.unsubscribe% {{var:x}} [[x]] *|x|*",
    rendering.UNSUBSCRIBE_SLOT,
    "https://unsubscribe.slot.inv.slot.invalidalid/",
    "&amp; &lt;b&gt; <!-- ]]> -->",
    "Emoji 👩‍👩‍👧 und عربى \u202eumgedreht",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_words_of_an_article_stay_words(words):
    now = timezone.now()
    make_article(headline=words, teaser=words, author=words, section=make_section(name=words[:60]))
    digest = make_digest(articles=0, state=Digest.State.PLANNED)
    plain = make_digest(articles=2).html

    compilation.compile_digest(digest, now=now)
    raw, parsed = as_sent(build(digest))

    html = next(part for part in parsed.iter_parts() if part.get_content_type() == "text/html").get_content()
    assert {tag for tag, _ in Elements(html).found} <= {tag for tag, _ in Elements(plain).found}
    assert parsed["Bcc"] is None
    assert project.SECRET_KEY not in raw.decode()
    assert digest.html.count(rendering.UNSUBSCRIBE_SLOT) == digest.text.count(rendering.UNSUBSCRIBE_SLOT) == 1


@pytest.mark.parametrize("url", ['https://x.example/"onload="', "https://x.example/ü", "a\nb", "a<b", "a&b"])
def test_a_slot_takes_no_link_that_could_break_out(url):
    with pytest.raises(ValueError, match="slot"):
        rendering.fill("", unsubscribe_url="https://x.example/", preferences_url="https://x.example/", why_url=url)


def test_nothing_in_a_mail_loads_or_runs_from_elsewhere():
    html = make_large_digest(6).html
    page = Elements(html)

    sources = [attributes["src"] for attributes in page.all("img")]
    assert {urlsplit(source).netloc for source in sources} == {urlsplit(project.SITE_URL).netloc}
    assert not {"script", "form", "iframe", "link", "video", "object", "base"} & {tag for tag, _ in page.found}
    assert not re.search(r"@import|url\(|data:", html)


def test_a_mail_is_marked_up_for_those_who_listen():
    page = Elements(make_large_digest(6).html)

    (root,) = page.all("html")
    assert (root["lang"], root["dir"]) == ("de", "ltr")
    assert [tag for tag, _ in page.found].count("h1") == 1
    assert len(page.all("title")) == 1
    assert all(table.get("role") == "presentation" for table in page.all("table"))
    assert all("alt" in picture for picture in page.all("img"))
    assert not [a for a in page.all("a") if not a.get("href")]


def test_a_mail_is_legible_in_light_and_dark():
    html = make_large_digest(6).html
    page = Elements(html)

    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert "prefers-color-scheme: dark" in html
    shown = re.sub(r'<div style="display:none.*?</div>', "", html, flags=re.DOTALL)
    sizes = [int(size) for size in re.findall(r"font(?:-size)?:[^;\"]*?(\d+)px", shown)]
    assert min(size for size in sizes if size) >= 14


def test_the_rules_of_the_style_element_are_few():
    html = make_large_digest(6).html

    assert sum(len(style) for style in re.findall(r"<style.*?</style>", html, re.DOTALL)) <= 8000


def test_an_article_without_picture_leaves_no_gap():
    digest = make_digest(articles=3)

    assert Elements(digest.html).all("img") == []


def test_small_pictures_are_made_when_a_digest_is_compiled(tmp_path, settings):
    settings.MEDIA_ROOT = tmp_path
    out = BytesIO()
    Image.new("RGB", (1200, 675), "teal").save(out, "JPEG")
    article = make_article(image_alt="Ein Kran")
    article.image.save("kran.jpg", ContentFile(out.getvalue()))
    digest = make_digest(articles=0, state=Digest.State.PLANNED)

    compilation.compile_digest(digest, now=timezone.now())

    entry = digest.entries.get()
    (small,) = (tmp_path / "digests").iterdir()
    assert entry.thumbnail_url.endswith(f"/media/digests/{small.name}")
    with Image.open(small) as picture:
        assert picture.size == (240, 180)


def test_a_digest_goes_without_a_picture_that_cannot_be_read(tmp_path, settings):
    settings.MEDIA_ROOT = tmp_path
    (tmp_path / "kaputt.jpg").write_bytes(b"kein Bild")
    Article.objects.filter(pk=make_article().pk).update(image="kaputt.jpg")
    digest = make_digest(articles=0, state=Digest.State.PLANNED)

    compilation.compile_digest(digest, now=timezone.now())

    assert digest.entries.get().thumbnail_url == ""


def test_the_version_for_the_browser_carries_nobodys_links(client):
    digest = make_digest(state=Digest.State.FINISHED)

    response = client.get(f"/newsletter/ausgabe/{digest.uuid}/")

    assert response.status_code == 200
    assert "slot.invalid" not in response.text
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert not response.cookies


@pytest.mark.parametrize("state", ["planned", "compiled", "approved", "cancelled", "skipped"])
def test_a_digest_that_is_not_out_has_no_version_for_the_browser(client, state):
    digest = make_digest(state=state)

    assert client.get(f"/newsletter/ausgabe/{digest.uuid}/").status_code == 404
