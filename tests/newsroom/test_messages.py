"""A service mail is a correct one: by the octets that leave, not by what was meant."""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as site
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from newsroom.mail.messages import (
    InvalidHeader,
    MjmlError,
    checked_headers,
    make_message_id,
    own_domain,
    render_mjml,
    single_line,
    wrap,
)
from tests.newsroom.service_mails import URL, make_service_mail

LONG = "Donaudampfschifffahrtsgesellschaftskapitän & Ölbohrturm " * 100


def sent(**values: Any) -> tuple[bytes, EmailMessage]:
    octets = make_service_mail(**values).message().as_bytes(linesep="\r\n")  # type: ignore[call-arg]  # Django's own
    return octets, message_from_bytes(octets, policy=policy.default)


class Tags(HTMLParser):
    """All tags of a document, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_text_comes_first_and_html_second() -> None:
    _octets, message = sent()

    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_each_header_stands_once_and_says_what_it_should() -> None:
    _octets, message = sent(message_id="<abc@wochenblitz.example>")

    names = [name.lower() for name in message]
    assert len(names) == len(set(names))
    assert {"from", "to", "subject", "date", "message-id", "mime-version"} <= set(names)
    assert message["Message-ID"] == "<abc@wochenblitz.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Content-Language"] == "de"
    assert message["Subject"] == "Ein Gruß an Frau Müller & Söhne"
    assert abs(parsedate_to_datetime(message["Date"]) - timezone.now()).total_seconds() < 5
    assert not [name for name in names if name.startswith("list-") or name == "precedence"]


def test_message_ids_are_of_the_senders_domain(settings: Any) -> None:
    settings.DEFAULT_FROM_EMAIL = "Blatt <newsletter@Zeitungsträger.de>"

    assert own_domain() == "xn--zeitungstrger-kfb.de"
    assert make_message_id(UUID(int=1)) == "<00000000-0000-0000-0000-000000000001@xn--zeitungstrger-kfb.de>"


def test_no_line_is_too_long() -> None:
    octets, message = sent(context={"name": LONG})

    assert b"Content-Transfer-Encoding: quoted-printable" not in octets  # which would cut tokens, and hide the rest
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    text = message.get_body(("plain",)).get_content()
    html = message.get_body(("html",)).get_content()
    assert {len(line) for line in text.splitlines() if " " in line} <= set(range(79))
    assert " ".join(text.split()).count(LONG.strip()) == 1
    assert " ".join(html.split()).count(LONG.strip().replace("&", "&amp;")) == 1


def test_a_link_is_never_cut() -> None:
    url = "https://wochenblitz.example/" + "x" * 300
    octets, _message = sent(context={"url": url})

    assert url.encode() in octets.split(b"\r\n")
    assert f'href="{url}"'.encode() in octets


def test_text_is_not_escaped_and_html_is() -> None:
    _octets, message = sent(context={"name": "<b>O'Neil & Söhne</b>"})

    assert "Guten Tag <b>O'Neil & Söhne</b>," in message.get_body(("plain",)).get_content()
    html = message.get_body(("html",)).get_content()
    assert "Guten Tag &lt;b&gt;O&#x27;Neil &amp; Söhne&lt;/b&gt;," in html
    assert message["Subject"] == "Ein Gruß an <b>O'Neil & Söhne</b>"


@pytest.mark.parametrize("part", ["plain", "html"])
def test_the_whole_imprint_is_in_both_parts(part: str) -> None:
    _octets, message = sent()
    content = " ".join(message.get_body((part,)).get_content().split())

    for value in site.PUBLISHER.values():
        assert value in content
    assert f"{site.SITE_URL}/impressum/" in content
    assert f"{site.SITE_URL}/datenschutz/" in content


def test_a_service_mail_is_bare() -> None:
    _octets, message = sent()
    html = message.get_body(("html",)).get_content()
    tags = Tags(html)

    assert not {"img", "form", "script", "iframe", "link", "video"} & {tag for tag, _attributes in tags.found}
    assert "background=" not in html
    assert "url(" not in html
    assert "@import" not in html
    links = {attributes["href"] for tag, attributes in tags.found if tag == "a"}
    assert links == {URL, f"{site.SITE_URL}/impressum/", f"{site.SITE_URL}/datenschutz/"}


def test_html_says_its_language_and_is_ready_for_the_dark() -> None:
    _octets, message = sent()
    html = message.get_body(("html",)).get_content()

    assert '<html lang="de"' in html
    assert '<meta name="color-scheme" content="light dark" />' in html
    assert "prefers-color-scheme: dark" in html
    assert "<title>Ein Gruß an Frau Müller &amp; Söhne</title>" in html


@pytest.mark.parametrize(
    "to",
    [
        "a@leser.example, b@leser.example",
        "a@leser.example\nBcc: b@leser.example",
        "Name <a@leser.example>",
        "a@münchen.example",
        "",
    ],
)
def test_a_mail_goes_to_one_canonical_address_or_nowhere(to: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        make_service_mail(to)

    assert "leser" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Note": "a\r\nBcc: b@leser.example"},
        {"X-Note": "a\nb"},
        {"X-Note": "a\x00b"},
        {"X-Note": "Müller"},
        {"X-Note": ""},
        {"X-Note\r\nBcc": "b@leser.example"},
        {"X Note": "a"},
        {"X-Note:": "a"},
        {"auto-submitted": "no"},
    ],
)
def test_a_header_that_cannot_be_sent_as_it_is_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidHeader) as caught:
        make_service_mail(headers=headers)

    assert "b@leser.example" not in str(caught.value) or "\n" not in str(caught.value)


@given(st.text(), st.text())
def test_no_header_can_smuggle_another(name: str, value: str) -> None:
    try:
        headers = checked_headers({name: value})
    except InvalidHeader:
        return
    ((kept_name, kept_value),) = headers.items()
    assert re.fullmatch(r"[\x21-\x39\x3b-\x7e]+", kept_name)
    assert re.fullmatch(r"[\x20-\x7e]+", kept_value)


@given(st.text())
def test_a_subject_is_one_line(text: str) -> None:
    line = single_line(text)

    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert not re.search(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]", line)


def test_a_subject_keeps_what_is_no_control() -> None:
    assert single_line("Cafe\u0301 👩\u200d🚀\r\n  Bcc:\u202e x") == "Café 👩\u200d🚀 Bcc: x"


def test_wrapping_keeps_indents_and_paragraphs() -> None:
    assert (
        wrap("a\n\n\n\n  " + "wort " * 20) == "a\n\n  " + ("wort " * 15).strip() + "\n  " + ("wort " * 5).strip() + "\n"
    )


def mjml(content: str, head: str = "") -> str:
    columns = f"<mj-section><mj-column>{content}</mj-column></mj-section>"
    return f"<mjml><mj-head>{head}</mj-head><mj-body>{columns}</mj-body></mjml>"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "<p>no mjml</p>",
        "<mjml><mj-body><mj-section></mj-body></mjml>",
        mjml("<mj-text>a < b</mj-text>"),
        mjml("<mj-unknown>a</mj-unknown>"),
    ],
)
def test_bad_mjml_is_told(source: str) -> None:
    with pytest.raises(MjmlError):
        render_mjml(source)


@pytest.mark.parametrize(
    "text",
    ["Sil\u00adben\u00adtrennung", "u\u0308ber", "👩\u200d🚀", "a\\b", "50\u00a0%", "„O'Neil“ &amp; &quot;Söhne&quot;"],
)
def test_attributes_come_through_unharmed(text: str) -> None:
    html = render_mjml(mjml(f'<mj-image src="https://x.example/a.jpg" alt="{text}" />', f"<mj-title>{text}</mj-title>"))

    assert f'alt="{text}"' in html
    assert f"<title>{text}</title>" in html
    assert "\\u{" not in html


def test_a_newline_in_an_attribute_is_a_space() -> None:
    assert 'alt="a b"' in render_mjml(mjml('<mj-image src="https://x.example/a.jpg" alt="a\nb" />'))


def test_breaking_lines_changes_no_text() -> None:
    text = "Ein <b>fetter</b><i>Satz</i> mit <a href='https://x.example/'>Verweis</a>, " * 60
    html = render_mjml(mjml(f"<mj-text>{text}</mj-text>"))

    assert max(map(len, html.splitlines())) < 998
    assert " ".join(html.split()).count(" ".join(text.replace("'", '"').split())) == 1
