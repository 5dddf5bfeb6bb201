"""The front page: what leads, and what stands in which section."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from newsroom.articles.models import Article, Section

TODAY = timedelta(hours=24)
# A front page is read, not searched: beyond this the section pages are the place.
MAXIMUM_TODAY = 40
# With fewer of today's articles the page would look empty, so it shows more of the days before.
FULL_PAGE = 12
MINIMUM_RECENT = 6


@dataclass(frozen=True)
class SectionOfToday:
    section: Section
    articles: Sequence[Article]


@dataclass(frozen=True)
class FrontPage:
    lead: Article | None
    sections: Sequence[SectionOfToday]
    recent: Sequence[Article]


def front_page(now: datetime) -> FrontPage:
    """Lay out the articles of the last 24 hours, and the latest of those before them."""
    published = Article.objects.published(now).select_related("section")
    today = list(published.first_seen_within(now - TODAY, now).in_reading_order()[:MAXIMUM_TODAY])
    count = max(MINIMUM_RECENT, FULL_PAGE - len(today))
    recent = list(published.exclude(pk__in=[article.pk for article in today]).order_by("-published_at", "-id")[:count])
    lead = choose_lead(today or recent)
    return FrontPage(lead, by_section(today, without=lead), [article for article in recent if article != lead])


def choose_lead(articles: Sequence[Article]) -> Article | None:
    """Return the most important article; among equals one with a picture, then the latest."""
    return max(articles, key=lambda a: (a.importance, bool(a.image), a.published_at, a.pk), default=None)


def by_section(articles: Sequence[Article], *, without: Article | None) -> list[SectionOfToday]:
    """Group articles that are in reading order; a section of nothing but the lead story is left out."""
    rest = [article for article in articles if article != without]
    return [SectionOfToday(section, list(group)) for section, group in groupby(rest, key=lambda a: a.section)]
