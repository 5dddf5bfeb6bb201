"""What of an article is frozen into a digest, and how it differs from the article as it is now."""

from typing import Any

from django.conf import settings

from digests.models import Digest, DigestEntry
from digests.pictures import thumbnail_url
from newsroom.articles.models import Article
from newsroom.mail.messages import single_line


def facts(article: Article) -> dict[str, Any]:
    """Return an article's words and picture as a digest freezes them."""
    return {
        "section": single_line(article.section.name),
        "headline": single_line(article.headline),
        "teaser": single_line(article.teaser),
        "author": single_line(article.author),
        "url": _absolute(article.get_absolute_url()),
        "image_url": _absolute(article.image.url) if article.image else "",
        "image_alt": single_line(article.image_alt) if article.image else "",
        "image_width": article.image_width if article.image else None,
        "image_height": article.image_height if article.image else None,
    }


def facts_with_thumbnail(article: Article) -> dict[str, Any]:
    """Return the facts and the small picture, which is made if there is none yet."""
    return facts(article) | {"thumbnail_url": _absolute(thumbnail_url(article))}


def freeze(digest: Digest, article: Article, *, position: int) -> DigestEntry:
    """Return an entry, not yet saved, that holds the article as it is now."""
    return DigestEntry(
        digest=digest,
        newsletter_id=digest.newsletter_id,
        article=article,
        position=position,
        **facts_with_thumbnail(article),
    )


def differences(entry: DigestEntry) -> list[str]:
    """Return the names of the fields that changed since it was frozen, and `state` if the article was taken down."""
    changed = [name for name, value in facts(entry.article).items() if getattr(entry, name) != value]
    return changed if entry.article.state == Article.State.PUBLISHED else [*changed, "state"]


def _absolute(path: str) -> str:
    return f"{settings.SITE_URL}{path}" if path.startswith("/") else path
