"""A digest as subject, text and HTML: rendered once, identical for all readers but for three slots.

A slot stands on a line of its own, and lines stay short of what makes Django choose quoted-printable, so that nothing
re-wraps one on its way. Whoever fills a slot gives an ASCII URL.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.formats import date_format
from django.utils.text import slugify
from django.utils.translation import gettext as _

from digests.models import Digest, DigestEntry
from digests.pictures import SHOWN_SIZE
from newsroom.mail import messages
from newsroom.mail.folding import Mail

# `.invalid` can never be a real host (RFC 2606).
UNSUBSCRIBE_SLOT = "https://unsubscribe.slot.invalid/"
PREFERENCES_SLOT = "https://preferences.slot.invalid/"
WHY_SLOT = "https://why.slot.invalid/"
SLOTS = (UNSUBSCRIBE_SLOT, PREFERENCES_SLOT, WHY_SLOT)

# A phone shows about 40 characters of a subject, a desktop about 80; what comes after is a bonus.
SUBJECT_LENGTH = 120
PREHEADER_LENGTH = 140

# Gmail cuts a mail at about 102 kB and hides what stands below, the links to unsubscribe among it (E-27).
LINKS_ON_TOP_FROM = 60_000

_SLOT = re.compile(f"({'|'.join(map(re.escape, SLOTS))})")
_UNFIT_FOR_A_SLOT = re.compile(r"[\x00-\x1f\x7f\"<>&]|[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Rendered:
    subject: str
    preheader: str
    html: str
    text: str


def render(digest: Digest) -> Rendered:
    """Return the digest as it goes to every reader, with slots where a reader's own links belong."""
    entries = [_without_slots(entry) for entry in digest.entries.filter(released_at=None)]
    with translation.override(digest.language):
        subject = _subject(digest, [entry.headline for entry in entries])
        preheader = _preheader(entries, subject=subject)
        context = _context(digest, entries) | {"subject": subject, "preheader": preheader}
        html = _render_html(context)
        if len(html.encode()) > LINKS_ON_TOP_FROM:
            html = _render_html(context | {"links_on_top": True})
        text = messages.wrap(messages.render_text("digests/mail/digest.txt", context))
    return Rendered(subject, preheader, html, text)


def store(digest: Digest) -> None:
    """Render the digest and keep the result with it; for use in the transaction that changed its entries."""
    rendered = render(digest)
    digest.subject, digest.preheader = rendered.subject, rendered.preheader
    digest.html, digest.text = rendered.html, rendered.text
    digest.save(update_fields=["subject", "preheader", "html", "text"])


def fill(rendered_text: str, *, unsubscribe_url: str, preferences_url: str, why_url: str) -> str:
    """Return the rendered HTML or text with a reader's own links. Raises ValueError for what could break out of one."""
    return _join(_cut(rendered_text), _checked_links(unsubscribe_url, preferences_url, why_url))


def _checked_links(*urls: str) -> dict[str, str]:
    """Return the links by their slots."""
    if any(_UNFIT_FOR_A_SLOT.search(url) for url in urls):
        raise ValueError("A link for a slot is ASCII, and without quotes, angle brackets, ampersands and breaks.")
    return dict(zip(SLOTS, urls, strict=True))


def _cut(rendered_text: str) -> list[str]:
    """Return the text in pieces, each slot one of its own."""
    return _SLOT.split(rendered_text)


def _join(pieces: list[str], links: dict[str, str]) -> str:
    return "".join([links.get(piece, piece) for piece in pieces])


class Copies:
    """A compiled digest, cut at its slots once, so that a reader's copy is only joined."""

    def __init__(self, digest: Digest) -> None:
        self._text, self._html = _cut(digest.text), _cut(digest.html)
        self._subject = messages.single_line(digest.subject)
        self._headers = messages.checked_headers(
            {
                "Content-Language": digest.language,
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
                "List-Id": _list_id(digest),
                "List-Post": "NO",
                "Feedback-ID": _feedback_id(digest),
                "Precedence": "bulk",
            }
        )

    def message(
        self,
        *,
        to: str,
        unsubscribe_url: str,
        preferences_url: str,
        why_url: str,
        message_id: str,
        date: datetime | None = None,
    ) -> Mail:
        """Return one reader's copy, with the headers of list mail.

        `message_id` comes with its angle brackets; `date` is when it is handed over (default: now). Raises ValueError
        for what could break out of a slot or header.
        """
        links = _checked_links(unsubscribe_url, preferences_url, why_url)
        own = {
            **messages.automatic_headers(message_id=message_id, date=date),
            "List-Unsubscribe": f"<{unsubscribe_url}>",
        }
        message = Mail(
            subject=self._subject,
            body=_join(self._text, links),
            from_email=settings.DEFAULT_FROM_EMAIL,
            to=[messages.checked_recipient(to)],
            headers=messages.checked_headers(own) | self._headers,
        )
        message.attach_alternative(_join(self._html, links), "text/html")
        return message


def build_test_message(digest: Digest, *, to: str, message_id: str) -> Mail:
    """Return a copy for a member of staff: marked as a test, its personal links dead, none of a list's headers."""
    with translation.override(digest.language):
        notice = _("TEST of the digest of %(date)s. The links to unsubscribe and to the settings are dead here.") % {
            "date": date_format(digest.date, "DATE_FORMAT")
        }
        dead = _("(without function in a test)")
    html = fill(digest.html, unsubscribe_url="#", preferences_url="#", why_url="#").replace(web_url(digest), "#")
    text = digest.text
    for link in (*SLOTS, web_url(digest)):
        text = text.replace(link, dead)
    text = messages.wrap(f"*** {notice} ***\n\n{text}")
    message = _message(digest, to=to, text=text, html=_with_notice(html, notice))
    message.subject = f"[TEST] {message.subject}"
    message.extra_headers = {
        **messages.automatic_headers(message_id=message_id),
        "Content-Language": digest.language,
    }
    return message


def web_url(digest: Digest) -> str:
    """Return where the digest can be read in a browser once it is out."""
    return settings.SITE_URL + reverse("digests:web_version", args=[digest.uuid])


def _message(digest: Digest, *, to: str, text: str, html: str) -> Mail:
    message = Mail(
        subject=messages.single_line(digest.subject),
        body=text,
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[messages.checked_recipient(to)],
    )
    message.attach_alternative(html, "text/html")
    return message


def _context(digest: Digest, entries: list[DigestEntry]) -> dict[str, Any]:
    return {
        "digest": digest,
        "newsletter": digest.newsletter,
        "count": len(entries),
        "lead": entries[0] if entries else None,
        "sections": [(name, list(group)) for name, group in groupby(entries[1:], key=lambda entry: entry.section)],
        "all_sections": [(name, list(group)) for name, group in groupby(entries, key=lambda entry: entry.section)],
        "thumbnail_width": SHOWN_SIZE[0],
        "thumbnail_height": SHOWN_SIZE[1],
        "unsubscribe_slot": UNSUBSCRIBE_SLOT,
        "preferences_slot": PREFERENCES_SLOT,
        "why_slot": WHY_SLOT,
        "web_url": web_url(digest),
    } | messages.publisher_context()


def _render_html(context: dict[str, Any]) -> str:
    html = messages.render_mjml(render_to_string("digests/mail/digest.mjml", context))
    return re.sub(rf'\s*href="{_SLOT.pattern}"\s*', r'\nhref="\1"\n', html)


def _with_notice(html: str, notice: str) -> str:
    banner = (
        '<p style="margin:0;padding:12px 24px;background:#ffd84d;color:#1a1a1a;'
        f'font:bold 16px/1.4 Arial,sans-serif;text-align:center;">{notice}</p>'
    )
    return re.sub(r"(<body[^>]*>)", lambda match: match[1] + banner, html, count=1)


def _subject(digest: Digest, headlines: list[str]) -> str:
    """Say what is in it: the newsletter's name, the first headline, and the second if it fits whole."""
    first, *others = headlines or [date_format(digest.date, "DATE_FORMAT")]
    subject = _shorten(f"{messages.single_line(digest.newsletter.name)}: {first}", SUBJECT_LENGTH)
    longer = f"{subject} · {others[0]}" if others else subject
    return longer if len(longer) <= SUBJECT_LENGTH else subject


def _preheader(entries: list[DigestEntry], *, subject: str) -> str:
    """Name the headlines that the subject does not, or give the teaser of the only article."""
    others = [entry.headline for entry in entries[1:] if not subject.endswith(entry.headline)]
    if not others:
        return _shorten(entries[0].teaser, PREHEADER_LENGTH) if entries else ""
    return _shorten(_("Also: %(headlines)s") % {"headlines": " · ".join(others)}, PREHEADER_LENGTH)


def _shorten(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    return text[: length - 1].rsplit(" ", 1)[0].rstrip(" ,;:·–-") + "…"


def _without_slots(entry: DigestEntry) -> DigestEntry:
    """Take the slots' names out of an article's words, so that no article carries a reader's own link."""
    for name in ("section", "headline", "teaser", "author", "image_alt"):
        # Something put in; what is cut out could leave the name that it was hidden in.
        setattr(entry, name, getattr(entry, name).replace(".slot.invalid", ".slot-invalid"))
    return entry


def _list_id(digest: Digest) -> str:
    """Return the newsletter's lasting name for filters (RFC 2919), with its title where that is ASCII."""
    identifier = f"<{slugify(digest.newsletter.slug)}.{messages.own_domain()}>"
    title = messages.single_line(digest.newsletter.name).replace('"', "").replace("\\", "")
    # One character beyond ASCII would have the identifier encoded along with the title.
    return f'"{title}" {identifier}' if title.isascii() else identifier


def _feedback_id(digest: Digest) -> str:
    sender = slugify(settings.SITE_NAME)[:15] or "newsroom"
    return f"{digest.date:%Y%m%d}:{slugify(digest.newsletter.slug)}:digest:{sender}"
