"""Rows for tests, with a default for everything but the point of the test."""

from datetime import UTC, date, datetime, time, timedelta
from io import BytesIO
from itertools import count
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.utils import timezone
from PIL import ExifTags, Image

from digests import audience, outcomes
from digests.models import Digest, DigestEntry, DigestSchedule
from newsroom.articles.models import Article, Section
from subscriptions.models import Newsletter, Subscriber, Subscription

_numbers = count(1)


def make_newsletter(**values: Any) -> Newsletter:
    number = next(_numbers)
    defaults = {
        "name": f"Der Tag {number}",
        "slug": f"der-tag-{number}",
        "description": "Das Wichtigste vom Tage, ausgewählt von der Redaktion.",
    }
    return Newsletter.objects.create(**(defaults | values))


def make_subscriber(address: str | None = None, **values: Any) -> Subscriber:
    address = address or f"leserin{next(_numbers)}@leser.example"
    defaults = {
        "address": address,
        "address_key": address.lower(),
        "language": "de",
        "created_at": timezone.now(),
    }
    return Subscriber.objects.create(**(defaults | values))


def make_subscription(
    newsletter: Newsletter | None = None, subscriber: Subscriber | None = None, **values: Any
) -> Subscription:
    defaults = {
        "newsletter": newsletter or make_newsletter(),
        "subscriber": subscriber or make_subscriber(),
        "active_since": timezone.now() - timedelta(days=1),
    }
    return Subscription.objects.create(**(defaults | values))


def make_subscriptions(newsletter: Newsletter, count: int, **values: Any) -> list[Subscription]:
    return [make_subscription(newsletter, **values) for _ in range(count)]


def make_section(**values: Any) -> Section:
    number = next(_numbers)
    return Section.objects.create(**({"name": f"Ressort {number}", "slug": f"ressort-{number}"} | values))


def make_article(**values: Any) -> Article:
    number = next(_numbers)
    seen = values.get("first_seen_at") or timezone.now() - timedelta(hours=1)
    defaults = {
        "section": values.get("section") or make_section(),
        "headline": f"Stadtrat beschließt Neubau der Brücke {number}",
        "slug": f"stadtrat-bruecke-{number}",
        "teaser": "Nach vier Jahren Streit steht fest, wie die Stadt über den Fluss kommt.",
        "body": "<p>Der Rat hat am Abend entschieden.</p>",
        "author": "Nele Tessmar",
        "state": Article.State.PUBLISHED,
        "published_at": seen,
        "first_seen_at": seen,
    }
    return Article.objects.create(**(defaults | values))


def make_picture(
    name: str = "IMG 0001.JPG", *, size: tuple[int, int] = (120, 90), camera: str = ""
) -> SimpleUploadedFile:
    """A photograph as staff upload it, with what the camera wrote into it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = camera
    content = BytesIO()
    Image.new("RGB", size, "teal").save(content, "JPEG", exif=exif)
    return SimpleUploadedFile(name, content.getvalue(), content_type="image/jpeg")


def make_schedule(newsletter: Newsletter | None = None, **values: Any) -> DigestSchedule:
    defaults = {"newsletter": newsletter or make_newsletter(), "local_time": time(0, 0)}
    return DigestSchedule.objects.create(**(defaults | values))


def make_digest(newsletter: Newsletter | None = None, *, articles: int = 2, **values: Any) -> Digest:
    """A compiled digest of today that is due, with rendered parts."""
    from digests import rendering

    newsletter = newsletter or make_newsletter()
    now = timezone.now()
    defaults = {
        "newsletter": newsletter,
        "schedule": DigestSchedule.objects.filter(newsletter=newsletter).first() or make_schedule(newsletter),
        "date": timezone.localdate(now),
        "state": Digest.State.COMPILED,
        "due_at": now - timedelta(minutes=1),
        "not_after": now + timedelta(hours=12),
        "created_at": now,
    }
    digest = Digest.objects.create(**(defaults | values))
    for position in range(1, articles + 1):
        make_entry(digest, position=position)
    rendered = rendering.render(digest)
    Digest.objects.filter(pk=digest.pk).update(
        subject=rendered.subject, preheader=rendered.preheader, html=rendered.html, text=rendered.text
    )
    digest.refresh_from_db()
    return digest


def make_entry(digest: Digest, *, position: int, article: Article | None = None, **values: Any) -> DigestEntry:
    article = article or make_article()
    defaults = {
        "newsletter": digest.newsletter,
        "article": article,
        "position": position,
        "section": article.section.name,
        "headline": article.headline,
        "teaser": article.teaser,
        "author": article.author,
        "url": f"http://localhost:8000/artikel/{article.slug}/",
    }
    return DigestEntry.objects.create(digest=digest, **(defaults | values))


def make_sending_digest(*, readers: int = 3, newsletter: Newsletter | None = None, **values: Any) -> Digest:
    """A digest that is being sent to so many readers, with nothing handed over yet."""
    newsletter = newsletter or make_newsletter()
    make_subscriptions(newsletter, readers)
    digest = make_digest(newsletter, **values)
    with transaction.atomic():
        Digest.objects.filter(pk=digest.pk).update(state=Digest.State.SENDING)
        audience.freeze(digest, now=timezone.now())
    digest.refresh_from_db()
    return digest


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def a_date(text: str) -> date:
    return date.fromisoformat(text)


def standing(digest: Digest) -> dict[str, int]:
    """Return how many readers stand where, those kinds left out of which there are none."""
    digest.refresh_from_db()
    return {kind: count for kind, count in outcomes.counts(digest).items() if count}
