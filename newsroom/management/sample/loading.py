"""The sample newsroom: sections, newsletters with their schedules, and articles that are always of today.

Everything is relative to `now`. A first run looks like a site that has been publishing for three days; on every later
day the first run publishes a fresh handful. A second run on a day changes nothing, and nothing that staff changed is
ever set back.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction

from digests import compilation
from digests.models import Digest, DigestSchedule
from newsroom.articles.models import Article, Section
from newsroom.articles.writing import clean_body
from newsroom.management.sample.texts import PICTURES, Text, all_texts
from subscriptions.models import Newsletter

SECTIONS = {"politik": "Politik", "wirtschaft": "Wirtschaft", "wissen": "Wissen", "kultur": "Kultur", "leben": "Leben"}
DAYS_BEFORE = 2  # days before the first run that have articles too
WORKING_HOURS = (time(6), time(19))  # when articles of the days before appeared
LONGEST_MORNING = timedelta(hours=8)  # today's are no older than that
SATURDAY = 1 << 5
DATE_AT_END = re.compile(r"-\d{4}-\d\d-\d\d$")  # of the slug of a text that came again


def load(now: datetime) -> int:
    """Fill the sample newsroom; return how many articles were published."""
    with transaction.atomic():
        _make_sections()
        der_tag = _make_der_tag()
        _make_wochenschau()
        count = _publish(now)
    _reopen_todays(der_tag, now=now)
    return count


def _make_sections() -> None:
    for position, (slug, name) in enumerate(SECTIONS.items(), start=1):
        Section.objects.get_or_create(slug=slug, defaults={"name": name, "position": position})


def _make_der_tag() -> Newsletter:
    newsletter, _created = Newsletter.objects.get_or_create(
        slug="der-tag",
        defaults={
            "name": "Der Tag",
            "description": (
                "Alles, was heute wichtig ist, in fünf Minuten: die Meldungen und Geschichten aus Lauenfeld und dem"
                " Alsetal, nach Ressorts geordnet."
            ),
            "frequency": Newsletter.Frequency.DAILY,
            "position": 1,
        },
    )
    # Due from the first minute of a day on, so whoever starts the demo holds today's digest soon after.
    DigestSchedule.objects.get_or_create(
        newsletter=newsletter, defaults={"local_time": time(0), "time_zone": settings.TIME_ZONE}
    )
    return newsletter


def _make_wochenschau() -> None:
    newsletter, _created = Newsletter.objects.get_or_create(
        slug="wochenschau",
        defaults={
            "name": "Wochenschau",
            "description": (
                "Die besten Stücke der Woche zum Wochenende: Reportagen, Hintergründe und eine Kolumne, von der"
                " Redaktion ausgewählt."
            ),
            "frequency": Newsletter.Frequency.WEEKLY,
            "position": 2,
        },
    )
    DigestSchedule.objects.get_or_create(
        newsletter=newsletter,
        defaults={
            "weekdays": SATURDAY,
            "local_time": time(8),
            "time_zone": settings.TIME_ZONE,
            "minimum_articles": 3,
            "maximum_articles": 12,
        },
    )


def _publish(now: datetime) -> int:
    """Publish what is missing of today, and at the first run of the days before; return how many articles that were."""
    zone = ZoneInfo(settings.TIME_ZONE)
    today = now.astimezone(zone).date()
    published = _published()
    if any(at.astimezone(zone).date() == today for at in published.values()):
        return 0
    spans = [_so_far(today, zone, now=now)]
    if not published:
        spans += [_working_hours(today - timedelta(days=days), zone) for days in range(1, DAYS_BEFORE + 1)]
    return sum(_publish_handful(start, end, published=published) for start, end in spans)


def _so_far(today: date, zone: ZoneInfo, *, now: datetime) -> tuple[datetime, datetime]:
    return max(datetime.combine(today, time(), zone), now - LONGEST_MORNING), now


def _working_hours(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    opens, closes = WORKING_HOURS
    return datetime.combine(day, opens, zone), datetime.combine(day, closes, zone)


def _published() -> dict[str, datetime]:
    """Return by the text's name when it was last published."""
    articles = Article.objects.order_by("published_at").values_list("slug", "published_at")
    by_slug = {text.slug: text.slug for text in all_texts()}
    return {by_slug[name]: at for slug, at in articles if (name := DATE_AT_END.sub("", slug)) in by_slug}


def _publish_handful(start: datetime, end: datetime, *, published: dict[str, datetime]) -> int:
    """Publish a text of each section, spread over the time: an unused one, else the one seen longest ago."""
    step = (end.astimezone(UTC) - start.astimezone(UTC)) / (2 * len(SECTIONS))
    for number, section in enumerate(Section.objects.filter(slug__in=SECTIONS)):
        text = _next_text(section.slug, published=published)
        at = start.astimezone(UTC) + step * (2 * number + 1)
        _publish_text(text, section=section, at=at)
        published[text.slug] = at
    return len(SECTIONS)


def _next_text(section: str, *, published: dict[str, datetime]) -> Text:
    never = datetime.min.replace(tzinfo=UTC)
    texts = [text for text in all_texts() if text.section == section]
    return min(texts, key=lambda text: (published.get(text.slug, never), -text.importance, text.slug))


def _publish_text(text: Text, *, section: Section, at: datetime) -> None:
    is_taken = Article.objects.filter(slug=text.slug).exists()
    Article.objects.create(
        section=section,
        headline=text.headline,
        slug=f"{text.slug}-{at.astimezone(ZoneInfo(settings.TIME_ZONE)):%Y-%m-%d}" if is_taken else text.slug,
        teaser=text.teaser,
        body=clean_body(text.body),
        author=text.author,
        importance=text.importance,
        image=_picture(text.image),
        image_alt=text.image_alt,
        image_credit=text.image_credit,
        state=Article.State.PUBLISHED,
        published_at=at,
        first_seen_at=at,
    )


def _picture(name: str) -> str:
    """Return where the picture lies among the site's media; it is copied there once."""
    path = f"articles/{name}"
    if not default_storage.exists(path):
        with (PICTURES / name).open("rb") as file:
            default_storage.save(path, File(file))
    return path


def _reopen_todays(newsletter: Newsletter, *, now: datetime) -> None:
    """Take up today's digest again if it was skipped before today's articles were there, as at midnight."""
    for digest in Digest.objects.filter(newsletter=newsletter, state=Digest.State.SKIPPED, not_after__gt=now):
        compilation.reopen(digest, now=now)
