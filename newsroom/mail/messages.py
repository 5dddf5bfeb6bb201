"""Make a mail from three templates of one stem: subject, text and MJML.

Text parts and subjects are never HTML-escaped, HTML parts always are. Every header is checked here, because mail
libraries that speak to an API pass on whatever they are given, line breaks included.
"""

import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from email.utils import format_datetime, getaddresses, parseaddr
from typing import Any
from uuid import UUID, uuid4

import mrml
from django.conf import settings
from django.template import Context
from django.template.loader import get_template, render_to_string
from django.urls import reverse
from django.utils import timezone, translation

from newsroom.mail.addresses import canonicalise
from newsroom.mail.folding import Mail

TEXT_WIDTH = 78  # RFC 5322 section 2.1.1, the "should"
_HTML_WIDTH = 500  # characters; even if each were four octets long, far from most of RFC 5322's 998
_HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 3.6.8
_HEADER_VALUE = re.compile(r"[ -~]+")
# Nothing that a parser could read in two ways (RFC 5322 section 3.2.3: dot-atom); most need no closer look.
_ORDINARY_ADDRESS = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*@[a-zA-Z0-9.-]+", re.ASCII)
_NOT_IN_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
# A line break is invisible around blocks and table parts; around a word or a link it would be a space.
_BLOCK_END = re.compile(
    r"(</(?:body|div|h[1-6]|head|li|noscript|ol|p|style|table|tbody|td|title|tr|ul)>|<!\[endif\]-->"
    r"|<(?:body|meta|tbody|tr)\b[^>]*>)(?=[^\n])"
)
_TAG = re.compile(r"<[a-z][^>]*>", re.IGNORECASE)
_RUST_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]+)\}|(.))")
_TAG_OR_SPACE = re.compile(r"<!--.*?-->|<[^>]*>| ", re.DOTALL)


# What the mail that is being made came of, so that each can say why its reader gets it.
_cause: ContextVar[UUID | None] = ContextVar("cause", default=None)
_explanations: list[Callable[[UUID], str]] = []


class MjmlError(Exception):
    """A template that is not MJML: most often an element is not closed, or a value entered unescaped."""


class InvalidHeader(ValueError):
    """A header that could not be sent as it is. Names the header, never its value."""


def make_message(
    stem: str,
    *,
    to: str,
    context: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    message_id: str | None = None,
    language: str | None = None,
) -> Mail:
    """Return the service mail `stem`, such as "subscriptions/confirmation", for one canonical address.

    It is written in `language`, or else in the active one.
    """
    with translation.override(language or translation.get_language() or settings.LANGUAGE_CODE):
        app, _slash, name = stem.partition("/")
        template = f"{app}/mail/{name}"
        values = {**publisher_context(), **context}
        subject = values["subject"] = single_line(render_text(f"{template}.subject.txt", values))
        message = Mail(
            subject=subject,
            body=wrap(render_text(f"{template}.txt", values)),
            from_email=settings.DEFAULT_FROM_EMAIL,
            to=[checked_recipient(to)],
            headers=checked_headers({**automatic_headers(message_id=message_id), **(headers or {})}),
        )
        message.attach_alternative(render_mjml(render_to_string(f"{template}.mjml", values)), "text/html")
    return message


def explain_by(url_of: Callable[[UUID], str]) -> None:
    """State where the question “Why do I get this mail?” is answered for what a mail came of; the last one counts."""
    _explanations[:] = [url_of]


@contextmanager
def caused_by(reference: UUID) -> Iterator[None]:
    """Let the mails made meanwhile link to the answer why they were sent."""
    token = _cause.set(reference)
    try:
        yield
    finally:
        _cause.reset(token)


def _why_url() -> str:
    cause = _cause.get()
    return _explanations[0](cause) if cause and _explanations else ""


def publisher_context() -> dict[str, Any]:
    """Return what the base of every mail needs to name its sender (§ 5 DDG, § 18 MStV), and to say why it came."""
    return {
        "language": translation.get_language(),
        "site_name": settings.SITE_NAME,
        "site_url": settings.SITE_URL,
        "publisher": settings.PUBLISHER,
        "imprint_url": settings.SITE_URL + reverse("imprint"),
        "privacy_url": settings.SITE_URL + reverse("privacy"),
        "why_url": _why_url(),
    }


def automatic_headers(*, message_id: str | None = None, date: datetime | None = None) -> dict[str, str]:
    """Return the headers of a mail no person wrote: identity, date, and the wish not to be answered by a machine."""
    return {
        "Message-ID": message_id or make_message_id(uuid4()),
        "Date": format_datetime(timezone.localtime(date)),
        "Auto-Submitted": "auto-generated",  # RFC 3834 section 5
        "X-Auto-Response-Suppress": "All",  # the same for Exchange
        "Content-Language": translation.get_language() or settings.LANGUAGE_CODE,
    }


def make_message_id(uuid: UUID | str, *, domain: str = "") -> str:
    """Return the Message-ID that belongs to a row, so that two copies of one mail can be recognised.

    Whoever makes many looks up `own_domain` once and gives it.
    """
    return f"<{uuid}@{domain or own_domain()}>"


def own_domain() -> str:
    """Return the domain of the sender's address, as A-label."""
    return canonicalise(parseaddr(settings.DEFAULT_FROM_EMAIL)[1]).canonical.rpartition("@")[2]


def checked_recipient(address: str) -> str:
    """Return the address if every mail library reads it as this one recipient; raise `InvalidHeader` if not."""
    if _ORDINARY_ADDRESS.fullmatch(address):
        return address
    if not address.isascii() or getaddresses([address]) != [("", address)] or _NOT_IN_ONE_LINE.search(address):
        raise InvalidHeader("To: is not one address in canonical form")
    return address


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers if each can be sent as it is, once; raise `InvalidHeader` if not (RFC 5322, RFC 8058)."""
    names = [name.lower() for name in headers]
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidHeader(f"{name!r} is not a header's name")
        # Non-ASCII would leave as an encoded word, which no machine reads in List-Unsubscribe or List-Id.
        if not _HEADER_VALUE.fullmatch(value):
            raise InvalidHeader(f"The value of {name} is empty or holds control or non-ASCII characters")
        if names.count(name.lower()) > 1:
            raise InvalidHeader(f"{name} is given twice")
    return dict(headers)


def single_line(text: str) -> str:
    """Return text fit for a subject: composed, on one line, without control or direction-changing characters."""
    return " ".join(_NOT_IN_ONE_LINE.sub(" ", unicodedata.normalize("NFC", text)).split())


def render_text(template: str, context: Mapping[str, Any]) -> str:
    """Render a text template without escaping anything for HTML."""
    # The loader's own wrapper escapes text templates too.
    return str(get_template(template).template.render(Context(dict(context), autoescape=False)))  # type: ignore[attr-defined]


def wrap(text: str) -> str:
    """Break lines that are too long at spaces, never within a link, and leave at most one empty line in a row."""
    lines = [_wrap_line(line.rstrip()) for line in text.strip().splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _wrap_line(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    wrapped = textwrap.wrap(line, TEXT_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrapped)


def render_mjml(source: str) -> str:
    """Return HTML for every mail program, in lines that pass every mail server; raise `MjmlError` for bad MJML."""
    try:
        html = mrml.to_html(source, render_options=mrml.RenderOptions(disable_comments=True, fonts={})).content
    except OSError as error:  # all that mrml tells of what it cannot parse
        raise MjmlError(str(error)) from None
    if "<mj-" in html:  # mrml hands on what it does not know, and mail programs show nothing of it
        raise MjmlError("unknown element")
    html = _TAG.sub(lambda tag: _RUST_ESCAPE.sub(_unescaped, tag[0]), html)
    return "\n".join(_broken_at_spaces(line) for line in _BLOCK_END.sub(r"\1\n", html).splitlines()) + "\n"


def _unescaped(escape: re.Match[str]) -> str:
    """Undo how mrml 0.2 writes attributes: as Rust's debug form, in which a soft hyphen reads `\\u{ad}`."""
    if escape[1]:
        return chr(int(escape[1], 16))
    return {"n": " ", "r": " ", "t": " ", "0": "", '"': "&quot;"}.get(escape[2], escape[2])


def _broken_at_spaces(line: str) -> str:
    """Break a long line of HTML at spaces of its text, never within a tag or comment."""
    if len(line) <= _HTML_WIDTH:
        return line
    pieces, start = [], 0
    for match in _TAG_OR_SPACE.finditer(line):
        if match[0] == " " and match.start() - start >= _HTML_WIDTH // 2:
            pieces.append(line[start : match.start()])
            start = match.end()
    return "\n".join([*pieces, line[start:]])
