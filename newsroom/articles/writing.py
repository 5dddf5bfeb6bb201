"""What staff or a feed wrote becomes an article: cleaned, and first seen when it is first published."""

from datetime import datetime

import nh3
from django.utils.html import linebreaks

from newsroom.articles.models import Article

_TAGS = {"p", "h2", "h3", "ul", "ol", "li", "blockquote", "cite", "a", "em", "strong", "i", "b", "br"}
# Their content is no text either.
_DROPPED_WITH_CONTENT = {"script", "style", "template", "iframe", "object", "svg", "math", "noscript", "textarea"}
_cleaner = nh3.Cleaner(
    tags=_TAGS,
    clean_content_tags=_DROPPED_WITH_CONTENT,
    attributes={"a": {"href"}},
    url_schemes={"https", "http", "mailto"},
    link_rel="noopener",
)


def clean_body(text: str) -> str:
    """Return the text with nothing but paragraphs, subheadings, lists, quotations, emphasis and links.

    Text without any tag is taken as paragraphs with blank lines between them.
    """
    if not nh3.is_html(text):
        text = linebreaks(text.strip(), autoescape=True)
    return _cleaner.clean(text).strip()


def store(article: Article, *, now: datetime) -> None:
    """Save an article as written; from its publication on it counts as seen."""
    article.body = clean_body(article.body)
    if not _was_seen(article, now):
        # A publication planned for later is seen when it comes, not when it was planned.
        article.first_seen_at = max(now, article.published_at)
    article.save()


def _was_seen(article: Article, now: datetime) -> bool:
    before = Article.objects.filter(pk=article.pk, state=Article.State.PUBLISHED, first_seen_at__lte=now)
    return before.exists()
