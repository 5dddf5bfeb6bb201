"""Small copies of article pictures, so that thirty of them do not cost a reader two megabytes."""

import hashlib
import io
import logging

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image, ImageOps

from newsroom.articles.models import Article

logger = logging.getLogger(__name__)

# What is shown at 120 × 90 pixels is stored at twice that, for dense screens.
THUMBNAIL_SIZE = (240, 180)
SHOWN_SIZE = (120, 90)


def thumbnail_url(article: Article) -> str:
    """Return the URL path of the article's small picture, made on first use; empty if there is none to be had."""
    if not article.image.name:
        return ""
    name = _name(article.image.name)
    try:
        if not default_storage.exists(name):
            default_storage.save(name, ContentFile(_shrink(article)))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        # A digest without one small picture is better than no digest.
        logger.warning("No small picture of article %s: %s", article.pk, type(error).__name__)
        return ""
    return default_storage.url(name)


def _name(source: str) -> str:
    width, height = THUMBNAIL_SIZE
    return f"digests/{hashlib.sha256(source.encode()).hexdigest()[:24]}-{width}x{height}.jpg"


def _shrink(article: Article) -> bytes:
    with article.image.open("rb") as file, Image.open(file) as picture:
        upright = ImageOps.exif_transpose(picture) or picture
        small = ImageOps.fit(upright.convert("RGB"), THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=78, optimize=True, progressive=True)
    return out.getvalue()
